"""Completions by a model with modules changed, and activations at single tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import GenerationConfig

from ulcmod_dist.config.schema import Statistic
from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.forward.architectures import LayerUnits
from ulcmod_dist.forward.attribution import choose_deterministic, pool_attribution
from ulcmod_dist.forward.batches import TokenizedPrompt
from ulcmod_dist.forward.hooks import find_hook_points, hooked
from ulcmod_dist.forward.pooling import ActivationPooler
from ulcmod_dist.intervene.engine import LossEngine, mask_units
from ulcmod_dist.intervene.masks import Mask
from ulcmod_dist.results.types import Floats

TOP_UNITS = 5
MAX_READ_BYTES = 2**31
"""Size of the activations at the tokens of a prompt; a longer one is read as far as that."""


@dataclass(frozen=True)
class Sampling:
    """How completions are made: greedily at temperature 0, else drawn with the seed."""

    tokens: int  # the most that a completion has
    temperature: float = 0.0
    seed: int = 0


@dataclass(frozen=True, eq=False)
class TokenReading:
    """What to read at a token: mean z over the units of each module, then z of single units.

    z = (value at the token - mean) / std with the statistics of the samples' rows, so that its
    mean over the counted tokens of a sample is the z of its row.
    """

    layout: tuple[LayerUnits, ...]
    labels: NDArray[np.integer[Any]]  # module of each unit [units]
    margins: Floats  # [units], NaN for K = 1
    mean: Floats  # [units]
    std: Floats  # [units]
    statistic: Statistic = "activation"

    @cached_property
    def units(self) -> NDArray[np.int64]:
        """The units that are read by themselves: of each module those of largest margin."""
        order = np.argsort(-np.nan_to_num(self.margins), kind="stable")
        modules = range(int(self.labels.max()) + 1)
        return np.concatenate([order[self.labels[order] == k][:TOP_UNITS] for k in modules])

    def read(self, rows: NDArray[np.float32]) -> Floats:
        """The columns of raw values [tokens, units] at tokens: modules, then single units."""
        z = (rows - self.mean.astype(np.float32)) / self.std.astype(np.float32)
        sizes = np.bincount(self.labels)
        sums = np.stack([z[:, self.labels == module].sum(axis=1) for module in range(len(sizes))])
        values = np.concatenate([sums.T / np.maximum(sizes, 1), z[:, self.units]], axis=1)
        return np.asarray(values, np.float64)


class SteeringEngine(LossEngine):
    """A decoder that also completes prompts and is read at single tokens, one prompt at a time.

    Beside a longer prompt, rounding could turn a greedy choice.
    """

    def complete(
        self, prompt: TokenizedPrompt, sampling: Sampling, mask: Mask | None = None
    ) -> tuple[int, ...]:
        """Complete a prompt with the units of a mask changed; the new tokens without the end.

        Raises:
            InvalidInput: Prompt and completion exceed the model's positions, or the mask leaves
                scores that are not numbers.
        """
        model: Any = self._model
        length = len(prompt.ids)
        limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        if limit is not None and length + sampling.tokens > limit:
            raise InvalidInput(
                f"A prompt of {length} tokens and a completion of {sampling.tokens} exceed the "
                f"{limit} positions of the model.",
                "Shorten the prompt, or ask for fewer tokens.",
            )
        named = model.generation_config.eos_token_id
        ends = named if isinstance(named, list) else [] if named is None else [named]
        # Penalties and samplers that a checkpoint brings would hide what a module does.
        model.generation_config = GenerationConfig(eos_token_id=ends or None, pad_token_id=0)
        options: dict[str, Any] = {"do_sample": sampling.temperature > 0}
        if sampling.temperature > 0:
            options |= {"temperature": sampling.temperature, "top_k": 0}
        ids, attention = self._prepare([prompt])
        with (
            mask_units(model, mask or self._nothing, self._ranks),
            torch.inference_mode(),
            torch.random.fork_rng(),
        ):
            # The same draws whatever the mask, so that the mask is the only difference.
            torch.manual_seed(sampling.seed)
            output = model.generate(
                ids, attention_mask=attention, max_new_tokens=sampling.tokens,
                use_cache=True, logits_processor=[_require_numbers], **options,
            )  # fmt: skip
        made = output[0, length:].tolist()
        return tuple(made[:-1] if made and made[-1] in ends else made)

    def read_tokens(self, prompt: TokenizedPrompt, reading: TokenReading) -> Floats:
        """Read modules and units at each token of a prompt, float64 [tokens, columns]."""
        model, points = self._model, find_hook_points(self.units)
        if reading.statistic == "activation":  # an attribution depends on the tokens after it, too
            limit = MAX_READ_BYTES // (4 * points[-1].stop)
            prompt = TokenizedPrompt(prompt.ids[:limit], prompt.token_mask[:limit])
        # Pooled as if each token were a prompt, so that nothing is averaged.
        tokens = [TokenizedPrompt((token,), (True,)) for token in prompt.ids]
        pooler = ActivationPooler(tokens, points, model.device, self._ranks)
        inputs = self._prepare([prompt])
        if reading.statistic == "attribution":
            choose_deterministic()
            model.requires_grad_(False)
            pool_attribution(model, points, [prompt], inputs, pooler.add, self._ranks)
        else:
            with torch.inference_mode(), hooked(model, points, pooler.add, self._ranks):
                model.base_model(input_ids=inputs[0])
        return reading.read(pooler.collect().activations)

    def log_odds(self, prompt: TokenizedPrompt, one: int, other: int) -> float:
        """Log-odds that a prompt goes on with one token rather than another."""
        model: Any = self._model
        ids, _ = self._prepare([prompt])
        with torch.inference_mode():
            last = model(input_ids=ids).logits[0, -1].double()
        return float(last[one] - last[other])


def _require_numbers(_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    # A greedy choice among NaN is token 0, again and again.
    if scores.isnan().any():
        raise InvalidInput(
            "With these factors the model's scores of the next token are not numbers.",
            "Scale by smaller factors.",
        )
    return scores


def decode_pieces(
    decode: Any, ids: Sequence[int], shown: Sequence[int]
) -> list[tuple[str, list[int]]]:
    """Texts of the ``shown`` positions of a prompt with the positions that each spells.

    Tokens that spell one character together, as the bytes of an emoji do, are one piece.
    """
    pieces: list[tuple[str, list[int]]] = []
    current: list[int] = []
    for number, place in enumerate(shown):
        current.append(place)
        # After the token before it: alone, many tokenizers would drop the space of a word.
        before = decode(ids[max(0, current[0] - 1) : current[0]])
        text = decode(ids[max(0, current[0] - 1) : place + 1])
        text = text[len(before) :] if text.startswith(before) else decode([ids[place]])
        is_last = number + 1 == len(shown) or shown[number + 1] != place + 1
        if is_last or not text.endswith("\ufffd") or len(current) == 4:
            pieces.append((text, current))
            current = []
    return pieces

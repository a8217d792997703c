"""The forward pass: a batch of tokenized prompts in, one row of activations a prompt out.

The mean over tokens is taken on the device while the pass runs: [batch, units] numbers leave it,
nothing is kept per token, and for activations no logits are computed.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Self, TypeAlias, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import DynamicCache, PretrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from ulcmod_dist.config.schema import ModelConfig, Statistic
from ulcmod_dist.errors import InvalidInput, UlcmodError, one_line
from ulcmod_dist.forward.architectures import (
    ANY_LENGTHS,
    LayerUnits,
    count_units,
    get_length_classes,
)
from ulcmod_dist.forward.attribution import choose_deterministic, pool_attribution
from ulcmod_dist.forward.batches import (
    NonFiniteActivation,
    PooledActivations,
    PromptTooLarge,
    TokenizedPrompt,
    explain_vocabulary,
    pad_rows,
)
from ulcmod_dist.forward.hooks import (
    HookPoint,
    Routing,
    check_called_once,
    find_hook_points,
    hooked,
)
from ulcmod_dist.forward.loading import load_config, load_model
from ulcmod_dist.forward.pooling import ActivationPooler, Prefix
from ulcmod_dist.forward.units import list_units

Result = TypeVar("Result")
Batch: TypeAlias = Sequence[TokenizedPrompt]

_CHECKED_TOKENS = 16
# Relative differences in the norm of a row; what rounding does is below a tenth of them.
_TOLERANCE, _HALF_TOLERANCE = 1e-3, 0.05
_REUSE_TOLERANCE = 1e-5


class _UnitsComplete(Exception):
    """The forward pass has computed all units; what follows is not needed."""


class Engine:
    """A base model on a device that turns batches into pooled activations of ``units``.

    The same batch yields the same bytes on the same hardware. With the statistic `attribution` the
    model has its head, and rows are as `forward.attribution` defines them. First tokens that all
    prompts of a batch share are computed once if ``reuses_prefix`` is set, see `check_prefix`.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        units: Sequence[LayerUnits] | None = None,
        ranks: int = 1,
        statistic: Statistic = "activation",
    ) -> None:
        """Take a loaded model in evaluation mode; without ``units`` they are found."""
        self.units = list_units(model.config) if units is None else tuple(units)
        self._model = model
        self._points = find_hook_points(self.units)
        self._lengths = get_length_classes(model.config)
        self._vocabulary = model.config.get_text_config().vocab_size
        self._ranks = ranks
        self._statistic = statistic
        self._prefix: Prefix | None = None
        self.reuses_prefix = False
        model.requires_grad_(False)

    @classmethod
    def load(
        cls,
        model: ModelConfig,
        units: Sequence[LayerUnits] | None = None,
        device: str = "cpu",
        threads: int = 1,
        ranks: int = 1,
        statistic: Statistic = "activation",
    ) -> Self:
        """Load a model as ``load_model`` does, and check that it has the planned ``units``.

        With several ranks each process holds a part of every layer's units and reduces these; all
        processes load the same model and run the same batches at the same time.
        """
        torch.set_num_threads(threads)
        transformers_logging.disable_progress_bar()
        if statistic == "attribution":
            choose_deterministic()
        config = load_config(model)
        expected = list_units(config, model.units)
        if units is not None and tuple(units) != expected:
            raise UlcmodError(
                f"The model {model.id} has {count_units(expected)} units in {len(expected)} parts; "
                f"the plan was made for {count_units(units)} in {len(units)}.",
                "Use another run directory for this model.",
            )
        loaded = load_model(model, config, device, ranks, head=statistic == "attribution")
        engine = cls(loaded, expected, ranks, statistic)
        engine.check_independence()
        engine.reuses_prefix = engine.check_prefix()
        return engine

    def check_independence(self) -> None:
        """Check on a few tokens that the row of a prompt is the same beside a longer one.

        It is not where a model mixes all positions, those of padding included, as with Fourier
        transforms, or sees the prompt as a prefix to be read in both directions. For attribution,
        also check that tokens do not see those after them, and that units have gradients.

        Raises:
            InvalidInput: It is not.
        """
        half, whole = self._make_prompts()
        kind = self._model.config.model_type
        if difference := self._compare_rows([half], [half, whole]):
            raise InvalidInput(
                f"A row of models of type {kind!r} depends on its batch: "
                f"beside a longer prompt, activations differ by {difference:.1%}.",
                "No batch gives such a model's activations for a prompt; use another model.",
            )
        if self._statistic == "activation":
            return
        remedy = "Set extract.statistic to activation for this model."
        mask = half.token_mask + (False,) * len(half.ids)
        other = TokenizedPrompt(half.ids * 2, mask)
        if self._compare_rows([TokenizedPrompt(whole.ids[: len(mask)], mask)], [other]):
            raise InvalidInput(f"In models of type {kind!r} tokens see those after them.", remedy)
        try:
            self._run([whole], self._statistic)
        except RuntimeError as error:  # of torch
            fact = f"No gradient in models of type {kind!r}: {one_line(error)}."
            raise InvalidInput(fact, remedy) from error

    def check_prefix(self) -> bool:
        """Whether rows whose first tokens are reused are those of prompts computed as a whole.

        They are compared for two prompts of different lengths: to 1e-5 of their norm in float32,
        and in bfloat16 to what its rounding does. They differ where tokens see those after them,
        where a layer keeps more than keys and values, and where positions depend on the length.
        """
        if self._statistic != "activation" or self._lengths != ANY_LENGTHS:
            return False
        plain = self._make_prompts()
        shared = [replace(prompt, shared=len(plain[0].ids) // 2) for prompt in plain]
        self.reuses_prefix = True
        try:
            return not self._compare_rows(plain, shared, _REUSE_TOLERANCE, whole=True)
        except Exception:  # models without such a cache fail in ways of their own
            return False
        finally:
            self.reuses_prefix, self._prefix = False, None

    def _make_prompts(self) -> tuple[TokenizedPrompt, TokenizedPrompt]:
        """Two prompts to check the model with; the second begins with the first."""
        special = set(_list_special_tokens(self._model.config))
        middle = range(self._vocabulary // 4, self._vocabulary)
        ids = tuple(islice((token for token in middle if token not in special), _CHECKED_TOKENS))
        whole = TokenizedPrompt(ids, (True,) * len(ids))
        count = len(ids) // 2
        return TokenizedPrompt(ids[:count], whole.token_mask[:count]), whole

    def _compare_rows(
        self, some: Batch, others: Batch, tolerance: float = _TOLERANCE, *, whole: bool = False
    ) -> float:
        """Relative difference of the rows of a batch to the first of another, 0 if but rounding.

        In bfloat16 only those of the first layer are compared, unless the ``whole`` rows are.
        """
        # In bfloat16 rounding may route a token to another expert, but hardly in the first layer.
        is_half = any(each.dtype == torch.bfloat16 for each in self._model.parameters())
        stop = self._points[0].stop if is_half and not whole else None
        one, other = (
            self._run(batch, "activation").activations[: len(some), :stop]
            for batch in (some, others)
        )
        size = float(np.linalg.norm(one))
        difference = float(np.linalg.norm(one - other)) / size if size else 0.0
        # A NaN is not greater: activations that are not finite are reported with their prompt.
        return difference if difference > (_HALF_TOLERANCE if is_half else tolerance) else 0.0

    def run(self, prompts: Batch) -> PooledActivations:
        """Run one batch of at least one prompt; the result is the same on all ranks.

        A row does not depend on the other prompts: those that may not share a forward pass (see
        `LengthClasses`) are run one group after the other.

        Raises:
            NonFiniteActivation: A unit is NaN or infinite.
            UlcmodError: A hooked module was not called exactly once, or a token is not in the
                vocabulary.
        """
        pooled = self._run(prompts, self._statistic)
        self._check_finite(pooled.activations)
        return pooled

    def _run(self, prompts: Batch, statistic: Statistic) -> PooledActivations:
        parts = [self._pool(part, statistic) for part in self._lengths.split(prompts)]
        return PooledActivations.concatenate(parts)

    def _pool(self, prompts: Batch, statistic: Statistic) -> PooledActivations:
        reset_rotary_embedding(self._model)
        if statistic == "attribution":
            pooler = ActivationPooler(prompts, self._points, self._model.device, self._ranks)
            inputs = self._pad(prompts)
            pool_attribution(self._model, self._points, prompts, inputs, pooler.add, self._ranks)
            return pooler.collect()
        if (prefix := self._find_prefix(prompts)) is None:
            return self._pool_units(prompts)
        rest = self._pool_units(prompts, prefix.make_cache(len(prompts)))
        return prefix.add_to(rest, prompts)

    def _pad(self, prompts: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        ids, mask = pad_batch(prompts, self._vocabulary)
        return ids.to(self._model.device), mask.to(self._model.device)

    def _pool_units(self, prompts: Batch, cache: DynamicCache | None = None) -> PooledActivations:
        """Pool the units of the tokens that ``cache`` does not hold; it is extended by them."""
        ids, mask = self._pad(prompts)
        known = 0 if cache is None else cache.get_seq_length()
        options = {} if cache is None else {"past_key_values": cache, "use_cache": True}
        pooler = ActivationPooler(prompts, self._points, ids.device, self._ranks, known)
        # Hooks of accelerate, which move layers to their device, need the pass to return.
        is_moved = getattr(self._model, "hf_device_map", None) is not None

        def add(point: HookPoint, units: torch.Tensor, routing: Routing | None) -> None:
            pooler.add(point, units, routing)
            if all(call_count.values()) and not is_moved:
                raise _UnitsComplete

        with (
            torch.inference_mode(),
            suppress(_UnitsComplete),
            hooked(self._model, self._points, add, self._ranks) as call_count,
        ):
            self._model(input_ids=ids[:, known:], attention_mask=mask, **options)
        check_called_once(call_count)
        return pooler.collect()

    def _find_prefix(self, prompts: Batch) -> Prefix | None:
        """The first tokens of all prompts of a batch if they share them, computed or kept."""
        tokens, *others = {prompt.prefix for prompt in prompts}
        if others or not tokens.ids or not self.reuses_prefix:
            return None
        if self._prefix is None or self._prefix.tokens != tokens:
            cache = DynamicCache()
            pooled = self._pool_units([tokens], cache)
            self._prefix = Prefix(tokens, tuple(cache), pooled)
        return self._prefix

    def run_within_memory(self, prompts: Batch) -> tuple[PooledActivations, tuple[int, ...]]:
        """Run one batch by ``split_on_oom``; returns the sizes of the parts that were run, too."""
        split = partial(split_on_oom, self.run, device=self._model.device, ranks=self._ranks)
        parts = [part for group in self._lengths.split(prompts) for part in split(group)]
        pooled = PooledActivations.concatenate([pooled for _, pooled in parts])
        return pooled, tuple(size for size, _ in parts)

    def _check_finite(self, activations: NDArray[np.float32]) -> None:
        if np.isfinite(activations).all():
            return
        position, column = map(int, np.argwhere(~np.isfinite(activations))[0])
        point = next(point for point in self._points if column < point.stop)
        raise NonFiniteActivation(
            position,
            f"The prompt at position {position} of the batch gives "
            f"{activations[position, column]} at unit {column - point.start} of {point}.",
            "Check the checkpoint's weights, or run the model in float32.",
        )


def _list_special_tokens(config: PretrainedConfig) -> Iterator[int]:
    """Ids that a configuration names, such as those that stand for an image."""
    for name, value in vars(config).items():
        if isinstance(value, PretrainedConfig):
            yield from _list_special_tokens(value)
        elif "token" in name:
            yield from value if isinstance(value, list) else [value]


def reset_rotary_embedding(model: torch.nn.Module) -> None:
    """Undo what earlier batches have left in a model with dynamic NTK scaling.

    transformers keeps the frequencies of the longest input so far, and goes back to the original
    ones only for an input shorter than ``max_position_embeddings`` (``dynamic_rope_update``).
    """
    for module in model.modules():
        if "dynamic" not in str(getattr(module, "rope_type", "")):
            continue
        module.max_seq_len_cached = module.original_max_seq_len
        for name, buffer in list(module.named_buffers(recurse=False)):
            prefix = name.removesuffix("inv_freq")
            original = getattr(module, f"{prefix}original_inv_freq", None)
            if prefix != name and isinstance(original, torch.Tensor):
                module.register_buffer(name, original.to(buffer.device), persistent=False)
                setattr(module, f"{prefix}max_seq_len_cached", module.original_max_seq_len)


def pad_batch(
    prompts: Sequence[TokenizedPrompt], vocabulary: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask of a batch, int64 [batch, longest], padded on the right.

    Raises:
        UlcmodError: A token is not in the vocabulary. An embedding lookup out of range raises on
            the CPU, but on a GPU it is a device-side assertion, after which the process is lost.
    """
    ids, mask = pad_rows([prompt.ids for prompt in prompts], np.int64)
    if int(ids.max()) >= vocabulary:
        raise UlcmodError(*explain_vocabulary(int(ids.max()), vocabulary))
    return torch.from_numpy(ids), torch.from_numpy(mask.astype(np.int64))


def split_on_oom(
    run: Callable[[Sequence[TokenizedPrompt]], Result],
    prompts: Sequence[TokenizedPrompt],
    device: torch.device,
    ranks: int = 1,
) -> list[tuple[int, Result]]:
    """Run a batch of at least one prompt, halving it while the device runs out of memory.

    Returns size and result of each part, in the order of the batch.

    Raises:
        PromptTooLarge: A single prompt does not fit.
        UlcmodError: A batch does not fit and ranks share the model: they run out of memory at
            different times and could not agree on a split.
    """
    try:
        return [(len(prompts), run(prompts))]
    except torch.OutOfMemoryError as error:
        if len(prompts) == 1 or ranks > 1:
            longest = max(len(prompt.ids) for prompt in prompts)
            kind = PromptTooLarge if len(prompts) == 1 else UlcmodError
            raise kind(
                f"A batch of {len(prompts)} prompts of up to {longest} tokens does not fit "
                f"into the memory of {device}.",
                "Lower extract.batch_tokens or prompt.max_tokens, or use more devices.",
            ) from error
    # Outside the handler: while it runs, the exception's traceback keeps the frames of the failed
    # attempt alive, and with them its tensors.
    if torch.accelerator.is_available():
        torch.accelerator.empty_cache()
    middle = len(prompts) // 2
    halves = (prompts[:middle], prompts[middle:])
    return [part for half in halves for part in split_on_oom(run, half, device, ranks)]

"""The forward pass: a batch of encoded prompts in, one row of activations for each out.

The mean over tokens is taken on the device while the pass runs, so that [batch, units] numbers
leave it and nothing per token is kept. No logits are computed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from ulcmod_dist.config.schema import ModelConfig
from ulcmod_dist.errors import UlcmodError
from ulcmod_dist.forward.architectures import LayerUnits, count_units, list_units
from ulcmod_dist.forward.batches import (
    NonFiniteActivation,
    PooledActivations,
    PromptTooLarge,
    TokenizedPrompt,
)
from ulcmod_dist.forward.hooks import check_called_once, find_hook_points, hooked
from ulcmod_dist.forward.loading import load_config, load_model
from ulcmod_dist.forward.pooling import ActivationPooler

Item = TypeVar("Item")
Result = TypeVar("Result")


class Engine:
    """A model on a device, ready to turn batches into rows.

    The same batch yields the same bytes on the same hardware.

    Attributes:
        units: What the columns of a row are, in order.
    """

    def __init__(self, model: PreTrainedModel, ranks: int = 1) -> None:
        """Take a loaded base model in evaluation mode; ``Engine.load`` also loads it."""
        self.units = list_units(model.config)
        self._model = model
        self._taps = find_hook_points(self.units)
        self._vocabulary = model.config.get_text_config().vocab_size
        self._ranks = ranks

    @classmethod
    def load(
        cls,
        spec: ModelConfig,
        units: Sequence[LayerUnits] | None = None,
        device: str = "cpu",
        threads: int = 1,
        ranks: int = 1,
    ) -> Engine:
        """Load a model.

        With several ranks each process holds a part of every layer's units and reduces these; all
        processes load the same model and run the same batches at the same time.

        Args:
            spec: The model.
            units: What the caller planned for; None to take what the configuration promises.
            device: Device of torch, such as ``cpu`` or ``cuda:0``. ``auto`` lays whole layers out
                over the devices that the process sees; they then work one after another, so it is
                for models that neither fit one device nor can be shared by ranks.
            threads: Threads of this process for computing on the CPU.
            ranks: Processes that share the model by tensor parallelism. Each has the variables of
                torch.distributed (RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT) in its
                environment; its device is that of LOCAL_RANK.

        Raises:
            InvalidInput: The model cannot be used.
            UlcmodError: Its units are not those planned for.
        """
        torch.set_num_threads(threads)
        transformers_logging.disable_progress_bar()
        config = load_config(spec)
        promised = list_units(config)
        if units is not None and tuple(units) != promised:
            raise UlcmodError(
                f"The model {spec.id} has {count_units(promised)} units in {len(promised)} parts; "
                f"the plan was made for {count_units(units)} in {len(units)}.",
                "Plan the run anew for this model.",
            )
        return cls(load_model(spec, config, device, ranks), ranks)

    def rows(self, encoded: Sequence[TokenizedPrompt]) -> PooledActivations:
        """Run one batch, padded on the right.

        Args:
            encoded: The prompts of the batch, at least one.

        Returns:
            One row a prompt, in the same order; the same on all ranks.

        Raises:
            NonFiniteActivation: A unit is NaN or infinite; the prompt's position is given.
            UlcmodError: A tap did not fire as promised, or a token is not in the vocabulary.
        """
        device = self._model.device
        ids, mask = (array.to(device) for array in pad_batch(encoded, self._vocabulary))
        pool = ActivationPooler(encoded, self._taps, device, self._ranks)
        with (
            torch.inference_mode(),
            hooked(self._model, self._taps, pool.visit, self._ranks) as fired,
        ):
            self._model(input_ids=ids, attention_mask=mask)
        check_called_once(fired)
        activations, routed = pool.collect()
        self._check_finite(activations)
        return PooledActivations(activations, routed)

    def rows_within_memory(
        self, encoded: Sequence[TokenizedPrompt]
    ) -> tuple[PooledActivations, tuple[int, ...]]:
        """Run one batch, halving it as often as the device's memory demands.

        Returns:
            The rows in the order of ``encoded``, and the sizes of the batches that were run, which
            follow one another: ``(len(encoded),)`` where everything fitted.

        Raises:
            PromptTooLarge: A single prompt does not fit.
            UlcmodError: The model is shared by ranks, which could not split together; or as
                ``rows``.
        """
        pieces = split_on_oom(self._rows_or_why, encoded)
        return PooledActivations.concatenate([rows for _, rows in pieces]), tuple(
            size for size, _ in pieces
        )

    def _rows_or_why(self, encoded: Sequence[TokenizedPrompt]) -> PooledActivations:
        try:
            return self.rows(encoded)
        except torch.OutOfMemoryError as error:
            if len(encoded) > 1 and self._ranks == 1:
                raise
            longest = max(len(prompt.ids) for prompt in encoded)
            kind = PromptTooLarge if len(encoded) == 1 else UlcmodError
            raise kind(
                f"A batch of {len(encoded)} prompts of up to {longest} tokens does not fit "
                f"into the memory of {self._model.device}.",
                "Lower extract.batch_tokens or prompt.max_tokens, or use more devices.",
            ) from error

    def _check_finite(self, activations: NDArray[np.float32]) -> None:
        if np.isfinite(activations).all():
            return
        position, column = map(int, np.argwhere(~np.isfinite(activations))[0])
        tap = next(tap for tap in self._taps if column < tap.stop)
        raise NonFiniteActivation(
            position,
            f"The prompt at position {position} of the batch gives "
            f"{activations[position, column]} at unit {column - tap.start} of {tap}.",
            "Check the checkpoint's weights, or run the model in float32.",
        )


def pad_batch(
    encoded: Sequence[TokenizedPrompt], vocabulary: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask of a batch, int64 [batch, longest], padded on the right.

    Raises:
        UlcmodError: A token is not in the vocabulary; on an accelerator the model itself would end
            the process.
    """
    shape = len(encoded), max(len(prompt.ids) for prompt in encoded)
    ids, mask = torch.zeros(shape, dtype=torch.int64), torch.zeros(shape, dtype=torch.int64)
    for row, prompt in enumerate(encoded):
        ids[row, : len(prompt.ids)] = torch.tensor(prompt.ids)
        mask[row, : len(prompt.ids)] = 1
    if int(ids.max()) >= vocabulary:
        raise UlcmodError(
            f"The tokenizer gave token {int(ids.max())}, but the model knows {vocabulary}.",
            "Put the tokenizer that belongs to the model beside it.",
        )
    return ids, mask


def split_on_oom(
    run: Callable[[Sequence[Item]], Result], batch: Sequence[Item]
) -> list[tuple[int, Result]]:
    """Run a batch, halving it as often as memory is short.

    Args:
        run: Computes a batch, at least one item.
        batch: The items.

    Returns:
        Size and answer of each piece; the pieces follow one another.

    Raises:
        torch.OutOfMemoryError: A single item does not fit.
    """
    try:
        return [(len(batch), run(batch))]
    except torch.OutOfMemoryError:
        if len(batch) == 1:
            raise
    # Out of the handler, so that the failed attempt's tensors are no longer held by its frames.
    torch.accelerator.empty_cache() if torch.accelerator.is_available() else None
    middle = len(batch) // 2
    return [*split_on_oom(run, batch[:middle]), *split_on_oom(run, batch[middle:])]

"""The forward pass: a batch of tokenized prompts in, one row of activations a prompt out.

The mean over tokens is taken on the device while the pass runs: [batch, units] numbers leave it,
nothing is kept per token, and no logits are computed.
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
    """A base model on a device that turns batches into pooled activations.

    The same batch yields the same bytes on the same hardware.

    Attributes:
        units: The units of the activations' columns, in order.
    """

    def __init__(self, model: PreTrainedModel, ranks: int = 1) -> None:
        """Take a loaded base model in evaluation mode; ``Engine.load`` also loads it."""
        self.units = list_units(model.config)
        self._model = model
        self._points = find_hook_points(self.units)
        self._vocabulary = model.config.get_text_config().vocab_size
        self._ranks = ranks

    @classmethod
    def load(
        cls,
        model: ModelConfig,
        units: Sequence[LayerUnits] | None = None,
        device: str = "cpu",
        threads: int = 1,
        ranks: int = 1,
    ) -> Engine:
        """Load a model.

        With several ranks each process holds a part of every layer's units and reduces these; all
        processes load the same model and run the same batches at the same time.

        Args:
            model: The model.
            units: The units that the run was planned for, or None not to check them.
            device: Device of torch, such as ``cpu`` or ``cuda:0``. ``auto`` places whole layers on
                the devices that the process sees. These work one after another, so use it for
                models that neither fit one device nor can be sharded over ranks.
            threads: Threads of this process for computing on the CPU.
            ranks: Processes that share the model by tensor parallelism. Each has the variables of
                torch.distributed (RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT) in its
                environment; its device is that of LOCAL_RANK.

        Raises:
            InvalidInput: The model cannot be used.
            UlcmodError: Its units differ from ``units``.
        """
        torch.set_num_threads(threads)
        transformers_logging.disable_progress_bar()
        config = load_config(model)
        expected = list_units(config)
        if units is not None and tuple(units) != expected:
            raise UlcmodError(
                f"The model {model.id} has {count_units(expected)} units in {len(expected)} parts; "
                f"the plan was made for {count_units(units)} in {len(units)}.",
                "Plan the run anew for this model.",
            )
        return cls(load_model(model, config, device, ranks), ranks)

    def run(self, prompts: Sequence[TokenizedPrompt]) -> PooledActivations:
        """Run one batch of at least one prompt, padded on the right.

        Returns:
            One row a prompt, in the same order; the same on all ranks.

        Raises:
            NonFiniteActivation: A unit is NaN or infinite; the prompt's position is given.
            UlcmodError: A hooked module was not called exactly once, or a token is not in the
                vocabulary.
        """
        device = self._model.device
        ids, mask = (array.to(device) for array in pad_batch(prompts, self._vocabulary))
        pooler = ActivationPooler(prompts, self._points, device, self._ranks)
        with (
            torch.inference_mode(),
            hooked(self._model, self._points, pooler.add, self._ranks) as call_count,
        ):
            self._model(input_ids=ids, attention_mask=mask)
        check_called_once(call_count)
        pooled = pooler.collect()
        self._check_finite(pooled.activations)
        return pooled

    def run_within_memory(
        self, prompts: Sequence[TokenizedPrompt]
    ) -> tuple[PooledActivations, tuple[int, ...]]:
        """Run one batch, split into smaller ones while the device runs out of memory.

        Returns:
            The activations in the order of ``prompts``, and the sizes of the batches that were run
            in that order: ``(len(prompts),)`` where all fitted.

        Raises:
            PromptTooLarge: A single prompt does not fit.
            UlcmodError: A batch does not fit and ranks share the model: they run out of memory at
                different times and could not agree on a split. Otherwise as ``run``.
        """
        parts = split_on_oom(self._run_or_explain, prompts)
        sizes = tuple(size for size, _ in parts)
        return PooledActivations.concatenate([pooled for _, pooled in parts]), sizes

    def _run_or_explain(self, prompts: Sequence[TokenizedPrompt]) -> PooledActivations:
        try:
            return self.run(prompts)
        except torch.OutOfMemoryError as error:
            if len(prompts) > 1 and self._ranks == 1:
                raise
            longest = max(len(prompt.ids) for prompt in prompts)
            kind = PromptTooLarge if len(prompts) == 1 else UlcmodError
            raise kind(
                f"A batch of {len(prompts)} prompts of up to {longest} tokens does not fit "
                f"into the memory of {self._model.device}.",
                "Lower extract.batch_tokens or prompt.max_tokens, or use more devices.",
            ) from error

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


def pad_batch(
    prompts: Sequence[TokenizedPrompt], vocabulary: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask of a batch, int64 [batch, longest], padded on the right.

    Raises:
        UlcmodError: A token is not in the vocabulary. An embedding lookup out of range raises on
            the CPU, but on a GPU it is a device-side assertion, after which the process is lost.
    """
    shape = len(prompts), max(len(prompt.ids) for prompt in prompts)
    ids, mask = torch.zeros(shape, dtype=torch.int64), torch.zeros(shape, dtype=torch.int64)
    for row, prompt in enumerate(prompts):
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
    """Run a batch of at least one item, halving it while memory runs out.

    Returns:
        Size and result of each part, in the order of the batch.

    Raises:
        torch.OutOfMemoryError: A single item does not fit.
    """
    try:
        return [(len(batch), run(batch))]
    except torch.OutOfMemoryError:
        if len(batch) == 1:
            raise
    # Outside the handler: while it runs, the exception's traceback keeps the frames of the failed
    # attempt alive, and with them its tensors.
    if torch.accelerator.is_available():
        torch.accelerator.empty_cache()
    middle = len(batch) // 2
    return [*split_on_oom(run, batch[:middle]), *split_on_oom(run, batch[middle:])]

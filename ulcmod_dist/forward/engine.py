"""The forward pass: a batch of encoded prompts in, one row of activations for each out.

The mean over tokens is taken on the device while the pass runs, so that [batch, units] numbers
leave it and nothing per token is kept. No logits are computed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from ulcmod_dist.errors import UlcmodError
from ulcmod_dist.forward.architectures import units_of
from ulcmod_dist.forward.loading import load_config, load_model
from ulcmod_dist.forward.pooling import Pool
from ulcmod_dist.forward.taps import require_once, tapped, taps_of
from ulcmod_dist.forward.values import Encoded, LayerUnits, ModelSpec, NonFiniteActivation, Rows


class Engine:
    """A model on a device, ready to turn batches into rows.

    The same batch yields the same bytes on the same hardware.

    Attributes:
        units: What the columns of a row are, in order.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        """Take a loaded base model in evaluation mode; ``Engine.load`` also loads it."""
        self.units = units_of(model.config)
        self._model = model
        self._taps = taps_of(self.units)
        self._vocabulary = _vocabulary(model)

    @classmethod
    def load(
        cls,
        spec: ModelSpec,
        units: Sequence[LayerUnits] | None = None,
        device: str = "cpu",
        threads: int = 1,
    ) -> Engine:
        """Load a model.

        Args:
            spec: The model.
            units: What the caller planned for; None to take what the configuration promises.
            device: Device of torch, such as ``cpu`` or ``cuda:0``.
            threads: Threads of this process for computing on the CPU.

        Raises:
            InvalidInput: The model cannot be used.
            UlcmodError: Its units are not those planned for.
        """
        torch.set_num_threads(threads)
        transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        config = load_config(spec)
        promised = units_of(config)
        if units is not None and tuple(units) != promised:
            raise UlcmodError(
                f"The model {spec.id} has {count_units(promised)} units in {len(promised)} parts; "
                f"the plan was made for {count_units(units)} in {len(units)}.",
                "Plan the run anew for this model.",
            )
        return cls(load_model(spec, config, device))

    def rows(self, encoded: Sequence[Encoded]) -> Rows:
        """Run one batch, padded on the right.

        Args:
            encoded: The prompts of the batch, at least one.

        Returns:
            One row a prompt, in the same order.

        Raises:
            NonFiniteActivation: A unit is NaN or infinite; the prompt's position is given.
            UlcmodError: A tap did not fire as promised, or a token is not in the vocabulary.
        """
        device = self._model.device
        ids, mask = (array.to(device) for array in padded(encoded, self._vocabulary))
        pool = Pool(encoded, self._taps, device)
        with torch.inference_mode(), tapped(self._model, self._taps, pool.visit) as fired:
            self._model(input_ids=ids, attention_mask=mask)
        require_once(fired)
        activations, routed = pool.collect()
        self._check_finite(activations)
        return Rows(activations, routed)

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


def padded(encoded: Sequence[Encoded], vocabulary: int) -> tuple[torch.Tensor, torch.Tensor]:
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


def _vocabulary(model: PreTrainedModel) -> int:
    weight = model.get_input_embeddings().weight
    assert isinstance(weight, torch.Tensor)
    return weight.shape[0]


def count_units(units: Sequence[LayerUnits]) -> int:
    """Total number of units: the columns of a row."""
    return sum(part.width for part in units)

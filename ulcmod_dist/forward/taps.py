"""Taps: the places in a live model where the units pass, for reading them or replacing them.

Capture and intervention use the same taps, so what is measured and what is silenced are the same
numbers. A tap is put on for the length of a ``with`` block and leaves the model as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Any, TypeAlias

import torch
from torch import nn

from ulcmod_dist.errors import UlcmodError
from ulcmod_dist.forward.values import LayerUnits


@dataclass(frozen=True)
class Tap:
    """One module whose input is captured.

    Attributes:
        layer: Index of the layer.
        module: Path below the base model.
        width: Units of the down-projection.
        start: First column of these units in a row.
    """

    layer: int
    module: str
    width: int
    start: int

    @property
    def stop(self) -> int:
        """The column after the last one."""
        return self.start + self.width

    def __str__(self) -> str:
        return f"layer {self.layer} ({self.module})"


Visit: TypeAlias = Callable[[Tap, torch.Tensor], torch.Tensor | None]
"""Sees the units of every token, [..., width]; what it returns, if anything, takes their place."""


def taps_of(units: Sequence[LayerUnits]) -> tuple[Tap, ...]:
    """The taps that together yield ``units``, in the order of the columns."""
    taps: list[Tap] = []
    start = 0
    for (layer, module), parts in groupby(units, key=lambda part: (part.layer, part.module)):
        width = sum(part.width for part in parts)
        taps.append(Tap(layer, module, width, start))
        start += width
    return tuple(taps)


@contextmanager
def tapped(model: nn.Module, taps: Sequence[Tap], visit: Visit) -> Iterator[None]:
    """Let ``visit`` see the units of every forward pass within the block.

    Args:
        model: A base model, or one with a head on it.
        taps: Where to listen; each must fire exactly once before the block ends.
        visit: Called with the tap and the units.

    Raises:
        UlcmodError: A tap's module is missing, has another width than promised, or did not fire
            exactly once; the layer is named. Nothing is raised about firing if the block itself
            ends in an error.
    """
    base = getattr(model, "base_model", model)
    fired = dict.fromkeys(taps, 0)
    with ExitStack() as stack:
        for tap in taps:
            handle = _module(base, tap).register_forward_pre_hook(_hook(tap, visit, fired))
            stack.callback(handle.remove)
        yield
    for tap, times in fired.items():
        if times != 1:
            raise UlcmodError(
                f"The tap on {tap} fired {times} times in one forward pass, not once.",
                "This checkpoint computes its layers in a way that is not supported.",
            )


def _module(base: nn.Module, tap: Tap) -> nn.Module:
    try:
        return base.get_submodule(tap.module)
    except AttributeError as error:
        raise UlcmodError(f"The model has no module for {tap}: {error}.") from error


def _hook(tap: Tap, visit: Visit, fired: dict[Tap, int]) -> Callable[..., Any]:
    def hook(_module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        fired[tap] += 1
        hidden = args[0]
        if hidden.shape[-1] != tap.width:
            raise UlcmodError(
                f"{tap} has {hidden.shape[-1]} units where the configuration promises {tap.width}."
            )
        replaced = visit(tap, hidden)
        return None if replaced is None else (replaced, *args[1:])

    return hook

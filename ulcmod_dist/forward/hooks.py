"""Taps: the places in a live model where the units pass, for reading them or replacing them.

Capture and intervention use the same taps, so what is measured and what is silenced are the same
numbers. A tap is put on for the length of a ``with`` block and leaves the model as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any, TypeAlias, cast

import torch
from torch import nn
from transformers import PreTrainedModel

from ulcmod_dist.errors import UlcmodError
from ulcmod_dist.forward.architectures import LayerUnits
from ulcmod_dist.forward.experts import ExpertsHook, Routing, hook_experts


@dataclass(frozen=True)
class HookPoint:
    """One module whose down-projection's input is seen: a single one, or those of all experts.

    Attributes:
        layer: Index of the layer.
        path: Path of the torch module below the base model.
        width: Units of one down-projection.
        start: First column of these units in a row.
        experts: Number of experts, or 0 for a module that sees every token.
    """

    layer: int
    path: str
    width: int
    start: int
    experts: int = 0

    @property
    def stop(self) -> int:
        """The column after the last one."""
        return self.start + self.width * max(1, self.experts)

    def __str__(self) -> str:
        return f"layer {self.layer} ({self.path})"


HookCallback: TypeAlias = Callable[[HookPoint, torch.Tensor, Routing | None], torch.Tensor | None]
"""Sees units: [..., width] of every token, or [rows, width] with the routing of experts.

What it returns, if anything, takes their place.
"""


def find_hook_points(units: Sequence[LayerUnits]) -> tuple[HookPoint, ...]:
    """The taps that together yield ``units``, in the order of the columns."""
    taps: list[HookPoint] = []
    start = 0
    for (layer, path), group in groupby(units, key=lambda part: (part.layer, part.path)):
        parts = list(group)
        experts = 0 if parts[0].expert is None else len(parts)
        taps.append(HookPoint(layer, path, parts[0].width, start, experts))
        start = taps[-1].stop
    return tuple(taps)


@contextmanager
def hooked(
    model: nn.Module, taps: Sequence[HookPoint], visit: HookCallback, ranks: int = 1
) -> Iterator[dict[HookPoint, int]]:
    """Let ``visit`` see the units of every forward pass within the block.

    Args:
        model: A model of transformers, with or without a head.
        taps: Where to listen.
        visit: Called with the tap, the units and, for experts, their routing.
        ranks: Processes that share the model; each may see its equal part of a tap's units.

    Yields:
        How often each tap has fired.

    Raises:
        UlcmodError: A tap's module is missing or has another width than promised; the layer is
            named.
    """
    base = get_base_model(model)
    fired = dict.fromkeys(taps, 0)

    def visited(
        tap: HookPoint, units: torch.Tensor, routing: Routing | None
    ) -> torch.Tensor | None:
        fired[tap] += 1
        if units.shape[-1] not in (tap.width, tap.width / ranks):
            raise UlcmodError(
                f"{tap} has {units.shape[-1]} units where the configuration promises {tap.width}."
            )
        return visit(tap, units, routing)

    listeners: dict[nn.Module, ExpertsHook] = {}
    with ExitStack() as stack:
        for tap in taps:
            module = _module(base, tap)
            if tap.experts:
                listeners[module] = partial(visited, tap)
            else:
                handle = module.register_forward_pre_hook(_hook(partial(visited, tap)))
                stack.callback(handle.remove)
        if listeners:
            stack.enter_context(hook_experts(base, listeners))
        yield fired


def get_local_columns(held: int, width: int) -> slice:
    """Which of a down-projection's ``width`` units this process holds, if it holds ``held``.

    Ranks that share a model hold equal parts in the order of their numbers, or all of them.
    """
    first = torch.distributed.get_rank() * held if held < width else 0
    return slice(first, first + held)


def check_called_once(fired: dict[HookPoint, int]) -> None:
    """Hold the counts after one forward pass against the promise that each tap fires once.

    Raises:
        UlcmodError: One did not; its layer is named.
    """
    for tap, times in fired.items():
        if times != 1:
            raise UlcmodError(
                f"The tap on {tap} fired {times} times in one forward pass, not once.",
                "This checkpoint computes its layers in a way that is not supported.",
            )


def get_base_model(model: nn.Module) -> PreTrainedModel:
    """The model without its head; the paths of units start there."""
    return cast(PreTrainedModel, getattr(model, "base_model", model))


def _module(base: PreTrainedModel, tap: HookPoint) -> nn.Module:
    try:
        return base.get_submodule(tap.path)
    except AttributeError as error:
        raise UlcmodError(f"The model has no module for {tap}: {error}.") from error


def _hook(visit: ExpertsHook) -> Callable[..., Any]:
    def hook(_module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        replaced = visit(args[0], None)
        return None if replaced is None else (replaced, *args[1:])

    return hook

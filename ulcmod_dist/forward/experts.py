"""Fused experts: a computation of a layer's experts that shows each token's units.

transformers keeps the experts of a layer in one module with three-dimensional weights, whose units
are no module's input, so no torch hook can see them. It does let callers register experts
implementations (``ALL_EXPERTS_FUNCTIONS``): the one registered here computes the same output and
calls hooks with the units on the way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

IMPLEMENTATION = "ulcmod"


@dataclass(frozen=True)
class Routing:
    """Token and expert of each row of units, sorted by expert, then by token.

    Attributes:
        token: int64 [rows], index of the token in the flattened batch.
        expert: int64 [rows], index of the expert.
    """

    token: torch.Tensor
    expert: torch.Tensor


ExpertsHook: TypeAlias = Callable[[torch.Tensor, Routing | None], torch.Tensor | None]

# transformers looks implementations up by name in one registry a process, so the hooks of a module
# are kept here and not in a closure. Blocks may be nested, as when a masked model is captured: the
# outer block's hook is called first.
_HOOKS: WeakKeyDictionary[nn.Module, tuple[ExpertsHook, ...]] = WeakKeyDictionary()


@contextmanager
def hook_experts(model: PreTrainedModel, hooks: Mapping[nn.Module, ExpertsHook]) -> Iterator[None]:
    """Call a hook with the units [rows, width] of each layer's experts within the block.

    A tensor that a hook returns replaces the units. ``model`` is switched to this implementation
    of the experts, and back.

    Args:
        model: The model that the experts are part of.
        hooks: A hook for each layer's module of experts.
    """
    before = model.get_experts_implementation()
    model.set_experts_implementation(IMPLEMENTATION)
    for experts, hook in hooks.items():
        _HOOKS[experts] = (*_HOOKS.get(experts, ()), hook)
    try:
        yield
    finally:
        for experts in hooks:
            _HOOKS[experts] = _HOOKS[experts][:-1]
        model.set_experts_implementation(before)


def _forward(
    experts: Any, hidden: torch.Tensor, chosen: torch.Tensor, router_weights: torch.Tensor
) -> torch.Tensor:
    """The experts' output [tokens, hidden size], with the signature that transformers calls.

    Args:
        experts: The module that holds the weights of all experts of a layer.
        hidden: [tokens, hidden size].
        chosen: [tokens, k], the experts that the router chose.
        router_weights: [tokens, k].
    """
    slots = chosen.shape[-1]
    # A stable sort keeps the tokens of an expert in order, which makes the sums reproducible.
    expert, order = torch.sort(chosen.flatten(), stable=True)
    routing = Routing(order // slots, expert)
    stops = torch.bincount(expert, minlength=experts.num_experts).cumsum(0)
    first = "gate_up_proj" if experts.has_gate else "up_proj"
    # `_apply_gate` is private, but it alone knows how a family interleaves gate and up projection
    # and clamps them (gpt-oss); the parity tests on every sparse family would notice a change.
    activate = experts._apply_gate if experts.has_gate else experts.act_fn
    units = activate(_project(experts, first, hidden[routing.token], expert, stops))
    for hook in _HOOKS.get(experts, ()):
        replaced = hook(units, routing)
        units = units if replaced is None else replaced
    output = _project(experts, "down_proj", units, expert, stops)
    weighted = output * router_weights.flatten()[order].unsqueeze(-1)
    by_token = torch.empty_like(weighted)
    by_token[order] = weighted
    return by_token.view(len(hidden), slots, -1).sum(1).to(hidden.dtype)


def _project(
    experts: Any, name: str, rows: torch.Tensor, expert: torch.Tensor, stops: torch.Tensor
) -> torch.Tensor:
    """Each row times the matrix of its expert, plus the expert's bias."""
    weight = getattr(experts, name)
    matrices = weight if experts.is_transposed else weight.transpose(-2, -1)
    if _can_group(rows, matrices):
        output = nn.functional.grouped_mm(rows, matrices, offs=stops.to(torch.int32))
    else:
        output = rows.new_empty(len(rows), matrices.shape[-1])
        start = 0
        for index, stop in enumerate(stops.tolist()):
            output[start:stop] = rows[start:stop] @ matrices[index]
            start = stop
    if experts.has_bias:
        output = output + getattr(experts, name + "_bias")[expert]
    return output


def _can_group(rows: torch.Tensor, matrices: torch.Tensor) -> bool:
    """Whether one kernel can serve all experts.

    torch's grouped_mm wants compute capability 8.0 and strides that are multiples of 16 bytes.
    """
    aligned = all(size * rows.element_size() % 16 == 0 for size in matrices.shape[-2:])
    return rows.is_cuda and torch.cuda.get_device_capability(rows.device) >= (8, 0) and aligned


ALL_EXPERTS_FUNCTIONS.register(IMPLEMENTATION, _forward)

"""Hooks: read or replace the units of a live model, the inputs of its MLP down-projections.

Capture and ablation use the same hooks, so what is measured and what is ablated are the same
numbers. Hooks are registered for the length of a ``with`` block and leave the model as it was.

transformers keeps the experts of a layer in one module with three-dimensional weights, whose units
are no module's input, so no torch hook can see them. It does let callers register experts
implementations (``ALL_EXPERTS_FUNCTIONS``): the one registered here computes the same output and
calls hooks with the units on the way.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any, TypeAlias, cast
from weakref import WeakKeyDictionary

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

from ulcmod_dist.errors import UlcmodError
from ulcmod_dist.forward.architectures import LayerUnits

_IMPLEMENTATION = "ulcmod"


@dataclass(frozen=True)
class Routing:
    """Token in the flattened batch and expert of each row of units, int64 [rows] both.

    Sorted by expert, then by token.
    """

    token: torch.Tensor
    expert: torch.Tensor


@dataclass(frozen=True)
class HookPoint:
    """One module whose units are hooked: a down-projection, or the fused experts of a layer.

    ``width`` is that of one down-projection, ``start`` the first column in the activations;
    ``experts`` is 0 for a module that gets every token.
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


ExpertsHook: TypeAlias = Callable[[torch.Tensor, Routing | None], torch.Tensor | None]
HookCallback: TypeAlias = Callable[[HookPoint, torch.Tensor, Routing | None], torch.Tensor | None]
"""Gets units: [..., width] of every token, or [rows, width] and the routing of the experts.

A tensor that it returns replaces the units.
"""

# transformers looks implementations up by name in one registry a process, so the hooks of a module
# are kept here and not in a closure. Blocks may be nested, as when a masked model is captured: the
# outer block's hook is called first.
_EXPERTS_HOOKS: WeakKeyDictionary[nn.Module, list[ExpertsHook]] = WeakKeyDictionary()


def find_hook_points(units: Sequence[LayerUnits]) -> tuple[HookPoint, ...]:
    """The hook points that together yield ``units``, in the order of the columns."""
    points: list[HookPoint] = []
    start = 0
    for (layer, path), group in groupby(units, key=lambda part: (part.layer, part.path)):
        parts = list(group)
        experts = 0 if parts[0].expert is None else len(parts)
        points.append(HookPoint(layer, path, parts[0].width, start, experts))
        start = points[-1].stop
    return tuple(points)


@contextmanager
def hooked(
    model: nn.Module, points: Sequence[HookPoint], callback: HookCallback, ranks: int = 1
) -> Iterator[dict[HookPoint, int]]:
    """Call ``callback`` with the units of every forward pass within the block.

    Yields how often each point was called so far. Of several ranks that share the model each may
    get its equal part of a point's units.

    Raises:
        UlcmodError: A hooked module is missing or has another width than its configuration says;
            the layer is named.
    """
    base = get_base_model(model)
    call_count = dict.fromkeys(points, 0)

    def call(point: HookPoint, units: torch.Tensor, routing: Routing | None) -> torch.Tensor | None:
        call_count[point] += 1
        if units.shape[-1] not in (point.width, point.width / ranks):
            raise UlcmodError(
                f"{point} has {units.shape[-1]} units; by its configuration it has {point.width}."
            )
        return callback(point, units, routing)

    def pre_hook(point: HookPoint, _module: nn.Module, args: tuple[Any, ...]) -> Any:
        replaced = call(point, args[0], None)
        return None if replaced is None else (replaced, *args[1:])

    with ExitStack() as stack:
        for point in points:
            module = _get_module(base, point)
            if not point.experts:
                stack.callback(module.register_forward_pre_hook(partial(pre_hook, point)).remove)
                continue
            hooks = _EXPERTS_HOOKS.setdefault(module, [])
            hooks.append(partial(call, point))
            stack.callback(hooks.pop)
            if is_batched_experts(module):
                stack.enter_context(_replaced_forward(module))
        if any(point.experts for point in points):
            stack.callback(base.set_experts_implementation, base.get_experts_implementation())
            base.set_experts_implementation(_IMPLEMENTATION)
        yield call_count


def is_batched_experts(module: nn.Module) -> bool:
    """Whether a module computes all experts for all tokens by batched products, as Llama 4 does.

    It takes no implementation from the registry. The input of an expert is zero for tokens that are
    not routed to it.
    """
    return type(module).__name__ == "Llama4TextExperts"


@contextmanager
def _replaced_forward(experts: nn.Module) -> Iterator[None]:
    if "forward" in vars(experts):  # of an outer block
        yield
        return
    experts.forward = partial(_forward_batched, experts)
    try:
        yield
    finally:
        del experts.forward


def get_local_columns(local_width: int, width: int) -> slice:
    """Which of a down-projection's ``width`` units this process holds, being ``local_width`` many.

    The tensor-parallel plans of transformers give each rank an equal, contiguous part in the order
    of the ranks, or leave a layer whole on all of them.
    """
    start = torch.distributed.get_rank() * local_width if local_width < width else 0
    return slice(start, start + local_width)


def check_called_once(call_count: dict[HookPoint, int], direction: str = "forward") -> None:
    """Check that one forward or backward pass has called each hook point exactly once.

    A model that fuses its MLP or shares a layer would otherwise yield zeros or sums unnoticed.
    """
    for point, count in call_count.items():
        if count != 1:
            raise UlcmodError(
                f"The hook on {point} was called {count} times in one {direction} pass, not once.",
                "This checkpoint computes its layers in a way that is not supported.",
            )


def get_base_model(model: nn.Module) -> PreTrainedModel:
    """The model without its head; the paths of units start there."""
    base = getattr(model, "base_model", model)
    if base is model:
        # Classes with a head that name no attribute for their base model, such as Llama 4's.
        inner = getattr(model, "model", None)
        base = inner if isinstance(inner, PreTrainedModel) else model
    return cast(PreTrainedModel, base)


def _get_module(base: PreTrainedModel, point: HookPoint) -> nn.Module:
    try:
        return base.get_submodule(point.path)
    except AttributeError as error:
        raise UlcmodError(f"The model has no module for {point}: {error}.") from error


def _forward(
    experts: Any, hidden: torch.Tensor, chosen: torch.Tensor, router_weights: torch.Tensor
) -> torch.Tensor:
    """The experts' output [tokens, hidden size], with the signature that transformers calls.

    ``hidden`` is [tokens, hidden size]; ``chosen`` experts and ``router_weights`` are [tokens, k].
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
    for hook in _EXPERTS_HOOKS.get(experts, ()):
        replaced = hook(units, routing)
        units = units if replaced is None else replaced
    output = _project(experts, "down_proj", units, expert, stops)
    weighted = output * router_weights.flatten()[order].unsqueeze(-1)
    by_token = torch.empty_like(weighted)
    by_token[order] = weighted
    return by_token.view(len(hidden), slots, -1).sum(1).to(hidden.dtype)


def _forward_batched(experts: Any, hidden: torch.Tensor) -> torch.Tensor:
    """What `is_batched_experts` tells of: [experts x tokens, hidden size], sorted by expert."""
    inputs = hidden.view(experts.num_experts, -1, experts.hidden_size)
    gate, up = torch.bmm(inputs, experts.gate_up_proj).chunk(2, dim=-1)
    units = up * experts.act_fn(gate)
    expert, token = inputs.any(dim=-1).nonzero(as_tuple=True)
    for hook in _EXPERTS_HOOKS.get(experts, ()):
        replaced = hook(units[expert, token], Routing(token, expert))
        if replaced is not None:
            units = units.index_put((expert, token), replaced)
    return torch.bmm(units, experts.down_proj).view(-1, experts.hidden_size)


def _project(
    experts: Any, name: str, rows: torch.Tensor, expert: torch.Tensor, stops: torch.Tensor
) -> torch.Tensor:
    """Each row times the matrix of its expert, plus the expert's bias."""
    weight = getattr(experts, name)
    matrices = weight if experts.is_transposed else weight.transpose(-2, -1)
    # torch's grouped_mm wants compute capability 8.0 and strides that are multiples of 16 bytes.
    is_aligned = all(size * rows.element_size() % 16 == 0 for size in matrices.shape[-2:])
    if rows.is_cuda and is_aligned and torch.cuda.get_device_capability(rows.device) >= (8, 0):
        output = nn.functional.grouped_mm(rows, matrices, offs=stops.to(torch.int32))
    else:
        # Concatenated: autograd would copy the whole output for each part that is written into it.
        parts = rows.tensor_split(stops[:-1].cpu())
        output = torch.cat([part @ matrix for part, matrix in zip(parts, matrices, strict=True)])
    if experts.has_bias:
        output = output + getattr(experts, name + "_bias")[expert]
    return output


ALL_EXPERTS_FUNCTIONS.register(_IMPLEMENTATION, _forward)

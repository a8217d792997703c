"""Find the down-projections of a model's MLPs from its computation, without weights or data.

The model is built on torch's meta device, where tensors have shapes and no storage, and run on a
few tokens. Autograd's graph then tells what the input of a projection was computed from. That of an
MLP's down-projection comes from other projections by element-wise operations alone, at least one of
them not linear; that of attention or of a state-space layer comes through matrix products,
convolutions or scans over tokens.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.autograd.graph import Node
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import PreTrainedModel
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS
from transformers.pytorch_utils import Conv1D

from ulcmod_dist.errors import one_line
from ulcmod_dist.forward.hooks import is_batched_experts

NO_ACTIVATION = "no activation function"
TOKENS = 4
"""Length of the sequence that is traced."""

_IMPLEMENTATION = "ulcmod_trace"
# Names of autograd's nodes up to "Backward".
_PRODUCTS = frozenset({"Addmm", "Mm"})
_NONLINEAR = frozenset(
    {"Clamp", "ClampMin", "Elu", "Erf", "GeLUFunction", "Gelu", "Glu", "Hardtanh", "LeakyRelu"}
    | {"Mish", "Pow", "Relu", "Sigmoid", "Silu", "Softplus", "Tanh", "Where"}
)
_LINEAR = frozenset(
    {"Abs", "Add", "Alias", "Clone", "Div", "Exp", "Expand", "Expm1", "Log1P", "Maximum"}
    | {"Minimum", "Mul", "NativeDropout", "NativeLayerNorm", "Neg", "Permute", "ReshapeAlias"}
    | {"Select", "Slice", "Split", "SplitWithSizes", "Sqrt", "Squeeze", "Sub", "T", "ToCopy"}
    | {"Transpose", "Unbind", "UnsafeView", "Unsqueeze", "View"}
)
# A normalisation divides by statistics of its input, whose powers and roots are not what makes an
# MLP non-linear.
_STATISTICS = frozenset({"Mean", "Rsqrt", "Std", "Var"})


@dataclass
class Projection:
    """A matrix product of the model by its own weights, or the fused experts of a layer.

    What the forward pass did with it is empty until it is traced.
    """

    path: str
    width: int  # of the input
    size: int  # of the output
    experts: int = 0
    calls: int = 0
    rows: int = 0  # tokens that the last call got
    vectors: int = 0  # weight vectors of one unit: its own, and those that it is computed from
    obstacle: str = "not called"  # why the input is not that of a down-projection; empty if it is

    @property
    def is_down(self) -> bool:
        """Whether the input is computed as that of an MLP's down-projection."""
        return not self.obstacle


@dataclass(frozen=True)
class Trace:
    """The projections of a model in the order of its modules, and why tracing stopped, if so."""

    projections: tuple[Projection, ...]
    error: str


def trace_projections(model: PreTrainedModel) -> Trace:
    """Run a model that lies on the meta device, and note how the input of each projection came."""
    found = dict(_find_projections(model))

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if is_batched_experts(module):
            _note_experts(found[module], has_gate=True)
        else:
            _note(found[module], next(iter((*args, *kwargs.values()))))

    hooks = [
        module.register_forward_pre_hook(note, with_kwargs=True)
        for module, projection in found.items()
        if not projection.experts or is_batched_experts(module)
    ]
    ids = torch.zeros(1, TOKENS, dtype=torch.long, device="meta")
    error = ""
    try:
        with (
            torch.device("meta"),  # some models create tensors on the default device
            torch.enable_grad(),
            _distributions_unchecked(),
            _experts_noted(model, found),
            _WithoutValues(),  # type: ignore[no-untyped-call]
        ):
            model(input_ids=ids, attention_mask=torch.ones_like(ids))
    except Exception as failure:  # whatever the model's own code raises without values
        error = one_line(failure)
    finally:
        for hook in hooks:
            hook.remove()
    return Trace(tuple(found.values()), error)


@contextmanager
def _distributions_unchecked() -> Iterator[None]:
    """Let parameters of distributions be any, as when Gemma 3n takes a quantile of the normal."""
    distribution: Any = torch.distributions.Distribution
    before = distribution._validate_args
    distribution.set_default_validate_args(False)
    try:
        yield
    finally:
        distribution.set_default_validate_args(before)


def _find_projections(model: nn.Module) -> Iterator[tuple[nn.Module, Projection]]:
    module: Any
    for path, module in model.named_modules():
        if hasattr(module, "in_features") and hasattr(module, "out_features"):
            # nn.Linear, and what quantisation and others put in its place.
            yield module, Projection(path, int(module.in_features), int(module.out_features))
        elif isinstance(module, Conv1D):
            yield module, Projection(path, int(module.nx), int(module.nf))
        elif hasattr(module, "is_transposed") and hasattr(module, "has_gate"):
            # The marks of transformers' `use_experts_implementation`.
            count, *matrix = map(int, module.down_proj.shape)
            width, size = matrix if module.is_transposed else reversed(matrix)
            yield module, Projection(path, width, size, count)
        elif is_batched_experts(module):
            count, width, size = map(int, module.down_proj.shape)
            yield module, Projection(path, width, size, count)


def _note(projection: Projection, units: torch.Tensor) -> None:
    produced, projection.obstacle = _follow(units.grad_fn)
    projection.calls += 1
    projection.rows = units.numel() // max(1, projection.width)
    projection.vectors = 1 + produced // max(1, projection.width)


def _note_experts(projection: Projection, *, has_gate: bool) -> None:
    projection.calls += 1
    projection.rows = TOKENS
    projection.vectors = 3 if has_gate else 2
    projection.obstacle = ""


@contextmanager
def _experts_noted(model: PreTrainedModel, found: dict[nn.Module, Projection]) -> Iterator[None]:
    """Replace the experts by a function that notes the call and returns what has their shape."""

    def note(experts: Any, hidden: torch.Tensor, *_: Any) -> torch.Tensor:
        _note_experts(found[experts], has_gate=experts.has_gate)
        return hidden * 1.0

    ALL_EXPERTS_FUNCTIONS.register(_IMPLEMENTATION, note)
    if any(projection.experts for projection in found.values()):
        model.set_experts_implementation(_IMPLEMENTATION)
    yield


def _follow(node: Node | None) -> tuple[int, str]:
    """Follow a tensor back to the products that it comes from.

    Returns the sum of their widths, and the operation on the way that no MLP has, or which of its
    operations is lacking.
    """
    produced, is_nonlinear = 0, False
    seen: set[Node] = set()
    waiting = [node]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        name = node.name().split("Backward")[0]
        if name in _PRODUCTS:
            produced += int(node._input_metadata[0].shape[-1])
        elif name in _STATISTICS or _is_inverse_root(node) or "AccumulateGrad" in name:
            continue
        elif name in _NONLINEAR or name in _LINEAR:
            is_nonlinear |= name in _NONLINEAR
            waiting += [before for before, _ in node.next_functions]
        else:
            return produced, name
    return produced, "" if produced and is_nonlinear else NO_ACTIVATION


def _is_inverse_root(node: Node) -> bool:
    """Whether a node is a negative power, by which some models write their normalisation."""
    exponent = getattr(node, "_saved_exponent", 1)
    return isinstance(exponent, int | float) and exponent < 0


class _WithoutValues(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Answers what tensors without values cannot: a number is 0, and one entry is not zero.

    Models ask to decide about masks, packed sequences and idle experts, which do not change where
    an MLP is.
    """

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            return torch.zeros((), dtype=args[0].dtype, device="cpu").item()
        if func is torch.ops.aten.nonzero.default:
            return torch.zeros(1, args[0].ndim, dtype=torch.long, device="meta")
        return func(*args, **(kwargs or {}))

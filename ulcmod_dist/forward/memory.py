"""Memory of a forward pass, estimated from the model's configuration before anything is loaded.

The estimates are meant to be a little too high: a batch that does not fit after all is split by the
engine, which costs the time of the failed attempt.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import psutil
import torch
from transformers import PretrainedConfig

from ulcmod_dist.forward.architectures import count_units
from ulcmod_dist.forward.units import build_without_weights, list_units
from ulcmod_dist.runtime.memory import machine_memory

_BYTES = {"float32": 4, "bfloat16": 2}
# Share of a device's memory that a batch may take; the rest is for kernels' workspaces, the
# allocator's fragmentation and small allocations of others.
_MEMORY_SHARE = 0.8
# Larger batches gain nothing: a CPU is saturated by few tokens, a GPU by some ten thousands.
_MAX_BATCH_TOKENS = {"cpu": 4096, "cuda": 65_536}
# Smaller batches waste the device; one that does not fit after all is split by the engine.
_MIN_BATCH_TOKENS = 512
# Output is one row a prompt, so its share of a token depends on the shortest prompt, template
# included, that is expected.
_MIN_PROMPT_TOKENS = 16
# Of models whose configuration names no number of attention heads.
_HEAD_SIZE = 64


def count_parameter_bytes(config: PretrainedConfig, dtype: str, *, head: bool = False) -> int:
    """Bytes of the weights of the base model, or with a ``head``, as if that shared none.

    They are counted on the meta device without storage.
    """
    parameters = build_without_weights(config).parameters()
    text: Any = config.get_text_config()
    own = int(text.vocab_size * text.hidden_size) if head else 0
    return _BYTES[dtype] * (own + int(sum(parameter.numel() for parameter in parameters)))


def count_loading_bytes(config: PretrainedConfig) -> int:
    """Bytes beside the weights while the largest one is dequantised, which takes two in float32."""
    return 8 * max(parameter.numel() for parameter in build_without_weights(config).parameters())


def estimate_token_bytes(
    config: PretrainedConfig,
    dtype: str,
    *,
    attention: str = "sdpa",
    longest: int = 2048,
    patterns: Sequence[str] = (),
    gradients: bool = False,
) -> int:
    """Peak bytes for each token of a batch, padding included, on top of the weights.

    The peak is in either a layer's attention or its MLP with the copies that pooling makes; the
    pooled activations are held throughout. Masks, and the scores that ``eager`` attention holds of
    every pair of tokens, are proportional to the length of the ``longest`` prompt. ``patterns`` are
    those of `find_units`. With ``gradients``, every layer keeps what its own is computed from, and
    the head adds its logits.
    """
    text: Any = config.get_text_config()
    size, hidden = _BYTES[dtype], int(text.hidden_size)
    heads = int(getattr(text, "num_attention_heads", None) or hidden // _HEAD_SIZE)
    head: int = (
        getattr(text, "v_head_dim", None) or getattr(text, "head_dim", None) or hidden // heads
    )
    pairs = heads * longest if attention == "eager" else 0
    attention_bytes = 6 * heads * head * size + longest * (size + 1) + pairs * (3 * size + 4)
    units = list_units(config, patterns)
    is_sparse = any(part.expert is not None for part in units)
    visited = _count_visited_experts(text) if is_sparse else 0
    # Units that one token passes through. The experts of a layer are equally wide, so the first
    # ones stand for those that it visits.
    active = Counter[int]()
    for part in units:
        if part.expert is None or part.expert < visited:
            active[part.layer] += part.width
    # Gate, up, activation and product in the model's precision; magnitudes twice in float32.
    mlp_bytes = max(active.values()) * (4 * size + 8) + visited * 3 * hidden * size
    pooled = 4 * count_units(units) // _MIN_PROMPT_TOKENS
    peak = 4 * hidden * size + max(attention_bytes, mlp_bytes) + pooled
    if not gradients:
        return peak
    # Of a layer: query, key, value, output and rotated copies, norms in float32, and of the MLP
    # both projections, what the activation function keeps, and units. Of the head: logits, their
    # gradient, and for one prompt after the other their copies in float32.
    layer = 6 * heads * head * size + hidden * (size + 4) + pairs * (size + 4)
    layer += visited * 3 * hidden * size
    mlp = 5 * sum(active.values()) * size
    logits = int(text.vocab_size) * (2 * size + 12)
    return peak + int(text.num_hidden_layers) * layer + mlp + logits


def _count_visited_experts(text: Any) -> int:
    names = ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k", "top_k_experts")
    return next((int(getattr(text, name)) for name in names if getattr(text, name, None)), 8)


@dataclass(frozen=True)
class DeviceMemory:
    """All memory of a device, and what is free at this moment, in bytes."""

    total: int
    free: int

    def part(self, share: float) -> Self:
        """The memory of one of several actors that share the device."""
        return type(self)(int(self.total * share), int(self.free * share))


def get_device_memory(device: str) -> DeviceMemory:
    """Memory of a device of torch; for ``cpu`` that of the machine, or the container's limit."""
    if device == "cpu":
        limit = machine_memory()
        return DeviceMemory(limit, min(limit, int(psutil.virtual_memory().available)))
    free, total = torch.cuda.mem_get_info(device)
    return DeviceMemory(int(total), int(free))


def fit_batch_tokens(
    memory: DeviceMemory,
    config: PretrainedConfig,
    dtype: str,
    *,
    kind: str,
    weights: int,
    longest: int | None = None,
    **options: Any,
) -> int:
    """Tokens of a batch, padding included, that fit on a device together with the weights.

    The largest useful batch is halved until it fits into a share of the total memory and into the
    free memory. The total decides unless others hold most of the device, so the same device gives
    the same batches again and with them the same bytes. ``weights`` is the bytes that the device
    will hold of them, ``longest`` the tokens that a prompt may have, or None for no limit;
    ``options`` are the others of `estimate_token_bytes`.
    """
    available = min(_MEMORY_SHARE * (memory.total - weights), memory.free - weights)
    tokens = _MAX_BATCH_TOKENS[kind]
    while tokens > _MIN_BATCH_TOKENS:
        length = min(tokens, longest or tokens)
        each = estimate_token_bytes(config, dtype, longest=length, **options)
        if tokens * each <= available:
            break
        tokens //= 2
    return tokens

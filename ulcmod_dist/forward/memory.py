"""How much memory a forward pass takes, estimated from the configuration before anything is loaded.

The estimates are meant to be a little too high: a batch that does not fit after all is split by the
engine, at the price of the time of the failed attempt.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import psutil
import torch
import transformers
from transformers import PretrainedConfig

from ulcmod_dist.forward.architectures import get_family, list_units

_BYTES = {"float32": 4, "bfloat16": 2}
# Share of a device's memory that a batch may take; the rest is for kernels' workspaces, fragments
# and what little else the device holds.
_SHARE = 0.8
# Larger batches gain nothing: cores are busy with few tokens, GPUs with some ten thousands.
_MOST = {"cpu": 4096, "cuda": 65_536}
# Smaller ones are hardly batches any more; what does not fit after all is split.
_LEAST = 512
# Shortest prompt that the estimate of the output's share assumes, template included.
_SHORTEST = 16


def estimate_parameter_bytes(config: PretrainedConfig, dtype: str) -> int:
    """Bytes of the weights of the base model, counted on a model without storage."""
    name = get_family(config).base
    base: Any = getattr(transformers, name)
    with torch.device("meta"):
        model = base.from_config(config) if name == "AutoModel" else base(config)
    count: int = sum(parameter.numel() for parameter in model.parameters())
    return count * _BYTES[dtype]


def estimate_token_bytes(
    config: PretrainedConfig, dtype: str, *, attention: str = "sdpa", longest: int = 2048
) -> int:
    """Peak bytes beside the weights for each token of a batch, padding included.

    The most that lives at one time is either one layer's attention or its MLP with the copies that
    the reduction makes; the output rows live throughout.

    Args:
        config: The model.
        dtype: ``float32`` or ``bfloat16``.
        attention: ``sdpa`` or ``eager``, which holds the scores of every pair of tokens.
        longest: Length of the longest prompt, to which masks and scores are proportional.
    """
    text = config.get_text_config()
    size, hidden, heads = _BYTES[dtype], int(text.hidden_size), int(text.num_attention_heads)
    head: int = (
        getattr(text, "v_head_dim", None) or getattr(text, "head_dim", None) or hidden // heads
    )
    scores = heads * longest * (3 * size + 4) if attention == "eager" else 0
    attending = 6 * heads * head * size + longest * (size + 1) + scores
    units = list_units(config)
    # Gate, up, activation and product in the model's precision; magnitudes twice in float32.
    widest = max(_seen_by_token(config, layer) for layer in {part.layer for part in units})
    computing = widest * (4 * size + 8) + _routed(config) * 3 * hidden * size
    rows = 4 * sum(part.width for part in units) // _SHORTEST
    return 4 * hidden * size + max(attending, computing) + rows


@dataclass(frozen=True)
class DeviceMemory:
    """Memory of a device.

    Attributes:
        total: All of it, in bytes.
        free: What is free at this moment.
    """

    total: int
    free: int

    def part(self, share: float) -> DeviceMemory:
        """That of one of several that share the device."""
        return DeviceMemory(int(self.total * share), int(self.free * share))


def get_device_memory(device: str) -> DeviceMemory:
    """Memory of a device of torch; for ``cpu`` that of the machine, or what a container may use."""
    if device == "cpu":
        limit = int(import_module("distributed.system").MEMORY_LIMIT)
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
    attention: str = "sdpa",
    longest: int | None = None,
) -> int:
    """Tokens of a batch, padding included, that fit on a device beside the weights.

    The most that is worth while is halved until it fits into a share of the whole memory and into
    what is free. So a device gives the same number again unless most of it is taken by others.

    Args:
        memory: That of the device.
        config: The model.
        dtype: ``float32`` or ``bfloat16``.
        kind: ``cpu`` or ``cuda``.
        weights: Bytes of the weights that the device will hold.
        attention: ``sdpa`` or ``eager``.
        longest: Tokens that a prompt may have; None for no limit.
    """
    room = min(_SHARE * (memory.total - weights), memory.free - weights)

    def fits(tokens: int) -> bool:
        within = min(tokens, longest or tokens)
        return (
            tokens * estimate_token_bytes(config, dtype, attention=attention, longest=within)
            <= room
        )

    tokens = _MOST[kind]
    while tokens > _LEAST and not fits(tokens):
        tokens //= 2
    return tokens


def _routed(config: PretrainedConfig) -> int:
    """Experts that each token visits in a layer; 0 for a model without experts."""
    has_experts = any(part.expert is not None for part in list_units(config))
    return int(config.get_text_config().num_experts_per_tok or 0) if has_experts else 0


def _seen_by_token(config: PretrainedConfig, layer: int) -> int:
    """Units of a layer that one token passes through."""
    parts = [part for part in list_units(config) if part.layer == layer]
    shared = sum(part.width for part in parts if part.expert is None)
    experts = [part.width for part in parts if part.expert is not None]
    return shared + (experts[0] * _routed(config) if experts else 0)

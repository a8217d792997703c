"""The models that the job files name, as their publishers configure them: shapes, no weights."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from transformers import LlamaConfig, PretrainedConfig, Qwen2Config, Qwen3MoeConfig

TOKENIZER = Path(__file__).parents[2] / "jobs" / "demo" / "model"


@dataclass(frozen=True)
class Published:
    """A model as published.

    Attributes:
        config: Makes its configuration.
        parameters: Number of its parameters, as its publisher counts them.
        head: Those of the output head, where it is a matrix of its own: no forward pass needs it.
        units: Layers x width, x experts where there are some.
    """

    config: Callable[[], PretrainedConfig]
    parameters: int
    head: int
    units: int


def _shape(kind: Any, hidden: int, width: int, layers: int, heads: int, **more: Any) -> Any:
    return partial(
        kind,
        hidden_size=hidden,
        intermediate_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=32_768,
        **{"vocab_size": 151_936, **more},
    )


QWEN_1_5B = Published(
    _shape(Qwen2Config, 1536, 8960, 28, 12, num_key_value_heads=2, tie_word_embeddings=True),
    parameters=1_543_714_304,
    head=0,
    units=28 * 8960,
)
MODELS = {
    "qwen2.5-1.5b": QWEN_1_5B,
    "nightly": QWEN_1_5B,
    "qwen2.5-3b": Published(
        _shape(Qwen2Config, 2048, 11_008, 36, 16, num_key_value_heads=2, tie_word_embeddings=True),
        parameters=3_085_938_688,
        head=0,
        units=36 * 11_008,
    ),
    "qwen2.5-7b": Published(
        _shape(Qwen2Config, 3584, 18_944, 28, 28, num_key_value_heads=4, vocab_size=152_064),
        parameters=7_615_616_512,
        head=152_064 * 3584,
        units=28 * 18_944,
    ),
    "llama-3.1-70b": Published(
        _shape(LlamaConfig, 8192, 28_672, 80, 64, num_key_value_heads=8, vocab_size=128_256),
        parameters=70_553_706_496,
        head=128_256 * 8192,
        units=80 * 28_672,
    ),
    "qwen3-30b-a3b": Published(
        _shape(
            Qwen3MoeConfig,
            2048,
            6144,
            48,
            32,
            num_key_value_heads=4,
            head_dim=128,
            moe_intermediate_size=768,
            num_experts=128,
            num_experts_per_tok=8,
        ),
        parameters=30_532_122_624,
        head=151_936 * 2048,
        units=48 * 128 * 768,
    ),
}


def write(model: Published, folder: Path) -> Path:
    """A model's folder with one weight of no use and a small tokenizer: enough to plan with."""
    model.config().save_pretrained(folder)
    save_file({"unused": np.zeros(1, np.float32)}, folder / "model.safetensors")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(TOKENIZER / name, folder / name)
    return folder

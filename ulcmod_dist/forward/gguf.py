"""GGUF files, which hold configuration, tokenizer and quantised weights of a model in one.

transformers drops keys and tensors of a file that it does not know without a word, though some
change every activation, such as a scaled position embedding. Files that have them are refused.
"""

import copy
import math
from collections import Counter
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, PretrainedConfig
from transformers.integrations.ggml import GGUF_CONFIG_MAPPING
from transformers.integrations.gguf.gguf_config_mapping import GGUF_CONFIG_ARCHS
from transformers.integrations.gguf.reader import GgufHeader, load_gguf_state_dict
from transformers.integrations.gguf.reader import read_gguf_metadata as read_metadata
from transformers.modeling_gguf_pytorch_utils import TENSOR_PROCESSORS as PROCESSORS
from transformers.modeling_gguf_pytorch_utils import TensorProcessor, get_gguf_hf_weights_map
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.utils.import_utils import is_gguf_available

from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.forward.architectures import get_head_class

# Keys that the shapes of the weights are held against, or that only limit the length of a prompt.
_SIZES = frozenset(
    [
        "attention.value_length", "block_count", "context_length", "embedding_length",
        "expert_feed_forward_length", "expert_shared_feed_forward_length", "feed_forward_length",
        "vocab_size",
    ]
)  # fmt: skip
_ROPE_FACTORS = "rope_freqs.weight"
_REMEDY = "Use the model's checkpoint in safetensors."


def read_gguf_config(file: Path) -> PretrainedConfig:
    """The configuration in a GGUF file.

    Raises:
        InvalidInput: The package gguf is missing, or transformers would not apply all of it.
    """
    if not is_gguf_available():
        raise InvalidInput(
            f"{file.name} is a GGUF file, and the package gguf that reads it is not installed.",
            "Install it: pip install 'ulcmod_dist[gguf]'.",
        )
    state = file.stat()
    # transformers takes seconds for it, most of them for a vocabulary that is not used.
    return copy.deepcopy(_read_config(file, state.st_ino, state.st_size, state.st_mtime_ns))


@lru_cache(maxsize=8)
def _read_config(file: Path, _inode: int, _size: int, _mtime_ns: int) -> PretrainedConfig:
    config: PretrainedConfig = AutoConfig.from_pretrained(str(file.parent), gguf_file=str(file))
    header = GgufHeader.from_file(str(file))
    if _ROPE_FACTORS in header.ggml_types:
        _restore_llama3_rope(config, load_gguf_state_dict(header)[_ROPE_FACTORS][...])
    _check_metadata(file, config)
    return config


def read_gguf_headers(file: Path, config: PretrainedConfig) -> dict[str, torch.Tensor] | None:
    """Every weight by its name in transformers, without data; None where it checks names itself.

    A tensor for which transformers has no name keeps its own.
    """
    header = GgufHeader.from_file(str(file))
    if header.architecture in GGUF_CONFIG_ARCHS:
        return None
    model_class = get_head_class(config.model_type) or "AutoModelForPreTraining"
    with torch.device("meta"):
        model = getattr(transformers, model_class).from_config(config)
    processor: Any = PROCESSORS.get(header.architecture, TensorProcessor)
    names = get_gguf_hf_weights_map(model, processor(config=config.to_dict()))
    sizes = Counter[str]()
    for info in header.tensors:
        # Several tensors of the file may make one weight, as of experts.
        if info.name != _ROPE_FACTORS:
            sizes[names.get(info.name, info.name)] += math.prod(info.shape)
    shapes = {name: tuple(weight.shape) for name, weight in model.state_dict().items()}
    return {
        name: torch.empty(shape if math.prod(shape) == size else (size,), device="meta")
        for name, size in sizes.items()
        for shape in [shapes.get(name, (size,))]
    }


def _restore_llama3_rope(config: PretrainedConfig, factors: torch.Tensor) -> None:
    """Set the scaled position embedding of Llama 3.1 and later, which files hold as its factors."""
    theta, half = config.rope_parameters["rope_theta"], len(factors)
    config.rope_parameters = {
        "rope_type": "llama3", "rope_theta": theta, "factor": float(factors.max()),
        "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
    }  # fmt: skip
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    if not torch.allclose(theta ** (-torch.arange(half) / half) / scaled, factors, rtol=1e-4):
        raise InvalidInput(
            f"The GGUF file scales its position embedding ({_ROPE_FACTORS}) in a way that is not "
            "known.",
            _REMEDY,
        )


def _check_metadata(file: Path, config: PretrainedConfig) -> None:
    """Refuse a file with a value that transformers neither reads nor has by itself."""
    text: Any = config.get_text_config()
    metadata, _ = read_metadata(str(file))
    architecture = metadata["general.architecture"]
    read: Any = GGUF_CONFIG_MAPPING.get(config.model_type.removesuffix("_text"), {})
    head = getattr(text, "head_dim", None) or getattr(text, "d_kv", None)
    head = head or text.hidden_size // text.num_attention_heads
    rope = getattr(text, "rope_parameters", None) or {}
    known = {
        "rope.scaling.type": "none",
        "rope.dimension_count": int(head * rope.get("partial_rotary_factor", 1)),
        # Files do not hold the scale of attention where it is another, as in Gemma 27B.
        "attention.key_length": getattr(text, "query_pre_attn_scalar", None) or head,
    }
    for key, value in metadata.items():
        prefix, _, name = key.partition(".")
        if architecture in GGUF_CONFIG_ARCHS:
            applied = not name.startswith("rope.scaling.")
        elif name in known:
            applied = value == known[name]
        else:
            same = getattr(text, name.replace(".", "_"), None)
            applied = name in _SIZES or read.get(name) is not None or value == same
        if prefix == architecture and not applied:
            raise InvalidInput(
                f"The GGUF file {file.name} sets {key} to {value!r}, which transformers does not "
                "apply.",
                _REMEDY,
            )

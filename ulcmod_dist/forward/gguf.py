"""GGUF files, which hold configuration, tokenizer and quantised weights of a model in one.

transformers drops what it does not know of a file without a word, though some of it changes every
activation, such as a scaled position embedding. Files that have it are refused.
"""

import copy
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, PretrainedConfig
from transformers import modeling_gguf_pytorch_utils as loader
from transformers.integrations.ggml import GGUF_CONFIG_MAPPING
from transformers.integrations.gguf import reader
from transformers.integrations.gguf.gguf_conversion_mapping import GGUF_ARCHS
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.utils.import_utils import is_gguf_available

from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.forward.architectures import get_head_class

# Keys that the shapes of the weights are held against, or that only limit the length of a prompt.
_SIZES = (
    "attention.value_length", "block_count", "context_length", "embedding_length", "vocab_size",
    "expert_feed_forward_length", "expert_shared_feed_forward_length", "feed_forward_length",
)  # fmt: skip
_ROPE_FACTORS = "rope_freqs.weight"


def read_gguf_config(file: str) -> PretrainedConfig:
    """The configuration in a GGUF file.

    Raises:
        InvalidInput: The package gguf is missing, or transformers would not apply all of the file.
    """
    if not is_gguf_available():
        raise InvalidInput(
            f"{file} is a GGUF file, and the package gguf that reads it is not installed.",
            "Install it: pip install 'ulcmod_dist[gguf]'.",
        )
    # transformers takes seconds for it, most of them for a vocabulary that is not used.
    return copy.deepcopy(_read_config(Path(file), Path(file).stat().st_mtime_ns))


@lru_cache(maxsize=8)
def _read_config(file: Path, _mtime_ns: int) -> PretrainedConfig:
    config: PretrainedConfig = AutoConfig.from_pretrained(str(file.parent), gguf_file=str(file))
    header = reader.GgufHeader.from_file(str(file))
    unread = list(_list_unread(header, config))
    if _ROPE_FACTORS in unread:
        _restore_llama3_rope(config, reader.load_gguf_state_dict(header)[_ROPE_FACTORS][...])
        unread.remove(_ROPE_FACTORS)
    if unread:
        raise InvalidInput(
            f"The GGUF file {file.name} holds {unread[0]}, which transformers does not apply.",
            "Use the model's checkpoint in safetensors.",
        )
    return config


def _list_unread(header: reader.GgufHeader, config: PretrainedConfig) -> Iterator[str]:
    """Values and tensors of a file that transformers neither reads nor has by itself."""
    text: Any = config.get_text_config()
    metadata, _ = reader.read_gguf_metadata(header.path)
    own = header.architecture in GGUF_ARCHS  # transformers reports tensors of these itself
    read: Any = GGUF_CONFIG_MAPPING.get(config.model_type.removesuffix("_text"), {})
    usual = text.hidden_size // text.num_attention_heads
    head = getattr(text, "head_dim", None) or getattr(text, "d_kv", usual)
    rope = getattr(text, "rope_parameters", None) or {}
    known = {
        "rope.scaling.type": "none",
        "rope.dimension_count": int(head * rope.get("partial_rotary_factor", 1)),
        # Files do not hold the scale of attention where it is another, as in Gemma 27B.
        "attention.key_length": getattr(text, "query_pre_attn_scalar", None) or head,
    }
    for key, value in metadata.items():
        prefix, _, name = key.partition(".")
        same = value == known.get(name, getattr(text, name, None))
        is_read = name not in known and (name in _SIZES or read.get(name) is not None)
        if own:
            is_read = not name.startswith("rope.scaling.")
        if prefix == header.architecture and not (is_read or same):
            yield f"{key} = {value!r}"
    if not own:
        model_class = get_head_class(config.model_type) or "AutoModelForPreTraining"
        with torch.device("meta"):
            model = getattr(transformers, model_class).from_config(config)
        processor: Any = loader.TENSOR_PROCESSORS.get(header.architecture, loader.TensorProcessor)
        names = loader.get_gguf_hf_weights_map(model, processor(config=config.to_dict()))
        yield from sorted(header.ggml_types.keys() - names.keys())


def _restore_llama3_rope(config: PretrainedConfig, factors: torch.Tensor) -> None:
    """Set the scaled position embedding of Llama 3.1 and later, which files hold as its factors."""
    theta, half = config.rope_parameters["rope_theta"], len(factors)
    config.rope_parameters = {
        "rope_type": "llama3", "rope_theta": theta, "factor": float(factors.max()),
        "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
    }  # fmt: skip
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    if not torch.allclose(theta ** (-torch.arange(half) / half) / scaled, factors, rtol=1e-4):
        raise ValueError(f"{_ROPE_FACTORS} are not the factors of Llama 3")

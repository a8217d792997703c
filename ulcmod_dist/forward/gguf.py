"""GGUF files, which hold configuration, tokenizer and quantised weights of a model in one.

transformers reads them and dequantises the weights. It drops keys and tensors that it does not
know without a word, though some change every activation, such as a scaled position embedding. A
file that has any of these is refused here.
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
from transformers.integrations.gguf.reader import (
    GgufHeader,
    load_gguf_state_dict,
    read_gguf_metadata,
)
from transformers.modeling_gguf_pytorch_utils import (
    TENSOR_PROCESSORS,
    TensorProcessor,
    get_gguf_hf_weights_map,
)
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
_EPSILONS = ("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "norm_eps", "norm_epsilon")
_ROPE_FACTORS = "rope_freqs.weight"


def read_gguf_config(file: Path) -> PretrainedConfig:
    """The configuration in a GGUF file.

    Raises:
        InvalidInput: The package gguf is missing, or transformers would compute with other values
            than the file names.
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
        factors: torch.Tensor = load_gguf_state_dict(header)[_ROPE_FACTORS][...]
        _restore_llama3_rope(config, factors)
    _check_metadata(file, config)
    return config


def is_quantised(file: Path) -> bool:
    """Whether a GGUF file holds other weights than floats."""
    return bool(GgufHeader.from_file(str(file)).has_quantized_weights)


def read_gguf_shapes(file: Path, config: PretrainedConfig) -> dict[str, tuple[int, ...]] | None:
    """Name in transformers and shape of every weight; None where the model's class has them.

    A tensor for which transformers has no name keeps its own.
    """
    header = GgufHeader.from_file(str(file))
    if header.architecture in GGUF_CONFIG_ARCHS:
        return None
    name = get_head_class(config.model_type) or "AutoModelForPreTraining"
    with torch.device("meta"):
        model = getattr(transformers, name).from_config(config)
    processor_class: Any = TENSOR_PROCESSORS.get(header.architecture, TensorProcessor)
    processor = processor_class(config=config.to_dict())
    names: dict[str, str] = get_gguf_hf_weights_map(model, processor)
    tensors = [info for info in header.tensors if info.name != _ROPE_FACTORS]
    shapes = {names.get(info.name, info.name): tuple(info.shape) for info in tensors}
    sizes = Counter[str]()
    for info in tensors:
        # Several tensors of the file may make one weight, as of experts.
        sizes[names.get(info.name, info.name)] += math.prod(info.shape)
    for name, weight in model.state_dict().items():
        if name in shapes and sizes[name] == weight.numel():
            shapes[name] = tuple(weight.shape)
    return shapes


def _restore_llama3_rope(config: PretrainedConfig, factors: torch.Tensor) -> None:
    """Set the scaled position embedding of Llama 3.1 and later, which files hold as its factors."""
    plain = dict(config.rope_parameters)
    config.rope_parameters = {
        **plain,
        "rope_type": "llama3",
        "factor": float(factors.max()),
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    width = 2 * len(factors)
    default = plain["rope_theta"] ** (-torch.arange(0, width, 2).double() / width)
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    if not torch.allclose(default / scaled.double(), factors.double(), rtol=1e-4):
        raise InvalidInput(
            f"The GGUF file scales its position embedding ({_ROPE_FACTORS}) in a way that is not "
            "known.",
            "Use the model's checkpoint in safetensors.",
        )


def _check_metadata(file: Path, config: PretrainedConfig) -> None:
    """Refuse a file with a value that transformers does not read, or of which it has another."""
    metadata, _ = read_gguf_metadata(str(file))
    architecture = metadata["general.architecture"]
    expected = _list_expected(config)
    if "rope.freq_base" in expected:
        # What llama.cpp takes where a file says nothing.
        metadata.setdefault(f"{architecture}.rope.freq_base", 10_000.0)
    mapping: Any = GGUF_CONFIG_MAPPING.get(config.model_type.removesuffix("_text"), {})
    read = _SIZES.union(mapping)
    for key, value in metadata.items():
        prefix, _, name = key.partition(".")
        if prefix != architecture:
            continue
        if name in expected:
            applied = _is_equal(value, expected[name])
        elif architecture in GGUF_CONFIG_ARCHS:
            applied = not name.startswith("rope.scaling.")
        else:
            applied = name in read
        if not applied:
            raise InvalidInput(
                f"The GGUF file {file.name} sets {key} to {value!r}, which transformers does not "
                "apply.",
                "Use the model's checkpoint in safetensors.",
            )


def _list_expected(config: PretrainedConfig) -> dict[str, Any]:
    """Values that a file must have, where it has the key, by the model that transformers builds."""
    text: Any = config.get_text_config()
    rope = getattr(text, "rope_parameters", None) or {}
    rope = rope.get("full_attention", rope)
    head = getattr(text, "head_dim", None) or getattr(text, "d_kv", None)
    head = head or text.hidden_size // text.num_attention_heads
    partial = rope.get("partial_rotary_factor") or getattr(text, "partial_rotary_factor", None)
    epsilon = next((getattr(text, name) for name in _EPSILONS if hasattr(text, name)), None)
    return {
        **({"rope.freq_base": rope["rope_theta"]} if "rope_theta" in rope else {}),
        "rope.dimension_count": int(head * (partial or 1)),
        "rope.scaling.type": "none",
        "rope.scaling.original_context_length": getattr(text, "max_position_embeddings", None),
        # Files do not hold the scale of attention that differs from the usual one, as in Gemma 27B.
        "attention.key_length": getattr(text, "query_pre_attn_scalar", None) or head,
        "attention.layer_norm_epsilon": epsilon,
        "attention.layer_norm_rms_epsilon": epsilon,
        "attention.sliding_window": getattr(text, "sliding_window", None),
        "attn_logit_softcapping": getattr(text, "attn_logit_softcapping", None),
        "final_logit_softcapping": getattr(text, "final_logit_softcapping", None),
        "use_parallel_residual": getattr(text, "use_parallel_residual", None),
    }


def _is_equal(value: Any, expected: Any) -> bool:
    if isinstance(value, float) and isinstance(expected, int | float):
        return math.isclose(value, expected, rel_tol=1e-5)
    return bool(value == expected)

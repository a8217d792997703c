"""Quantised checkpoints, whose weights transformers dequantises on loading."""

import copy
from importlib.util import find_spec
from typing import Any

import torch
from transformers import PretrainedConfig
from transformers.integrations.finegrained_fp8 import Fp8Dequantize
from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING
from transformers.quantizers.quantizer_finegrained_fp8 import FineGrainedFP8HfQuantizer

from ulcmod_dist.config.schema import ModelConfig
from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.forward.provenance import read_raw_config, split_gguf

# Methods that transformers dequantises on any device. These two need the package of their name.
_METHODS = ("bitsandbytes", "compressed-tensors", "fp8", "mxfp4", "mxfp8")
_PACKAGED = ("bitsandbytes", "compressed-tensors")


def get_quantisation(model: ModelConfig) -> str | None:
    """The method by which a checkpoint is quantised; None for one of floats.

    Raises:
        InvalidInput: transformers does not dequantise it, or lacks a package for it.
    """
    if split_gguf(model):
        return "gguf"
    settings = _read_settings(model)
    # What transformers saves of a model from a GGUF file are floats.
    if settings is None or settings.get("quant_method") == "gguf":
        return None
    is_bitsandbytes = settings.get("load_in_4bit") or settings.get("load_in_8bit")
    method = "bitsandbytes" if is_bitsandbytes else str(settings.get("quant_method"))
    # transformers takes the first of several schemes for all layers, and undoes no rotations.
    if len(settings.get("config_groups") or ()) > 1 or settings.get("transform_config"):
        method = f"{method} with several schemes or transforms"
    if method not in _METHODS:
        raise InvalidInput(
            f"The checkpoint {model.id} is quantised ({method}), and transformers cannot "
            "dequantise it on loading.",
            f"Name a checkpoint in full precision, {', '.join(_METHODS)} or GGUF.",
        )
    if method in _PACKAGED and find_spec(method.replace("-", "_")) is None:
        raise InvalidInput(
            f"The checkpoint {model.id} is quantised ({method}), and the package {method}, which "
            "dequantises it, is not installed.",
            "Install the package, or name a checkpoint in full precision.",
        )
    return method


def add_quantisation(model: ModelConfig, config: PretrainedConfig) -> PretrainedConfig:
    """The configuration with which transformers reads and dequantises the weights of a model."""
    if get_quantisation(model) not in (None, "gguf"):
        config = copy.deepcopy(config)
        config.quantization_config = {**(_read_settings(model) or {}), "dequantize": True}
    return config


def _read_settings(model: ModelConfig) -> dict[str, Any] | None:
    raw = read_raw_config(model)
    # Models of text and images may have them in either place.
    for part in (raw, raw.get("text_config")):
        if isinstance(part, dict) and isinstance(part.get("quantization_config"), dict):
            return part["quantization_config"]  # type: ignore[no-any-return]
    return None


class _BlockwiseDequantize(Fp8Dequantize):
    """Dequantise matrices whose last blocks are cut off by the edge, as DeepSeek-V3 has them.

    transformers divides a matrix into as many equal blocks as it has scales, which are then others.
    """

    def _dequantize_one(
        self, quantized: torch.Tensor, scales: torch.Tensor, output_dtype: torch.dtype | None = None
    ) -> torch.Tensor:
        rows, columns = quantized.shape[-2:]
        height, width = self.hf_quantizer.quantization_config.weight_block_size or (rows, columns)
        grid = torch.Size((-(-rows // height), -(-columns // width)))
        is_cut = quantized.is_floating_point() and (rows % height or columns % width)
        if is_cut and scales.shape[-2:] == grid:
            scales = scales.repeat_interleave(height, -2).repeat_interleave(width, -1)
            scales = scales[..., :rows, :columns]
        return super()._dequantize_one(quantized, scales, output_dtype)


class _BlockwiseQuantizer(FineGrainedFP8HfQuantizer):
    def get_load_operations(self) -> dict[str, Any]:
        return {"dequantize": _BlockwiseDequantize}


AUTO_QUANTIZER_MAPPING.update(fp8=_BlockwiseQuantizer, mxfp8=_BlockwiseQuantizer)

"""Quantised checkpoints in safetensors, whose weights transformers dequantises on loading."""

import copy
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import torch
from transformers import PretrainedConfig
from transformers.integrations.finegrained_fp8 import Fp8Dequantize
from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING
from transformers.quantizers.quantizer_finegrained_fp8 import FineGrainedFP8HfQuantizer

from ulcmod_dist.config.schema import ModelConfig
from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.forward.provenance import read_raw_config

# Methods that transformers dequantises on any device. These two need the package of their name.
_METHODS = ("bitsandbytes", "compressed-tensors", "fp8", "mxfp4", "mxfp8")
_PACKAGED = ("bitsandbytes", "compressed-tensors")


def get_quantisation(model: ModelConfig) -> str | None:
    """The method by which a checkpoint in safetensors is quantised; None for one of floats.

    Raises:
        InvalidInput: transformers does not dequantise it, or lacks a package for it.
    """
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
            f"Name a checkpoint in full precision, or one in {', '.join(_METHODS)} or GGUF.",
        )
    if method in _PACKAGED and find_spec(method.replace("-", "_")) is None:
        raise InvalidInput(
            f"The checkpoint {model.id} is quantised, and the package {method} that dequantises "
            "it is not installed.",
            f"Install it: pip install {method}.",
        )
    return method


def add_quantisation(model: ModelConfig, config: PretrainedConfig) -> PretrainedConfig:
    """The configuration with which transformers reads and dequantises the weights of a model."""
    if get_quantisation(model) is not None:
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


def reject_missing_scales(model: ModelConfig, tensors: Mapping[str, torch.Tensor]) -> None:
    """Refuse weights of 8-bit floats without their scales, which transformers takes as they are."""
    stems = {name.rpartition(".")[0] for name in tensors if "scale" in name}
    for name, tensor in tensors.items():
        is_small = tensor.is_floating_point() and tensor.dtype.itemsize == 1
        if is_small and name.rpartition(".")[0] not in stems:
            raise InvalidInput(
                f"The checkpoint {model.id} holds {name} in 8 bits without its scales.",
                "Name a complete checkpoint.",
            )


class _BlockwiseDequantize(Fp8Dequantize):
    """Dequantise matrices whose last blocks are cut off by the edge, as DeepSeek-V3 has them.

    transformers divides a matrix into as many equal blocks as it has scales, which are then others.
    """

    def _dequantize_one(
        self, quantized: torch.Tensor, scales: torch.Tensor, output_dtype: torch.dtype | None = None
    ) -> torch.Tensor:
        rows, columns = quantized.shape[-2:]
        height, width = self.hf_quantizer.quantization_config.weight_block_size or (rows, columns)
        full = (-(-rows // height) * height, -(-columns // width) * width)
        grid = torch.Size((full[0] // height, full[1] // width))
        if not quantized.is_floating_point() or scales.shape[-2:] != grid:
            return super()._dequantize_one(quantized, scales, output_dtype)
        padded = quantized.new_zeros((*quantized.shape[:-2], *full), dtype=torch.float32)
        padded[..., :rows, :columns] = quantized
        dense = super()._dequantize_one(padded, scales, output_dtype)
        return dense[..., :rows, :columns].contiguous()


class _BlockwiseQuantizer(FineGrainedFP8HfQuantizer):
    def get_load_operations(self) -> dict[str, Any]:
        return {"dequantize": _BlockwiseDequantize}


AUTO_QUANTIZER_MAPPING.update(fp8=_BlockwiseQuantizer, mxfp8=_BlockwiseQuantizer)

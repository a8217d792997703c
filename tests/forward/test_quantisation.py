"""Quantised checkpoints give the rows of their dequantised weights, or are refused by name."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from tests.forward.tiny import make_prompts, tiny_model, tiny_tokenizer
from ulcmod_dist.config.schema import ModelConfig
from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.forward.checkpoints import check_weights
from ulcmod_dist.forward.engine import Engine
from ulcmod_dist.forward.loading import check_ranks, get_model_provenance, load_config
from ulcmod_dist.intervene.engine import LossEngine

Tensors = dict[str, torch.Tensor]
SIZES: dict[str, Any] = {
    "hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "head_dim": 16,
}  # fmt: skip
FP4 = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])


def save_quantised(
    folder: Path,
    family: str,
    settings: dict[str, Any],
    quantise: Callable[[str, torch.Tensor], tuple[Tensors, torch.Tensor] | None],
    **changes: Any,
) -> tuple[ModelConfig, ModelConfig]:
    """Save a tiny model quantised, and one of its dequantised weights."""
    model = tiny_model(family, head=True, **changes)
    for name in ("plain", "quantised"):
        model.save_pretrained(folder / name)
        tiny_tokenizer().save_pretrained(folder / name)
    weights = load_file(folder / "plain" / "model.safetensors")
    stored: Tensors = {}
    plain: Tensors = {}
    for name, weight in weights.items():
        packed, dense = quantise(name, weight) or ({name: weight}, weight)
        plain[name] = dense.contiguous()
        stored |= {key: tensor.contiguous() for key, tensor in packed.items()}
    for path, tensors in (("plain", plain), ("quantised", stored)):
        save_file(tensors, folder / path / "model.safetensors", metadata={"format": "pt"})
    change_config(folder / "quantised", quantization_config=settings)
    return ModelConfig(id=str(folder / "quantised")), ModelConfig(id=str(folder / "plain"))


def change_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def quantise_fp8(side: int) -> Callable[[str, torch.Tensor], tuple[Tensors, torch.Tensor] | None]:
    """Blocks of ``side`` x ``side``; those at the edges are smaller."""

    def quantise(name: str, weight: torch.Tensor) -> tuple[Tensors, torch.Tensor] | None:
        if "proj" not in name:
            return None
        rows, columns = (-(-size // side) for size in weight.shape)
        scales, quantised = torch.ones(rows, columns), torch.empty_like(weight)
        dense = torch.empty_like(weight)
        for row in range(rows):
            for column in range(columns):
                block = (
                    slice(row * side, (row + 1) * side),
                    slice(column * side, (column + 1) * side),
                )
                scale = scales[row, column] = weight[block].abs().max() / 448
                quantised[block] = (weight[block] / scale).to(torch.float8_e4m3fn).float()
                dense[block] = quantised[block] * scale
        return {name: quantised.to(torch.float8_e4m3fn), f"{name}_scale_inv": scales}, dense

    return quantise


def fp8(folder: Path, family: str = "llama", side: int = 16) -> tuple[ModelConfig, ModelConfig]:
    settings = {"quant_method": "fp8", "weight_block_size": [side, side], "fmt": "e4m3"}
    sizes = SIZES if family == "llama" else {}
    return save_quantised(folder, family, settings, quantise_fp8(side), **sizes)


def mxfp4(folder: Path) -> tuple[ModelConfig, ModelConfig]:
    generator = torch.Generator().manual_seed(0)

    def quantise(name: str, weight: torch.Tensor) -> tuple[Tensors, torch.Tensor] | None:
        if not name.endswith(("experts.gate_up_proj", "experts.down_proj")):
            return None
        experts, inputs, outputs = weight.shape
        codes = torch.randint(16, (experts, outputs, inputs), generator=generator)
        scales = torch.randint(122, 126, (experts, outputs, inputs // 32), generator=generator)
        factors = torch.exp2((scales - 127).float()).repeat_interleave(32, -1)
        pairs = codes[..., 0::2] | (codes[..., 1::2] << 4)
        blocks = pairs.to(torch.uint8).reshape(experts, outputs, inputs // 32, 16)
        packed = {f"{name}_blocks": blocks, f"{name}_scales": scales.to(torch.uint8)}
        return packed, (FP4[codes] * factors).transpose(1, 2)

    settings = {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}
    return save_quantised(
        folder, "gpt_oss", settings, quantise, hidden_size=32, intermediate_size=32
    )


def compressed(folder: Path) -> tuple[ModelConfig, ModelConfig]:
    pytest.importorskip("compressed_tensors")

    def quantise(name: str, weight: torch.Tensor) -> tuple[Tensors, torch.Tensor] | None:
        if "proj" not in name:
            return None
        scale = weight.abs().amax(1, keepdim=True) / 448
        quantised = (weight / scale).to(torch.float8_e4m3fn)
        return {name: quantised, f"{name}_scale": scale}, quantised.float() * scale

    scheme = {"num_bits": 8, "type": "float", "strategy": "channel", "symmetric": True}
    group = {"targets": ["Linear"], "weights": scheme}
    settings = {
        "quant_method": "compressed-tensors", "format": "float-quantized",
        "ignore": ["lm_head"], "quantization_status": "compressed",
        "config_groups": {"group_0": group},
    }  # fmt: skip
    return save_quantised(folder, "llama", settings, quantise, **SIZES)


def bitsandbytes(folder: Path, bits: int = 4) -> tuple[ModelConfig, ModelConfig]:
    pytest.importorskip("bitsandbytes")
    from transformers import BitsAndBytesConfig

    tiny_model("llama", head=True, **SIZES).save_pretrained(folder / "original")
    options: Any = BitsAndBytesConfig(**{f"load_in_{bits}bit": True})
    model: Any = AutoModelForCausalLM.from_pretrained(
        folder / "original", quantization_config=options, device_map={"": "cpu"}
    )
    model.save_pretrained(folder / "quantised")
    model.dequantize(torch.float32).save_pretrained(folder / "plain")
    for name in ("plain", "quantised"):
        tiny_tokenizer().save_pretrained(folder / name)
    return ModelConfig(id=str(folder / "quantised")), ModelConfig(id=str(folder / "plain"))


@pytest.mark.parametrize(
    ("write", "method"),
    [
        (fp8, "fp8"),
        (lambda folder: fp8(folder, side=40), "fp8"),
        (lambda folder: fp8(folder, family="deepseek_v3", side=8), "fp8"),
        (mxfp4, "mxfp4"),
        (compressed, "compressed-tensors"),
        (bitsandbytes, "bitsandbytes"),
        (lambda folder: bitsandbytes(folder, bits=8), "bitsandbytes"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_quantised__rows_and_losses_are_those_of_the_dequantised_weights(
    tmp_path: Path, write: Callable[[Path], tuple[ModelConfig, ModelConfig]], method: str
) -> None:
    quantised, plain = write(tmp_path)
    check_weights(quantised, load_config(quantised), head=True)
    prompts = make_prompts([3, 9, 5])
    rows = [Engine.load(model).run(prompts).activations for model in (quantised, plain)]
    np.testing.assert_array_equal(rows[0], rows[1])
    losses = [LossEngine.load(model).losses(prompts).total for model in (quantised, plain)]
    np.testing.assert_array_equal(losses[0], losses[1])
    record, other = get_model_provenance(quantised), get_model_provenance(plain)
    assert record["quantisation"] == f"{method}, dequantised"
    assert "quantisation" not in other
    assert record["weights"] != other["weights"]


def test_quantised__a_model_saved_from_a_gguf_file_holds_floats(tmp_path: Path) -> None:
    for name in ("plain", "saved"):
        tiny_model("llama").save_pretrained(tmp_path / name)
    change_config(tmp_path / "saved", quantization_config={"quant_method": "gguf"})
    models = [ModelConfig(id=str(tmp_path / name)) for name in ("plain", "saved")]
    rows = [Engine.load(model).run(make_prompts([4])).activations for model in models]
    np.testing.assert_array_equal(rows[0], rows[1])
    assert "quantisation" not in get_model_provenance(models[1])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"quant_method": "gptq", "bits": 4}, r"is quantised \(gptq\), and transformers cannot"),
        ({"quant_method": "awq", "bits": 4}, r"is quantised \(awq\), and transformers cannot"),
        (
            {"quant_method": "compressed-tensors", "config_groups": {"a": {}, "b": {}}},
            r"\(compressed-tensors with several schemes or transforms\)",
        ),
        ({"bits": 4}, r"is quantised \(None\)"),
        ("strange", r"cannot be read"),
    ],
)
def test_quantised__what_cannot_be_dequantised_is_refused(
    tmp_path: Path, settings: Any, message: str
) -> None:
    tiny_model("llama").save_pretrained(tmp_path)
    change_config(tmp_path, quantization_config=settings)
    with pytest.raises(InvalidInput, match=message):
        load_config(ModelConfig(id=str(tmp_path)))


def test_quantised__weights_without_scales_are_refused(tmp_path: Path) -> None:
    quantised, _ = fp8(tmp_path)
    path = Path(quantised.id) / "model.safetensors"
    weights = load_file(path)
    del weights["model.layers.1.mlp.up_proj.weight_scale_inv"]
    save_file(weights, path, metadata={"format": "pt"})
    message = r"lacks 1 .* such as model\.layers\.1\.mlp\.up_proj\.weight_scale_inv"
    with pytest.raises(InvalidInput, match=message):
        check_weights(quantised, load_config(quantised))


def test_quantised__ranks_are_refused(tmp_path: Path) -> None:
    quantised, _ = fp8(tmp_path)
    with pytest.raises(InvalidInput, match="shared by ranks: transformers does not dequantise"):
        check_ranks(quantised, load_config(quantised), 2)

"""GGUF files give the rows of their dequantised weights, or are refused by name."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from tests.forward.tiny import BYTES, CHATML, SPECIAL, make_prompts, tiny_model
from ulcmod_dist.config.schema import ModelConfig, TokenizationConfig
from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.forward import gguf as forward_gguf
from ulcmod_dist.forward.engine import Engine
from ulcmod_dist.forward.loading import get_model_provenance, load_config
from ulcmod_dist.forward.provenance import get_model_cache_key
from ulcmod_dist.forward.tokens import PromptTokenizer
from ulcmod_dist.intervene.engine import LossEngine

gguf = pytest.importorskip("gguf", reason="needs the extra gguf")

REVISION = "0123456789" * 4
TOKENS = [*SPECIAL, *BYTES, "ab"]
SIZES: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "head_dim": 8,
    "vocab_size": len(TOKENS),
}  # fmt: skip
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 500_000.0, "factor": 32.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
}  # fmt: skip
NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm", "model.embed_tokens": "token_embd",
    "model.norm": "output_norm", "lm_head": "output", "model.layers": "blk",
}  # fmt: skip


def permute(weight: np.ndarray, heads: int) -> np.ndarray:
    """The order of rows in which llama.cpp holds the projections of queries and keys."""
    halves = weight.reshape(heads, 2, -1, weight.shape[-1])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(weight.shape))


def restore(weight: np.ndarray, heads: int) -> np.ndarray:
    halves = weight.reshape(heads, -1, 2, weight.shape[-1])
    return halves.swapaxes(1, 2).reshape(weight.shape)


def write_gguf(path: Path, extra: Any = None, without: str = "", **changes: Any) -> Any:
    """Write a tiny llama as a GGUF file of Q8_0; returns the model of its dequantised weights."""
    model = tiny_model("llama", head=True, **SIZES, **changes)
    config = model.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(TOKENS)
    writer.add_token_types([3 if token in SPECIAL else 1 for token in TOKENS])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template(CHATML)
    if extra is not None:
        extra(writer)
    state = model.state_dict()
    for name, tensor in state.items():
        weight = tensor.numpy()
        heads = {"q_proj": 4, "k_proj": 1}.get(name.split(".")[-2])
        for ours, theirs in NAMES.items():
            name = name.replace(ours, theirs)
        if name == without:
            continue
        if weight.ndim == 1:
            writer.add_tensor(name, weight)
            continue
        stored = permute(weight, heads) if heads else weight
        kind = gguf.GGMLQuantizationType.Q8_0
        packed = gguf.quants.quantize(stored, kind)
        writer.add_tensor(name, packed, raw_dtype=kind)
        read = gguf.quants.dequantize(packed, kind)
        tensor.copy_(torch.from_numpy(restore(read, heads) if heads else read))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model


def save_as_safetensors(model: Any, gguf_file: ModelConfig, folder: Path) -> ModelConfig:
    model.save_pretrained(folder)
    tokenizer: Any = AutoTokenizer.from_pretrained(
        Path(gguf_file.id).parent, gguf_file=Path(gguf_file.id).name
    )
    tokenizer.save_pretrained(folder)
    return ModelConfig(id=str(folder))


def get_rows(model: ModelConfig) -> np.ndarray:
    return Engine.load(model).run(make_prompts([3, 9, 5])).activations


@pytest.mark.parametrize("rope", [None, LLAMA3])
def test_gguf__rows_and_losses_are_those_of_the_dequantised_weights(
    tmp_path: Path, rope: dict[str, Any] | None
) -> None:
    def add_factors(writer: Any) -> None:
        if rope is not None:
            config = tiny_model("llama", **SIZES, rope_parameters=rope).config
            scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
            writer.add_rope_freq_base(500_000.0)
            default = 500_000.0 ** (-torch.arange(0, 8, 2) / 8)
            writer.add_tensor("rope_freqs.weight", (default / scaled).numpy().astype(np.float32))

    changes: dict[str, Any] = {"rope_parameters": rope, "max_position_embeddings": 16_384}
    reference = write_gguf(tmp_path / "tiny.gguf", add_factors, **changes)
    quantised = ModelConfig(id=str(tmp_path / "tiny.gguf"))
    plain = save_as_safetensors(reference, quantised, tmp_path / "plain")
    np.testing.assert_array_equal(get_rows(quantised), get_rows(plain))
    prompts = make_prompts([7, 4])
    losses = [LossEngine.load(model).losses(prompts).total for model in (quantised, plain)]
    np.testing.assert_array_equal(losses[0], losses[1])
    encoders = [PromptTokenizer.load(m, TokenizationConfig()) for m in (quantised, plain)]
    ids = [encoder.encode(["One café, 2024."])[0].ids for encoder in encoders]
    assert ids[0] == ids[1]


def test_gguf__is_another_model_than_its_weights_in_full_precision(tmp_path: Path) -> None:
    reference = write_gguf(tmp_path / "tiny.gguf")
    quantised = ModelConfig(id=str(tmp_path / "tiny.gguf"))
    plain = save_as_safetensors(reference, quantised, tmp_path / "plain")
    record, other = get_model_provenance(quantised), get_model_provenance(plain)
    assert record["quantisation"] == "gguf, dequantised"
    assert "quantisation" not in other
    assert record["weights"] != other["weights"]
    assert record["id"] == "tiny.gguf"
    before = get_model_cache_key(quantised)
    write_gguf(tmp_path / "tiny.gguf", num_hidden_layers=1)
    assert get_model_cache_key(quantised) != before
    assert load_config(quantised).num_hidden_layers == 1


def test_gguf__of_a_repository_is_the_file_that_the_id_names(
    tmp_path: Path, hub_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = hub_cache / f"models--somebody--tiny-GGUF/snapshots/{REVISION}"
    folder.mkdir(parents=True)
    reference = write_gguf(folder / "tiny.gguf")
    # A file of that name in the working directory is another model.
    write_gguf(tmp_path / "tiny.gguf", num_hidden_layers=1)
    monkeypatch.chdir(tmp_path)
    model = ModelConfig(id="somebody/tiny-GGUF/tiny.gguf", revision=REVISION)
    plain = save_as_safetensors(
        reference, ModelConfig(id=str(folder / "tiny.gguf")), tmp_path / "plain"
    )
    np.testing.assert_array_equal(get_rows(model), get_rows(plain))
    assert get_model_provenance(model)["revision"] == REVISION
    with pytest.raises(InvalidInput, match=r"somebody/tiny-GGUF holds no file other\.gguf"):
        load_config(ModelConfig(id="somebody/tiny-GGUF/other.gguf", revision=REVISION))


@pytest.mark.parametrize(
    ("add", "message"),
    [
        (
            lambda w: w.add_rope_scaling_factor(8.0),
            r"holds llama\.rope\.scaling\.factor = 8\.0",
        ),
        (lambda w: w.add_sliding_window(16), r"holds llama\.attention\.sliding_window = 16"),
        (lambda w: w.add_key_length(16), r"holds llama\.attention\.key_length = 16"),
        (lambda w: w.add_logit_scale(0.5), r"holds llama\.logit_scale = 0\.5"),
        (
            lambda w: w.add_tensor("rope_freqs.weight", np.arange(1, 5, dtype=np.float32)),
            r"rope_freqs\.weight are not the factors",
        ),
    ],
)
def test_gguf__what_transformers_would_drop_is_refused(
    tmp_path: Path, add: Any, message: str
) -> None:
    write_gguf(tmp_path / "tiny.gguf", add)
    with pytest.raises(InvalidInput, match=message):
        load_config(ModelConfig(id=str(tmp_path / "tiny.gguf")))


def test_gguf__weights_without_a_place_are_refused(tmp_path: Path) -> None:
    def add(writer: Any) -> None:
        writer.add_tensor("blk.0.attn_q.bias", np.ones(32, np.float32))

    write_gguf(tmp_path / "tiny.gguf", add)
    model = ModelConfig(id=str(tmp_path / "tiny.gguf"))
    with pytest.raises(InvalidInput, match=r"holds blk\.0\.attn_q\.bias, which transformers does"):
        load_config(model)


def test_gguf__missing_weights_are_refused(tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf", without="blk.1.ffn_up.weight")
    with pytest.raises(InvalidInput, match=r"lacks 1 of the model's weights, such as layers\.1"):
        Engine.load(ModelConfig(id=str(tmp_path / "tiny.gguf")))


def test_gguf__damaged_files_are_one_error(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    write_gguf(path)
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(InvalidInput, match=r"tiny\.gguf cannot be read"):
        load_config(ModelConfig(id=str(path)))
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(InvalidInput, match="pointer of Git LFS"):
        load_config(ModelConfig(id=str(path)))


def test_gguf__the_missing_package_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_gguf(tmp_path / "tiny.gguf")
    monkeypatch.setattr(forward_gguf, "is_gguf_available", lambda: False)
    with pytest.raises(InvalidInput, match=r"pip install 'ulcmod_dist\[gguf\]'"):
        load_config(ModelConfig(id=str(tmp_path / "tiny.gguf")))

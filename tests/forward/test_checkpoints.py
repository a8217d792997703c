"""A checkpoint is refused by name where it and the model do not fit, before weights are read."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoConfig
from transformers.utils.hub import cached_file

from tests.forward.tiny import EAGER, FAMILIES, save_tiny, tiny_config, tiny_model
from ulcmod_dist.config.schema import ModelConfig
from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.forward import checkpoints, loading
from ulcmod_dist.forward.architectures import is_decoder
from ulcmod_dist.forward.checkpoints import check_weights
from ulcmod_dist.forward.engine import Engine
from ulcmod_dist.forward.loading import get_model_provenance, load_config, load_model
from ulcmod_dist.forward.units import find_units

Tensors = dict[str, torch.Tensor]
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
REVISION = "0123456789" * 4
CROSS = "decoder.block.0.layer.1.EncDecAttention"
DECODERS = tuple(family for family in FAMILIES if is_decoder(family))


def change_weights(folder: Path, change: Callable[[Tensors], object]) -> ModelConfig:
    """Change the weights of a saved model."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})
    return ModelConfig(id=str(folder))


def check(model: ModelConfig, **options: Any) -> None:
    check_weights(model, load_config(model), **options)


def test_adapter__is_refused_before_transformers_sees_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_tiny(tmp_path)
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "another/model"}')
    monkeypatch.setattr(AutoConfig, "from_pretrained", None)
    with pytest.raises(InvalidInput, match=r"holds an adapter .*merge_and_unload\(\)"):
        load_config(ModelConfig(id=str(tmp_path)))


def test_adapter__on_the_hub_is_refused(hub_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = hub_cache / f"models--somebody--adapter/snapshots/{REVISION}"
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "another/model"}')
    monkeypatch.setattr(loading, "AutoConfig", None)
    with pytest.raises(InvalidInput, match="somebody/adapter holds an adapter"):
        load_config(ModelConfig(id="somebody/adapter", revision=REVISION))


def bias(tensors: Tensors) -> None:
    tensors["layers.0.self_attn.q_proj.bias"] = torch.ones(16)


def layer(tensors: Tensors) -> None:
    copies = {
        key.replace("layers.1.", "layers.2."): value.clone() for key, value in tensors.items()
    }
    tensors.update(copies)


def stray(tensors: Tensors) -> None:
    tensors["layers.1.extra.weight"] = torch.ones(2)


def smaller(tensors: Tensors) -> None:
    tensors["layers.1.mlp.down_proj.weight"] = torch.ones(16, 23)


def lost(tensors: Tensors) -> None:
    del tensors["layers.1.mlp.up_proj.weight"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (bias, r"holds 1 weight .* no place, such as layers\.0\.self_attn\.q_proj\.bias"),
        (layer, r"holds 9 weights .* no place, such as layers\.2\.input_layernorm\.weight"),
        (stray, r"no place, such as layers\.1\.extra\.weight"),
        (smaller, r"layers\.1\.mlp\.down_proj\.weight .* shape \[16, 23\]; .* \[16, 24\]"),
        (lost, r"lacks 1 of the model's weights, such as layers\.1\.mlp\.up_proj\.weight"),
    ],
)
def test_weights__that_do_not_fit_are_refused_by_headers_and_on_loading(
    tmp_path: Path, change: Callable[[Tensors], None], message: str
) -> None:
    model = change_weights(save_tiny(tmp_path), change)
    with pytest.raises(InvalidInput, match=message):
        check(model)
    with pytest.raises(InvalidInput, match=message):
        Engine.load(model)


@pytest.mark.parametrize("family", ["qwen3_moe", "gpt_oss", "deepseek_v3"])
def test_weights__of_an_expert_beyond_the_configuration_are_refused(
    tmp_path: Path, family: str
) -> None:
    save_tiny(tmp_path, family, num_experts=5, num_local_experts=5, n_routed_experts=5)
    tiny_config(family).save_pretrained(tmp_path)
    with pytest.raises(InvalidInput, match=r"shape|no place|cannot be loaded"):
        check(ModelConfig(id=str(tmp_path)))


@pytest.mark.parametrize("family", DECODERS)
def test_weights__with_a_head_fit_the_base_model(tmp_path: Path, family: str) -> None:
    tiny_model(family, head=True).save_pretrained(tmp_path)
    model = ModelConfig(id=str(tmp_path))
    check(model)
    check(model, head=True)
    load_model(model, load_config(model), "cpu")


def test_weights__without_a_head_are_too_few_for_ablation(tmp_path: Path) -> None:
    model = ModelConfig(id=str(save_tiny(tmp_path)))
    check(model)
    with pytest.raises(InvalidInput, match=r"lacks 1 .* lm_head\.weight"):
        check(model, head=True)


def test_weights__of_a_head_with_a_stray_bias_are_refused(tmp_path: Path) -> None:
    tiny_model("gpt_neox", head=True).save_pretrained(tmp_path)
    change = {"embed_out.bias": torch.ones(3)}
    model = change_weights(tmp_path, lambda tensors: tensors.update(change))
    with pytest.raises(InvalidInput, match="holds 1 weight"):
        check(model)


@pytest.mark.parametrize(
    ("family", "harmless"),
    [
        ("llama", {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}),
        ("gpt2", {"transformer.h.0.attn.bias": torch.ones(1, 1, 8, 8)}),
        ("gpt_neox", {"gpt_neox.layers.1.attention.masked_bias": torch.ones(())}),
        ("bert", {"bert.embeddings.position_ids": torch.arange(64)[None]}),
        ("t5", {f"{CROSS}.relative_attention_bias.weight": torch.ones(2)}),
    ],
)  # fmt: skip
def test_weights__that_the_library_calls_harmless_are_accepted(
    tmp_path: Path, family: str, harmless: Tensors
) -> None:
    name = "AutoModelForCausalLM" if is_decoder(family) else "AutoModelForPreTraining"
    base: Any = getattr(transformers, name)
    base.from_config(tiny_config(family)).save_pretrained(tmp_path)
    model = change_weights(tmp_path, lambda tensors: tensors.update(harmless))
    check(model)
    load_model(model, load_config(model), "cpu")


def test_weights__of_a_classifier_fit_the_base_model(tmp_path: Path) -> None:
    base: Any = transformers.AutoModelForSequenceClassification
    base.from_config(tiny_config("llama")).save_pretrained(tmp_path)
    check(ModelConfig(id=str(tmp_path)))


def test_weights__cut_off_are_refused_naming_the_file(tmp_path: Path) -> None:
    path = save_tiny(tmp_path) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(InvalidInput, match=r"file of weights .*model\.safetensors cannot be read"):
        check(ModelConfig(id=str(tmp_path)))


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_weights__as_a_pointer_of_git_lfs_name_the_file(tmp_path: Path, name: str) -> None:
    save_tiny(tmp_path)
    (tmp_path / name).write_bytes(POINTER)
    with pytest.raises(InvalidInput, match=rf"{name} is a pointer of Git LFS.*git lfs pull"):
        check(ModelConfig(id=str(tmp_path)))


def test_weights__with_and_without_the_models_prefix_are_refused(tmp_path: Path) -> None:
    name = "layers.0.mlp.up_proj.weight"
    model = change_weights(
        save_tiny(tmp_path), lambda tensors: tensors.update({f"model.{name}": 2 * tensors[name]})
    )
    with pytest.raises(InvalidInput, match=rf"two weights for one place: {name} and model\.{name}"):
        check(model)


def test_weights__in_two_files_of_the_index_are_refused(tmp_path: Path) -> None:
    tiny_model("llama").save_pretrained(tmp_path, max_shard_size="4KB")
    first, last, *_ = sorted(tmp_path.glob("model-*.safetensors"))
    save_file(load_file(first) | load_file(last), last, metadata={"format": "pt"})
    with pytest.raises(InvalidInput, match=rf"two weights for one place: .* in {last.name}"):
        check(ModelConfig(id=str(tmp_path)))


def test_weights__a_file_of_the_index_that_is_not_there_is_named(tmp_path: Path) -> None:
    tiny_model("llama").save_pretrained(tmp_path, max_shard_size="4KB")
    min(tmp_path.glob("model-*.safetensors")).unlink()
    with pytest.raises(InvalidInput, match=r"model-00001-of-\d+\.safetensors cannot be read"):
        check(ModelConfig(id=str(tmp_path)))


def test_weights__a_distributed_checkpoint_is_not_taken_for_the_model(tmp_path: Path) -> None:
    save_tiny(tmp_path)
    (tmp_path / "shard-00000-model-00000-of-00001.safetensors").write_bytes(b"")
    with pytest.raises(InvalidInput, match="holds a distributed checkpoint"):
        load_config(ModelConfig(id=str(tmp_path)))


def test_weights__on_the_hub_are_checked_by_their_headers_and_not_downloaded(
    hub_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = hub_cache / f"models--somebody--model/snapshots/{REVISION}"
    change_weights(save_tiny(folder), bias)
    model = ModelConfig(id="somebody/model", revision=REVISION)
    asked = []

    def cached(model_id: str, name: str, **options: Any) -> str | None:
        asked.append(name)
        return cached_file(model_id, name, **options)

    monkeypatch.setattr(checkpoints, "cached_file", cached)
    with pytest.raises(InvalidInput, match="somebody/model holds 1 weight"):
        check(model)
    assert set(asked) == {"adapter_config.json", "config.json"}
    # Neither the weights nor their headers are at hand: they are checked when they are loaded.
    (folder / "model.safetensors").unlink()
    check(model)


DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (DEEP, "cannot be read"),
        (f'{{"model_type": "llama", "num_hidden_layers": {"9" * 5000}}}', "cannot be read"),
        ('{"model_type": "llama", "num_hidden_layers": 1000000000}', "describes no model"),
        ('{"model_type": "llama", "num_hidden_layers": 0}', "describes no model"),
        ('{"model_type": "llama", "intermediate_size": -4}', "cannot build a model"),
        ('{"model_type": "llama", "hidden_size": "wide"}', "cannot be read"),
        ('{"model_type": "llama", "num_attention_heads": 0}', "cannot be"),
        ('{"model_type": ["llama"]}', "cannot be read|is not known"),
        ('["llama"]', "cannot be read"),
        ('{"model_type": "llama", "architectures": "\\ud800"}', "cannot be|lacks|shape"),
        ("", "cannot be read"),
    ],
)  # fmt: skip
def test_config__that_describes_no_model_is_one_line(
    tmp_path: Path, text: str, message: str
) -> None:
    save_tiny(tmp_path)
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(InvalidInput, match=message) as info:
        check(ModelConfig(id=str(tmp_path)))
    assert "\n" not in str(info.value)


@pytest.mark.parametrize("key", ["configuration_files", "fusion_config", "transformers_weights"])
def test_config__leads_to_no_other_files_or_classes(tmp_path: Path, key: str) -> None:
    path = save_tiny(tmp_path) / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: ["config.4.0.0.json"]}))
    with pytest.raises(InvalidInput, match=rf"names files or code .*\({key}\)"):
        load_config(ModelConfig(id=str(tmp_path)))


@pytest.mark.parametrize("family", FAMILIES)
def test_attention__of_a_family_is_what_transformers_has(family: str) -> None:
    expected = "eager" if family in EAGER else "sdpa"
    assert find_units(tiny_config(family)).attention == expected


@pytest.mark.parametrize(("family", "attention"), [("gemma2", "eager"), ("llama", "sdpa")])
def test_attention__is_the_familys_where_the_job_names_none(
    tmp_path: Path, family: str, attention: Any
) -> None:
    folder = str(save_tiny(tmp_path, family))
    given = ModelConfig(id=folder, attention=attention)
    assert get_model_provenance(ModelConfig(id=folder)) == get_model_provenance(given)
    assert get_model_provenance(given)["attention"] == attention
    assert Engine.load(ModelConfig(id=folder))._model.config._attn_implementation == attention


def test_attention__that_the_family_lacks_is_refused(tmp_path: Path) -> None:
    model = ModelConfig(id=str(save_tiny(tmp_path, "bloom")), attention="sdpa")
    with pytest.raises(InvalidInput, match=r"type bloom.*Set model\.attention to eager"):
        load_config(model)


def test_provenance__of_longrope_alone_has_a_version_of_its_own(tmp_path: Path) -> None:
    rope = {
        "rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4,
        "long_factor": [2.0] * 4, "original_max_position_embeddings": 16,
    }  # fmt: skip
    plain = save_tiny(tmp_path / "plain", "phi3")
    long = save_tiny(tmp_path / "long", "phi3", rope_parameters=rope)
    assert get_model_provenance(ModelConfig(id=str(plain)))["forward"] == "1"
    assert get_model_provenance(ModelConfig(id=str(long)))["forward"] == "2"

import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModel

from tests.forward.tiny import save_tiny
from ulcmod_dist.config.schema import ModelConfig
from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.forward import checkpoints
from ulcmod_dist.forward.engine import Engine
from ulcmod_dist.forward.loading import (
    LIBRARY_PREFIX,
    get_model_provenance,
    load_config,
    load_model,
)
from ulcmod_dist.forward.provenance import hash_files


def change_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_record__same_folder_same_record_wherever_it_lies(tmp_path: Path) -> None:
    first = get_model_provenance(ModelConfig(id=str(save_tiny(tmp_path / "one" / "model"))))
    second = get_model_provenance(ModelConfig(id=str(save_tiny(tmp_path / "two" / "model"))))
    assert first == second
    assert all(isinstance(value, str) for value in first.values())
    assert {"weights", "architecture", "dtype", "attention", "forward"} <= set(first)
    assert LIBRARY_PREFIX + "torch" in first


def test_record__changes_with_weights_configuration_and_precision(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "model")
    spec = ModelConfig(id=str(folder))
    records = [
        get_model_provenance(spec),
        get_model_provenance(ModelConfig(id=str(folder), dtype="bfloat16")),
    ]
    change_config(folder, rms_norm_eps=1e-3)
    records.append(get_model_provenance(spec))
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\0")
    records.append(get_model_provenance(spec))
    assert len({tuple(record.items()) for record in records}) == 4


def test_load__a_type_that_nobody_knows_is_one_line(tmp_path: Path) -> None:
    save_tiny(tmp_path)
    change_config(tmp_path, model_type="novelty", architectures=["Novelty"])
    with pytest.raises(InvalidInput, match="cannot be read") as info:
        load_config(ModelConfig(id=str(tmp_path)))
    assert "\n" not in str(info.value)


def test_load__code_that_comes_with_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    save_tiny(tmp_path)
    marker = tmp_path / "was_run"
    (tmp_path / "own.py").write_text(f"open({str(marker)!r}, 'w')")
    change_config(tmp_path, model_type="novelty", auto_map={"AutoConfig": "own.OwnConfig"})
    with pytest.raises(InvalidInput):
        load_config(ModelConfig(id=str(tmp_path)))
    assert not marker.exists()


def test_load__a_quantised_checkpoint_is_refused_by_name(tmp_path: Path) -> None:
    save_tiny(tmp_path)
    change_config(tmp_path, quantization_config={"quant_method": "gptq", "bits": 4})
    with pytest.raises(InvalidInput, match=r"is quantised \(gptq\)"):
        load_config(ModelConfig(id=str(tmp_path)))


def test_load__weights_must_be_in_safetensors(tmp_path: Path) -> None:
    save_tiny(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(InvalidInput, match="no weights in safetensors"):
        load_config(ModelConfig(id=str(tmp_path)))


def test_load__damaged_weights_are_one_error(tmp_path: Path) -> None:
    save_tiny(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(InvalidInput, match="cannot be loaded"):
        Engine.load(ModelConfig(id=str(tmp_path)))


def test_load__missing_weights_are_never_made_up(tmp_path: Path) -> None:
    save_tiny(tmp_path)
    change_config(tmp_path, num_hidden_layers=3, layer_types=None)
    with pytest.raises(InvalidInput, match=r"lacks \d+ of the model's weights, such as layers\.2"):
        Engine.load(ModelConfig(id=str(tmp_path)))


def test_load__a_hub_id_needs_a_fixed_revision() -> None:
    with pytest.raises(
        InvalidInput, match="no folder or GGUF file and, as a hub id, lacks a revision"
    ):
        load_config(ModelConfig(id="somebody/some-model"))


def sharded(folder: Path) -> Path:
    """Turn a saved model into one of several files and an index; returns the index."""
    model = AutoModel.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="4KB")
    return folder / "model.safetensors.index.json"


def remap(index: Path, name: Any) -> None:
    """Let the index name another file for one of the weights."""
    content = json.loads(index.read_text())
    content["weight_map"][min(content["weight_map"])] = name
    index.write_text(json.dumps(content))


class Planted:
    """A pickle that leaves a mark when it is read."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


@pytest.mark.parametrize(
    "name", ["w.bin", "../model.safetensors", "/tmp/model.safetensors", "sub/w.safetensors", 7]
)
def test_load__an_index_names_safetensors_beside_it_alone(tmp_path: Path, name: Any) -> None:
    folder = save_tiny(tmp_path / "model")
    index = sharded(folder)
    (folder / "w.bin").write_bytes(pickle.dumps(Planted(tmp_path / "was_run")))
    remap(index, name)
    with pytest.raises(InvalidInput, match="no safetensors file in its folder"):
        Engine.load(ModelConfig(id=str(folder)))
    assert not (tmp_path / "was_run").exists()


@pytest.mark.parametrize("content", ["nonsense", "[]", "{}", '{"weight_map": ["a"]}'])
def test_load__a_damaged_index_is_one_error(tmp_path: Path, content: str) -> None:
    sharded(save_tiny(tmp_path)).write_text(content)
    with pytest.raises(InvalidInput, match=r"index of weights .* cannot be read"):
        load_config(ModelConfig(id=str(tmp_path)))


def test_load__a_hub_index_is_looked_at_before_its_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_tiny(tmp_path)
    remap(sharded(folder), "w.bin")
    config = load_config(ModelConfig(id=str(save_tiny(tmp_path / "whole"))))

    def cached(_: str, name: str, *, revision: str, **__: Any) -> str | None:
        assert revision == "0" * 40
        return str(folder / name) if (folder / name).exists() else None

    monkeypatch.setattr(checkpoints, "cached_file", cached)
    with pytest.raises(InvalidInput, match=r"names 'w\.bin'"):
        load_model(ModelConfig(id="somebody/some-model", revision="0" * 40), config, "cpu")


def test_load__a_configuration_names_no_other_weights(tmp_path: Path) -> None:
    save_tiny(tmp_path)
    change_config(tmp_path, transformers_weights="other.safetensors.index.json")
    with pytest.raises(InvalidInput, match="transformers_weights"):
        load_config(ModelConfig(id=str(tmp_path)))


def test_record__changes_with_the_index_of_weights(tmp_path: Path) -> None:
    index = sharded(save_tiny(tmp_path))
    spec = ModelConfig(id=str(tmp_path))
    before = get_model_provenance(spec)
    index.write_text(index.read_text() + " ")
    assert get_model_provenance(spec)["weights"] != before["weights"]


def test_record__of_a_folder_without_an_index_covers_configuration_and_weights(
    tmp_path: Path,
) -> None:
    folder = save_tiny(tmp_path)
    files = (folder / "config.json", folder / "model.safetensors")
    assert get_model_provenance(ModelConfig(id=str(folder)))["weights"] == hash_files(files)


def test_hash_files__reads_a_file_again_only_after_it_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"before")
    digest, state = hash_files([path]), path.stat()
    # The same length and time of modification: a file that is read again would tell.
    path.write_bytes(b"behind")
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert hash_files([path]) == digest
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    assert hash_files([path]) != digest

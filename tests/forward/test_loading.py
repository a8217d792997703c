import json
from pathlib import Path
from typing import Any

import pytest

from tests.forward.tiny import save_tiny
from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.forward.engine import Engine
from ulcmod_dist.forward.loading import LIBRARY_PREFIX, load_config, model_record
from ulcmod_dist.forward.values import ModelSpec


def change_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_record__same_folder_same_record_wherever_it_lies(tmp_path: Path) -> None:
    first = model_record(ModelSpec(str(save_tiny(tmp_path / "one" / "model"))))
    second = model_record(ModelSpec(str(save_tiny(tmp_path / "two" / "model"))))
    assert first == second
    assert all(isinstance(value, str) for value in first.values())
    assert {"weights", "architecture", "dtype", "attention", "forward"} <= set(first)
    assert LIBRARY_PREFIX + "torch" in first


def test_record__changes_with_weights_configuration_and_precision(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "model")
    spec = ModelSpec(str(folder))
    records = [model_record(spec), model_record(ModelSpec(str(folder), dtype="bfloat16"))]
    change_config(folder, rms_norm_eps=1e-3)
    records.append(model_record(spec))
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\0")
    records.append(model_record(spec))
    assert len({tuple(record.items()) for record in records}) == 4


def test_load__an_unknown_family_names_the_known_ones(tmp_path: Path) -> None:
    save_tiny(tmp_path)
    change_config(tmp_path, model_type="mamba")
    with pytest.raises(InvalidInput, match=r"'mamba' is not known\. Known are: bert, bloom"):
        load_config(ModelSpec(str(tmp_path)))


def test_load__a_type_that_nobody_knows_is_one_line(tmp_path: Path) -> None:
    save_tiny(tmp_path)
    change_config(tmp_path, model_type="novelty", architectures=["Novelty"])
    with pytest.raises(InvalidInput, match="cannot be read") as info:
        load_config(ModelSpec(str(tmp_path)))
    assert "\n" not in str(info.value)


def test_load__code_that_comes_with_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    save_tiny(tmp_path)
    marker = tmp_path / "was_run"
    (tmp_path / "own.py").write_text(f"open({str(marker)!r}, 'w')")
    change_config(tmp_path, model_type="novelty", auto_map={"AutoConfig": "own.OwnConfig"})
    with pytest.raises(InvalidInput):
        load_config(ModelSpec(str(tmp_path)))
    assert not marker.exists()


def test_load__a_quantised_checkpoint_is_refused_by_name(tmp_path: Path) -> None:
    save_tiny(tmp_path)
    change_config(tmp_path, quantization_config={"quant_method": "gptq", "bits": 4})
    with pytest.raises(InvalidInput, match=r"is quantised \(gptq\)"):
        load_config(ModelSpec(str(tmp_path)))


def test_load__weights_must_be_in_safetensors(tmp_path: Path) -> None:
    save_tiny(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(InvalidInput, match="no weights in safetensors"):
        load_config(ModelSpec(str(tmp_path)))


def test_load__damaged_weights_are_one_error(tmp_path: Path) -> None:
    save_tiny(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(InvalidInput, match="cannot be loaded"):
        Engine.load(ModelSpec(str(tmp_path)))


def test_load__missing_weights_are_never_made_up(tmp_path: Path) -> None:
    save_tiny(tmp_path)
    change_config(tmp_path, num_hidden_layers=3, layer_types=None)
    with pytest.raises(InvalidInput, match=r"lacks \d+ of the model's weights, such as layers\.2"):
        Engine.load(ModelSpec(str(tmp_path)))


def test_load__a_hub_id_needs_a_fixed_revision() -> None:
    with pytest.raises(InvalidInput, match="no folder and, as an id on the hub, lacks a revision"):
        load_config(ModelSpec("somebody/some-model"))

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.forward.tiny import (
    FAMILIES,
    SPARSE,
    UNITS,
    VOCABULARY,
    make_prompts,
    save_tiny,
    tiny_model,
)
from ulcmod_dist.config.schema import ModelConfig
from ulcmod_dist.errors import UlcmodError
from ulcmod_dist.forward.architectures import LayerUnits, count_units
from ulcmod_dist.forward.batches import NonFiniteActivation, PooledActivations, TokenizedPrompt
from ulcmod_dist.forward.engine import Engine

LENGTHS = [1, 37, 5, 12, 2, 29]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def engine(family: str) -> Engine:
    return Engine(tiny_model(family))


def test_engine__units_are_those_the_configuration_promises(engine: Engine, family: str) -> None:
    rows = engine.run(make_prompts([3, 4]))
    assert count_units(engine.units) == UNITS.get(family, 48)
    assert rows.activations.shape == (2, UNITS.get(family, 48))
    assert rows.activations.dtype == np.float32
    assert (rows.routed is not None) == (family in SPARSE)


def test_engine__batched_rows_equal_rows_alone(engine: Engine) -> None:
    prompts = make_prompts(LENGTHS)
    together = engine.run(prompts)
    alone = [engine.run([prompt]) for prompt in prompts]
    expected = np.concatenate([rows.activations for rows in alone])
    scale = float(expected.max())
    np.testing.assert_allclose(together.activations, expected, rtol=1e-5, atol=1e-5 * scale)
    if together.routed is not None:
        np.testing.assert_array_equal(together.routed, PooledActivations.concatenate(alone).routed)


def test_engine__same_batch_gives_same_bytes(engine: Engine) -> None:
    prompts = make_prompts(LENGTHS)
    assert engine.run(prompts).activations.tobytes() == engine.run(prompts).activations.tobytes()


def test_engine__leaves_no_hook_and_no_setting_behind(engine: Engine) -> None:
    model = engine._model
    before = model.get_experts_implementation()
    engine.run(make_prompts([3]))
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert model.get_experts_implementation() == before


@pytest.mark.parametrize("family", SPARSE)
def test_engine__spelt_out_experts_compute_what_the_library_computes(family: str) -> None:
    model = tiny_model(family)
    ids = torch.tensor([make_prompts([17])[0].ids])
    outputs = {}
    for implementation in ("eager", "grouped_mm", "ulcmod"):
        model.set_experts_implementation(implementation)
        with torch.inference_mode():
            outputs[implementation] = model(input_ids=ids).last_hidden_state
    torch.testing.assert_close(outputs["ulcmod"], outputs["eager"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(outputs["ulcmod"], outputs["grouped_mm"], rtol=1e-4, atol=1e-5)


def test_engine__only_counted_tokens_enter_the_mean() -> None:
    engine = Engine(tiny_model("llama"))
    [prompt] = make_prompts([6])
    single = [
        engine.run([TokenizedPrompt(prompt.ids, tuple(i == token for i in range(6)))]).activations[
            0
        ]
        for token in range(6)
    ]
    some = TokenizedPrompt(prompt.ids, (False, True, True, False, True, False))
    expected = (single[1] + single[2] + single[4]) / 3
    np.testing.assert_allclose(engine.run([some]).activations[0], expected, rtol=1e-5)


def test_engine__routed_counts_cover_counted_tokens_alone() -> None:
    engine = Engine(tiny_model("mixtral"))
    ids = make_prompts([9])[0].ids
    prompts = [TokenizedPrompt(ids, (True,) * 4 + (False,) * 5), *make_prompts([20])]
    routed = engine.run(prompts).routed
    assert routed is not None
    assert routed.dtype == np.int32
    # Two experts a token in each of two layers of four experts.
    assert routed.reshape(2, 2, 4).sum(axis=2).tolist() == [[8, 8], [40, 40]]


def test_engine__units_of_unvisited_experts_are_zero() -> None:
    engine = Engine(tiny_model("mixtral"))
    rows = engine.run(make_prompts([1]))
    assert rows.routed is not None
    by_expert = rows.activations.reshape(8, 24)
    assert ((by_expert > 0).any(axis=1) == (rows.routed[0] > 0)).all()
    assert np.count_nonzero(rows.routed) == 4


def test_engine__bfloat16_stays_near_float32(tmp_path: Path) -> None:
    folder = str(save_tiny(tmp_path, "llama"))
    prompts = make_prompts(LENGTHS)
    exact = Engine.load(ModelConfig(id=folder)).run(prompts).activations
    engine = Engine.load(ModelConfig(id=folder, dtype="bfloat16"))
    rows = engine.run(prompts).activations
    assert rows.dtype == np.float32
    assert np.linalg.norm(rows - exact) < 0.02 * np.linalg.norm(exact)


def test_engine__attention_can_be_eager(tmp_path: Path) -> None:
    folder = str(save_tiny(tmp_path, "qwen2"))
    prompts = make_prompts(LENGTHS)
    rows = [
        Engine.load(ModelConfig(id=folder, attention=attention)).run(prompts).activations
        for attention in ("sdpa", "eager")
    ]
    np.testing.assert_allclose(rows[0], rows[1], rtol=1e-4, atol=1e-6)


def test_engine__a_tap_that_does_not_fire_names_its_layer() -> None:
    model = tiny_model("bloom")
    for block in model.h[1:]:
        block.mlp.pretraining_tp, block.mlp.slow_but_exact = 2, True
    with pytest.raises(UlcmodError, match=r"layer 1 \(h\.1\.mlp.*\) was called 0 times"):
        Engine(model).run(make_prompts([3]))


def test_engine__another_width_than_promised_names_its_layer() -> None:
    model = tiny_model("llama")
    model.config.intermediate_size = 23
    with pytest.raises(UlcmodError, match=r"layer 0 .* has 24 units; by .* has 23"):
        Engine(model).run(make_prompts([3]))


def test_engine__a_missing_module_names_its_layer() -> None:
    model = tiny_model("llama")
    model.config.num_hidden_layers = 3
    with pytest.raises(UlcmodError, match="no module for layer 2"):
        Engine(model).run(make_prompts([3]))


def test_engine__not_a_number_names_prompt_and_unit() -> None:
    model = tiny_model("llama")
    model.layers[1].mlp.up_proj.weight.data[5] = float("nan")
    with pytest.raises(NonFiniteActivation, match=r"position 0 .* nan at unit 5 of layer 1"):
        Engine(model).run(make_prompts([3, 2]))


def test_engine__a_token_outside_the_vocabulary_is_refused() -> None:
    engine = Engine(tiny_model("llama"))
    with pytest.raises(UlcmodError, match=f"token {VOCABULARY}"):
        engine.run([TokenizedPrompt((5, VOCABULARY), (True, True))])


def test_engine__other_units_than_planned_are_refused(tmp_path: Path) -> None:
    spec = ModelConfig(id=str(save_tiny(tmp_path)))
    planned = (LayerUnits(0, "layers.0.mlp.down_proj", 24),)
    with pytest.raises(UlcmodError, match="has 48 units in 2 parts; the plan was made for 24 in 1"):
        Engine.load(spec, planned)

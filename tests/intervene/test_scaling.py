"""Modules of a live model that are multiplied by a factor, 0 and 1 included."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from transformers import PreTrainedModel

from tests.forward.tiny import make_prompts, tiny_model
from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.forward.engine import Engine
from ulcmod_dist.forward.hooks import HookPoint, find_hook_points, get_base_model, hooked
from ulcmod_dist.forward.units import list_units
from ulcmod_dist.intervene.engine import LossEngine, mask_units
from ulcmod_dist.intervene.masks import Mask, get_unit_layers

LENGTHS = [2, 31, 7, 12]


def labels_of(model: PreTrainedModel, num_modules: int = 3) -> NDArray[np.int32]:
    count = len(get_unit_layers(list_units(model.config)))
    return np.random.default_rng(2).integers(0, num_modules, count).astype(np.int32)


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 2), st.sampled_from([0.0, 0.5, 1.0, 1.5, -2.0]))
def test_scaling__by_1_changes_no_bit_and_by_0_ablates(
    model: PreTrainedModel, module: int, factor: float
) -> None:
    units, labels, engine = list_units(model.config), labels_of(model), LossEngine(model)
    prompts = make_prompts(LENGTHS)
    plain = engine.losses(prompts, Mask.empty(units)).total
    scaled = engine.losses(prompts, Mask.scaling(units, labels, {module: factor})).total
    ablated = engine.losses(prompts, Mask.from_modules(units, labels, [module])).total
    assert (scaled.tobytes() == plain.tobytes()) == (factor == 1)
    assert (scaled.tobytes() == ablated.tobytes()) == (factor == 0)
    with (
        pytest.raises(KeyboardInterrupt),
        mask_units(model, Mask.scaling(units, labels, {module: factor})),
    ):
        raise KeyboardInterrupt
    assert engine.losses(prompts, Mask.empty(units)).total.tobytes() == plain.tobytes()


def test_scaling__multiplies_the_units_that_are_captured(model: PreTrainedModel) -> None:
    units, labels = list_units(model.config), labels_of(model)
    engine, prompts = Engine(get_base_model(model)), make_prompts(LENGTHS)
    before = engine.run(prompts).activations
    with mask_units(model, Mask.scaling(units, labels, {1: -1.5, 2: 1.0})):
        scaled = engine.run(prompts).activations
    first = get_unit_layers(units) == 0
    own, other = first & (labels == 1), first & (labels != 1)
    np.testing.assert_allclose(scaled[:, own], 1.5 * before[:, own], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(scaled[:, other], before[:, other], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("factor", [0.0, 0.25, 2.0])
def test_scaling__about_the_mean_moves_a_unit_along_the_line_through_it(factor: float) -> None:
    model: Any = tiny_model("llama", head=True)
    units, labels = list_units(model.config), labels_of(model)
    means = np.linspace(-1, 1, len(labels))
    mask = Mask.scaling(units, labels, {0: factor}).with_means(means)
    seen: list[torch.Tensor] = []

    def watch(_: HookPoint, values: torch.Tensor, __: object) -> None:
        seen.append(values.clone())

    point, *_ = find_hook_points(units)
    ids = torch.tensor([make_prompts([6])[0].ids])
    with torch.inference_mode():
        with hooked(model, [point], watch):
            model(ids)
        with mask_units(model, mask), hooked(model, [point], watch):
            model(ids)
    before, after = seen
    own = labels[: point.width] == 0
    centre = torch.tensor(means[: point.width], dtype=torch.float32)
    expected = torch.where(torch.tensor(own), centre + factor * (before - centre), before)
    torch.testing.assert_close(after, expected)


@pytest.mark.parametrize("family", ["llama", "gpt2", "mixtral", "qwen2_moe"])
def test_scaling__generates_the_same_with_a_cache_and_with_left_padding(family: str) -> None:
    model: Any = tiny_model(family, head=True)
    mask = Mask.scaling(list_units(model.config), labels_of(model), {0: 0.0, 2: 1.5})
    short, long = (torch.tensor(prompt.ids) for prompt in make_prompts([5, 9]))
    options = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    padded = torch.stack([torch.cat([torch.zeros(4, dtype=torch.int64), short]), long])
    attention = torch.ones_like(padded)
    attention[0, :4] = 0
    with mask_units(model, mask):
        alone = [
            model.generate(each[None], attention_mask=torch.ones_like(each[None]), **options,
                           use_cache=cached)[0, len(each):]
            for cached in (True, False)
            for each in (short, long)
        ]  # fmt: skip
        together = model.generate(padded, attention_mask=attention, **options)[:, 9:]
    for number, expected in enumerate(together):
        assert torch.equal(alone[number], alone[2 + number])
        assert torch.equal(alone[number], expected)


def test_scaling__refuses_what_is_no_module_or_no_finite_factor() -> None:
    model = tiny_model("llama")
    units, labels = list_units(model.config), labels_of(model)
    for factor in (float("nan"), float("inf"), 1e39, "1"):
        with pytest.raises(InvalidInput, match=r"factor of module 1 is .*, not a finite number"):
            Mask.scaling(units, labels, {1: factor})  # type: ignore[dict-item]
    with pytest.raises(InvalidInput, match="There is no module 3; there are 0 to 2"):
        Mask.scaling(units, labels, {3: 1.0})
    with pytest.raises(InvalidInput, match="There is no module '1'; there are 0 to 2"):
        Mask.from_modules(units, labels, ["1"])  # type: ignore[list-item]

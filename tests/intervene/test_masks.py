import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load

from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.extract.driver import make_unit_table
from ulcmod_dist.forward.architectures import LayerUnits
from ulcmod_dist.intervene.masks import (
    Mask,
    find_extreme_units,
    get_unit_layers,
    masks_to_safetensors,
    name_units,
    read_layer_units,
)
from ulcmod_dist.results.ablation import CONTROLS

UNITS = (
    LayerUnits(0, "layers.0.mlp.down_proj", 5),
    LayerUnits(1, "layers.1.mlp.experts", 3, 0),
    LayerUnits(1, "layers.1.mlp.experts", 3, 1),
    LayerUnits(1, "layers.1.mlp.shared.down_proj", 2),
)
LABELS = np.array([1, 2, 1, 3, 3, 1, 1, 2, 2, 3, 3, 1, 2])


def test_read_layer_units__are_those_of_the_store_s_table() -> None:
    table = make_unit_table(UNITS)
    assert read_layer_units(table) == UNITS
    pieces = pa.concat_tables([table.slice(0, 6), table.slice(6)])
    assert read_layer_units(pieces) == UNITS
    place = table.schema.get_field_index("path")
    nowhere = table.set_column(place, "path", pa.nulls(13, pa.string()))
    for other in (nowhere, table.slice(1), table.take([1, 0, *range(2, 13)])):
        with pytest.raises(InvalidInput, match="does not name all units of each projection"):
            read_layer_units(other)


def test_from_modules__ablates_their_units_alone() -> None:
    mask = Mask.from_modules(UNITS, LABELS, [1, 3])
    assert mask.ablated.tolist() == [label != 2 for label in LABELS]
    assert mask.num_units == 9


def test_from_modules__refuses_unknown_modules_and_other_models() -> None:
    with pytest.raises(InvalidInput, match=r"no module 4; there are 1 to 3"):
        Mask.from_modules(UNITS, LABELS, [1, 4])
    with pytest.raises(InvalidInput, match="modules are of 12 units, but the model has 13"):
        Mask.from_modules(UNITS, LABELS[1:], [1])


bits = st.lists(st.booleans(), min_size=13, max_size=13)


@settings(deadline=None)
@given(bits, st.integers(0, 2**32 - 1), st.sampled_from(sorted(CONTROLS)))
def test_draw_control__as_many_units_in_each_layer(
    ablated: list[bool], seed: int, kind: str
) -> None:
    mask = Mask(UNITS, np.array(ablated), np.ones(13, np.float32))
    activation = np.random.default_rng(0).random(13)
    drawn = mask.draw_control(kind, activation, np.random.default_rng(seed))
    layers = get_unit_layers(UNITS)
    for layer in (0, 1):
        own, chosen = mask.ablated[layers == layer], drawn.ablated[layers == layer]
        assert chosen.sum() == own.sum()
        # Outside the mask, unless the layer has too few other units.
        assert not (own & chosen).any() or own.sum() > len(own) / 2
    again = mask.draw_control(kind, activation, np.random.default_rng(seed))
    assert np.array_equal(drawn.ablated, again.ablated)
    assert not drawn.values.any()


def test_draw_control__sets_are_matched_or_quiet_as_their_kind_says() -> None:
    units = (LayerUnits(0, "a", 400), LayerUnits(1, "b", 400))
    generator = np.random.default_rng(0)
    activation = generator.lognormal(size=800)
    activation[400:] *= 10
    # Active units, as those of a module may be.
    mask = Mask.empty(units)
    mask = mask.select(generator.random(800) < 0.3 * (activation > np.median(activation)))
    means = {}
    for kind in CONTROLS:
        drawn = mask.draw_control(kind, activation, generator)
        means[kind] = [activation[:400][drawn.ablated[:400]].mean(),
                       activation[400:][drawn.ablated[400:]].mean()]  # fmt: skip
    own = [activation[:400][mask.ablated[:400]].mean(), activation[400:][mask.ablated[400:]].mean()]
    np.testing.assert_allclose(means["matched"], own, rtol=0.05)
    assert own[0] > 1.2 * means["random"][0]
    medians = [np.median(activation[:400]), np.median(activation[400:])]
    assert np.all(np.less(means["quiet"], medians))


def test_find_extreme_units__are_far_above_the_median_of_their_layer() -> None:
    activation = np.ones(13)
    activation[[0, 6]] = 99.9, 100
    extreme = find_extreme_units(UNITS, activation)
    assert np.flatnonzero(extreme).tolist() == [6]
    mask = Mask.empty(UNITS).select(extreme)
    assert name_units(mask) == ("layer 1 expert 0 unit 1",)
    assert not find_extreme_units(UNITS, np.where(np.arange(13) == 2, 1.0, 0.0)).any()


@settings(deadline=None)
@given(st.lists(bits.filter(any), min_size=1, max_size=3))
def test_masks__hold_a_tensor_of_each_mask_and_projection(sets: list[list[bool]]) -> None:
    masks = {
        f"module {index}": Mask.empty(UNITS).select(np.array(ablated))
        for index, ablated in enumerate(sets)
    }
    tensors = load(masks_to_safetensors(masks, UNITS))
    shapes = {
        "layers.0.mlp.down_proj": (5,),
        "layers.1.mlp.experts": (2, 3),
        "layers.1.mlp.shared.down_proj": (2,),
    }
    empty = {path: np.zeros(shape, bool) for path, shape in shapes.items()}
    for name, mask in masks.items():
        parts = [tensors.get(f"{name}/{path}", none) for path, none in empty.items()]
        assert [part.shape for part in parts] == [*shapes.values()]
        assert np.array_equal(np.concatenate([part.ravel() for part in parts]), mask.ablated)


def test_masks__same_masks_same_bytes() -> None:
    one, two = (Mask.from_modules(UNITS, LABELS, [module]) for module in (1, 2))
    forth = masks_to_safetensors({"a": one, "b": two}, UNITS)
    assert forth == masks_to_safetensors({"b": two, "a": one}, UNITS)


def test_masks__say_for_which_model_they_are(tmp_path: Path) -> None:
    masks = {"one": Mask.from_modules(UNITS, LABELS, [1])}
    (tmp_path / "masks").write_bytes(masks_to_safetensors(masks, UNITS))
    with safe_open(tmp_path / "masks", "numpy") as file:
        layout = json.loads(file.metadata()["units"])
    assert tuple(LayerUnits(*part) for part in layout) == UNITS

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.extract.planner import units_table
from ulcmod_dist.forward.values import LayerUnits
from ulcmod_dist.intervene.masks import (
    Mask,
    from_safetensors,
    from_table,
    layer_of_units,
    parts_of,
    to_safetensors,
    to_table,
)

UNITS = (
    LayerUnits(0, "layers.0.mlp.down_proj", 5),
    LayerUnits(1, "layers.1.mlp.experts", 3, 0),
    LayerUnits(1, "layers.1.mlp.experts", 3, 1),
    LayerUnits(1, "layers.1.mlp.shared.down_proj", 2),
)
LABELS = np.array([1, 2, 1, 3, 3, 1, 1, 2, 2, 3, 3, 1, 2])


def test_parts_of__are_those_of_the_store_s_table() -> None:
    table = units_table(UNITS)
    assert parts_of(table) == UNITS
    pieces = pa.concat_tables([table.slice(0, 6), table.slice(6)])
    assert parts_of(pieces) == UNITS
    place = table.schema.get_field_index("path")
    nowhere = table.set_column(place, "path", pa.nulls(13, pa.string()))
    for other in (nowhere, table.slice(1), table.take([1, 0, *range(2, 13)])):
        with pytest.raises(InvalidInput, match="does not name all units of each projection"):
            parts_of(other)


def test_of_modules__silences_their_units_alone() -> None:
    mask = Mask.of_modules(UNITS, LABELS, [1, 3])
    assert mask.silenced.tolist() == [label != 2 for label in LABELS]
    assert mask.count == 9


def test_of_modules__refuses_unknown_modules_and_other_models() -> None:
    with pytest.raises(InvalidInput, match=r"no module 4; there are 1 to 3"):
        Mask.of_modules(UNITS, LABELS, [1, 4])
    with pytest.raises(InvalidInput, match="modules are of 12 units, but the model has 13"):
        Mask.of_modules(UNITS, LABELS[1:], [1])


bits = st.lists(st.booleans(), min_size=13, max_size=13)


@settings(deadline=None)
@given(bits, st.integers(0, 2**32 - 1))
def test_random_like__as_many_units_in_each_layer(silenced: list[bool], seed: int) -> None:
    mask = Mask(UNITS, np.array(silenced), np.ones(13, np.float32))
    drawn = mask.random_like(np.random.default_rng(seed))
    layers = layer_of_units(UNITS)
    for layer in (0, 1):
        assert drawn.silenced[layers == layer].sum() == mask.silenced[layers == layer].sum()
    again = mask.random_like(np.random.default_rng(seed))
    assert np.array_equal(drawn.silenced, again.silenced)
    assert not drawn.values.any()


@settings(deadline=None)
@given(st.lists(bits.filter(any), min_size=1, max_size=3), st.booleans())
def test_masks__round_trip(sets: list[list[bool]], held: bool) -> None:
    means = np.arange(13) / 3 if held else np.zeros(13)
    masks = {
        f"module {index}": Mask(UNITS, np.array(silenced), np.zeros(13, np.float32)).held_at(means)
        for index, silenced in enumerate(sets)
    }
    for read in (
        from_safetensors(to_safetensors(masks, UNITS), UNITS),
        from_table(to_table(masks), UNITS),
    ):
        assert list(read) == sorted(masks)
        for name, mask in masks.items():
            assert read[name].units == UNITS
            assert np.array_equal(read[name].silenced, mask.silenced)
            assert np.array_equal(read[name].values, mask.values)


def test_table__says_where_each_unit_is() -> None:
    table = to_table({"three": Mask.of_modules(UNITS, LABELS, [3])})
    assert table.drop_columns(["mask", "value"]).to_pylist() == [
        {"unit": 3, "layer": 0, "index": 3, "path": "layers.0.mlp.down_proj", "expert": None},
        {"unit": 4, "layer": 0, "index": 4, "path": "layers.0.mlp.down_proj", "expert": None},
        {"unit": 9, "layer": 1, "index": 1, "path": "layers.1.mlp.experts", "expert": 1},
        {"unit": 10, "layer": 1, "index": 2, "path": "layers.1.mlp.experts", "expert": 1},
    ]


def test_masks__same_masks_same_bytes() -> None:
    one, two = (Mask.of_modules(UNITS, LABELS, [module]) for module in (1, 2))
    forth = to_safetensors({"a": one, "b": two}, UNITS)
    assert forth == to_safetensors({"b": two, "a": one}, UNITS)


def test_masks__of_another_model_are_refused() -> None:
    masks = {"one": Mask.of_modules(UNITS, LABELS, [1])}
    for units in (UNITS[:-1], (LayerUnits(0, "h.0.mlp.c_proj", 5), *UNITS[1:]), UNITS[:1]):
        with pytest.raises(InvalidInput, match="a model with other units"):
            from_safetensors(to_safetensors(masks, UNITS), units)
        with pytest.raises(InvalidInput, match="a model with other units"):
            from_table(to_table(masks), units)


def test_masks__what_holds_none_is_refused() -> None:
    with pytest.raises(InvalidInput, match="cannot be read"):
        from_safetensors(b"nonsense that is no file", UNITS)
    with pytest.raises(InvalidInput, match="lacks the column mask"):
        from_table(pa.table({"unit": [1]}), UNITS)
    assert from_table(to_table({}), UNITS) == {}

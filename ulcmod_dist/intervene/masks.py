"""Masks: which units of a model are ablated, how they are drawn, stored and read again."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.forward.architectures import LayerUnits

SCHEMA = pa.schema(
    [
        pa.field("mask", pa.string(), nullable=False),
        pa.field("unit", pa.int64(), nullable=False),
        pa.field("layer", pa.int32(), nullable=False),
        pa.field("index", pa.int32(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("expert", pa.int32()),
        pa.field("value", pa.float32(), nullable=False),
    ]
)
"""A row for each ablated unit: ``unit`` counts over the model, ``index`` within one projection."""


@dataclass(frozen=True, eq=False)
class Mask:
    """A set of units, and the value that each takes in place of its own.

    Attributes:
        units: What the model's units are, in order.
        ablated: bool [units].
        values: float32 [units]; zero except where a ablated unit is held at another value.
    """

    units: tuple[LayerUnits, ...]
    ablated: NDArray[np.bool_]
    values: NDArray[np.float32]

    @classmethod
    def empty(cls, units: Sequence[LayerUnits]) -> Mask:
        """The mask that ablates no unit."""
        width = sum(part.width for part in units)
        return cls(tuple(units), np.zeros(width, np.bool_), np.zeros(width, np.float32))

    @classmethod
    def from_modules(
        cls, units: Sequence[LayerUnits], labels: NDArray[np.integer[Any]], modules: Collection[int]
    ) -> Mask:
        """The mask that ablates whole modules.

        Args:
            units: What the model's units are, in order.
            labels: [units], the module of each unit.
            modules: The modules to ablate.

        Raises:
            InvalidInput: The labels are of another number of units, or name no such module.
        """
        width = sum(part.width for part in units)
        if len(labels) != width:
            raise InvalidInput(
                f"The modules are of {len(labels)} units, but the model has {width}.",
                "Name the model that the run was made with.",
            )
        known = set(np.unique(labels).tolist())
        unknown = sorted(set(modules) - known)
        if unknown:
            raise InvalidInput(
                f"There is no module {unknown[0]}; there are {min(known)} to {max(known)}."
            )
        ablated = np.isin(labels, list(modules))
        return cls(tuple(units), ablated, np.zeros(width, np.float32))

    def with_means(self, means: NDArray[np.floating[Any]]) -> Mask:
        """The same units, each held at its mean [units] in place of zero."""
        return replace(self, values=np.where(self.ablated, means, 0).astype(np.float32))

    def draw_random_like(self, generator: np.random.Generator) -> Mask:
        """As many units in each layer, drawn at random from all units of the layer, at zero."""
        layers = get_unit_layers(self.units)
        ablated = np.zeros_like(self.ablated)
        for layer in np.unique(layers):
            columns = np.flatnonzero(layers == layer)
            count = int(self.ablated[columns].sum())
            ablated[generator.choice(columns, count, replace=False)] = True
        return Mask(self.units, ablated, np.zeros(len(ablated), np.float32))

    @property
    def count(self) -> int:
        """Number of ablated units."""
        return int(self.ablated.sum())


def get_unit_layers(units: Sequence[LayerUnits]) -> NDArray[np.int64]:
    """The layer of each unit, int64 [units]."""
    return np.repeat([part.layer for part in units], [part.width for part in units])


def read_layer_units(units: pa.Table) -> tuple[LayerUnits, ...]:
    """The parts of a model, from the table of its units in order, as an activation store has it.

    Raises:
        InvalidInput: The table does not say where the units are, or lacks some of a projection.
    """
    keys = [pc.cast(units[name], pa.string()) for name in ("path", "expert")]
    table = pa.table([units["layer"], *keys], names=["layer", "path", "expert"])
    # Without threads, groups come in the order of their first rows.
    groups = table.group_by(table.column_names, use_threads=False).aggregate([([], "count_all")])
    widths = groups["count_all"].to_pylist()
    inside = pa.array([index for width in widths for index in range(width)], pa.int32())
    if units["path"].null_count or not units["index"].combine_chunks().equals(inside):
        raise InvalidInput(
            "The table of units does not name all units of each projection in order, as an "
            "imported one need not: masks cannot be made of it.",
            "Export from a run that extracted its activations from a model.",
        )
    return tuple(
        LayerUnits(
            layer=part["layer"],
            path=part["path"],
            width=part["count_all"],
            expert=None if part["expert"] is None else int(part["expert"]),
        )
        for part in groups.to_pylist()
    )


def masks_to_table(masks: Mapping[str, Mask]) -> pa.Table:
    """Named masks as one table of ``SCHEMA``, in order of name and unit."""
    tables = [_make_table(name, masks[name]) for name in sorted(masks)]
    return pa.concat_tables(tables) if tables else SCHEMA.empty_table()


def masks_from_table(table: pa.Table, units: Sequence[LayerUnits]) -> dict[str, Mask]:
    """Read masks of a model with these units; a mask without a unit leaves no trace in a table.

    Raises:
        InvalidInput: The table has other columns, or is of a model with other units.
    """
    if missing := [name for name in SCHEMA.names if name not in table.column_names]:
        raise InvalidInput(f"The table of masks lacks the column {missing[0]}.")
    if table.num_rows and pc.max(table["unit"]).as_py() >= len(get_unit_layers(units)):
        raise _model_mismatch()
    names = table["mask"].to_numpy(zero_copy_only=False)
    masks = {}
    for name in sorted(set(names)):
        rows = table.filter(pa.array(names == name))
        masks[name] = _mask(units, rows["unit"].to_numpy(), rows["value"].to_numpy())
        if not _make_table(name, masks[name]).equals(rows.select(SCHEMA.names).sort_by("unit")):
            raise _model_mismatch()
    return masks


def masks_to_safetensors(masks: Mapping[str, Mask], units: Sequence[LayerUnits]) -> bytes:
    """Named masks as the bytes of a safetensors file.

    For each mask the tensors ``NAME.units`` (int64) and ``NAME.values`` (float32), and the model's
    units as JSON in the metadata, so that a mask cannot be put on another model unnoticed.
    """
    tensors: dict[str, NDArray[Any]] = {}
    for name, mask in sorted(masks.items()):
        tensors[f"{name}.units"] = np.flatnonzero(mask.ablated)
        tensors[f"{name}.values"] = mask.values[mask.ablated]
    return save(tensors, metadata={"units": _layout(units)})


def masks_from_safetensors(data: bytes, units: Sequence[LayerUnits]) -> dict[str, Mask]:
    """Read masks of a model with these units.

    Raises:
        InvalidInput: The bytes hold no masks, or those of a model with other units.
    """
    try:
        tensors, layout = load(data), _metadata(data).get("units")
    except (SafetensorError, ValueError) as error:
        raise InvalidInput(f"The masks cannot be read: {error}.") from error
    if layout != _layout(units):
        raise _model_mismatch()
    names = sorted(key.removesuffix(".units") for key in tensors if key.endswith(".units"))
    return {
        name: _mask(units, tensors[f"{name}.units"], tensors[f"{name}.values"]) for name in names
    }


def _metadata(data: bytes) -> dict[str, str]:
    """The metadata of a safetensors file: JSON behind eight bytes that give its length."""
    length = int.from_bytes(data[:8], "little")
    header: dict[str, dict[str, str]] = json.loads(data[8 : 8 + length])
    return header.get("__metadata__", {})


def _layout(units: Sequence[LayerUnits]) -> str:
    return json.dumps([[part.layer, part.path, part.width, part.expert] for part in units])


def _mask(
    units: Sequence[LayerUnits], ablated: NDArray[np.int64], values: NDArray[np.float32]
) -> Mask:
    mask = Mask.empty(units)
    mask.ablated[ablated] = True
    mask.values[ablated] = values
    return mask


def _make_table(name: str, mask: Mask) -> pa.Table:
    ablated = np.flatnonzero(mask.ablated)
    widths = [part.width for part in mask.units]
    part_of = np.repeat(np.arange(len(widths)), widths)[ablated]
    start_of = np.cumsum([0, *widths])
    parts = [mask.units[part] for part in part_of]
    columns = {
        "mask": [name] * len(ablated),
        "unit": ablated,
        "layer": [part.layer for part in parts],
        "index": ablated - start_of[part_of],
        "path": [part.path for part in parts],
        "expert": [part.expert for part in parts],
        "value": mask.values[ablated],
    }
    arrays = [pa.array(columns[field.name], field.type) for field in SCHEMA]
    return pa.table(arrays, schema=SCHEMA)


def _model_mismatch() -> InvalidInput:
    return InvalidInput(
        "The masks are of a model with other units.", "Name the model that the run was made with."
    )

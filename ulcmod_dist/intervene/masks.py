"""Masks: which units of a model are ablated, how they are drawn, and how they are exported."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from safetensors.numpy import save

from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.forward.architectures import LayerUnits
from ulcmod_dist.results.types import Floats

EXTREME = 100
"""Times the median of its layer at which a unit's mean activation is extreme."""


@dataclass(frozen=True, eq=False)
class Mask:
    """A set of units, and what takes the place of each one's own value."""

    units: tuple[LayerUnits, ...]  # what the model's units are, in order
    ablated: NDArray[np.bool_]  # [units]
    values: NDArray[np.float32]  # [units], zero except where an ablated unit keeps its mean
    resampled: bool = False  # whether ablated units take what they hold in another prompt instead
    # [units] by which an ablated unit's own value is multiplied before `values` is added; None: 0.
    factors: NDArray[np.float32] | None = None

    @classmethod
    def empty(cls, units: Sequence[LayerUnits]) -> Mask:
        """Make the mask that ablates no unit."""
        width = sum(part.width for part in units)
        return cls(tuple(units), np.zeros(width, np.bool_), np.zeros(width, np.float32))

    @classmethod
    def from_modules(
        cls, units: Sequence[LayerUnits], labels: NDArray[np.integer[Any]], modules: Collection[int]
    ) -> Mask:
        """Make the mask that ablates whole modules; ``labels`` [units] are those of the units.

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
        if unknown := [module for module in modules if module not in known]:
            raise InvalidInput(
                f"There is no module {unknown[0]!r}; there are {min(known)} to {max(known)}."
            )
        ablated = np.isin(labels, list(modules))
        return cls(tuple(units), ablated, np.zeros(width, np.float32))

    @classmethod
    def scaling(
        cls,
        units: Sequence[LayerUnits],
        labels: NDArray[np.integer[Any]],
        factors: Mapping[int, float],
    ) -> Mask:
        """Make the mask that multiplies each module's units by its factor: 0 ablates, 1 keeps.

        Raises:
            InvalidInput: As `from_modules`, or a factor is not a finite number.
        """
        named: Mapping[int, Any] = factors
        for module, factor in named.items():
            is_number = isinstance(factor, int | float | np.integer | np.floating)
            if not is_number or not abs(factor) <= float(np.finfo(np.float32).max):
                raise InvalidInput(
                    f"The factor of module {module} is {factor!r}, not a finite number."
                )
        mask = cls.from_modules(units, labels, factors)
        by_unit = np.ones(len(labels), np.float32)
        for module, factor in factors.items():
            by_unit[labels == module] = factor
        # Units scaled by 1 are left alone, so that they keep every bit.
        return replace(mask, ablated=by_unit != 1, factors=by_unit)

    def with_means(self, means: NDArray[np.floating[Any]]) -> Mask:
        """Ablate or scale towards the means [units] in place of zero: m + f (a - m)."""
        kept = 0 if self.factors is None else self.factors
        values = np.where(self.ablated, (1 - kept) * means, 0)
        return replace(self, values=values.astype(np.float32))

    def select(self, chosen: NDArray[np.bool_]) -> Mask:
        """Ablate ``chosen`` [units] in place of this mask's units, to zero."""
        return Mask(self.units, chosen, np.zeros(len(chosen), np.float32))

    def draw_control(self, kind: str, activation: Floats, generator: np.random.Generator) -> Mask:
        """Draw as many units of each layer to ablate to zero, outside the mask where these suffice.

        Args:
            kind: ``random``: any units. ``matched``: for each ablated unit, in random order, the
                unit of the nearest mean activation that is left. ``quiet``: units of the less
                active half of the layer.
            activation: Mean activation of each unit [units].
            generator: Draws the units.
        """
        layers = get_unit_layers(self.units)
        chosen = np.zeros_like(self.ablated)
        for layer in np.unique(layers[self.ablated]):
            columns = np.flatnonzero(layers == layer)
            own = columns[self.ablated[columns]]
            outside = columns[~self.ablated[columns]]
            pool = outside if len(outside) >= len(own) else columns
            if kind == "matched":
                wanted = activation[generator.permutation(own)]
                chosen[pool[_match_nearest(wanted, activation[pool])]] = True
                continue
            if kind == "quiet":
                order = np.argsort(activation[pool], kind="stable")
                pool = pool[order[: max(len(own), len(pool) // 2)]]
            chosen[generator.choice(pool, len(own), replace=False)] = True
        return self.select(chosen)

    @property
    def num_units(self) -> int:
        """Number of ablated units."""
        return int(self.ablated.sum())


def _match_nearest(wanted: Floats, offered: Floats) -> list[int]:
    """Position of the nearest offered value that is left, for each wanted one in turn."""
    left, matched = offered.copy(), []
    for value in wanted:
        matched.append(int(np.argmin(np.abs(left - value))))
        left[matched[-1]] = np.inf
    return matched


def find_extreme_units(units: Sequence[LayerUnits], activation: Floats) -> NDArray[np.bool_]:
    """Find units whose mean activation is at least 100 times the median of their layer [units].

    Such units are few and large for every input, and some of them carry what the whole model needs:
    they feed the massive activations of Sun et al., 2024 (arXiv:2402.17762) through the super
    weights of Yu et al., 2024 (arXiv:2411.07191).
    """
    layers = get_unit_layers(units)
    median = np.array([np.median(activation[layers == layer]) for layer in np.unique(layers)])
    typical = median[np.unique(layers, return_inverse=True)[1]]
    extreme: NDArray[np.bool_] = (activation >= EXTREME * typical) & (typical > 0)
    return extreme


def name_units(mask: Mask) -> tuple[str, ...]:
    """Name the ablated units, such as "layer 11 unit 1229"; an expert's also name the expert."""
    starts = np.cumsum([0, *(part.width for part in mask.units)])
    ablated = np.flatnonzero(mask.ablated)
    parts = np.searchsorted(starts, ablated, side="right") - 1
    return tuple(
        f"layer {mask.units[part].layer} "
        + ("" if mask.units[part].expert is None else f"expert {mask.units[part].expert} ")
        + f"unit {unit - starts[part]}"
        for part, unit in zip(parts, ablated, strict=True)
    )


def get_unit_layers(units: Sequence[LayerUnits]) -> NDArray[np.int64]:
    """The layer of each unit, int64 [units]."""
    return np.repeat([part.layer for part in units], [part.width for part in units])


def read_layer_units(units: pa.Table) -> tuple[LayerUnits, ...]:
    """Read the parts of a model from the table of its units in the activation store.

    Raises:
        InvalidInput: The table names no paths, or not all units of each projection in order.
    """
    keys = [pc.cast(units[name], pa.string()) for name in ("path", "expert")]
    table = pa.table([units["layer"], *keys], names=["layer", "path", "expert"])
    # Without threads, groups come in the order of their first rows.
    groups = table.group_by(table.column_names, use_threads=False).aggregate([([], "count_all")])
    widths = groups["count_all"].to_pylist()
    inside = pa.array([index for width in widths for index in range(width)], pa.int32())
    if units["path"].null_count or not units["index"].combine_chunks().equals(inside):
        raise InvalidInput(
            "The table of units does not name all units of each projection in order, so no masks "
            "can be made from it.",
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


def masks_to_safetensors(masks: Mapping[str, Mask], units: Sequence[LayerUnits]) -> bytes:
    """Convert named masks to the bytes of a safetensors file.

    For each mask and projection a tensor ``NAME/PATH``, bool [width], of experts [experts, width];
    projections without an ablated unit are left out. PATH is below the base model. The metadata
    ``units``, JSON of [layer, path, width, expert], tell for which model the masks are.
    """
    tensors: dict[str, NDArray[np.bool_]] = {}
    starts = np.cumsum([0, *(part.width for part in units)])
    for path, parts in groupby(range(len(units)), key=lambda part: units[part].path):
        inside = list(parts)
        for name, mask in sorted(masks.items()):
            ablated = mask.ablated[starts[inside[0]] : starts[inside[-1] + 1]]
            if units[inside[0]].expert is not None:
                ablated = ablated.reshape(len(inside), -1)
            if ablated.any():
                tensors[f"{name}/{path}"] = ablated
    layout = [[part.layer, part.path, part.width, part.expert] for part in units]
    return save(tensors, metadata={"units": json.dumps(layout)})

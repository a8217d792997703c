"""Where the modules sit in the model."""

from ulcmod_dist.report.blocks import Block, Folded, Section
from ulcmod_dist.report.figures.layers import layer_shares, modules_by_layer
from ulcmod_dist.report.sections.common import (
    basis,
    by_num_modules,
    missing,
    name_for,
    names,
    picture,
)
from ulcmod_dist.report.tables import Column, Kind, Table, table
from ulcmod_dist.results.discovery import Discovery, Layers, ReportData
from ulcmod_dist.results.types import Absent


def section(data: ReportData) -> Section:
    """Return the modules over the layers."""
    lead = "Layers are counted from the input; a module may reach over any number of them."
    return Section("place", "Where they sit", lead, by_num_modules=by_num_modules(data, _blocks))


def _blocks(found: Discovery) -> tuple[Block, ...]:
    if isinstance(found.layers, Absent):
        return (missing(found.layers),)
    spec = modules_by_layer(found.layers.units, found.layers.names, names(found), basis(found))
    return (picture("layers", found, spec, wide=True), Folded(layers_table(found, found.layers)))


def layers_table(found: Discovery, layers: Layers) -> Table:
    """Return the units of each module in each layer."""
    columns = (
        Column("module", "Module", Kind.COUNT),
        Column("name", "Name"),
        Column("layer", "Layer"),
        Column("units", "Units", Kind.COUNT),
        Column("share", "Share of the layer", Kind.SHARE),
    )
    shares = layer_shares(layers.units)
    rows = (
        (module.number, module.name, layer, int(layers.units[module.number, column]),
         float(shares[module.number, column]))
        for module in found.modules
        for column, layer in enumerate(layers.names)
    )  # fmt: skip
    return table(name_for("layers", found), "Units of each module in each layer", columns, rows)

"""The section on how strongly units and samples belong to modules beside their own."""

import numpy as np

from ulcmod_dist.report.blocks import (
    Block,
    Section,
    build_choices,
    build_picture,
    explain_absence,
    name_for,
)
from ulcmod_dist.report.figures.modules import build_hover, describe_basis, number_names
from ulcmod_dist.report.specs import Heatmap, Scale
from ulcmod_dist.report.tables import Column, ColumnKind, Table, build_table
from ulcmod_dist.results.discovery import Discovery, ReportData
from ulcmod_dist.results.membership import Membership, MembershipKind
from ulcmod_dist.results.types import Absent, Floats, share_rows
from ulcmod_dist.runtime.text import percent


def build_membership_section(data: ReportData) -> Section:
    """Return how many units and samples are strong in one module, in several and in none."""
    lead = (
        "Each unit and each sample is put into one module, and may be strong in others as well: "
        "there it is at least half as active as the module's own members on average."
    )
    return Section("membership", "Membership", lead, by_num_modules=build_choices(data, _blocks))


def _blocks(found: Discovery) -> tuple[Block, ...]:
    if isinstance(found.membership, Absent):
        return (explain_absence(found.membership),)
    return (
        tabulate_membership(found, found.membership),
        build_picture("shared-units", found, draw_shared_units(found, found.membership)),
    )


def tabulate_membership(found: Discovery, membership: Membership) -> Table:
    """Return one row a module: its members by the number of modules that they are strong in."""
    kinds = [("units", kind) for kind in MembershipKind]
    kinds += [("samples", kind) for kind in (MembershipKind.SPECIFIC, MembershipKind.SHARED)]
    order = list(MembershipKind)
    sides = {"units": membership.units, "samples": membership.samples}
    shares = {side: share_rows(counts.kinds) for side, counts in sides.items()}
    columns = (
        Column("module", "Module", ColumnKind.COUNT),
        Column("name", "Name"),
        *(
            Column(f"{side}_{kind}", f"{side.capitalize()}, {kind}", ColumnKind.SHARE)
            for side, kind in kinds
        ),
        Column("breadth", "Breadth", ColumnKind.NUMBER),
        Column("shares_with", "Shares most with", ColumnKind.COUNT),
    )
    together = compute_shared_shares(membership)
    rows = (
        (
            module.number,
            module.name,
            *(float(shares[side][module.number, order.index(kind)]) for side, kind in kinds),
            float(membership.units.breadth[module.number]),
            _find_nearest(together[module.number]),
        )
        for module in found.modules
    )
    caption = (
        "Specific: strong in one module. Shared: in several. General: in none, so that they do not "
        "tell the modules apart. Silent: in none, and hardly ever active. Breadth: effective "
        "number of modules over which a unit's activation spreads, mean over the units."
    )
    return build_table(name_for("membership", found), "Membership", columns, rows, caption)


def compute_shared_shares(membership: Membership) -> Floats:
    """Share of the units strong in a module that are so in another too; NaN on the diagonal."""
    together = membership.units.together
    strong = np.diag(together)[:, None]
    shares = np.divide(together, strong, out=np.zeros(together.shape), where=strong > 0)
    np.fill_diagonal(shares, np.nan)
    return shares


def _find_nearest(shares: Floats) -> int | None:
    return int(np.nanargmax(shares)) if np.nansum(shares) > 0 else None


def draw_shared_units(found: Discovery, membership: Membership) -> Heatmap:
    """Draw which modules units are strong in at once."""
    shares, counts = compute_shared_shares(membership), membership.units.together
    kinds = dict(zip(MembershipKind, membership.units.kinds.sum(axis=0).tolist(), strict=True))
    return Heatmap(
        title="Units strong in two modules",
        caption=(
            "Each row is the units that are strong in one module; the colour is the share of them "
            "that are strong in the column's module too."
        ),
        alternative=(
            f"{kinds[MembershipKind.SHARED]:,} of {sum(kinds.values()):,} units are strong in "
            "several modules."
        ),
        basis=describe_basis(found),
        values=shares,
        row_labels=number_names(found.names),
        column_labels=tuple(map(str, range(found.num_modules))),
        row_axis="Units strong in module",
        column_axis="Strong in module too",
        value_axis="Share of the row's units",
        hover=build_hover(
            shares.shape,
            lambda row, column: (
                f"{counts[row, column]:,} units are strong in {row} and {column}"
                + ("" if row == column else f", {percent(shares[row, column])} of those in {row}")
            ),
        ),
        scale=Scale.SEQUENTIAL,
        row_modules=tuple(range(found.num_modules)),
    )

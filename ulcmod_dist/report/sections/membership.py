"""The section on how strongly units and samples belong to modules beside their own."""

import numpy as np

from ulcmod_dist.report.blocks import Block, Section, build_choices, explain_absence, name_for
from ulcmod_dist.report.tables import Column, ColumnKind, Table, build_table
from ulcmod_dist.results.discovery import Discovery, ReportData
from ulcmod_dist.results.membership import Membership, MembershipKind
from ulcmod_dist.results.types import Absent, Counts, share_rows


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
    return (tabulate_membership(found, found.membership),)


def tabulate_membership(found: Discovery, membership: Membership) -> Table:
    """Return one row a module: its members by the number of modules that they are strong in."""
    order = list(MembershipKind)
    shown = [("units", kind) for kind in order] + [("samples", kind) for kind in order[:2]]
    sides = {"units": membership.units, "samples": membership.samples}
    shares = {side: share_rows(counts.kinds) for side, counts in sides.items()}
    columns = (
        Column("module", "Module", ColumnKind.COUNT),
        Column("name", "Name"),
        *(
            Column(f"{side}_{kind}", f"{side.capitalize()}, {kind}", ColumnKind.SHARE)
            for side, kind in shown
        ),
        Column("breadth", "Breadth", ColumnKind.NUMBER),
        Column("shares_with", "Shares most with", ColumnKind.COUNT),
        Column("units_shared_with", "Units strong in both", ColumnKind.COUNT),
    )
    rows = (
        (
            module.number,
            module.name,
            *(float(shares[side][module.number, order.index(kind)]) for side, kind in shown),
            float(membership.units.breadth[module.number]),
            *_find_nearest(membership.units.together, module.number),
        )
        for module in found.modules
    )
    caption = (
        "Specific: strong in one module. Shared: in several. General: in none, so that they do not "
        "tell the modules apart. Silent: in none, and hardly ever active. Breadth: effective "
        "number of modules over which a unit's activation spreads, mean over the units."
    )
    return build_table(name_for("membership", found), "Membership", columns, rows, caption)


def _find_nearest(together: Counts, module: int) -> tuple[int | None, int | None]:
    """The other module that most units are strong in too, and how many are."""
    others = np.where(np.arange(len(together)) == module, 0, together[module])
    return (int(others.argmax()), int(others.max())) if others.any() else (None, None)

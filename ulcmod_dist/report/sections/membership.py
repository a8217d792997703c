"""The section on how strongly units and samples belong to modules beside their own."""

from ulcmod_dist.report.blocks import Block, Section, build_choices
from ulcmod_dist.report.tables import Column, ColumnKind, Table, build_table
from ulcmod_dist.results.discovery import Discovery, Membership, MembershipKind, ReportData
from ulcmod_dist.results.types import Absent, share_rows


def build_membership_section(data: ReportData) -> Section:
    """Return how many units and samples are strong in one module, in several and in none."""
    lead = (
        "Each unit and each sample is put into one module, and may be strong in others as well: "
        "there it is at least half as active as the module's own members on average."
    )
    return Section("membership", "Membership", lead, by_num_modules=build_choices(data, _blocks))


def _blocks(found: Discovery) -> tuple[Block, ...]:
    if isinstance(found.membership, Absent):
        return (found.membership,)
    return (tabulate_membership(found, found.membership),)


def tabulate_membership(found: Discovery, membership: Membership) -> Table:
    """Return one row a module: its members by the number of modules that they are strong in."""
    units, samples = share_rows(membership.units), share_rows(membership.samples)
    kinds = [kind.value for kind in MembershipKind]
    columns = (
        Column("module", "Module", ColumnKind.COUNT),
        Column("name", "Name"),
        *(Column(f"units_{kind}", f"Units, {kind}", ColumnKind.SHARE) for kind in kinds),
        *(Column(f"samples_{kind}", f"Samples, {kind}", ColumnKind.SHARE) for kind in kinds[:3]),
    )
    rows = (
        (module.number, module.name, *units[module.number], *samples[module.number, :3])
        for module in found.modules
    )
    caption = (
        "Specific: strong in one module. Shared: in several. General: in none, so that they do not "
        "tell the modules apart. Silent: in none, and hardly ever active."
    )
    return build_table("membership", "Units and samples by kind", columns, rows, caption)

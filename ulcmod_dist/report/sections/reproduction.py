"""How to reproduce the run."""

from ulcmod_dist.report.blocks import Block, Facts, Listing, Section
from ulcmod_dist.results.discovery import ReportData


def section(data: ReportData) -> Section:
    """Return commands, job, versions and digests."""
    made = data.reproduction
    blocks: list[Block] = [Listing("Commands", "\n".join(made.commands)), Listing("Job", made.job)]
    if made.versions:
        blocks.append(Facts(made.versions, "Versions"))
    if made.digests:
        blocks.append(Facts(made.digests, "Digests"))
    lead = "The same job on the same inputs gives the same modules."
    return Section("reproduce", "How to reproduce it", lead, shared=tuple(blocks))

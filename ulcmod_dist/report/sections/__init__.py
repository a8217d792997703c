"""The report's sections, in the order in which a reader asks."""

from ulcmod_dist.report.blocks import Section
from ulcmod_dist.report.sections import (
    causes,
    certainty,
    meaning,
    place,
    quality,
    reproduction,
    run,
)
from ulcmod_dist.results.discovery import ReportData


def sections(data: ReportData) -> tuple[Section, ...]:
    """Return the sections of a report."""
    return (
        run.section(data),
        quality.section(data),
        meaning.section(data),
        place.section(data),
        causes.section(data),
        certainty.section(data),
        reproduction.section(data),
    )

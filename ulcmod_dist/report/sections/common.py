"""What the sections share."""

from collections.abc import Callable, Sequence

from ulcmod_dist.report.blocks import Block, Note, Picture
from ulcmod_dist.report.specs import Figure
from ulcmod_dist.results.discovery import Discovery, ReportData
from ulcmod_dist.results.types import Absent
from ulcmod_dist.runtime.text import count


def name_for(subject: str, discovery: Discovery) -> str:
    """Return the name of a figure or table of one K; K has three digits so that names sort."""
    return f"{subject}-k{discovery.num_modules:03d}"


def basis(discovery: Discovery) -> str:
    """Return the K, seed and restarts behind a figure."""
    return f"K = {discovery.num_modules}, {_search(discovery)}."


def basis_of_all(discoveries: Sequence[Discovery]) -> str:
    """Return every K, with seed and restarts, behind a figure of several K."""
    searches = {_search(found) for found in discoveries}
    if len(searches) > 1:
        return " ".join(map(basis, discoveries))
    *first, last = [str(found.num_modules) for found in discoveries]
    listed = f"{', '.join(first)} and {last}" if first else last
    return f"K = {listed}, {searches.pop()} each."


def _search(discovery: Discovery) -> str:
    tries = len(discovery.restarts)
    search = f"best of {tries} restarts" if tries > 1 else "a single run of the search"
    return f"seed {discovery.seed}, {search}"


def names(discovery: Discovery) -> tuple[str, ...]:
    """Return the modules' names in ascending order."""
    return tuple(module.name for module in discovery.modules)


def picture(subject: str, discovery: Discovery, spec: Figure, *, wide: bool = False) -> Picture:
    """Return a figure of one K under its name."""
    return Picture(name_for(subject, discovery), spec, wide)


def missing(absent: Absent) -> Note:
    """Return the sentence that stands where a part would be."""
    return Note(absent.reason, quiet=True)


def by_num_modules(
    data: ReportData, blocks: Callable[[Discovery], tuple[Block, ...]]
) -> tuple[tuple[int, tuple[Block, ...]], ...]:
    """Return the blocks of each K."""
    return tuple((found.num_modules, blocks(found)) for found in data.discoveries)


def sizes(discovery: Discovery) -> str:
    """Return how large the modules are, in a sentence."""
    units = [module.num_units for module in discovery.modules]
    samples = [module.num_samples for module in discovery.modules]
    return (
        f"{count(discovery.num_modules, 'module')}: {min(units):,} to {max(units):,} units and "
        f"{min(samples):,} to {max(samples):,} samples each."
    )

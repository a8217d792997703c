"""The report's sections, in the order of the page; the first and the last are built here."""

from ulcmod_dist.report.blocks import Block, Facts, Listing, Section
from ulcmod_dist.report.sections.ablation import build_ablation_section
from ulcmod_dist.report.sections.membership import build_membership_section
from ulcmod_dist.report.sections.modules import build_layers_section, build_modules_section
from ulcmod_dist.report.sections.quality import build_quality_section
from ulcmod_dist.report.sections.robustness import build_robustness_section
from ulcmod_dist.results.discovery import ReportData
from ulcmod_dist.results.types import Fact
from ulcmod_dist.runtime.text import count


def build_sections(data: ReportData) -> tuple[Section, ...]:
    """Return the sections of a report."""
    return (
        build_run_section(data),
        build_quality_section(data),
        build_modules_section(data),
        build_layers_section(data),
        build_membership_section(data),
        build_ablation_section(data),
        build_robustness_section(data),
        build_reproduction_section(data),
    )


def build_run_section(data: ReportData) -> Section:
    """Return what was run, in one sentence and a list of facts."""
    run = data.run
    held_out = f" and {run.num_test_samples:,} held-out ones" if run.num_test_samples else ""
    split = f" train, {run.num_test_samples:,} held out" if held_out else ", none held out"
    subject = f"{run.num_units:,} units" + (f" of {run.model}" if run.model else "")
    values = [str(found.num_modules) for found in data.discoveries]
    amounts = values[0] if len(values) == 1 else f"{', '.join(values[:-1])} and {values[-1]}"
    lead = (
        f"The {subject} were split, together with {count(run.num_samples, 'sample')}{held_out}, "
        f"into {amounts} modules, so that the units of a module are active on its own samples "
        "and quiet elsewhere."
    )
    facts = (
        *((Fact("Model", run.model),) if run.model else ()),
        Fact("Units", f"{run.num_units:,}"),
        Fact("Samples", f"{run.num_samples:,}{split}"),
        *run.facts,
    )
    return Section("run", "Run", lead, shared=(Facts(facts),))


def build_reproduction_section(data: ReportData) -> Section:
    """Return commands, job, versions and digests."""
    made = data.reproduction
    blocks: list[Block] = [Listing("Commands", "\n".join(made.commands)), Listing("Job", made.job)]
    if made.versions:
        blocks.append(Facts(made.versions, "Versions"))
    if made.digests:
        blocks.append(Facts(made.digests, "Digests"))
    lead = "The same job on the same inputs gives the same modules."
    return Section("reproduce", "Reproduction", lead, shared=tuple(blocks))

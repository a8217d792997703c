"""The report's sections, in the order of the page; the last is built here."""

from ulcmod_dist.report.blocks import Block, Facts, Listing, Section
from ulcmod_dist.report.sections.ablation import build_ablation_section
from ulcmod_dist.report.sections.finding import build_finding_section
from ulcmod_dist.report.sections.membership import build_membership_section
from ulcmod_dist.report.sections.modules import build_layers_section, build_modules_section
from ulcmod_dist.report.sections.quality import build_quality_section
from ulcmod_dist.report.sections.robustness import build_robustness_section
from ulcmod_dist.results.discovery import ReportData
from ulcmod_dist.results.types import Fact


def build_sections(data: ReportData) -> tuple[Section, ...]:
    """Return the sections of a report: the finding, its evidence, and what was run."""
    return (
        build_finding_section(data),
        build_modules_section(data),
        build_quality_section(data),
        build_ablation_section(data),
        build_layers_section(data),
        build_membership_section(data),
        build_robustness_section(data),
        build_run_section(data),
    )


def build_run_section(data: ReportData) -> Section:
    """Return what was run, and what it takes to run it again."""
    run, made = data.run, data.reproduction
    split = f", {run.num_test_samples:,} held out" if run.num_test_samples else ", none held out"
    facts = (
        Fact("Run", run.name),
        *((Fact("Model", run.model),) if run.model else ()),
        Fact("Units", f"{run.num_units:,}"),
        Fact("Samples", f"{run.num_samples:,} train{split}"),
        *run.facts,
    )
    blocks: list[Block] = [
        Facts(facts),
        Listing("Commands", "\n".join(made.commands)),
        Listing("Job", made.job),
    ]
    if made.versions:
        blocks.append(Facts(made.versions, "Versions"))
    if made.digests:
        blocks.append(Facts(made.digests, "Digests"))
    lead = "The same job on the same inputs gives the same modules."
    return Section("run", "What was run", lead, shared=tuple(blocks))

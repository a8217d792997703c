"""What was run."""

from ulcmod_dist.report.blocks import Facts, Section
from ulcmod_dist.results.discovery import ReportData, RunFacts
from ulcmod_dist.results.types import Fact
from ulcmod_dist.runtime.text import count


def section(data: ReportData) -> Section:
    """Return what was run, in one sentence and a list of facts."""
    run = data.run
    held_out = f" and {run.num_test_samples:,} held-out ones" if run.num_test_samples else ""
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
        Fact("Samples", _samples(run)),
        *run.facts,
    )
    return Section("run", "What was run", lead, shared=(Facts(facts),))


def _samples(run: RunFacts) -> str:
    if run.num_test_samples == 0:
        return f"{run.num_samples:,}, none held out"
    return f"{run.num_samples:,} train, {run.num_test_samples:,} held out"

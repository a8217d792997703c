"""How far the modules of a version are from those of the version before, and what is too far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.report.comparison import Comparison, comparison_page
from ulcmod_dist.rundir import DRIFT, RunDir, drift_key
from ulcmod_dist.sections import RerunSection
from ulcmod_dist.stages.compare import compared
from ulcmod_dist.stages.open_run import Run
from ulcmod_dist.store.modules import StoredModules

MEASURES = drift_key("drift.json")


@dataclass(frozen=True)
class Drift:
    """How the modules for one K have changed, over what both versions have.

    Attributes:
        num_modules: K.
        units_rand: Adjusted Rand index of the units' modules; None where no unit is shared.
        samples_rand: The same for the train samples.
        objective: L per sample and unit, as a multiple of that before. L itself grows with both
            numbers: B(F) is a mean of products |S_k||U_k|.
    """

    num_modules: int
    units_rand: float | None
    samples_rand: float | None
    objective: float

    def alarms(self, limits: RerunSection) -> list[str]:
        """What is beyond the job's limits, as sentences."""
        measured = (
            ("the adjusted Rand index of units", self.units_rand, "min_units_rand"),
            ("the adjusted Rand index of samples", self.samples_rand, "min_samples_rand"),
            ("L per sample and unit, relative to before,", self.objective, "min_objective"),
        )
        return [
            f"Drift, K = {self.num_modules}: {what} is {value:.3f}, below rerun.{key} "
            f"({getattr(limits, key):g})."
            for what, value, key in measured
            if value is not None and value < getattr(limits, key)
        ]


def write_drift(run: RunDir, before: Run, number: int, modules: Sequence[int]) -> None:
    """Compare the run's modules with those of an earlier version: figures, and a page for each K.

    Args:
        run: The run directory.
        before: The earlier version.
        number: Its number.
        modules: Every K that both have.
    """
    _clear(run)
    measures = []
    for k in modules:
        stored = before.modules(k), Run(run).modules(k)
        objective = _density(stored[1]) / _density(stored[0])
        comparison = _compared(before, Run(run), stored, (f"version {number}", "now"))
        if comparison is None:
            measures.append(Drift(k, None, None, objective))
            continue
        run.write(drift_key(f"K={k:03d}.html"), comparison_page(comparison).encode("utf-8"))
        measures.append(
            Drift(k, comparison.units_adjusted_rand, comparison.samples_adjusted_rand, objective)
        )
    content = {"before": number, "accepted": False, "modules": [asdict(part) for part in measures]}
    run.write_json(MEASURES, content)


def read_drift(run: RunDir) -> list[Drift]:
    """How the present version differs from the one before; nothing for the first."""
    return [Drift(**part) for part in _stored(run).get("modules", [])]


def is_accepted(run: RunDir) -> bool:
    """Whether somebody has looked at the drift of the present version and takes it as it is."""
    return bool(_stored(run).get("accepted"))


def accept_drift(run: RunDir) -> None:
    """Let the drift of the present version raise no alarm any more."""
    stored = _stored(run)
    if stored:
        run.write_json(MEASURES, {**stored, "accepted": True})


def _stored(run: RunDir) -> dict[str, Any]:
    try:
        value: dict[str, Any] = run.read_json(MEASURES)
    except FileNotFoundError:
        return {}
    return value


def _compared(
    before: Run, now: Run, stored: tuple[StoredModules, StoredModules], names: tuple[str, str]
) -> Comparison | None:
    try:
        comparison = compared((before, now), stored)
    except InvalidInput:
        # Another model on another corpus: they share neither a unit nor a sample.
        return None
    k = stored[0].metrics["num_modules"]
    return replace(comparison, names=(f"{names[0]}, K = {k}", f"{names[1]}, K = {k}"))


def _density(stored: StoredModules) -> float:
    metrics = stored.metrics
    return float(metrics["objective"]) / int(metrics["samples"] * metrics["units"])


def _clear(run: RunDir) -> None:
    for key, _ in list(run.keys(DRIFT)):
        run.delete(key)

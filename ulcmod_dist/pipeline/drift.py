"""How far modules have moved since the versions before, and where that raises an alarm."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from ulcmod_dist.api import Run
from ulcmod_dist.config.schema import RerunConfig
from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.results.comparison import Comparison, VersionDrift
from ulcmod_dist.runtime.rundir import DRIFT, RunDir
from ulcmod_dist.store.modules import StoredModules
from ulcmod_dist.store.versions import list_versions, read_version, version_directory

MEASURES = f"{DRIFT}/drift.json"


@dataclass(frozen=True)
class Drift:
    """How the modules for one K have changed, over what both versions have."""

    num_modules: int
    units_rand: float | None  # adjusted Rand index of the units; None where no unit is shared
    samples_rand: float | None  # the same for the train samples
    # L per sample and unit, as a multiple of that before. L itself grows with both numbers: B(F) is
    # a mean of products |S_k||U_k|.
    objective: float

    def alarms(self, limits: RerunConfig) -> list[str]:
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


def write_drift(run: RunDir, modules: Sequence[int]) -> None:
    """Compare the run's modules, for every K that it shares with the newest of its versions.

    It writes how far they are from all versions, and a page for each K.
    """
    # A rerun that changes nothing only reads what is written here.
    from ulcmod_dist.report.comparison import render_comparison, tabulate_versions

    for key, _ in list(run.keys(DRIFT)):
        run.delete(key)
    kept = list_versions(run)
    measures, past = [], {}
    for k in modules:
        drift, past[k], last = _measure_drift(run, kept, k)
        measures.append(drift)
        if last is not None:
            names = (f"version {kept[-1]}, K = {k}", f"now, K = {k}")
            page = render_comparison(replace(last, names=names), past[k])
            run.write(f"{DRIFT}/K={k:03d}.html", page.encode("utf-8"))
    content = {
        "before": kept[-1],
        "accepted": False,
        "modules": [asdict(part) for part in measures],
        "versions": {str(k): tabulate_versions(rows).to_records() for k, rows in past.items()},
    }
    run.write_json(MEASURES, content)


def read_past(run: RunDir) -> dict[str, list[dict[str, Any]]]:
    """The versions that the present one was compared with, K -> a record each; see VersionDrift."""
    past: dict[str, list[dict[str, Any]]] = _read_measures(run).get("versions", {})
    return past


def read_drift(run: RunDir) -> list[Drift]:
    """How the present version differs from the one before; nothing for the first."""
    return [Drift(**part) for part in _read_measures(run).get("modules", [])]


def is_accepted(run: RunDir) -> bool:
    """Whether the drift of the present version has been accepted."""
    return bool(_read_measures(run).get("accepted"))


def accept_drift(run: RunDir) -> None:
    """Accept the drift of the present version, so that it raises no alarm any more."""
    stored = _read_measures(run)
    if stored:
        run.write_json(MEASURES, {**stored, "accepted": True})


def _read_measures(run: RunDir) -> dict[str, Any]:
    try:
        value: dict[str, Any] = run.read_json(MEASURES)
    except FileNotFoundError:
        return {}
    return value


def _measure_drift(
    run: RunDir, kept: Sequence[int], num_modules: int
) -> tuple[Drift, list[VersionDrift], Comparison | None]:
    """The last step, all versions with the present one, and the comparison with the one before."""
    now, present = Run(run), Run(run).modules(num_modules)
    past = []
    for number in kept:
        version = Run(version_directory(run, number))
        if num_modules not in version.num_modules():
            continue
        before = version.modules(num_modules)
        comparison = _compare_or_none((version, now), (before, present))
        steps = {drift.num_modules: drift for drift in read_drift(version.directory)}
        made = read_version(version.directory).time
        rands = _get_rands(comparison)
        past.append(_describe_version(number, made, before, steps.get(num_modules), rands))
    # The newest version comes last, and has modules for this K.
    drift = Drift(
        num_modules,
        *_get_rands(comparison),
        _objective_density(present) / _objective_density(before),
    )
    past.append(_describe_version(kept[-1] + 1, time.time(), present, drift, (None, None)))
    return drift, past, comparison


def _compare_or_none(
    runs: tuple[Run, Run], modules: tuple[StoredModules, StoredModules]
) -> Comparison | None:
    from ulcmod_dist.pipeline.compare import compare_modules

    try:
        return compare_modules(runs, modules)
    except InvalidInput:
        # Another model on another corpus: they share neither a unit nor a sample.
        return None


def _describe_version(
    number: int,
    made: float,
    stored: StoredModules,
    step: Drift | None,
    to_now: tuple[float | None, float | None],
) -> VersionDrift:
    return VersionDrift(
        number,
        time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(made)),
        int(stored.metrics["samples"]),
        float(stored.metrics["objective"]),
        None if step is None else step.units_rand,
        None if step is None else step.samples_rand,
        *to_now,
    )


def _get_rands(comparison: Comparison | None) -> tuple[float | None, float | None]:
    if comparison is None:
        return None, None
    matching = comparison.matching
    return matching.units_adjusted_rand, matching.samples_adjusted_rand


def _objective_density(stored: StoredModules) -> float:
    metrics = stored.metrics
    return float(metrics["objective"]) / int(metrics["samples"] * metrics["units"])

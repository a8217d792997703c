"""Every method of the comparison is run with the same seeds."""

from collections.abc import Sequence
from typing import Any

import pytest

from tests.pipeline.conftest import Planted, Ulcmod
from ulcmod_dist.evaluate.baselines import Candidate
from ulcmod_dist.evaluate.measures import RANDOM_DRAWS
from ulcmod_dist.evaluate.methods import score_methods
from ulcmod_dist.evaluate.null import search_null_model
from ulcmod_dist.results.discovery import RANDOM_GROUPS

JOB = (
    "discover.modules=3", "discover.restarts=1", "discover.seed=5",
    "evaluate.seed=1", "evaluate.seeds=3", "evaluate.null_permutations=2",
    "evaluate.baselines=[k-means, spectral co-clustering]", "report.formats=[svg]",
)  # fmt: skip


def test_evaluate__baselines_take_the_seeds_of_the_search(
    planted: Planted, ulcmod: Ulcmod, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, list[int]] = {}
    permuted: list[int] = []

    def score(candidates: Sequence[Candidate], *words: Any) -> Any:
        for candidate in candidates:
            seen.setdefault(candidate.method, []).append(candidate.seed)
        return score_methods(candidates, *words)

    def search(activations: Any, found: Any, permutations: int, seed: int, *more: Any) -> Any:
        permuted.extend(range(seed, seed + permutations))
        return search_null_model(activations, found, permutations, seed, *more)

    monkeypatch.setattr("ulcmod_dist.pipeline.methods.score_methods", score)
    monkeypatch.setattr("ulcmod_dist.pipeline.evaluate.search_null_model", search)
    run = planted.path.parent / "run"
    words = [word for setting in JOB for word in ("--set", setting)]
    assert ulcmod("import", planted.path, "--out", run, *words).code == 0
    answer = ulcmod("run", run, "--json")
    assert answer.code == 0, answer.err
    same = [5, 6, 7]
    assert seen.pop(RANDOM_GROUPS) == list(range(RANDOM_DRAWS))
    assert seen == {"IterD": same, "k-means": same, "spectral co-clustering": same}
    assert permuted == [1, 2]

"""Modules followed through many runs."""

from itertools import combinations

import numpy as np

from ulcmod_dist.evaluate.matching import match_modules
from ulcmod_dist.report.comparison import (
    render_comparisons,
    tabulate_pairs,
    tabulate_trajectories,
)
from ulcmod_dist.results.comparison import Comparison

# Modules of 120 units, and of as many samples, in three runs: 1 and 2 become one module, then 0
# becomes two.
FIRST = np.repeat([0, 1, 2, 3], 30)
MERGED = np.repeat([0, 1, 1, 2], 30)
SPLIT = np.repeat([0, 1, 2, 3, 4], (15, 15, 30, 30, 30))


def compare(*runs: np.ndarray) -> dict[tuple[int, int], Comparison]:
    names = "abc"
    return {
        (i, j): Comparison(
            (names[i], names[j]),
            (1.0, 2.0),
            match_modules(
                runs[i], runs[j], runs[i], runs[j], int(runs[i].max()) + 1, int(runs[j].max()) + 1
            ),
        )
        for i, j in combinations(range(len(runs)), 2)
    }


def test_trajectories__kept_merged_and_split() -> None:
    rows = tabulate_trajectories(compare(FIRST, MERGED, SPLIT)).to_records()
    assert [[row["run_0"], row["run_1"], row["run_2"]] for row in rows] == [
        ["0", "0", "0, 1"],
        ["1", "1", "2, 3"],
        ["2", "1", "2, 3"],
        ["3", "2", "4"],
    ]
    assert [row["events"] for row in rows] == [
        "0 splits into 0, 1 in c",
        "1 merges with 2 into 1 in b; 1 splits into 2, 3 in c",
        "2 merges with 1 into 1 in b; 1 splits into 2, 3 in c",
        "kept",
    ]


def test_trajectories__born_and_gone() -> None:
    # A third of each of the modules 0, 1, 2 makes the new module 3; module 3 is dealt out.
    after = np.concatenate([np.repeat([0, 3], (20, 10)), np.repeat([1, 3], (20, 10)),
                            np.repeat([2, 3], (20, 10)), np.arange(30) % 3])  # fmt: skip
    rows = tabulate_trajectories(compare(FIRST, after, after)).to_records()
    assert [row["events"] for row in rows] == [
        "kept",
        "kept",
        "kept",
        "3 is gone in b",
        "born in b",
    ]
    assert [rows[4][f"run_{run}"] for run in range(3)] == [None, "3", "3"]
    assert [rows[3][f"run_{run}"] for run in range(3)] == ["3", None, None]


def test_pairs__agreement_of_every_two_runs() -> None:
    pairs = compare(FIRST, MERGED, FIRST)
    rows = tabulate_pairs(pairs).to_records()
    assert [(row["run"], row["other_run"]) for row in rows] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert rows[1]["units_adjusted_rand"] == rows[1]["samples_adjusted_rand"] == 1.0
    assert rows[0]["units_moved"] == 30
    page = render_comparisons(pairs)
    assert "Agreement of the units&#39; modules" in page or "Agreement of the units" in page
    assert "<title>a to c" in page


def test_pairs__of_models_that_share_no_units_compare_samples_alone() -> None:
    nothing = np.empty(0, np.int64)
    matching = match_modules(nothing, nothing, FIRST, MERGED, 4, 3)
    pairs = {(0, 1): Comparison(("a", "b"), (1.0, 2.0), matching)}
    pairs |= {(0, 2): pairs[0, 1], (1, 2): pairs[0, 1]}
    assert tabulate_pairs(pairs).to_records()[0]["units_adjusted_rand"] is None
    assert "Agreement of the samples" in render_comparisons(pairs)
    assert matching.descent.tolist() == [
        [True, False, False], [False, True, False], [False, True, False], [False, False, True],
    ]  # fmt: skip

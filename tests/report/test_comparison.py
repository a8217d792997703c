"""Modules followed through many runs."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from ulcmod_dist.evaluate.matching import match_modules
from ulcmod_dist.pipeline.compare import name_runs
from ulcmod_dist.report.comparison import (
    list_steps,
    render_comparisons,
    tabulate_pairs,
    tabulate_trajectories,
)
from ulcmod_dist.report.figures.relations import draw_trajectories
from ulcmod_dist.report.plotly_layout import PlotStyle
from ulcmod_dist.report.plotly_traces import build_figure
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


def test_flow__colours_follow_descent_and_labels_tell_who_is_born_and_gone() -> None:
    after = np.concatenate([np.repeat([0, 3], (20, 10)), np.repeat([1, 3], (20, 10)),
                            np.repeat([2, 3], (20, 10)), np.arange(30) % 3])  # fmt: skip
    for what in ("units", "samples"):
        spec = draw_trajectories(list_steps(compare(FIRST, after, after)), what)
        assert [node.label for node in spec.nodes] == [
            "0", "1", "2", "3 (gone)", "0", "1", "2", "3 (born)", "0", "1", "2", "3",
        ]  # fmt: skip
        assert [node.group for node in spec.nodes] == [0, 1, 2, 3, 0, 1, 2, 4, 0, 1, 2, 4]
        assert [node.size for node in spec.nodes] == [30.0] * 12
        assert {(link.source, link.target): link.size for link in spec.links} == {
            (0, 4): 20, (0, 7): 10, (1, 5): 20, (1, 7): 10, (2, 6): 20, (2, 7): 10, (3, 4): 10,
            (3, 5): 10, (3, 6): 10, (4, 8): 30, (5, 9): 30, (6, 10): 30, (7, 11): 30,
        }  # fmt: skip
        assert f"10 {what} shared\n33% of module 3 of a\n33% of module 0 of b" in {
            link.hover for link in spec.links
        }
    assert "Of the 4 modules of a, 1 are gone in b; of its 4 modules, 1 are" in spec.alternative
    merged = draw_trajectories(list_steps(compare(FIRST, MERGED, SPLIT)), "units")
    assert [node.group for node in merged.nodes] == [0, 1, 2, 3, 0, 1, 3, 0, 0, 1, 1, 3]


def test_flow__long_names_of_runs_wrap_and_stay_whole() -> None:
    steps = list_steps(compare(FIRST, MERGED, SPLIT))
    long = "checkpoints/of-one-training/step-010000, K = 10"
    spec = replace(draw_trajectories(steps, "units"), levels=(long, "b", "c"))
    layout = build_figure(spec, PlotStyle(narrow=True))["layout"]
    heading = layout["annotations"][0]["text"]
    assert heading.replace("<br>", "").replace(" ", "") == long.replace(" ", "")
    assert layout["margin"]["t"] >= 16 * heading.count("<br>")


def test_pairs__agreement_of_every_two_runs() -> None:
    pairs = compare(FIRST, MERGED, FIRST)
    rows = tabulate_pairs(pairs).to_records()
    assert [(row["run"], row["other_run"]) for row in rows] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert rows[1]["units_adjusted_rand"] == rows[1]["samples_adjusted_rand"] == 1.0
    assert rows[0]["units_moved"] == 30
    page = render_comparisons(pairs)
    assert "Agreement of the units&#39; modules" in page or "Agreement of the units" in page
    assert "<title>a to c" in page
    assert '<figure class="picture wide" data-figure="flow-units">' in page


def test_pairs__of_models_that_share_no_units_compare_samples_alone() -> None:
    nothing = np.empty(0, np.int64)
    matching = match_modules(nothing, nothing, FIRST, MERGED, 4, 3)
    pairs = {(0, 1): Comparison(("a", "b"), (1.0, 2.0), matching)}
    same = match_modules(nothing, nothing, MERGED, MERGED, 3, 3)
    pairs |= {(0, 2): pairs[0, 1], (1, 2): Comparison(("b", "c"), (2.0, 2.0), same)}
    assert tabulate_pairs(pairs).to_records()[0]["units_adjusted_rand"] is None
    page = render_comparisons(pairs)
    assert "Agreement of the samples" in page
    assert ("flow-samples" in page, "flow-units" in page) == (True, False)
    assert matching.descent.tolist() == [
        [True, False, False], [False, True, False], [False, True, False], [False, False, True],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("one", "other", "names"),
    [
        ("runs/a", "runs/b/", ("a", "b")),
        ("s3://x/run", "s3://y/run", ("x/run", "y/run")),
        ("run", "old/run", ("run", "old/run")),
        ("a/run", "a/run/", ("run", "run")),
    ],
)
def test_name_runs__have_as_many_parents_as_tell_them_apart(
    one: str, other: str, names: tuple[str, str]
) -> None:
    assert name_runs(one, other) == names

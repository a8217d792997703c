"""Tables and texts as files and terminals take them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.report.planted import CATEGORIES, PERMUTATIONS, RESTARTS, SEEDS
from ulcmod_dist.evaluate.measures import RANDOM_DRAWS
from ulcmod_dist.report.blocks import Note
from ulcmod_dist.report.page import collect_figures
from ulcmod_dist.report.sections import build_sections
from ulcmod_dist.report.specs import Figure
from ulcmod_dist.report.tables import Column, ColumnKind, Table, build_table
from ulcmod_dist.results.ablation import CONTROLS
from ulcmod_dist.results.discovery import RANDOM_GROUPS, Discovery, Downstream, ReportData
from ulcmod_dist.results.types import Absent
from ulcmod_dist.runtime.text import (
    DASH,
    MINUS,
    label,
    number,
    percent,
    shorten,
    strip_control_chars,
)

NAMES = {
    "ablated-methods", "ablation", "ablation-matrix", "agreement", "category-confusion",
    "category-f1", "confounds", "downstream", "layers", "measures", "membership", "methods",
    "modules", "null", "restarts",
}  # fmt: skip
ONE = Absent("The modules of a single K have been found.")
SMALL = build_table(
    "small",
    "Small",
    (
        Column("name", "Name"),
        Column("units", "Units", ColumnKind.COUNT),
        Column("x", "X", ColumnKind.NUMBER),
    ),
    [("[red]a[/red]", 3, 0.5), ("b", None, None)],
)


def test_tables__survive_parquet_and_json(tables: dict[str, Table], tmp_path: Path) -> None:
    assert tables.keys() == {
        "choices",
        "overlaps",
        *(f"{n}-k{k}" for n in NAMES for k in ("007", "010")),
    }
    for made in tables.values():
        pq.write_table(made.to_arrow(), tmp_path / "t.parquet")
        back = pq.read_table(tmp_path / "t.parquet").to_pylist()
        assert back == made.to_records() == json.loads(json.dumps(made.to_records()))


def test_tables__iterd_comes_first_and_each_module_has_a_row(tables: dict[str, Table]) -> None:
    assert tables["methods-k010"].to_records()[0]["method"] == "IterD"
    assert [row["module"] for row in tables["modules-k010"].to_records()] == list(range(10))
    assert len(tables["layers-k010"].rows) == 10 * 6


def test_tables__a_module_that_is_not_selective_is_named_so_everywhere(
    tables: dict[str, Table], figures: dict[str, Figure], report_data: ReportData
) -> None:
    for name in ("modules-k010", "layers-k010", "ablation-k010"):
        named = {row["module"]: row["name"] for row in tables[name].to_records()}
        assert str(named[0]).startswith("General machinery (")
        assert "General machinery" not in list(named.values())[1:]
    assert "0 General machinery" in str(figures["layers-k010"])
    ablated = [row["ablated"] for row in tables["ablation-k010"].to_records() if row["module"] == 0]
    assert ablated == [
        "module", *CONTROLS.values(), "extreme units alone", "module without extreme units",
        "module: accuracy lost",
    ]  # fmt: skip
    (section,) = [part for part in build_sections(report_data) if part.key == "ablation"]
    _, blocks = section.by_num_modules[1]
    notes = [block.text for block in blocks if isinstance(block, Note)]
    assert any(note.startswith("Module 0 is general machinery: ablating it") for note in notes)
    assert any("Module 0 holds layer 0 unit 0, layer 0 unit 9, whose mean" in n for n in notes)


def test_tables__every_ablated_method_has_its_selective_modules(
    tables: dict[str, Table], report_data: ReportData
) -> None:
    ablated = {row["method"]: row for row in tables["ablated-methods-k007"].to_records()}
    assert [*ablated] == ["IterD", "k-means", RANDOM_GROUPS]
    counts = [row["selective"] for row in ablated.values()]
    assert counts == [6, 6, 0]
    for row in tables["measures-k007"].to_records():
        expected = ablated.get(row["method"], {"selective": None, "median": None})
        assert (row["selective"], row["selectivity"]) == (
            expected["selective"], expected["median"],
        )  # fmt: skip
    (finding,) = [part for part in build_sections(report_data) if part.key == "finding"]
    assert "other methods: k-means 6, random groups of units 0." in repr(finding)


def test_tables__every_mean_over_seeds_or_draws_has_its_interval(tables: dict[str, Table]) -> None:
    score = {"accuracy", "macro_f1"}
    agreement = {"adjusted_rand", "mutual_information"}
    for name, measured in {
        "methods-k010": {"objective", "xi", "balance"},
        "measures-k010": score | agreement,
        "downstream-k010": score,
    }.items():
        for row in tables[name].to_records():
            assert measured <= row.keys()
            for key in measured:
                low, mean, high = row[f"{key}_low"], row[key], row[f"{key}_high"]
                assert isinstance(low, float)
                assert isinstance(mean, float)
                assert isinstance(high, float)
                assert low <= mean <= high
    both = (*tables["methods-k010"].columns, *tables["measures-k010"].columns)
    shown = {column.title for column in both}
    assert {"ξ, low", "B, high", "Accuracy, low", "Macro-F1, high", "Adjusted Rand, low"} <= shown


def test_confusion__table_holds_every_sample_of_every_classifier(
    report_data: ReportData, tables: dict[str, Table]
) -> None:
    found = report_data.discoveries[1].downstream
    assert isinstance(found, Downstream)
    names = found.categories
    assert names == tuple(sorted(CATEGORIES))
    matrix = {c.name: np.zeros((7, 7), dtype=np.int64) for c in found.classifiers}
    for row in tables["category-confusion-k010"].to_records():
        place = names.index(str(row["category"])), names.index(str(row["predicted"]))
        matrix[str(row["classifier"])][place] = int(str(row["samples"]))
    for classifier in found.classifiers:
        np.testing.assert_array_equal(matrix[classifier.name], classifier.confusion)
    main = found.classifiers[0].confusion
    scored = [row["scored"] for row in tables["category-f1-k010"].to_records()]
    assert scored == main.sum(axis=1).tolist()


def test_methods__figure_names_the_seeds_and_starts_behind_it(
    report_data: ReportData, figures: dict[str, Figure]
) -> None:
    assert figures["methods-k010"].basis == (
        f"K = 10, each method with seeds 0 to {SEEDS - 1}, IterD with each seed the best of "
        f"{RESTARTS} restarts, random groups drawn {RANDOM_DRAWS} times, null model from "
        f"{PERMUTATIONS} permutations, one start each."
    )
    first = report_data.discoveries[0]
    alone = replace(first, methods=first.methods[:1])
    made = collect_figures(build_sections(replace(report_data, discoveries=(alone,), overlaps=ONE)))
    assert "K = 7, IterD with seeds 0 to 1, " in made["methods-k007"].basis


def test_methods__page_says_once_that_the_null_model_has_one_start(
    report_data: ReportData,
) -> None:
    def count_notes(found: Discovery) -> int:
        data = replace(report_data, discoveries=(found,), overlaps=ONE)
        (quality,) = (part for part in build_sections(data) if part.key == "quality")
        notes = [block.text for block in quality.blocks() if isinstance(block, Note)]
        return sum("null model has one start" in text for text in notes)

    found = report_data.discoveries[0]
    assert count_notes(found) == 1
    assert count_notes(replace(found, null=Absent("No null model."))) == 0
    assert count_notes(replace(found, restarts=found.restarts[:1])) == 0


def test_to_arrow__an_empty_table_keeps_its_types() -> None:
    empty = build_table("e", "E", SMALL.columns, [])
    assert empty.to_arrow().schema.types == [pa.string(), pa.int64(), pa.float64()]


def test_table__a_number_that_is_not_finite_is_an_empty_cell() -> None:
    made = build_table("t", "T", SMALL.columns, [("a", 1, float("nan")), ("b", 2, float("-inf"))])
    assert [row["x"] for row in made.to_records()] == [None, None]


def test_filled__drops_columns_that_hold_nothing() -> None:
    rows = [("a", None, 1.0), ("b", None, None)]
    assert [c.key for c in build_table("t", "T", SMALL.columns, rows).filled().columns] == [
        "name",
        "x",
    ]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (672521.4, "672,521"), (15535.2, "15,535"), (0.61, "0.610"), (0.0, "0"),
        (-0.125, f"{MINUS}0.125"),
        (7.0, "7"), (12.345, "12.3"), (0.00001234, f"1.23e{MINUS}05"), (float("nan"), DASH),
        (float("inf"), "∞"),
    ],
)  # fmt: skip
def test_number__is_short_and_keeps_whole_thousands(value: float, shown: str) -> None:
    assert number(value) == shown


def test_percent__what_would_round_to_nothing_is_not_zero() -> None:
    assert [percent(0.0), percent(0.001), percent(0.256)] == ["0%", "<1%", "26%"]


@given(st.text(), st.integers(2, 50))
def test_label__is_one_line_within_its_limit(text: str, limit: int) -> None:
    short = label(text, limit)
    assert len(short) <= limit
    assert "\n" not in short


@given(st.text(max_size=40))
def test_shorten__short_texts_stay_and_long_ones_say_what_is_left_out(text: str) -> None:
    assert shorten(text, 40) == strip_control_chars(text).strip()
    long = shorten("x" * 100, 40)
    assert long == "x" * 40 + " … (60 more characters)"


def test_printable__marks_that_reorder_text_are_removed() -> None:
    assert strip_control_chars("a\u202eb\u0000c\u2066d\n\te") == "abcd\n\te"

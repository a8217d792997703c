"""What people read in a terminal."""

import io
import unicodedata

import pytest
from rich.console import Console

from ulcmod_dist.pipeline.summary import Summary, format_bytes, format_value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1260, "1,260"),
        (56981.4, "56,981"),
        (9577.2, "9,577"),
        (-1234.5, "-1,234"),
        (999.96, "1000"),
        (0.97619, "0.9762"),
        (True, "yes"),
        (None, "-"),
        ([], "none"),
        ([5, 0.25], "5, 0.25"),
        ("as it is", "as it is"),
    ],
)
def test_format_value__has_few_digits_and_separates_thousands(value: object, text: str) -> None:
    assert format_value(value) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 bytes"), (1023, "1,023 bytes"), (1536, "1.5 KiB"), (3 * 2**40, "3.0 TiB")],
)
def test_format_bytes__is_in_binary_units(count: int, text: str) -> None:
    assert format_bytes(count) == text


def test_summary__names_from_a_corpus_do_not_command_the_terminal() -> None:
    name = "train-\x1b[2J\x1b]0;title\x07\x9b31m\u202e=id"
    summary = Summary("Rows", {"id": "Id"}, [{"id": name}], {"held": [name]}, closing=[name])
    out = io.StringIO()
    Console(file=out, width=80).print(summary)
    assert out.getvalue().count("train-[2J]0;title31m=id") == 3
    assert not [c for c in out.getvalue() if c != "\n" and unicodedata.category(c) in ("Cc", "Cf")]


def test_summary__paths_longer_than_the_terminal_are_whole() -> None:
    path = "/home/somebody/experiments/2026/" + "deep/" * 20 + "smollm2-135m/report.html"
    facts = {"page": path, "figures": f"{path[:-12]}/figures (69 files: png, svg, pdf)"}
    summary = Summary("Report", facts=facts, closing=[f"`ulcmod report {path}` updates it."])
    out = io.StringIO()
    Console(file=out, width=80).print(summary)
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert "…" not in out.getvalue()
    shown = "".join(line.strip() for line in lines)
    assert shown.count(path) == 2
    assert "(69 files: png, svg, pdf)" in out.getvalue()


@pytest.mark.parametrize("width", [60, 80, 200])
def test_summary__breaks_no_number_however_narrow_the_terminal(width: int) -> None:
    columns = {"k": "K", **{f"value_{number}": f"Value {number}" for number in range(12)}}
    rows = [
        {"k": k, **{f"value_{n}": 1_000_000.0 * k + n for n in range(12)}, "state": "as before"}
        for k in (5, 10)
    ]
    summary = Summary("Modules", {**columns, "state": "State"}, rows)
    out = io.StringIO()
    Console(file=out, width=width).print(summary)
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    found = {word for line in lines for word in line.split()}
    assert {f"{10_000_000 + n:,}" for n in range(12)} <= found
    # Whoever reads a part of the table still knows whose numbers these are.
    parts = sum("┏" in line for line in lines)
    assert sum(line.startswith("│ 10 │") for line in lines) == parts
    assert lines[0].strip() == "Modules"


def test_summary__a_table_that_is_split_names_its_rows_again() -> None:
    columns = {"k": "K", "method": "Method"} | {f"column{i}": f"Column {i}" for i in range(9)}
    row = {"k": 7, "method": "k-means", **{f"column{i}": 10_000 + i for i in range(9)}}
    out = io.StringIO()
    Console(file=out, width=60).print(Summary("Rows", columns, [row], num_keys=2))
    shown = out.getvalue()
    assert shown.count("k-means") == shown.count("Method") == shown.count("┏") > 1
    assert all(shown.count(f"{10_000 + i:,}") == 1 for i in range(9))

"""Matrices of which parts cannot be made: the page comes, and says what is left out and why.

Every warning is an error here, so that none of a library's reaches the terminal.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.evaluate import downstream, structure
from ulcmod_dist.pipeline.import_matrix import import_context, import_matrix
from ulcmod_dist.pipeline.run import run_all
from ulcmod_dist.pipeline.status import status

RNG = np.random.default_rng(11)
NOISE = RNG.gamma(1.0, size=(30, 24))
QUICK = ("discover.restarts=2", "evaluate.null_permutations=1", "evaluate.seeds=1")
NO_BASELINES = ("evaluate.null_permutations=0", "evaluate.baselines=[]")


def run_matrix(
    folder: Path, values: Any, k: int, categories: Sequence[str | None] = ()
) -> dict[str, str]:
    """Take a matrix to the page; what was left out, and why."""
    np.save(folder / "given.npy", np.asarray(values, np.float32))
    files: dict[str, str | None] = {"path": str(folder / "given.npy")}
    if categories:
        table = pa.table({"category": list(categories)})
        pq.write_table(table, folder / "samples.parquet")
        files["samples"] = str(folder / "samples.parquet")
    settings = [f"discover.modules=[{k}]", *QUICK, *(NO_BASELINES if categories else ())]
    context = import_context(files, str(folder / "run"), settings)
    import_matrix(context)
    summary = run_all(context)
    assert summary.exit_code == 0
    page = (folder / "run" / "report.html").read_text(encoding="utf-8")
    assert re.findall(r">\s*(?i:nan|.?inf|.?∞|none)\s*<", page) == []
    text = re.sub(r"<(script|style).*?</\1>|<[^>]*>", " ", page, flags=re.DOTALL)
    (row,) = json.loads(json.dumps(summary.as_json(), allow_nan=False))["rows"]
    left_out: dict[str, str] = row["left_out"]
    assert status(context).as_json()["left_out"] == {str(k): left_out}
    for name in left_out.keys() - {"agreement with categories"}:
        assert left_out[name] in text
    return left_out


@pytest.mark.parametrize(
    ("values", "k", "lacking", "reason"),
    [
        (NOISE[:2, :3], 2, "spectral", "0 pre-clusters|1 pre-clusters of the units that differ"),
        (NOISE[:, :1], 1, "k-means", "With K = 1 any method"),
        (np.repeat(NOISE[:, :2], 12, 1), 3, "k-means", "2 units that differ are too few to find 3"),
        (np.eye(30, 24) * (np.arange(30) == 4)[:, None], 2, "hierarchy", "equally to all samples"),
    ],
)
def test_run__a_part_that_cannot_be_made_is_left_out_with_its_reason(
    tmp_path: Path, values: Any, k: int, lacking: str, reason: str
) -> None:
    assert re.search(reason, run_matrix(tmp_path, values, k)[lacking])


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.ones((30, 24)), "No unit of 24 varies over 30 train samples"),
        (np.repeat(NOISE[:1], 30, 0) * 1e20, "No unit of 24 varies"),
        (NOISE[:1], "over 1 train sample "),
        (NOISE * 1e-12, "multiply tiny activations by a constant"),
        (NOISE[:, :2], "Choose K from 1 to 2"),
    ],
)
def test_run__without_anything_to_discover_is_refused(
    tmp_path: Path, values: Any, reason: str
) -> None:
    with pytest.raises(InvalidInput, match=reason):
        run_matrix(tmp_path, values, 3 if "Choose" in reason else 1)


def test_run__the_page_of_many_categories_shows_the_most_frequent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, limit, most in [
        (downstream, "MAX_COMPARED", 9),
        (structure, "MAX_COMPARED", 9),
        (structure, "MAX_LISTED", 40),
    ]:
        monkeypatch.setattr(module, limit, most)
    categories = [f"often-{row % 12:02d}" if row < 120 else f"rare-{row}" for row in range(1120)]
    left_out = run_matrix(tmp_path, RNG.gamma(1.0, size=(1120, 24)), 2, categories)
    assert "classifiers" not in left_out
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "1,000 categories, such as rare-1000, have a single train sample" in page
    assert "Of 12 categories only the 9 with the most samples take part" in page
    assert "The 9 most frequent of 1,012 categories are compared." in page
    assert "1,005 others" in page
    assert page.count("rare-") < 20

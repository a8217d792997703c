"""The modules of runs side by side: of one run with itself, with another K, with a copy."""

import shutil
from pathlib import Path

import pytest

import ulcmod_dist as um
from tests.pipeline.conftest import Ulcmod


def test_compare__a_run_with_itself_agrees_wholly(
    searched: Path, tmp_path: Path, ulcmod: Ulcmod
) -> None:
    run, page = searched / "run", tmp_path / "page.html"
    answer = ulcmod("compare", run, run, "--num-modules", 3, "--out", page, "--json")
    assert answer.json()["adjusted_rand_of_units"] == 1.0
    assert answer.json()["units_moved"] == 0
    assert "Matched modules" in page.read_text(encoding="utf-8")
    other = ulcmod("compare", run, run, "--num-modules", 3, "--other-num-modules", 4, "--json")
    assert len(other.json()["rows"]) == 3
    smaller, larger = other.json()["runs"]
    assert (smaller["run"], larger["run"]) == (str(run), str(run))
    assert (smaller["num_modules"], larger["num_modules"]) == (3, 4)
    kept = um.open_run(run)
    for side in (smaller, larger):
        assert side["objective"] == kept.metrics(side["num_modules"])["objective"][0]
    partners = {row["other"] for row in other.json()["rows"]}
    assert smaller["unmatched"] == []
    assert {*larger["unmatched"]} == {*range(4)} - partners
    for what in ("units", "samples"):
        moved = sum(move[what] for move in other.json()["moves"])
        assert moved == other.json()[f"{what}_moved"] > 0


def test_compare__three_runs_are_followed_on_one_page(
    searched: Path, tmp_path: Path, ulcmod: Ulcmod
) -> None:
    run, page = searched / "run", tmp_path / "page.html"
    words = ("--num-modules", 3, "--other-num-modules", 4, "--out", page)
    answer = ulcmod("compare", run, run, run, *words, "--json").json()
    assert [pair["units_adjusted_rand"] == 1.0 for pair in answer["pairs"]] == [False, False, True]
    assert {row["run_0"] for row in answer["rows"]} >= {"0", "1", "2"}
    assert "What happened" in page.read_text(encoding="utf-8")
    alone = ulcmod("compare", run, run, "--num-modules", 3, "--samples-only", "--json").json()
    assert (alone["shared_units"], alone["adjusted_rand_of_samples"]) == (0, 1.0)
    nowhere = tmp_path / "nowhere"
    for arguments, message in [
        ((run,), f"There is nothing to compare {run} with."),
        ((run, nowhere, "--num-modules", 3), f"There is no run directory {nowhere}."),
        ((run, tmp_path, "--num-modules", 3), f"{tmp_path} holds no modules."),
        ((run, run), f"{run} holds modules for K = 3, 4. Name one of these by --num-modules."),
        ((run, run, "--num-modules", 3, "--other-num-modules", 7), "K = 3, 4, not for 7. Name"),
        ((run, run, "--out", nowhere / "page.html"), f"there is no folder {nowhere}."),
    ]:
        refused = ulcmod("compare", *arguments)
        assert (refused.code, message in " ".join(refused.err.split())) == (2, True), refused.err
    assert not nowhere.exists()


def test_compare__runs_of_the_same_folder_name_are_told_apart(
    searched: Path, tmp_path: Path, ulcmod: Ulcmod
) -> None:
    copy, page = tmp_path / "copy" / "run", tmp_path / "page.html"
    shutil.copytree(searched / "run", copy)
    words = ("--num-modules", 3, "--out", page)
    assert ulcmod("compare", searched / "run", copy, *words).code == 0
    text = page.read_text(encoding="utf-8")
    assert f"<title>{searched.name}/run, K = 3 and copy/run, K = 3" in text
    assert "Modules that units and samples moved between" not in text


def test_open_run__of_no_folder_is_refused_and_makes_none(tmp_path: Path) -> None:
    with pytest.raises(um.InvalidInput, match="no run directory"):
        um.open_run(tmp_path / "typo")
    assert not (tmp_path / "typo").exists()

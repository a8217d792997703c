"""How a search will use its memory is shown before it, and too little is refused with the least."""

from pathlib import Path

import pytest

from tests.pipeline.conftest import Planted, Ulcmod
from ulcmod_dist.config.schema import SearchConfig
from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.iterd.plan import plan_search
from ulcmod_dist.passes.executors import ThreadExecutor
from ulcmod_dist.pipeline.search import describe_plan, placeholder_activations
from ulcmod_dist.store.schema import ChunkShape

GIB = 2**30


@pytest.fixture
def imported(planted: Planted, tmp_path: Path, ulcmod: Ulcmod) -> Path:
    answer = ulcmod("import", planted.path, "--out", tmp_path / "run")
    assert answer.code == 0, answer.err
    return tmp_path / "run"


def test_facts__say_blocks_residency_tables_and_limit() -> None:
    matrix = placeholder_activations(100_000, 400_000, ChunkShape(512, 4000))
    section = SearchConfig(modules=(10,), restarts=1, memory=8 * GIB)
    facts = describe_plan(plan_search(matrix, [10], section, ThreadExecutor(2), held_out=1000))
    assert facts["search"] == "blockwise, blocks of up to 6,250 units"
    assert facts["matrix"] == "149.0 GiB, read once an iteration"
    assert facts["kept in memory"] == "two blocks, 4.7 GiB"
    assert facts["memory of the search"].endswith("of 8.0 GiB allowed")
    assert {"tables and labels", "chunks and partial sums", "sketch of the initial modules"} <= set(
        facts
    )


def test_plan__counts_the_table_of_the_held_out_samples() -> None:
    matrix = placeholder_activations(10_000, 40_000, ChunkShape(512, 4000))
    section = SearchConfig(modules=(10, 20), restarts=1, memory=4 * GIB)
    few, many = (
        plan_search(matrix, [10, 20], section, ThreadExecutor(2), held_out=n)
        for n in (10_000, 9_000_000)
    )
    assert few.projected_mem < 4 * GIB
    assert many.projected_mem > 9_000_000 * 20 * 8
    with pytest.raises(InvalidInput, match="more than the 4,096 MiB"):
        plan_search(matrix, [10, 20], section, ThreadExecutor(2), held_out=20_000_000)


def test_discover__shows_its_plan(imported: Path, ulcmod: Ulcmod) -> None:
    words = "--set", "discover.modules=3", "--set", "discover.memory=2 GiB"
    answer = ulcmod("discover", imported, *words)
    assert "search: exact" in answer.err
    assert "of 2.0 GiB allowed" in answer.err
    plan = ulcmod("discover", imported, *words, "--set", "discover.seed=1", "--json").json()["plan"]
    assert plan["limit"] == 2 * GIB
    assert plan["resident"]


def test_discover__too_little_memory_is_refused_with_the_least_that_works(
    imported: Path, ulcmod: Ulcmod
) -> None:
    words = "--set", "discover.modules=3", "--set", "discover.restarts=2"
    answer = ulcmod("discover", imported, *words, "--set", "discover.memory=1000")
    assert answer.code == 2
    least = answer.err.split("at least ")[1].split(" MiB")[0]
    assert ulcmod("discover", imported, *words, "--set", f"discover.memory={least} MiB").code == 0


def test_discover__the_table_over_k_helps_to_choose(imported: Path, ulcmod: Ulcmod) -> None:
    words = "--set", "discover.modules=[2,3]", "--set", "discover.restarts=3"
    rows = ulcmod("discover", imported, *words, "--json").json()["rows"]
    assert [row["num_modules"] for row in rows] == [2, 3]
    # Three modules were planted: every start finds them, and not the same two.
    assert rows[1]["unit_agreement"] == rows[1]["stability"] == 1.0
    assert rows[1]["spread"] == pytest.approx(0, abs=1e-9)
    assert rows[0]["stability"] <= 1.0

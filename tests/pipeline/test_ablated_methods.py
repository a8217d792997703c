"""The modules of other methods, kept by the evaluation and ablated beside the run's own."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import ulcmod_dist as um
from tests.pipeline.conftest import Ulcmod
from tests.pipeline.demo_corpus import DEMO, write_demo_corpus

METHODS = ["IterD", "k-means", "random groups of units"]
JOB = f"""\
run: RUN
model: {{id: {DEMO / "model"}}}
corpus: {{train: train.parquet, test: test.parquet, id: id, category: category}}
extract: {{shard_samples: 32, workers: 1}}
discover: {{modules: 3, restarts: 2}}
evaluate: {{seeds: 1, null_permutations: 1, baselines: [k-means]}}
ablate: {{with_run: true, baselines: [k-means], samples: 4, random_sets: 1}}
report: {{formats: [svg]}}
"""


@pytest.fixture(scope="module")
def run(local_ray: None, tmp_path_factory: pytest.TempPathFactory, ulcmod: Ulcmod) -> Path:
    """A run whose job ablates k-means, too."""
    folder = tmp_path_factory.mktemp("job")
    write_demo_corpus(folder)
    (folder / "job.yaml").write_text(JOB.replace("RUN", str(folder / "run")))
    assert ulcmod("run", folder / "job.yaml").code == 0
    return folder / "run"


def read_states(run: Path, ulcmod: Ulcmod, *words: Any) -> dict[str, str]:
    """State of each artifact of K = 3."""
    listed = ulcmod("status", run, "--json", *words).json()["artifacts"]
    return {each["artifact"]: each["state"] for each in listed if each["num_modules"] == 3}


def test_run__ablates_the_methods_that_the_job_names(run: Path, ulcmod: Ulcmod) -> None:
    rows = ulcmod("ablate", run, "--json").json()["rows"]
    assert [row["method"] for row in rows] == METHODS
    assert {row["state"] for row in rows} == {"as before"}
    table = pq.read_table(run / "tables/measures-k003.parquet").to_pydict()
    assert dict(zip(table["method"], table["selective"], strict=True)) == {
        row["method"]: row["selective"] for row in rows
    }
    shown = pq.read_table(run / "tables/ablated-methods-k003.parquet")
    assert shown["advantage"].to_pylist() == [row["advantage"] for row in rows]


def test_run__of_other_methods_leaves_the_ablation_of_the_modules_fresh(
    run: Path, ulcmod: Ulcmod
) -> None:
    assert set(read_states(run, ulcmod).values()) == {"fresh"}
    none = read_states(run, ulcmod, "--set", "ablate.baselines=[]")
    assert (none["ablation"], none["method-ablations"]) == ("fresh", "stale")
    fewer = read_states(run, ulcmod, "--set", "ablate.samples=2")
    assert (fewer["methods"], fewer["ablation"]) == ("fresh", "stale")
    assert fewer["method-ablations"] == "stale"


def test_evaluate__keeps_the_modules_of_other_methods(run: Path) -> None:
    opened = um.open_run(run)
    units = pq.read_table(run / "evaluation/methods-units-K=003.parquet")
    samples = pq.read_table(run / "evaluation/methods-samples-K=003.parquet")
    assert units.column_names == ["unit", *METHODS[1:]]
    assert units["unit"].to_pylist() == opened.units(3)["unit"].tolist()
    assert samples["sample_id"].to_pylist() == opened.sample_ids("train")
    sizes = np.bincount(opened.units(3)["module"])
    assert np.array_equal(np.bincount(units[METHODS[2]].to_numpy()), sizes)
    assert set(samples["k-means"].to_pylist()) <= {0, 1, 2}

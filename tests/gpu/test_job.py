"""A job whose actors use a GPU, from prompts to the effects of its modules."""

from pathlib import Path

import numpy as np
import pytest

import ulcmod_dist as um
from tests.pipeline.conftest import call_ulcmod
from tests.pipeline.demo_corpus import DEMO, write_demo_corpus

JOB = f"""\
run: RUN
model: {{id: {DEMO / "model"}}}
corpus: {{train: train.parquet, test: test.parquet, id: id, category: category}}
extract: {{shard_samples: 32, EXTRACT}}
discover: {{modules: [3], restarts: 2}}
evaluate: {{seeds: 1, null_permutations: 1, baselines: [k-means]}}
ablate: {{samples: 4, random_sets: 1}}
"""


def run_job(folder: Path, name: str, extract: str) -> um.Run:
    """Run the job with these actors, which also ablate its modules."""
    text = JOB.replace("RUN", str(folder / name)).replace("EXTRACT", extract)
    (folder / f"{name}.yaml").write_text(text)
    answer = call_ulcmod("run", folder / f"{name}.yaml")
    assert answer.code == 0, answer.err
    return um.open_run(folder / name)


def measure_selectivity(folder: Path, name: str) -> float:
    answer = call_ulcmod("ablate", folder / name, "--num-modules", 3, "--json")
    assert answer.code == 0, answer.err
    return float(answer.json()["rows"][0]["selectivity"])


@pytest.fixture(scope="module")
def folder(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus, and the run of a job on it without a GPU."""
    folder = tmp_path_factory.mktemp("job")
    write_demo_corpus(folder)
    run_job(folder, "cpu", "workers: 1")
    return folder


@pytest.mark.parametrize("extract", ["workers: 1, gpus: 1", "workers: 2, gpus: 0.5"])
def test_run__rows_modules_and_effects_are_those_of_the_cpu(folder: Path, extract: str) -> None:
    name = f"gpu-{extract.split()[-1]}"
    runs = um.open_run(folder / "cpu"), run_job(folder, name, extract)
    expected, rows = (np.asarray(run.activations("train").raw) for run in runs)
    np.testing.assert_allclose(rows, expected, rtol=1e-3, atol=1e-4)
    expected_value, value = (run.modules(3).metrics["objective"] for run in runs)
    assert value == pytest.approx(expected_value, rel=1e-3)
    effects = [measure_selectivity(folder, each) for each in ("cpu", name)]
    assert effects[1] == pytest.approx(effects[0], rel=0.02)

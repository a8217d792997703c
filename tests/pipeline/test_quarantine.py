"""A prompt that fails again and again: what a user sees of it, and how it is tried again."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.pipeline.conftest import Ulcmod
from tests.pipeline.demo_corpus import DEMO
from tests.pipeline.sick import Sick
from ulcmod_dist.pipeline import extract
from ulcmod_dist.pipeline.context import open_target
from ulcmod_dist.pipeline.plan import make_model_loader
from ulcmod_dist.pipeline.run import make_snapshot

JOB = f"""\
run: RUN
model: {{id: {DEMO / "model"}}}
corpus: {{train: train.parquet, id: id, category: category}}
extract: {{shard_samples: 8, workers: 1}}
discover: {{modules: [2]}}
"""


@pytest.fixture
def sick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, local_ray: None) -> Path:
    """A job of 24 prompts of which the sixth fails; removing the file heals the model."""
    table = pq.read_table(DEMO / "train.parquet")[:24]
    pq.write_table(table, tmp_path / "train.parquet")
    (tmp_path / "job.yaml").write_text(JOB.replace("RUN", str(tmp_path / "run")))
    (tmp_path / "illness").touch()

    def made(job, prepared):  # type: ignore[no-untyped-def]
        load_model = make_model_loader(job, prepared)
        (entry,) = load_model().encode([table["text"][5].as_py()])
        return Sick(load_model, tuple(entry.ids), str(tmp_path / "illness"))

    monkeypatch.setattr(extract, "make_model_loader", made)
    return tmp_path


def test_extract__a_poisonous_prompt_is_listed_and_tried_again_on_request(
    sick: Path, ulcmod: Ulcmod
) -> None:
    name = pq.read_table(sick / "train.parquet")["id"][5].as_py()
    first = ulcmod("--log-format", "json", "extract", sick / "job.yaml")
    assert (first.code, first.out) == (3, "")
    log = [json.loads(line) for line in first.err.splitlines() if line.startswith("{")]
    warnings = [line["message"] for line in log if line["event"] == "warning"]
    assert [line for line in warnings if "Attempt 3 of 3 at a shard failed" in line]
    assert "Prompts quarantined: 1. A unit is not a number." in warnings
    assert (log[-1]["event"], log[-1]["exit_code"], log[-1]["level"]) == ("result", 3, "warning")
    assert log[-1]["closing"] == [f"In quarantine: {name}: A unit is not a number."]
    assert ulcmod("status", sick / "run", "--json").json()["quarantined"] == [name]
    assert name in ulcmod("status", sick / "run").out
    assert ulcmod("discover", sick / "run").code == 0  # the other 23 are there

    (sick / "illness").unlink()
    again = ulcmod("extract", sick / "job.yaml")
    assert again.code == 3  # nobody asked
    assert f"In quarantine: {name}: A unit is not a number." in " ".join(again.out.split())
    # Nor does a run of which nothing has changed keep silent about it.
    context = open_target(str(sick / "job.yaml"), [])
    unchanged = make_snapshot(context)
    assert (unchanged.facts["samples"], unchanged.facts["computed"]) == (23, 0)
    assert unchanged.exit_code == 3
    assert unchanged.closing == [f"In quarantine: {name}: A unit is not a number."]
    healed = ulcmod("extract", sick / "job.yaml", "--retry-quarantined", "--json")
    assert healed.code == 0, healed.err
    assert (healed.json()["computed"], healed.json()["samples"]) == (1, 24)
    assert ulcmod("status", sick / "run", "--json").json()["quarantined"] == []

"""Progress as Prometheus metrics and as a file; a projection from a measurement."""

import time
import urllib.request
from collections.abc import Sequence

import pytest

from tests.extract.conftest import Go
from tests.extract.fakes import RECORD, UNITS, FakeForward, fake, prompts_of, words
from ulcmod_dist.config.schema import ExtractConfig
from ulcmod_dist.errors import UlcmodError
from ulcmod_dist.extract.driver import prepare
from ulcmod_dist.extract.monitor import ExtractionProgress
from ulcmod_dist.extract.planner import PreparedExtraction, load_plan
from ulcmod_dist.extract.probe import probe
from ulcmod_dist.runtime.lease import read_holder
from ulcmod_dist.runtime.rundir import EXTRACTION_FILE, RunDir
from ulcmod_dist.store.records import committed_digests, read_quarantine


def scraped(address: str) -> str:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as answer:
        return str(answer.read(), "utf-8")


def test_status__says_how_far_it_is_and_who_works(go: Go, run: RunDir) -> None:
    during = []

    def look(progress: ExtractionProgress) -> None:
        during.append((read_holder(run), load_plan(run)))

    go(prompts_of([*words(7), "poison"]), fake(poison={"poison": "nan"}), on_progress=look)
    holder, plan = during[0]
    assert holder is not None
    assert plan is not None
    assert (holder["purpose"], plan.prompts) == ("extract", 8)
    assert read_holder(run) is None
    after = run.read_json(EXTRACTION_FILE)["progress"]
    assert after["shards_done"] == after["shards"] == 2
    assert [entry.sample_ids for entry in read_quarantine(run).values()] == [("s7",)]


def test_metrics__are_served_to_prometheus(go: Go, run: RunDir) -> None:
    go(prompts_of(words(8)))
    (address,) = run.read_json(EXTRACTION_FILE)["metrics"]
    line = "ray_ulcmod_extract_shards_done{"
    label = f'run="{run.url.replace("ä", "%C3%A4")}"'  # Ray takes ASCII alone
    end = time.monotonic() + 60
    while time.monotonic() < end:
        found = [entry for entry in scraped(address).splitlines() if entry.startswith(line)]
        if any(label in entry and entry.endswith(" 2.0") for entry in found):
            return
        time.sleep(1)
    pytest.fail(f"no metric of this run among {found}")


def prepared_for(run: RunDir, texts: Sequence[str]) -> PreparedExtraction:
    return prepare(
        run, prompts_of(texts), FakeForward(), UNITS, RECORD, shard_samples=4, batch_tokens=64
    )


def test_probe__projects_time_from_measured_batches(run: RunDir, local_ray: None) -> None:
    prepared = prepared_for(run, words(40))
    small = ExtractConfig(cpus=0.5, workers=1)
    slow = probe(run, prepared, fake(seconds=0.05), small)
    assert slow.tokens_per_second > 0
    shards = [prepared.prompts.prompts(shard.rows) for shard in prepared.plan.shards]
    batches = sum(len(prepared.plan_batches([*map(len, prompts)])) for prompts in shards)
    assert slow.seconds - slow.load_seconds == pytest.approx(0.05 * batches, rel=0.5)
    assert slow.peak_bytes > 50 * 2**20
    assert committed_digests(run) == set()


def test_probe__a_batch_that_fails_is_said(run: RunDir, local_ray: None) -> None:
    prepared = prepared_for(run, ["poison"] * 3)
    with pytest.raises(UlcmodError, match="cannot be computed"):
        probe(run, prepared, fake(poison={"poison": "raise"}), ExtractConfig(cpus=0.5))

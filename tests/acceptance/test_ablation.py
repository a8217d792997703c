"""Silencing modules of trained decoders: does it hurt their own samples, and more than chance?"""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from ulcmod_dist.config.job import Job
from ulcmod_dist.pipeline.ablate import ablate
from ulcmod_dist.pipeline.context import Context
from ulcmod_dist.pipeline.discover import discover
from ulcmod_dist.pipeline.extract import extract
from ulcmod_dist.pipeline.result_files import read_result
from ulcmod_dist.results.ablation import Ablation
from ulcmod_dist.runtime.rundir import RunDir

pytestmark = pytest.mark.acceptance

DEMO = Path(__file__).parents[2] / "jobs" / "demo"
NUM_MODULES = 7
JOB = """\
run: {folder}/run
model: {{id: {model}}}
corpus: {{train: {folder}/train.parquet, text: text, category: category}}
discover: {{modules: [{k}], restarts: 5}}
ablate: {{samples: 10, random_sets: 1}}
"""

Silence = Callable[[Path, Path], Ablation]


@pytest.fixture
def silenced(tmp_path: Path) -> Silence:
    """Find and silence the modules of a decoder on some prompts of each category of a corpus."""

    def measure(model: Path, corpus: Path) -> Ablation:
        table = pq.read_table(corpus, columns=["text", "category"])
        names = table["category"].unique().to_pylist()
        parts = [table.filter(pc.equal(table["category"], name))[:60] for name in names]
        pq.write_table(pa.concat_tables(parts), tmp_path / "train.parquet")
        text = JOB.format(folder=tmp_path, model=model, k=NUM_MODULES)
        job = Job.from_text(text, source="the test", folder=tmp_path)
        context = Context(job, RunDir.at(job.run))
        extract(context)
        discover(context)
        ablate(context)
        return read_result(context.run, "ablation", NUM_MODULES, Ablation)

    return measure


def test_ablate__modules_of_the_demo_serve_their_own_samples(silenced: Silence) -> None:
    check(silenced(DEMO / "model", DEMO / "train.parquet"))


def test_ablate__modules_of_a_decoder_on_real_prompts_serve_their_own_samples(
    silenced: Silence, small_qwen2: Path, real7: Path
) -> None:
    check(silenced(small_qwen2, real7 / "train.parquet"))


def check(result: Ablation) -> None:
    for name in ("selectivity", "control_selectivity", "advantage"):
        value = getattr(result, name)
        print(f"{name}: {value.mean:.3f} ({value.low:.3f} to {value.high:.3f})")
    for row in result.modules:
        print(
            f"module {row.module}: own {row.loss.own.mean:.2f}, others {row.loss.other.mean:.2f}; "
            + ", ".join(f"{each.kind} {each.loss.own.mean:.2f}" for each in row.controls)
        )
    real, random = result.selectivity, result.control_selectivity
    assert real.low is not None
    assert random.high is not None
    assert result.advantage.low is not None
    # The prototype of the check found modules to be several times as selective as chance.
    assert real.low > 3 * max(random.high, 0.0)
    assert result.advantage.low > 0.2
    above = [
        row.loss.own.mean > max(each.loss.own.mean for each in row.controls)
        for row in result.modules
    ]
    assert sum(above) >= 6

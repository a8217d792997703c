"""A published chat model on real prompts, through the whole program."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from ulcmod_dist.api import Run
from ulcmod_dist.config.job import Job
from ulcmod_dist.config.schema import SearchConfig
from ulcmod_dist.iterd.driver import discover_all
from ulcmod_dist.pipeline.ablate import ablate
from ulcmod_dist.pipeline.context import Context
from ulcmod_dist.pipeline.discover import discover
from ulcmod_dist.pipeline.evaluate import evaluate
from ulcmod_dist.pipeline.extract import extract
from ulcmod_dist.pipeline.result_files import read_result
from ulcmod_dist.results.ablation import Ablation
from ulcmod_dist.results.discovery import Discovery
from ulcmod_dist.results.types import Absent
from ulcmod_dist.runtime.rundir import RunDir

pytestmark = pytest.mark.acceptance

NUM_MODULES = 7
# L of the best modules known for each K.
BEST_KNOWN = {5: 1_612_449, 7: 1_137_355, 10: 643_704, 15: 355_770}
# The first prompts of each of seven categories.
TRAIN, TEST = 200, 40
UNITS = 30 * 1536
SYSTEM = "You are a helpful assistant."
# Two samples a module, in batches for two actors, keep the ablation within minutes on two cores.
JOB = """\
run: {folder}/run
model: {{id: {model}, dtype: float32}}
corpus:
  {{train: {folder}/train.parquet, test: {folder}/test.parquet, category: category, id: id}}
prompt: {{system: {system}}}
extract: {{shard_samples: 256, batch_tokens: 512}}
discover: {{modules: {modules}, restarts: 10}}
evaluate: {{baselines: [], seeds: 1}}
ablate: {{samples: 2}}
"""


@pytest.fixture(scope="module")
def context(smollm2: Path, real7: Path, tmp_path_factory: pytest.TempPathFactory) -> Context:
    """A run of SmolLM2 on a part of real7 whose modules are found."""
    folder = tmp_path_factory.mktemp("smollm2")
    for split, count in (("train", TRAIN), ("test", TEST)):
        table = pq.read_table(real7 / f"{split}.parquet")
        names = table["category"].unique().to_pylist()
        parts = [table.filter(pc.equal(table["category"], name))[:count] for name in names]
        pq.write_table(pa.concat_tables(parts), folder / f"{split}.parquet")
    text = JOB.format(folder=folder, model=smollm2, modules=list(BEST_KNOWN), system=SYSTEM)
    job = Job.from_text(text, source="the test", folder=folder)
    opened = Context(job, RunDir.at(job.run))
    extract(opened)
    discover(opened)
    return opened


def plain_rows(gguf: Path, texts: list[str]) -> NDArray[np.float32]:
    """Mean |input of each down-projection| of each prompt, by transformers alone, one at a time."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source: dict[str, Any] = {"gguf_file": gguf.name}
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, dtype=torch.float32, **source).eval()
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **source)
    seen: list[torch.Tensor] = []
    for layer in model.model.layers:
        layer.mlp.down_proj.register_forward_pre_hook(
            lambda _, inputs: seen.append(inputs[0][0].abs().mean(dim=0))
        )
    rows = []
    for text in texts:
        seen.clear()
        chat = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}]
        spelt = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        with torch.inference_mode():
            model(**tokenizer(spelt, return_tensors="pt", add_special_tokens=False))
        rows.append(torch.cat(seen).numpy())
    return np.array(rows)


def test_rows__equal_those_of_a_plain_loop(context: Context, smollm2: Path) -> None:
    assert context.job.corpus is not None
    table = pq.read_table(context.job.corpus.train[0], columns=["id", "text"]).to_pydict()
    chosen = list(range(0, 7 * TRAIN, 67))
    plain = plain_rows(smollm2, [table["text"][number] for number in chosen])
    run = Run(context.run)
    positions = {name: row for row, name in enumerate(run.sample_ids("train"))}
    rows = [positions[table["id"][number]] for number in chosen]
    stored = np.asarray(run.activations("train").raw[rows])
    assert stored.shape == plain.shape == (len(chosen), UNITS)
    difference = np.abs(stored - plain).max(axis=1) / plain.max(axis=1)
    print(f"{len(chosen)} rows: largest relative difference {difference.max():.1e}")
    np.testing.assert_allclose(stored, plain, rtol=1e-5)


def test_modules__agree_with_the_categories(context: Context) -> None:
    evaluate(context, [NUM_MODULES])
    found = read_result(context.run, "evaluation", NUM_MODULES, Discovery)
    assert not isinstance(found.agreement, Absent)
    assert not isinstance(found.downstream, Absent)
    assert not isinstance(found.null, Absent)
    train = next(row for row in found.agreement if row.split == "train")
    accuracy = found.downstream.classifiers[0].accuracy.mean
    null = float(np.mean([row.value for row in found.null]))
    print(
        f"L {found.objective.value:,.0f}, null {null:,.0f}; adjusted Rand index "
        f"{train.adjusted_rand:.3f}; accuracy {accuracy:.3f}"
    )
    assert train.adjusted_rand >= 0.90
    assert accuracy >= 0.99
    assert found.objective.value >= 8 * null


@pytest.mark.parametrize("seed", range(3))
def test_search__ends_near_the_best_known_modules(context: Context, seed: int) -> None:
    run = Run(context.run)
    if seed == context.job.discover.seed:
        values = {k: run.modules(k).metrics["objective"] for k in BEST_KNOWN}
    else:
        config = SearchConfig(modules=tuple(BEST_KNOWN), restarts=10, seed=seed)
        found = discover_all(run.activations(), list(BEST_KNOWN), config)
        values = {k: modules.objective.value for k, modules in found.items()}
    shares = {k: values[k] / best for k, best in BEST_KNOWN.items()}
    print(f"seed {seed}: { ({k: round(share, 5) for k, share in shares.items()}) }")
    assert min(shares.values()) >= 0.9995


def test_modules__serve_their_own_samples(context: Context) -> None:
    ablate(context, [NUM_MODULES])
    result = read_result(context.run, "ablation", NUM_MODULES, Ablation)
    for name in ("selectivity", "control_selectivity"):
        value = getattr(result, name)
        print(f"{name}: {value.mean:.3f} ({value.low:.3f} to {value.high:.3f})")
    for row in result.modules:
        print(f"module {row.module}: own {row.loss.own.mean:.2f}, other {row.loss.other.mean:.2f}")
    real, control = result.selectivity, result.control_selectivity
    assert real.low is not None
    assert control.high is not None
    assert real.low > max(control.high, 0.0)
    assert sum(row.loss.own.mean > row.loss.other.mean for row in result.modules) >= 6

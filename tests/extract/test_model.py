"""The real forward pass in actors: one process a replica, or several that share a model."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from tests.extract.fakes import prompts_of, words
from tests.forward.tiny import CHATML, save_tiny
from ulcmod_dist.config.schema import (
    ExtractConfig,
    ModelConfig,
    Statistic,
    TokenizationConfig,
)
from ulcmod_dist.corpus.digests import from_hex
from ulcmod_dist.extract.driver import extract, prepare, publish
from ulcmod_dist.extract.planner import list_remaining_tasks, merge_provenance
from ulcmod_dist.extract.replica import ModelReplica
from ulcmod_dist.extract.worker import ShardResult, Worker
from ulcmod_dist.forward.engine import Engine
from ulcmod_dist.forward.loading import get_model_provenance, load_config, load_model
from ulcmod_dist.forward.tokens import PromptTokenizer
from ulcmod_dist.forward.units import list_units
from ulcmod_dist.runtime.lease import Fence, Lease
from ulcmod_dist.runtime.rundir import RunDir
from ulcmod_dist.store.records import read_commits
from ulcmod_dist.store.shards import ShardWriter

RULE = TokenizationConfig(template="none", max_tokens=32)


@pytest.mark.parametrize(
    ("ranks", "statistic"), [(1, "activation"), (2, "activation"), (2, "attribution")]
)
def test_extract__rows_of_the_actors_are_those_of_each_prompt_alone(
    run: RunDir, local_ray: None, tmp_path: Path, ranks: int, statistic: Statistic
) -> None:
    folder = save_tiny(tmp_path / "model", "llama", head=True, num_key_value_heads=2)
    spec = ModelConfig(id=str(folder))
    encoder, units = PromptTokenizer.load(spec, RULE), list_units(load_config(spec))
    config = ExtractConfig(workers=1, ranks=ranks, statistic=statistic)
    texts = words(9)
    record = merge_provenance(get_model_provenance(spec), encoder.provenance)
    prepared = prepare(
        run, prompts_of(texts), encoder, units, record, shard_samples=5, batch_tokens=64
    )
    with Lease.acquire(run, "extract") as lease:
        done = extract(
            run,
            prepared,
            partial(ModelReplica, spec, RULE, config, units),
            config,
            fence=lease.fence,
        )
    engine = Engine(load_model(spec, load_config(spec), "cpu", head=True), statistic=statistic)
    alone = [engine.run([entry]).activations[0] for entry in encoder.encode(texts)]
    rows = done.snapshot.activations().raw.compute()
    np.testing.assert_allclose(rows, np.array(alone), rtol=1e-4, atol=1e-6)


def test_worker__computes_the_template_once_and_records_it(run: RunDir, tmp_path: Path) -> None:
    rule = TokenizationConfig(system="Be brief.")
    folder = save_tiny(tmp_path / "model", "llama", template=CHATML)
    spec = ModelConfig(id=str(folder))
    encoder, units = PromptTokenizer.load(spec, rule), list_units(load_config(spec))
    texts = words(6)
    record = merge_provenance(get_model_provenance(spec), encoder.provenance)
    prepared = prepare(
        run, prompts_of(texts), encoder, units, record, shard_samples=6, batch_tokens=128
    )
    [task] = list_remaining_tasks(prepared.plan, prepared.digests, from_hex([]))
    writer = ShardWriter(run, prepared.plan.chunk_shape)
    loader = partial(ModelReplica, spec, rule, ExtractConfig(), units)
    worker = Worker(loader, writer, record, prepared.plan_batches)
    assert worker.load() is None
    assert isinstance(worker.extract(task, texts), ShardResult)
    [commit] = read_commits(run).values()
    # <s> <|system|> Be brief. </s> <|user|>, and the word that all texts begin with.
    assert commit.origin.prefix_tokens == 2 + len("Be brief.") + 2 + len("prompt ")
    engine = Engine(load_model(spec, load_config(spec), "cpu"))
    alone = [engine.run([entry]).activations[0] for entry in encoder.encode(texts)]
    rows = publish(run, prepared, Fence(run, 0)).activations().raw.compute()
    np.testing.assert_allclose(rows, np.array(alone), rtol=1e-5, atol=1e-6)

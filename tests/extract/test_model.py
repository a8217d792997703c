"""The real forward pass in actors: one process a replica, or several that share a model."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from tests.extract.fakes import prompts_of, words
from tests.forward.tiny import save_tiny
from ulcmod_dist.config.schema import (
    ExtractConfig,
    ModelConfig,
    Statistic,
    TokenizationConfig,
)
from ulcmod_dist.extract.driver import extract, prepare
from ulcmod_dist.extract.planner import merge_provenance
from ulcmod_dist.extract.worker import ModelReplica
from ulcmod_dist.forward.engine import Engine
from ulcmod_dist.forward.loading import get_model_provenance, load_config, load_model
from ulcmod_dist.forward.tokens import PromptTokenizer
from ulcmod_dist.forward.units import list_units
from ulcmod_dist.runtime.lease import Lease
from ulcmod_dist.runtime.rundir import RunDir

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

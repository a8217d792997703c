"""A model that two processes share yields the rows of the whole model, on both."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.forward.ranks import RANKS, run_on_ranks
from tests.forward.tiny import make_prompts, save_tiny
from ulcmod_dist.config.schema import ModelConfig
from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.forward.batches import PooledActivations
from ulcmod_dist.forward.engine import Engine
from ulcmod_dist.forward.loading import load_config, load_model

# Phi-3 gathers its fused units on every rank, Qwen2-MoE holds its shared expert on every rank.
FAMILIES = ("llama", "phi3", "gpt_neox", "mixtral", "qwen2_moe", "deepseek_v3")
LENGTHS = [3, 11, 6]
# Two models whose position embedding tells prompts of 11 tokens from shorter ones.
LONGROPE = {
    "rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4, "long_factor": [8.0] * 4,
}  # fmt: skip
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}
CHANGES: dict[str, dict[str, Any]] = {
    "phi3": {"original_max_position_embeddings": 8, "rope_parameters": LONGROPE},
    "llama": {"max_position_embeddings": 8, "rope_parameters": DYNAMIC},
}


def run_engines(rank: int, folder: Path) -> None:
    for family in FAMILIES:
        engine = Engine.load(ModelConfig(id=str(folder / family)), ranks=RANKS)
        rows = engine.run(make_prompts(LENGTHS))
        routed = np.zeros(0) if rows.routed is None else rows.routed
        np.savez(folder / f"{family}-{rank}.npz", rows=rows.activations, routed=routed)
        engine = Engine.load(
            ModelConfig(id=str(folder / family)), ranks=RANKS, statistic="attribution"
        )
        np.save(folder / f"{family}-{rank}.npy", engine.run(make_prompts(LENGTHS)).activations)


def test_engine__ranks_yield_the_rows_of_the_whole_model(tmp_path: Path) -> None:
    for family in FAMILIES:
        changes = CHANGES.get(family, {})
        save_tiny(tmp_path / family, family, head=True, num_key_value_heads=2, **changes)
    run_on_ranks(run_engines, tmp_path)
    for family in FAMILIES:
        spec = ModelConfig(id=str(tmp_path / family))
        engine = Engine.load(spec)
        alone = [engine.run([prompt]) for prompt in make_prompts(LENGTHS)]
        expected = PooledActivations.concatenate(alone)
        for rank in range(RANKS):
            shared = np.load(tmp_path / f"{family}-{rank}.npz")
            np.testing.assert_allclose(shared["rows"], expected.activations, rtol=1e-4, atol=1e-6)
            if expected.routed is not None:
                np.testing.assert_array_equal(shared["routed"], expected.routed)
        weighed = Engine(
            load_model(spec, load_config(spec), "cpu", head=True), statistic="attribution"
        )
        rows = weighed.run(make_prompts(LENGTHS)).activations
        for rank in range(RANKS):
            shared = np.load(tmp_path / f"{family}-{rank}.npy")
            np.testing.assert_allclose(shared, rows, rtol=1e-4, atol=1e-5 * float(rows.max()))


def test_engine__layers_laid_out_by_the_library_yield_the_same_rows(tmp_path: Path) -> None:
    spec = ModelConfig(id=str(save_tiny(tmp_path, "mixtral")))
    expected = Engine.load(spec).run(make_prompts(LENGTHS))
    rows = Engine.load(spec, device="auto").run(make_prompts(LENGTHS))
    np.testing.assert_array_equal(rows.activations, expected.activations)


def test_engine__a_family_without_a_plan_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="type bert cannot be shared by ranks"):
        Engine.load(ModelConfig(id=str(save_tiny(tmp_path, "bert"))), ranks=2)

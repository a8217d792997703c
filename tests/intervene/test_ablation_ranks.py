"""Ablation of a model that two processes share measures what one process does."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from tests.forward.ranks import RANKS, run_on_ranks
from tests.intervene.shared_models import BATCHES, PROMPTS, make_masks, measure_ablation, save_model
from ulcmod_dist.config.schema import ModelConfig
from ulcmod_dist.intervene.ablation import compute_unit_means
from ulcmod_dist.intervene.engine import LossEngine, PairedPrompt
from ulcmod_dist.intervene.masks import Mask

# Phi-3 gathers its fused units on every rank, Qwen2-MoE holds its shared expert on every rank.
FAMILIES = ("llama", "phi3", "mixtral", "qwen2_moe")

# Each prompt takes resampled units from the one before it.
PAIRS = [
    PairedPrompt(prompt.ids, prompt.token_mask, source=source)
    for prompt, source in zip(PROMPTS, [PROMPTS[-1], *PROMPTS[:-1]], strict=True)
]


def scale(mask: Mask) -> Mask:
    return replace(mask, factors=np.full(len(mask.ablated), 1.5, np.float32))


def measure_rank(rank: int, folder: Path) -> None:
    for family in FAMILIES:
        config = ModelConfig(id=str(folder / family))
        engine = LossEngine.load(config, ranks=RANKS)
        means = compute_unit_means(engine, PROMPTS, BATCHES)
        zero, other, _ = make_masks(config)
        masks = [zero, other.with_means(means), replace(zero, resampled=True), scale(zero)]
        found = measure_ablation(engine, PAIRS, BATCHES, masks)
        np.savez(folder / f"{family}-{rank}.npz", means=means, **vars(found))


def test_ablation__ranks_that_share_a_model_measure_what_one_process_does(tmp_path: Path) -> None:
    for family in FAMILIES:
        save_model(tmp_path / family, family)
    run_on_ranks(measure_rank, tmp_path)
    for family in FAMILIES:
        config = ModelConfig(id=str(tmp_path / family))
        engine = LossEngine.load(config)
        means = compute_unit_means(engine, PROMPTS, BATCHES)
        zero, other, _ = make_masks(config)
        for rank in range(RANKS):
            shared = np.load(tmp_path / f"{family}-{rank}.npz")
            np.testing.assert_allclose(shared["means"], means, rtol=1e-4, atol=1e-6)
            held = other.with_means(shared["means"])
            masks = [zero, held, replace(zero, resampled=True), scale(zero)]
            expected = measure_ablation(engine, PAIRS, BATCHES, masks)
            assert np.median(np.abs(expected.loss_increase)) > 1e-3
            np.testing.assert_allclose(shared["loss"], expected.loss, rtol=1e-5)

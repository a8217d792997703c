"""Ablation in Ray actors: a process each or several that share a model, whole and killed."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.forward.tiny import make_prompts, tiny_model
from ulcmod_dist.config.schema import ModelConfig
from ulcmod_dist.forward.architectures import list_units
from ulcmod_dist.forward.loading import load_config
from ulcmod_dist.intervene.ablation import (
    AblationLosses,
    AblationPool,
    Machine,
    compute_unit_means,
    measure_ablation,
)
from ulcmod_dist.intervene.engine import LossEngine
from ulcmod_dist.intervene.masks import Mask, get_unit_layers

PROMPTS = make_prompts([5, 31, 7, 12, 9, 20, 3, 16])
BATCHES = [[0, 1], [2, 3], [4, 5], [6, 7]]
# Phi-3 gathers its fused units on every rank, Qwen2-MoE holds its shared expert on every rank.
SHARED = ("llama", "phi3", "mixtral", "qwen2_moe")


def saved(folder: Path, family: str) -> ModelConfig:
    tiny_model(family, head=True, num_key_value_heads=2).save_pretrained(folder)
    return ModelConfig(id=str(folder))


def masks_of(spec: ModelConfig) -> list[Mask]:
    units = list_units(load_config(spec))
    rng = np.random.default_rng(0)
    count = len(get_unit_layers(units))
    return [Mask(units, rng.random(count) < 0.4, np.zeros(count, np.float32)) for _ in range(3)]


def alone(spec: ModelConfig, masks: list[Mask]) -> AblationLosses:
    return measure_ablation(LossEngine.load(spec), PROMPTS, BATCHES, masks)


@pytest.mark.parametrize("family", SHARED)
def test_ablation_pool__ranks_that_share_a_model_measure_what_one_process_does(
    family: str, tmp_path: Path, local_ray: None
) -> None:
    spec = saved(tmp_path, family)
    with AblationPool(spec, Machine(ranks=2), workers=1, placement_timeout=60) as pool:
        means = pool.compute_unit_means(PROMPTS, BATCHES)
        masks = [masks_of(spec)[0], masks_of(spec)[1].with_means(means)]
        measured = pool.measure(PROMPTS, BATCHES, masks)
        others = pool.measure(PROMPTS, BATCHES, masks[1:])
    whole = LossEngine.load(spec)
    np.testing.assert_allclose(
        means, compute_unit_means(whole, PROMPTS, BATCHES), rtol=1e-4, atol=1e-6
    )
    expected = alone(spec, masks)
    assert np.median(np.abs(expected.loss_increase)) > 1e-3
    np.testing.assert_allclose(measured.intact, expected.intact, rtol=1e-5)
    np.testing.assert_allclose(measured.masked, expected.masked, rtol=1e-5)
    # Actors keep masks from batch to batch, but not from one measurement to the next.
    np.testing.assert_allclose(others.masked, expected.masked[1:], rtol=1e-5)


@pytest.mark.parametrize("ranks", [1, 2])
def test_ablation_pool__a_process_killed_in_mid_measurement_changes_no_loss(
    ranks: int, tmp_path: Path, local_ray: None
) -> None:
    spec = saved(tmp_path, "llama")
    masks = masks_of(spec)
    machine = Machine(cpus=0.5, ranks=ranks)
    with AblationPool(spec, machine, workers=2, placement_timeout=60) as pool:
        undisturbed = pool.measure(PROMPTS, BATCHES, masks)
        before = set(measuring(ranks))
        victims = iter(sorted(before)[:1])
        # The others of these batches are under way or wait, as the first answer arrives.
        killed = pool.measure(PROMPTS, BATCHES, masks, lambda _: kill_next(victims))
        after = set(measuring(ranks))
    assert next(victims, None) is None
    assert len(before) == 2
    assert len(before & after) == 1
    assert killed.masked.tobytes() == undisturbed.masked.tobytes()
    assert killed.intact.tobytes() == undisturbed.intact.tobytes()


def measuring(ranks: int) -> Iterator[int]:
    """Processes of actors, or of the ranks that follow them where there are several."""
    for process in psutil.Process().children(recursive=True):
        if process.name().startswith("ray::_Measurer"):
            followers = [p.pid for p in process.children() if "spawn_main" in str(p.cmdline())]
            yield from [process.pid] if ranks == 1 else followers


def kill_next(victims: Iterator[int]) -> None:
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
        return

"""Ablation in Ray actors: a process each or several that share a model, whole and killed."""

import os
import signal
from collections.abc import Iterator

import numpy as np
import psutil
import pytest

from tests.intervene.shared_models import BATCHES, PROMPTS, make_masks, measure_ablation, save_model
from ulcmod_dist.config.schema import ExtractConfig, ModelConfig
from ulcmod_dist.intervene.ablation import AblationPool, compute_unit_means
from ulcmod_dist.intervene.engine import LossEngine


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> ModelConfig:
    return save_model(tmp_path_factory.mktemp("model"), "llama")


@pytest.fixture(scope="module", params=[1, 2])
def ranks(request: pytest.FixtureRequest) -> int:
    count: int = request.param
    return count


@pytest.fixture(scope="module")
def pool(ranks: int, spec: ModelConfig, local_ray: None) -> Iterator[AblationPool]:
    """Two actors that start once for all tests: loading the model takes longer than these."""
    with AblationPool(
        spec, ExtractConfig(cpus=0.5, ranks=ranks, workers=2, patience=60)
    ) as started:
        yield started


def test_ablation_pool__measures_what_one_process_does(
    pool: AblationPool, spec: ModelConfig
) -> None:
    # Other architectures on ranks: test_ablation_ranks.py, without a pool of actors for each.
    (means,) = pool.map(compute_unit_means, [(PROMPTS, BATCHES)])
    zero, other, _ = make_masks(spec)
    masks = [zero, other.with_means(means)]
    measured = pool.measure(PROMPTS, BATCHES, masks)
    others = pool.measure(PROMPTS, BATCHES, masks[1:])
    whole = LossEngine.load(spec)
    np.testing.assert_allclose(
        means, compute_unit_means(whole, PROMPTS, BATCHES), rtol=1e-4, atol=1e-6
    )
    expected = measure_ablation(whole, PROMPTS, BATCHES, masks)
    assert np.median(np.abs(expected.loss_increase)) > 1e-3
    np.testing.assert_allclose(measured.loss, expected.loss, rtol=1e-5)
    np.testing.assert_allclose(measured.accuracy, expected.accuracy)
    # Masks are those of one measurement, not of the one before.
    np.testing.assert_allclose(others.loss[1], expected.loss[2], rtol=1e-5)


def test_ablation_pool__a_process_killed_in_mid_measurement_changes_no_loss(
    pool: AblationPool, spec: ModelConfig, ranks: int
) -> None:
    masks = make_masks(spec)
    undisturbed = pool.measure(PROMPTS, BATCHES, masks)
    before = set(measuring(ranks))
    victims = iter(sorted(before)[:1])
    # The others of these batches are under way or wait, as the first answer arrives.
    killed = pool.measure(PROMPTS, BATCHES, masks, lambda: kill_next(victims))
    after = set(measuring(ranks))
    assert next(victims, None) is None
    assert len(before) == 2
    assert len(before & after) == 1
    assert killed.loss.tobytes() == undisturbed.loss.tobytes()
    assert killed.accuracy.tobytes() == undisturbed.accuracy.tobytes()


def measuring(ranks: int) -> Iterator[int]:
    """Processes of actors, or of the ranks that follow them where there are several."""
    for process in psutil.Process().children(recursive=True):
        if process.name().startswith("ray::_LossActor"):
            followers = [p.pid for p in process.children() if "spawn_main" in str(p.cmdline())]
            yield from [process.pid] if ranks == 1 else followers


def kill_next(victims: Iterator[int]) -> None:
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
        return

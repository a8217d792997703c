"""Selectivity of masks from made losses, each against its definition."""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from ulcmod_dist.config.schema import AblateConfig
from ulcmod_dist.forward.architectures import LayerUnits
from ulcmod_dist.intervene.ablation import AblationLosses
from ulcmod_dist.intervene.masks import Mask
from ulcmod_dist.intervene.selectivity import (
    Selectivity,
    average_by_group,
    compute_selectivity,
    summarize_ablation,
)
from ulcmod_dist.intervene.trials import AblationSamples, Trial
from ulcmod_dist.results.ablation import CONTROLS, Ablation
from ulcmod_dist.results.serialize import from_json, to_json
from ulcmod_dist.results.types import Absent, Interval

INCREASE = np.array([[4.0, 6.0, 1.0, 1.0, 2.0], [0.0, 2.0, 5.0, 5.0, 5.0]])
GROUPS = np.array([0, 0, 1, 1, 1])


def ends(measured: Selectivity, side: str) -> NDArray[np.float64]:
    """Value, low and high of one side of each mask, shape (3, masks)."""
    intervals = [getattr(mask, side) for mask in measured.masks]
    return np.array([[part.mean, part.low, part.high] for part in intervals], np.float64).T


def test_average_by_group__means_by_group() -> None:
    expected = [[5, 4 / 3, np.nan], [1, 5, np.nan]]
    np.testing.assert_allclose(average_by_group(INCREASE, GROUPS, 3), expected)


def test_average_by_group__samples_without_loss_or_group_are_left_out() -> None:
    increase = np.hstack([INCREASE, np.array([[np.nan, 100.0], [7.0, 100.0]])])
    groups = np.array([*GROUPS, 0, -1])
    np.testing.assert_array_equal(
        average_by_group(increase, groups, 2), average_by_group(INCREASE, GROUPS, 2)
    )


def test_compute_selectivity__own_against_others() -> None:
    result = compute_selectivity(INCREASE, GROUPS, np.array([0, 1]), np.random.default_rng(0))
    np.testing.assert_allclose(ends(result, "own")[0], [5, 5])
    np.testing.assert_allclose(ends(result, "other")[0], [4 / 3, 1])
    assert result.mean.mean == pytest.approx(np.mean([5 - 4 / 3, 4]))
    for side in ("own", "other", "selectivity"):
        value, low, high = ends(result, side)
        assert np.all((low <= value) & (value <= high))
    assert result.mean.low is not None
    assert result.mean.high is not None
    assert result.mean.low <= result.mean.mean <= result.mean.high
    # The second module's own samples cost the same each, so no draw can differ.
    assert (result.masks[1].own.low, result.masks[1].own.high) == (5, 5)


def test_compute_selectivity__several_masks_of_one_owner_and_the_same_seed() -> None:
    owners = np.array([1, 1])
    first, again = (
        compute_selectivity(INCREASE, GROUPS, owners, np.random.default_rng(3), resamples=50)
        for _ in range(2)
    )
    np.testing.assert_allclose(ends(first, "own")[0], [4 / 3, 5])
    assert first == again


def test_compute_selectivity__an_owner_without_samples_is_left_out_of_the_mean() -> None:
    result = compute_selectivity(INCREASE, GROUPS, np.array([0, 2]), np.random.default_rng(0))
    assert np.isnan(ends(result, "selectivity")[0]).tolist() == [False, True]
    assert result.mean.mean == pytest.approx(5 - 4 / 3)
    assert np.isfinite([result.mean.low or np.nan, result.mean.high or np.nan]).all()


def test_compute_selectivity__intervals_cover_the_truth() -> None:
    generator = np.random.default_rng(1)
    groups = np.repeat([0, 1, 2], 40)
    owners = np.array([0, 1, 2])
    covered: list[bool] = []
    means: list[bool] = []
    for _ in range(120):
        increase = generator.normal(0.2, 1.0, (3, 120)) + 0.7 * (groups == owners[:, None])
        result = compute_selectivity(increase, groups, owners, generator, resamples=100)
        _, low, high = ends(result, "selectivity")
        covered.extend((low <= 0.7) & (high >= 0.7))
        assert result.mean.low is not None
        assert result.mean.high is not None
        means.append(result.mean.low <= 0.7 <= result.mean.high)
    assert 0.88 < np.mean(covered) < 0.99
    assert np.mean(means) > 0.85


def test_compute_selectivity__no_effect_gives_intervals_around_zero() -> None:
    generator = np.random.default_rng(2)
    increase = generator.normal(size=(2, 200))
    groups = np.repeat([0, 1], 100)
    result = compute_selectivity(increase, groups, np.array([0, 1]), generator)
    _, low, high = ends(result, "selectivity")
    assert np.all((low < 0) & (high > 0))


def summarize(
    increase: NDArray[np.float64],
    controls: Mapping[str, Sequence[NDArray[np.float64]]],
    categories: Sequence[str | None] = (None,) * 5,
    extreme: NDArray[np.float64] | None = None,
) -> Ablation:
    """Sum up loss increases: of modules, of control sets by kind, of parts of the first module."""
    units = (LayerUnits(3, "layers.3.mlp.down_proj", 4),)
    mask = Mask(units, np.array([True, False, True, False]), np.zeros(4, np.float32))
    trials = [Trial(module, "module", mask) for module in range(len(increase))]
    rows = list(increase)
    for kind, sets in controls.items():
        for each in sets:
            trials += [Trial(module, kind, mask) for module in range(len(each))]
            rows += list(each)
    if extreme is not None:
        trials += [Trial(0, "extreme", mask), Trial(0, "rest", mask)]
        rows += list(extreme)
    loss = np.vstack([np.full(len(GROUPS), 2.5), 2.5 + np.array(rows)])
    accuracy = np.vstack([np.full(len(GROUPS), 0.5), 0.5 - np.array(rows) / 20])
    return summarize_ablation(
        AblationLosses(loss, accuracy),
        trials,
        AblationSamples([], [], GROUPS, categories),
        AblateConfig(random_sets=2, seed=4),
        np.random.default_rng(0),
    )


NO_EFFECT = {kind: [np.zeros((2, 5))] * 2 for kind in CONTROLS}


def test_summarize_ablation__control_sets_of_a_module_are_averaged() -> None:
    random = [np.array([[1.0] * 5, [0.0] * 5]), np.array([[3.0] * 5, [1.0] * 5])]
    controls = {"random": random, "matched": [np.ones((2, 5))] * 2, "quiet": [np.zeros((2, 5))] * 2}
    found = summarize(INCREASE, controls, ["b", "a", "a", None, "b"])
    assert (found.num_samples, found.num_random_sets, found.seed) == (5, 2, 4)
    assert (found.intact_loss, found.intact_accuracy) == (2.5, 0.5)
    np.testing.assert_allclose(found.by_module, [[5.0, 4 / 3], [1.0, 5.0]])
    np.testing.assert_allclose(found.control_by_module, [[1.0, 1.0], [0.5, 0.5]])
    assert found.categories == ("a", "b")
    assert not isinstance(found.by_category, Absent)
    assert not isinstance(found.control_by_category, Absent)
    np.testing.assert_allclose(found.by_category, [[3.5, 3.0], [3.5, 2.5]])
    np.testing.assert_allclose(found.control_by_category, [[1.0, 1.0], [0.5, 0.5]])
    assert [row.module for row in found.modules] == [0, 1]
    second = found.modules[1]
    assert second.loss.own.mean == pytest.approx(5)
    assert second.accuracy.own.mean == pytest.approx(5 / 20)
    assert [(each.kind, each.loss.own.mean) for each in second.controls] == [
        ("random", pytest.approx(0.5)), ("matched", pytest.approx(1)), ("quiet", 0),
    ]  # fmt: skip
    assert second.extreme is None
    assert found.control_selectivity.mean == pytest.approx(0)
    assert found.advantage.mean == pytest.approx(found.selectivity.mean)
    assert isinstance(summarize(INCREASE, controls).by_category, Absent)


def test_summarize_ablation__a_module_that_all_samples_need_is_general_machinery() -> None:
    increase = np.array([[7.0, 7.2, 6.0, 6.5, 6.1], [0.1, 0.2, 5.0, 5.0, 5.0]])
    found = summarize(increase, NO_EFFECT)
    assert found.modules[0].loss.selectivity.mean == pytest.approx(0.9)
    assert [row.is_selective for row in found.modules] == [False, True]
    assert (found.num_selective, found.general) == (1, (0,))
    assert found.selectivity_quantiles == pytest.approx((0.9, (0.9 + 4.85) / 2))


def test_summarize_ablation__a_module_no_better_than_one_kind_of_control_is_not_selective() -> None:
    for kind in CONTROLS:
        found = summarize(INCREASE, NO_EFFECT | {kind: [INCREASE, INCREASE]})
        assert (found.num_selective, found.general) == (0, ())
    assert summarize(INCREASE, NO_EFFECT).num_selective == 2


def test_summarize_ablation__extreme_units_are_named_with_and_without_their_module() -> None:
    parts = np.array([[3.0, 3.0, 1.0, 1.0, 1.0], [2.0, 2.0, 0.0, 0.0, 0.0]])
    found = summarize(INCREASE, NO_EFFECT, extreme=parts)
    extreme = found.modules[0].extreme
    assert extreme is not None
    assert extreme.units == ("layer 3 unit 0", "layer 3 unit 2")
    assert (extreme.alone.own.mean, extreme.alone.other.mean) == (3, 1)
    assert extreme.without.selectivity == Interval(2, 2, 2)
    assert from_json(to_json(found), Ablation).modules == found.modules

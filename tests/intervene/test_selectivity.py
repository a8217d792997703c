import numpy as np
import pytest

from ulcmod_dist.intervene.selectivity import compute_effects, compute_selectivity

INCREASE = np.array([[4.0, 6.0, 1.0, 1.0, 2.0], [0.0, 2.0, 5.0, 5.0, 5.0]])
GROUPS = np.array([0, 0, 1, 1, 1])


def test_effects__means_by_group() -> None:
    expected = [[5, 4 / 3, np.nan], [1, 5, np.nan]]
    np.testing.assert_allclose(compute_effects(INCREASE, GROUPS, 3), expected)


def test_effects__samples_without_loss_or_group_are_left_out() -> None:
    loss_increase = np.hstack([INCREASE, np.array([[np.nan, 100.0], [7.0, 100.0]])])
    groups = np.array([*GROUPS, 0, -1])
    np.testing.assert_array_equal(
        compute_effects(loss_increase, groups, 2), compute_effects(INCREASE, GROUPS, 2)
    )


def test_selectivity__own_against_others() -> None:
    result = compute_selectivity(INCREASE, GROUPS, np.array([0, 1]), np.random.default_rng(0))
    np.testing.assert_allclose(result.own.value, [5, 5])
    np.testing.assert_allclose(result.others.value, [4 / 3, 1])
    assert result.mean.value == pytest.approx(np.mean([5 - 4 / 3, 4]))
    for interval in (result.own, result.others, result.difference, result.mean):
        assert np.all((interval.low <= interval.value) & (interval.value <= interval.high))
    # The second module's own samples cost the same each, so no draw can differ.
    assert (result.own.low[1], result.own.high[1]) == (5, 5)


def test_selectivity__several_masks_of_one_owner_and_the_same_seed() -> None:
    owners = np.array([1, 1])
    first = compute_selectivity(INCREASE, GROUPS, owners, np.random.default_rng(3), resamples=50)
    again = compute_selectivity(INCREASE, GROUPS, owners, np.random.default_rng(3), resamples=50)
    np.testing.assert_allclose(first.own.value, [4 / 3, 5])
    np.testing.assert_array_equal(first.difference.low, again.difference.low)
    assert (first.mean.low, first.mean.high) == (again.mean.low, again.mean.high)


def test_selectivity__an_owner_without_samples_is_left_out_of_the_mean() -> None:
    result = compute_selectivity(INCREASE, GROUPS, np.array([0, 2]), np.random.default_rng(0))
    assert np.isnan(result.difference.value).tolist() == [False, True]
    assert result.mean.value == pytest.approx(5 - 4 / 3)
    assert np.isfinite([result.mean.low, result.mean.high]).all()


def test_selectivity__intervals_cover_the_truth() -> None:
    generator = np.random.default_rng(1)
    groups = np.repeat([0, 1, 2], 40)
    owners = np.array([0, 1, 2])
    covered: list[bool] = []
    means: list[bool] = []
    for _ in range(120):
        loss_increase = generator.normal(0.2, 1.0, (3, 120)) + 0.7 * (groups == owners[:, None])
        result = compute_selectivity(loss_increase, groups, owners, generator, resamples=100)
        difference, mean = result.difference, result.mean
        covered.extend((difference.low <= 0.7) & (difference.high >= 0.7))
        means.append(bool(mean.low <= 0.7 <= mean.high))
    assert 0.88 < np.mean(covered) < 0.99
    assert np.mean(means) > 0.85


def test_selectivity__no_effect_gives_intervals_around_zero() -> None:
    generator = np.random.default_rng(2)
    loss_increase = generator.normal(size=(2, 200))
    groups = np.repeat([0, 1], 100)
    result = compute_selectivity(loss_increase, groups, np.array([0, 1]), generator)
    assert np.all((result.difference.low < 0) & (result.difference.high > 0))

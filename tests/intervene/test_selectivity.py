import numpy as np
import pytest

from ulcmod_dist.intervene.selectivity import effects, selectivity

RISE = np.array([[4.0, 6.0, 1.0, 1.0, 2.0], [0.0, 2.0, 5.0, 5.0, 5.0]])
GROUPS = np.array([0, 0, 1, 1, 1])


def test_effects__means_by_group() -> None:
    expected = [[5, 4 / 3, np.nan], [1, 5, np.nan]]
    np.testing.assert_allclose(effects(RISE, GROUPS, 3), expected)


def test_effects__samples_without_loss_or_group_are_left_out() -> None:
    rise = np.hstack([RISE, np.array([[np.nan, 100.0], [7.0, 100.0]])])
    groups = np.array([*GROUPS, 0, -1])
    np.testing.assert_array_equal(effects(rise, groups, 2), effects(RISE, GROUPS, 2))


def test_selectivity__own_against_others() -> None:
    result = selectivity(RISE, GROUPS, np.array([0, 1]), np.random.default_rng(0))
    np.testing.assert_allclose(result.own, [5, 5])
    np.testing.assert_allclose(result.others, [4 / 3, 1])
    assert result.mean == pytest.approx(np.mean([5 - 4 / 3, 4]))
    assert np.all((result.low <= result.difference) & (result.difference <= result.high))
    assert result.mean_low <= result.mean <= result.mean_high


def test_selectivity__several_masks_of_one_owner_and_the_same_seed() -> None:
    owners = np.array([1, 1])
    first = selectivity(RISE, GROUPS, owners, np.random.default_rng(3), resamples=50)
    again = selectivity(RISE, GROUPS, owners, np.random.default_rng(3), resamples=50)
    np.testing.assert_allclose(first.own, [4 / 3, 5])
    np.testing.assert_array_equal(first.low, again.low)
    assert (first.mean_low, first.mean_high) == (again.mean_low, again.mean_high)


def test_selectivity__an_owner_without_samples_is_left_out_of_the_mean() -> None:
    result = selectivity(RISE, GROUPS, np.array([0, 2]), np.random.default_rng(0))
    assert np.isnan(result.difference).tolist() == [False, True]
    assert result.mean == pytest.approx(5 - 4 / 3)
    assert np.isfinite([result.mean_low, result.mean_high]).all()


def test_selectivity__intervals_cover_the_truth() -> None:
    generator = np.random.default_rng(1)
    groups = np.repeat([0, 1, 2], 40)
    owners = np.array([0, 1, 2])
    covered: list[bool] = []
    means: list[bool] = []
    for _ in range(120):
        rise = generator.normal(0.2, 1.0, (3, 120)) + 0.7 * (groups == owners[:, None])
        result = selectivity(rise, groups, owners, generator, resamples=100)
        covered.extend((result.low <= 0.7) & (result.high >= 0.7))
        means.append(result.mean_low <= 0.7 <= result.mean_high)
    assert 0.88 < np.mean(covered) < 0.99
    assert np.mean(means) > 0.85


def test_selectivity__no_effect_gives_intervals_around_zero() -> None:
    generator = np.random.default_rng(2)
    rise = generator.normal(size=(2, 200))
    groups = np.repeat([0, 1], 100)
    result = selectivity(rise, groups, np.array([0, 1]), generator)
    assert np.all((result.low < 0) & (result.high > 0))

"""Planted problems, one that shows its modules and one that hides them."""

import pytest

from tests.iterd.problem import Planted, planted


@pytest.fixture
def easy() -> Planted:
    return planted()


@pytest.fixture
def hard() -> Planted:
    return planted(noise=3.0)

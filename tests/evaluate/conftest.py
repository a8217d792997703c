"""What the tests of the evaluation share."""

import pytest

from tests.evaluate.problem import Planted, plant
from ulcmod_dist.passes.executors import ThreadExecutor


@pytest.fixture(scope="session")
def planted() -> Planted:
    return plant()


@pytest.fixture(scope="session")
def threads() -> ThreadExecutor:
    return ThreadExecutor(2)

"""One Ray for all tests of a session that ask for it."""

from collections.abc import Iterator

import pytest

from ulcmod_dist.runtime.ray_session import ray_session


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    with ray_session(None):
        yield

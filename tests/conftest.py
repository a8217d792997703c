"""One Ray for all tests of a session that ask for it."""

from collections.abc import Iterator

import pytest

from ulcmod_dist.extract.cluster import cluster


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    with cluster(None):
        yield

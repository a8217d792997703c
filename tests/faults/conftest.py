"""What the tests of faults share with those of extraction."""

from tests.extract.conftest import local_ray, run

__all__ = ["local_ray", "run"]

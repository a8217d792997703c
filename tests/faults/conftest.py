"""What the tests of faults share with those of extraction."""

from tests.extract.conftest import run

__all__ = ["run"]

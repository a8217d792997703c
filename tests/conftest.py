"""What all tests of a session share: one local Ray, and a model hub that is a folder."""

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

# huggingface_hub reads these when it is imported, and Ray's actors inherit them. So no test
# depends on, or fills, the user's cache or asks the hub.
_hub = tempfile.TemporaryDirectory(prefix="hub-")
atexit.register(_hub.cleanup)
os.environ |= {"HF_HUB_CACHE": _hub.name, "HF_HUB_OFFLINE": "1"}

from ulcmod_dist.runtime.ray_session import ray_session  # noqa: E402


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    with ray_session(None):
        yield


@pytest.fixture
def hub_cache() -> Iterator[Path]:
    """Folder of the models that have been downloaded from the hub: a test's own alone."""
    yield Path(_hub.name)
    for model in Path(_hub.name).glob("models--*"):
        shutil.rmtree(model)

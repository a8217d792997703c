"""The shortest way through an extraction."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from tests.extract.fakes import RECORD, UNITS, FakeForward, fake
from ulcmod_dist.corpus.prompts import Corpus
from ulcmod_dist.extract.driver import Extraction, extract, prepare
from ulcmod_dist.runtime.lease import Lease
from ulcmod_dist.runtime.ray_session import ActorResources
from ulcmod_dist.runtime.rundir import RunDir

SMALL = ActorResources(cpus=0.5)
Go: TypeAlias = Callable[..., Extraction]


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir.at(tmp_path / "run")


@pytest.fixture
def go(run: RunDir, local_ray: None) -> Go:
    """Plan and extract prompts into the run with a fake model."""

    def go(prompts: Corpus, factory: Any = None, **options: Any) -> Extraction:
        plan: dict[str, Any] = {"shard_samples": 4, "batch_tokens": 64, "update": False}
        plan |= {name: options.pop(name) for name in [*plan] if name in options}
        record = options.pop("record", RECORD)
        units = options.pop("units", UNITS)
        prepared = prepare(run, prompts, FakeForward(), units, record, **plan)
        options = {"resources": SMALL, "workers": 1, **options}
        with Lease.acquire(run, "extract") as lease:
            return extract(run, prepared, factory or fake(), fence=lease.fence, **options)

    return go

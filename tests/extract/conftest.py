"""The shortest way through an extraction."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from tests.extract.fakes import RECORD, UNITS, FakeForward, fake
from ulcmod_dist.config.schema import ExtractConfig
from ulcmod_dist.corpus.prompts import Corpus
from ulcmod_dist.extract.driver import ExtractionResult, extract, prepare
from ulcmod_dist.extract.monitor import ExtractionProgress
from ulcmod_dist.runtime.lease import Lease
from ulcmod_dist.runtime.rundir import RunDir

SMALL = {"cpus": 0.5, "workers": 1}
Go: TypeAlias = Callable[..., ExtractionResult]


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir.at(tmp_path / "Läufe, 100% #1")


@pytest.fixture
def go(run: RunDir, local_ray: None) -> Go:
    """Plan and extract prompts into the run with a fake model.

    Options are those of the plan, of `extract`, and keys of `ExtractConfig`. Progress never shows
    more than there is.
    """

    def go(prompts: Corpus, load_model: Any = None, **options: Any) -> ExtractionResult:
        plan: dict[str, Any] = {"shard_samples": 4, "batch_tokens": 64}
        plan |= {name: options.pop(name) for name in [*plan, "model_bytes"] if name in options}
        config = SMALL | {n: options.pop(n) for n in ExtractConfig.model_fields if n in options}
        provenance = options.pop("provenance", RECORD)
        units = options.pop("units", UNITS)
        show = options.pop("on_progress", lambda progress: None)

        def check(progress: ExtractionProgress) -> None:
            assert progress.prompts_done <= progress.prompts
            assert progress.tokens_done <= progress.tokens
            show(progress)

        prepared = prepare(run, prompts, FakeForward(), units, provenance, **plan)
        with Lease.acquire(run, "extract") as lease:
            return extract(
                run,
                prepared,
                load_model or fake(),
                ExtractConfig(**config),
                fence=lease.fence,
                on_progress=check,
                **options,
            )

    return go

"""A job that names a cluster for its forward passes has its search by Ray there, too."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import ray

from ulcmod_dist.config.job import Job
from ulcmod_dist.pipeline.search import job_executor

JOB = """\
run: run
matrix: {{path: a.npy}}
discover: {{modules: 2, executor: {executor}}}
extract: {{address: "10.0.0.1:6379"}}
"""


@pytest.mark.parametrize(("executor", "joined"), [("ray", ["10.0.0.1:6379"]), ("threads", [])])
def test_job_executor__ray_is_the_cluster_that_the_job_names(
    executor: str, joined: list[str], monkeypatch: pytest.MonkeyPatch, local_ray: None
) -> None:
    asked: list[str | None] = []

    @contextmanager
    def noted(address: str | None, **options: object) -> Iterator[None]:
        asked.append(address)
        yield

    monkeypatch.setattr("ulcmod_dist.runtime.ray_session.ray_session", noted)
    job = Job.from_text(JOB.format(executor=executor), source="job", folder=Path.cwd())
    with job_executor(job) as found:
        assert found.workers >= 1
        assert ray.is_initialized()
    assert asked == joined

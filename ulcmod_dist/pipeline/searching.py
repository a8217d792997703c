"""Where a job's passes over the matrix run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from ulcmod_dist.config.job import Job
from ulcmod_dist.passes.executors import Executor, open_executor


@contextmanager
def executor_of(job: Job) -> Iterator[Executor]:
    """The executor that the job names; with ``ray`` on the Ray cluster that the job names.

    Raises:
        InvalidInput: No executor has this name.
        UlcmodError: There is no cluster at the address.
    """
    name, address = job.discover.executor, job.extract.address
    with ExitStack() as held:
        if name == "ray" and address is not None:
            # Ray takes two seconds to import, which other executors need not wait for.
            from ulcmod_dist.runtime.ray_session import ray_session

            held.enter_context(ray_session(address))
        yield held.enter_context(open_executor(name))

"""The memory that this process may use."""

from distributed.system import memory_limit

from ulcmod_dist.runtime.memory import machine_memory


def test_machine_memory__is_what_distributed_finds() -> None:
    assert machine_memory() == memory_limit()

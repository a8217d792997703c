"""What is a machine's failure, and what may be that of an input."""

import errno
from typing import Any

import pytest
import ray
from ray import exceptions as ray_exceptions
from ray.core.generated import common_pb2

from ulcmod_dist.runtime.ray_failures import (
    MachineFailure,
    MemoryShortage,
    ask_oom_kills,
    count_oom_kills,
    find_machine_failure,
)

errors: Any = ray_exceptions  # partly untyped
messages: Any = common_pb2

# As Ray 2.60 words them, shortened.
LOW_MEMORY = """1 worker(s) were killed due to the node running low on memory. Memory on the node \
(IP: 10.0.0.7, ID: c3ae) was 2.20GB used / 23.54GB limit (0.093352)
OOM kill reason: Memory usage 2343706624B exceeded threshold of 2274885376B (9.0% of 25276502016B)
Object store memory usage: [- objects spillable: 0"""
DEATH = """The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR \
Worker exit detail: Worker unexpectedly exits with a connection error code 2. End of file. Some \
common causes include: (1) the process was killed by the OOM killer due to high memory usage."""
NODE = "The actor is dead because its node has died. Node Id: 17f2"


def died(message: str) -> Exception:
    context = messages.ActorDiedErrorContext(error_message=message, actor_id=bytes(16))
    error: Exception = errors.ActorDiedError(context)
    return error


@pytest.mark.parametrize(
    ("error", "fact"),
    [
        (errors.OutOfMemoryError(LOW_MEMORY), r"10.0.0.7 .*: 2.20GB of 23.54GB .* above 9.0%"),
        (died(LOW_MEMORY), "2.20GB of 23.54GB"),
        (errors.OutOfMemoryError("in other words"), "run out of memory: in other words"),
        (MemoryError(), "no memory left: MemoryError"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes"), "no memory left"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "no memory left"),
        (errors.OutOfDiskError(), "A disk is full"),
        (OSError(errno.ENOSPC, "No space left on device"), "A disk is full"),
        (OSError(errno.EIO, "Input/output error"), "machine failed: .*Input/output"),
        (died(NODE), "machine was lost: .*its node has died"),
        (errors.NodeDiedError("gone"), "Ray failed: NodeDiedError: gone"),
        (errors.LocalRayletDiedError(), "Ray failed: LocalRayletDiedError"),
        (errors.ObjectStoreFullError(), "Ray failed: ObjectStoreFullError"),
        (errors.ActorUnavailableError("no route", bytes(16)), "machine does not answer"),
        (RuntimeError("CUDA error: uncorrectable ECC error encountered"), "device failed: .*ECC"),
        (RuntimeError("CUDA driver error: GPU is lost"), "device failed"),
    ],
)
def test_find_machine_failure__says_what_failed_and_how_to_go_on(
    error: Exception, fact: str
) -> None:
    failure = find_machine_failure(error)
    assert isinstance(failure, MachineFailure)
    with pytest.raises(MachineFailure, match=fact):
        raise failure
    is_memory = any(words in failure.fact for words in ("out of memory", "no memory left"))
    assert isinstance(failure, MemoryShortage) == is_memory
    assert "\n" not in failure.fact


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("shape mismatch"),
        ValueError("bad prompt"),
        died(DEATH),
        errors.WorkerCrashedError(),
        RuntimeError("CUDA error: device-side assert triggered"),
        RuntimeError("CUDA error: an illegal memory access was encountered"),
    ],
)
def test_find_machine_failure__what_an_input_can_cause_is_not_the_machines(
    error: Exception,
) -> None:
    assert find_machine_failure(error) is None


def test_find_machine_failure__looks_into_what_a_task_raised(local_ray: None) -> None:
    def fill() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def divide() -> None:
        raise ZeroDivisionError

    for call, is_machine in ((fill, True), (divide, False)):
        with pytest.raises(errors.RayTaskError) as raised:
            ray.get(ray.remote(num_cpus=0)(call).remote())
        assert (find_machine_failure(raised.value) is not None) == is_machine


def test_ask_oom_kills__asks_the_kernel_of_a_node(local_ray: None) -> None:
    before = count_oom_kills()
    node = ray.get_runtime_context().get_node_id()
    assert 0 <= before <= ask_oom_kills(node) <= count_oom_kills()
    assert ask_oom_kills("") == 0

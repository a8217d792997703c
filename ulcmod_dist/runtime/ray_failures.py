"""Whose fault a failure is: the machine's and Ray's, or that of what was computed."""

import errno
import re
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import (
    ActorUnavailableError,
    OutOfDiskError,
    OutOfMemoryError,
    RayActorError,
    RayError,
    RayTaskError,
    WorkerCrashedError,
)
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ulcmod_dist.errors import UlcmodError, describe_error, one_line

AGAIN = "then start the same command again: it continues where it stopped."
MEMORY_REMEDY = (
    "Use fewer actors (extract.workers), smaller batches (extract.batch_tokens) or a machine with "
    f"more memory, {AGAIN}"
)

KERNEL_TIMEOUT = 30.0  # seconds for a node to say how often its kernel has run out of memory

_LOW_MEMORY = re.compile(
    r"node \(IP: (?P<ip>[^,]+),.*? was (?P<used>\S+) used / (?P<total>\S+) limit"
    r".*?exceeded threshold of \S+ \((?P<share>[\d.]+%)",
    re.DOTALL,
)
_DEVICE = re.compile(
    r"(CUDA|HIP|NCCL|cuDNN|CUDNN) (driver )?error|(CUBLAS|CUSOLVER|CUDNN|CUFFT)_STATUS_"
    r"|No CUDA GPUs are available|NVML_ERROR",
)
# A kernel fails like this on a broken device, and on some input that it has no answer for.
_KERNEL = re.compile(
    "device-side assert|illegal memory access|misaligned address|illegal instruction"
    "|unspecified launch failure"
)


class MachineFailure(UlcmodError):
    """A machine, its device or Ray failed: no input is to blame, and the same command continues."""


class MemoryShortage(MachineFailure):
    """A machine has run out of memory."""


def find_machine_failure(error: BaseException) -> MachineFailure | None:
    """Get the failure of a machine that an error reports; None where the input may be the cause.

    The machine's are: memory (Ray's memory monitor, a refused allocation), disks and files, the
    loss of a node or of an object, everything else that Ray itself reports, and a device that is
    lost (ECC, fallen off the bus). Perhaps the input's, if it happens to it again and again where
    others succeed, are: an exception of the computation, the death of the worker's process by
    itself, as by SIGSEGV, and a failed kernel of the device, after which its process is lost.
    """
    if isinstance(error, MachineFailure):
        return error
    if isinstance(error, RayTaskError):
        # Ray wraps what a task raised; a task that never ran has another type.
        return find_machine_failure(error.cause) if isinstance(error.cause, Exception) else None
    text = describe_error(error)
    code = error.errno if isinstance(error, OSError) else None
    if isinstance(error, OutOfMemoryError) or "node running low on memory" in text:
        return MemoryShortage(_describe_shortage(str(error)), MEMORY_REMEDY)
    is_refused = isinstance(error, MemoryError) or "can't allocate memory" in text
    if is_refused or code == errno.ENOMEM:
        return MemoryShortage(f"A machine has no memory left: {text[:300]}.", MEMORY_REMEDY)
    is_full = code in (errno.ENOSPC, errno.EDQUOT) or "No space left on device" in text
    if is_full or isinstance(error, OutOfDiskError):
        return MachineFailure(f"A disk is full: {text[:300]}.", f"Make space, {AGAIN}")
    if isinstance(error, ActorUnavailableError):
        return MachineFailure(f"A machine does not answer: {text[:300]}.", f"Repair it, {AGAIN}")
    if isinstance(error, RayActorError | WorkerCrashedError):
        has_died = "node has died" in text or "node was terminated" in text
        return MachineFailure(f"A machine was lost: {text[:300]}.", None) if has_died else None
    if isinstance(error, RayError):
        return MachineFailure(
            f"Ray failed: {text[:300]}.", f"See the logs of Ray (/tmp/ray/session_latest), {AGAIN}"
        )
    if isinstance(error, OSError):
        return MachineFailure(f"A machine failed: {text[:300]}.", f"Repair it, {AGAIN}")
    if is_device_lost(error) and not _KERNEL.search(text):
        return MachineFailure(f"A device failed: {text[:300]}.", f"Exclude or reset it, {AGAIN}")
    return None


def is_device_lost(error: BaseException) -> bool:
    """Whether an error leaves the process without its device: it can compute nothing more."""
    return _DEVICE.search(describe_error(error)) is not None


def count_oom_kills() -> int:
    """Number of processes that the kernel of this machine has killed for lack of memory."""
    try:
        lines = Path("/proc/vmstat").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0  # not Linux
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


def ask_oom_kills(node: str) -> int:
    """`count_oom_kills` of a node of the cluster, by its id; 0 if it does not answer."""
    if not node:
        return 0
    remote: Any = ray.remote
    where = NodeAffinitySchedulingStrategy(node, soft=False)
    ask = remote(num_cpus=0, max_retries=0, scheduling_strategy=where)(count_oom_kills)
    try:
        return int(ray.get(ask.remote(), timeout=KERNEL_TIMEOUT))
    except RayError:
        return 0


def _describe_shortage(text: str) -> str:
    if (found := _LOW_MEMORY.search(text)) is None:
        return f"A machine has run out of memory: {one_line(text)[:300]}."
    return (
        f"The machine {found['ip']} has run out of memory: {found['used']} of {found['total']} "
        f"were in use, and Ray ends workers above {found['share']}."
    )

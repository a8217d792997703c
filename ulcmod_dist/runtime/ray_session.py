"""The Ray session of a process, and what its cluster has room for."""

import logging
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError

from ulcmod_dist.errors import InvalidInput, UlcmodError, one_line
from ulcmod_dist.runtime.addresses import explain_no_answer
from ulcmod_dist.runtime.files import nearest_folder
from ulcmod_dist.runtime.ray_token import ensure_token, find_home, quiet_ray, require_token
from ulcmod_dist.runtime.signals import preserve_sigterm_handler

OBJECT_STORE_BYTES = 100 * 2**20
"""Enough where only prompts travel through the object store; rows go straight to the activation
store. By default Ray takes 30% of the machine's memory."""

SOCKET_BYTES = 107 if sys.platform == "linux" else 103
"""Longest path of a Unix socket."""

ANSWER_TIMEOUT = 10.0  # seconds for a cluster to answer
STARTUP_TIMEOUT = 600.0  # seconds for a process whose resources are free to start

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ActorResources:
    """What Ray reserves for one actor: CPUs and GPUs, also fractions, and bytes of memory."""

    cpus: float = 1.0
    gpus: float = 0.0
    memory: int = 0

    def as_ray(self) -> dict[str, float]:
        """The amounts by Ray's resource names, without zeros."""
        amounts = {"CPU": self.cpus, "GPU": self.gpus, "memory": float(self.memory)}
        return {name: amount for name, amount in amounts.items() if amount > 0}


@contextmanager
def ray_session(
    address: str | None, object_store_bytes: int | None = OBJECT_STORE_BYTES
) -> Iterator[None]:
    """Connect to Ray, unless this process is connected already; disconnect at the end if so.

    Without an address this connects to RAY_ADDRESS, or starts a local Ray. (Ray alone would join
    any cluster that it finds on this machine.) ``object_store_bytes`` is the size of a local Ray's
    object store; None for Ray's default.

    Raises:
        InvalidInput: The address is wrong, or on another machine, and there is no token; or there
            is no folder for the files of a local Ray.
        UlcmodError: There is no cluster at the address, or Ray cannot start here.
    """
    if ray.is_initialized():
        yield
        return
    quiet_ray()
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    # ray.init replaces the handler of SIGTERM, which here gives the lease back.
    with preserve_sigterm_handler(), _no_packing():
        _connect(address, object_store_bytes)
    try:
        yield
    finally:
        ray.shutdown()


def check_cluster(address: str | None) -> None:
    """Check that the cluster at an address, or else at RAY_ADDRESS, answers; starts nothing.

    ``ray.init`` itself waits for two minutes and then exits without a reason.

    Raises:
        InvalidInput: The address is wrong, or on another machine, and there is no token.
        UlcmodError: There is no cluster at the address.
    """
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    if ray.is_initialized() or address == "local":
        return
    require_token(address, os.environ, find_home())
    if address == "auto":
        return
    try:
        reason = explain_no_answer(address, default_port=10001 if "://" in address else None)
    except ValueError as error:
        raise InvalidInput(
            f"The address of the Ray cluster is wrong: {error}.", "An example is 10.0.0.1:6379."
        ) from error
    if reason is None and "://" not in address and not _answers(address):
        reason = "what listens there is no Ray, or it rejects the token"
    if reason is not None:
        raise _no_cluster(address, reason)


def node_resources() -> list[Mapping[str, float]]:
    """Total resources of each node that is alive and not draining, by Ray's names."""
    draining = draining_nodes()
    return [node["Resources"] for node in _alive_nodes() if node["NodeID"] not in draining]


def draining_nodes() -> frozenset[str]:
    """Ids of nodes that are about to go, on notice of preemption or SIGTERM."""
    # ray.nodes() does not tell. Ray Train asks this private state as well (Ray 2.60).
    return frozenset(ray._private.state.state.get_draining_nodes())


def node_alive(node_id: str) -> bool:
    """Whether the cluster counts a node as alive."""
    return any(node["NodeID"] == node_id for node in _alive_nodes())


def metrics_addresses() -> list[str]:
    """Addresses at which the nodes serve metrics to Prometheus."""
    return [f"{n['NodeManagerAddress']}:{n['MetricsExportPort']}" for n in _alive_nodes()]


def max_actors(resources: ActorResources, nodes: list[Mapping[str, float]]) -> int:
    """Number of actors of this size that fit on idle nodes."""
    wanted = resources.as_ray().items()
    # Ray counts in units of 1/10,000; the tolerance keeps 3 * 0.1 within 0.3.
    return sum(
        min((int(node.get(name, 0.0) / amount + 1e-9) for name, amount in wanted), default=1)
        for node in nodes
    )


def choose_start_timeout(resources: ActorResources, placement_timeout: float) -> float:
    """Seconds that a first actor may take to run, asked before it is created.

    It may wait for its resources for ``placement_timeout``. Where they are free right now, they are
    reserved for it at once, and only its process has to start, which a busy machine does slowly.
    """
    if not max_actors(resources, node_resources()):
        return placement_timeout
    free = ray.available_resources()  # type: ignore[no-untyped-call]
    is_free = all(free.get(name, 0.0) >= amount for name, amount in resources.as_ray().items())
    return max(STARTUP_TIMEOUT, placement_timeout) if is_free else placement_timeout


def explain_shortage(resources: ActorResources, nodes: list[Mapping[str, float]]) -> str:
    """Say in one sentence which resources of an actor no node has, or has free."""
    wanted = resources.as_ray()
    lacking = []
    for name, amount in wanted.items():
        most = max((node.get(name, 0.0) for node in nodes), default=0.0)
        if most < amount:
            lacking.append(f"{_format(name, amount)}, of which the largest node has {most:g}")
    if lacking:
        return f"An actor needs {'; '.join(lacking)}."
    free = ray.available_resources()  # type: ignore[no-untyped-call]
    parts = ", ".join(
        f"{_format(name, amount)} ({free.get(name, 0.0):g} free in the cluster)"
        for name, amount in wanted.items()
    )
    return f"An actor needs {parts} on one node; none of the {len(nodes)} nodes has that free."


def _alive_nodes() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]


def _format(name: str, amount: float) -> str:
    if name == "memory":
        return f"{amount / 2**30:.1f} GiB of memory ({amount:.0f} bytes)"
    return f"{amount:g} {name}"


def _connect(address: str, object_store_bytes: int | None) -> None:
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address == "local":
        ensure_token(os.environ, find_home())
        folder = choose_temp_folder(os.environ)
        try:
            ray.init(
                address=address,
                include_dashboard=False,
                object_store_memory=object_store_bytes,
                _temp_dir=str(folder),
                **quiet,
            )
        except (OSError, RuntimeError, ValueError, RayError) as error:
            raise UlcmodError(
                f"Ray cannot start on this machine: {one_line(error)[:300]}.",
                f"See its logs in {folder}/session_latest/logs; RAY_TMPDIR names another folder.",
            ) from error
        return
    check_cluster(address)
    try:
        ray.init(address=address, **quiet)
    except (ConnectionError, ValueError, RuntimeError, RayError) as error:
        raise _no_cluster(address, one_line(error)[:300]) from error


def choose_temp_folder(environment: Mapping[str, str]) -> Path:
    """Choose the folder of a local Ray: its own choice, unless it cannot hold Ray's sockets.

    Raises:
        InvalidInput: RAY_TMPDIR is too long for the path of a socket, or nothing else will do.
    """
    # As ray._common.utils.get_default_ray_temp_dir, and the name of a session's longest socket.
    wanted = environment.get("RAY_TMPDIR") or environment.get("TMPDIR") or "/tmp"  # noqa: S108
    socket = f"session_2026-01-01_00-00-00_000000_{os.getpid()}/sockets/plasma_store"
    limit = SOCKET_BYTES - len(f"/ray/{socket}")
    uid = os.getuid()
    first = Path(wanted).absolute() / "ray"
    others = [] if environment.get("RAY_TMPDIR") else [Path("/tmp/ray"), Path(f"/tmp/ray-{uid}")]  # noqa: S108
    for folder in (first, *others):
        is_short = len(os.fsencode(folder / socket)) <= SOCKET_BYTES
        if is_short and os.access(nearest_folder(folder), os.W_OK | os.X_OK):
            if folder != first:
                logger.info(
                    "Ray keeps its files in %s: %s is too long for its sockets, or read-only.",
                    folder,
                    first.parent,
                )
            return folder
    raise InvalidInput(
        f"Ray's sockets need a folder that can be written, with a path of at most {limit} bytes; "
        f"{wanted} has {len(os.fsencode(wanted))}.",
        "Set RAY_TMPDIR to such a folder.",
    )


@contextmanager
def _no_packing() -> Iterator[None]:
    """Keep Ray from packing and uploading the current folder because `uv run` started this process.

    Workers on this machine use this environment as it is, and those of a cluster their own. Who
    wants it anyway sets RAY_ENABLE_UV_RUN_RUNTIME_ENV.
    """
    # The variable is read when Ray is imported, the constant whenever Ray is started (Ray 2.60).
    constants: Any = ray._private.ray_constants
    before = constants.RAY_ENABLE_UV_RUN_RUNTIME_ENV
    constants.RAY_ENABLE_UV_RUN_RUNTIME_ENV = (
        before and "RAY_ENABLE_UV_RUN_RUNTIME_ENV" in os.environ
    )
    try:
        yield
    finally:
        constants.RAY_ENABLE_UV_RUN_RUNTIME_ENV = before


def _answers(address: str) -> bool:
    """Whether a Ray cluster answers at an address where something listens."""
    # The client retries for half a minute without a way to tell it to give up sooner.
    client = ray._raylet.GcsClient  # type: ignore[attr-defined]
    done = threading.Event()

    def ask() -> None:
        with suppress(Exception):
            client(address=address)
            done.set()

    threading.Thread(target=ask, daemon=True).start()
    return done.wait(ANSWER_TIMEOUT)


def _no_cluster(address: str, reason: str) -> UlcmodError:
    return UlcmodError(
        f"There is no Ray cluster at {address}: {reason}.",
        "Start the cluster, correct extract.address or RAY_ADDRESS, or remove it to use this "
        "machine.",
    )

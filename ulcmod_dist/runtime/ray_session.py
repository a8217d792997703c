"""The Ray session of a process, and what its cluster has room for."""

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from ulcmod_dist.errors import UlcmodError, one_line
from ulcmod_dist.runtime.ray_token import ensure_token, quiet_ray, require_token
from ulcmod_dist.runtime.signals import preserve_sigterm_handler

OBJECT_STORE_BYTES = 100 * 2**20
"""Enough where only prompts travel through the object store; rows go straight to the activation
store. By default Ray takes 30% of the machine's memory."""


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
        InvalidInput: The address is on another machine, and there is no token.
        UlcmodError: There is no cluster at the address.
    """
    if ray.is_initialized():
        yield
        return
    quiet_ray()
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    # ray.init replaces the handler of SIGTERM, which here gives the lease back.
    with preserve_sigterm_handler():
        _connect(address, object_store_bytes)
    try:
        yield
    finally:
        ray.shutdown()


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


def has_capacity(resources: ActorResources) -> bool:
    """Whether the cluster as a whole has the resources of one actor free right now."""
    free = ray.available_resources()  # type: ignore[no-untyped-call]
    return all(free.get(name, 0.0) >= amount for name, amount in resources.as_ray().items())


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
        ensure_token(os.environ, Path.home())
        ray.init(
            address=address,
            include_dashboard=False,
            object_store_memory=object_store_bytes,
            **quiet,
        )
        return
    require_token(address, os.environ, Path.home())
    try:
        ray.init(address=address, **quiet)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise UlcmodError(
            f"There is no Ray cluster at {address}: {one_line(error)[:300]}",
            "Start the cluster, correct extract.address, or remove it to use this machine.",
        ) from error

"""Ray: the cluster that is named or a local one, and what it has room for."""

from __future__ import annotations

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
"""Only prompts travel through Ray's object store; rows go straight to the activation store."""


@dataclass(frozen=True)
class ActorResources:
    """What one actor takes.

    Attributes:
        cpus: CPUs, also its threads; may be a fraction.
        gpus: GPUs; may be a fraction.
        memory: Bytes of memory that the scheduler sets aside; 0 for none.
    """

    cpus: float = 1.0
    gpus: float = 0.0
    memory: int = 0

    def named(self) -> dict[str, float]:
        """The amounts by Ray's names, without those that are zero."""
        amounts = {"CPU": self.cpus, "GPU": self.gpus, "memory": float(self.memory)}
        return {name: amount for name, amount in amounts.items() if amount > 0}


@contextmanager
def ray_session(address: str | None) -> Iterator[None]:
    """Be connected to Ray: to one that this process has, to an address, or to a local one.

    Only what was started here is shut down.

    Args:
        address: Address of a cluster; None for RAY_ADDRESS, else a local Ray is started.

    Raises:
        InvalidInput: The address is another machine, and there is no token.
        UlcmodError: There is no cluster at the address.
    """
    if ray.is_initialized():
        yield
        return
    quiet_ray()
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    with preserve_sigterm_handler():
        if address == "local":
            _start_local()
        else:
            _connect(address)
    try:
        yield
    finally:
        ray.shutdown()


def node_resources() -> list[Mapping[str, float]]:
    """Total resources, by Ray's names, of each node that is alive and stays."""
    going = draining_nodes()
    return [n["Resources"] for n in _nodes() if n["Alive"] and n["NodeID"] not in going]


def draining_nodes() -> frozenset[str]:
    """Nodes that are about to go: Ray was told of their preemption, or of SIGTERM."""
    # Ray's public lists of nodes do not say it; its own trainer asks in this way, too.
    return frozenset(ray._private.state.state.get_draining_nodes())


def node_alive(node_id: str) -> bool:
    """Whether a node is alive, as far as the cluster knows."""
    return any(node["NodeID"] == node_id and node["Alive"] for node in _nodes())


def metrics_addresses() -> list[str]:
    """Where Prometheus can ask each node for its metrics."""
    return [
        f"{node['NodeManagerAddress']}:{node['MetricsExportPort']}"
        for node in _nodes()
        if node["Alive"]
    ]


def max_actors(resources: ActorResources, nodes: list[Mapping[str, float]]) -> int:
    """How many actors of this size fit on nodes that do nothing else."""
    wanted = resources.named()
    return sum(
        min(
            (int(node.get(name, 0.0) / amount + 1e-9) for name, amount in wanted.items()), default=1
        )
        for node in nodes
    )


def has_capacity(resources: ActorResources) -> bool:
    """Whether the cluster as a whole has free, at this moment, what one actor takes."""
    free = ray.available_resources()  # type: ignore[no-untyped-call]
    return all(free.get(name, 0.0) >= amount for name, amount in resources.named().items())


def explain_shortage(resources: ActorResources, nodes: list[Mapping[str, float]]) -> str:
    """What an actor asks for that no node has, or has free, in words."""
    wanted = resources.named()
    lacking = []
    for name, amount in wanted.items():
        most = max((node.get(name, 0.0) for node in nodes), default=0.0)
        if most < amount:
            lacking.append(f"{_amount(name, amount)}, of which the largest node has {most:g}")
    if lacking:
        return f"An actor needs {'; '.join(lacking)}."
    free = ray.available_resources()  # type: ignore[no-untyped-call]
    parts = ", ".join(
        f"{_amount(name, amount)} ({free.get(name, 0.0):g} free in the cluster)"
        for name, amount in wanted.items()
    )
    return f"An actor needs {parts}, together on one of {len(nodes)} nodes, and none has it free."


def _nodes() -> list[dict[str, Any]]:
    return list(ray.nodes())  # type: ignore[no-untyped-call]


def _amount(name: str, amount: float) -> str:
    if name == "memory":
        return f"{amount / 2**30:.1f} GiB of memory ({amount:.0f} bytes)"
    return f"{amount:g} {name}"


def _start_local() -> None:
    ensure_token(os.environ, Path.home())
    ray.init(
        address="local",
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        object_store_memory=OBJECT_STORE_BYTES,
    )


def _connect(address: str) -> None:
    require_token(address, os.environ, Path.home())
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise UlcmodError(
            f"There is no Ray cluster at {address}: {one_line(error)[:300]}",
            "Start it, correct extract.address, or leave it out to use this machine.",
        ) from error

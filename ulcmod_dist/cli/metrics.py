"""Progress for Prometheus: every step of the command that runs, at an address of its own.

Ray serves what its actors do and only while it runs; this is the whole command, the search and the
evaluation too.
"""

from __future__ import annotations

from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, start_http_server

from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.runtime.progress import ForwardingProgress, Step


class Metrics:
    """The gauges of one command, served over HTTP until its process ends.

    Attributes:
        port: Where they are served.
    """

    def __init__(self, address: str) -> None:
        """Serve at ``host:port``; a colon and a port alone is every network of the machine.

        Raises:
            InvalidInput: It is no such address, or nobody may listen there.
        """
        host, _, port = address.rpartition(":")
        registry = CollectorRegistry()
        labels = ("step", "unit")
        self._done = Gauge("ulcmod_step_done", "Work done in a step", labels, registry=registry)
        self._total = Gauge("ulcmod_step_total", "All work of a step", labels, registry=registry)
        self._rate = Gauge("ulcmod_step_rate", "Work a second", labels, registry=registry)
        self.warnings = Counter(
            "ulcmod_warnings", "What went wrong and was made good", registry=registry
        )
        try:
            server, _ = start_http_server(int(port), host or "0.0.0.0", registry)  # noqa: S104
        except (OSError, ValueError, OverflowError) as error:
            raise InvalidInput(
                f"Metrics cannot be served at {address!r}: {error}.",
                "Give --metrics a free HOST:PORT, such as 127.0.0.1:9400.",
            ) from error
        self.port = int(server.server_port)

    def set(self, step: Step) -> None:
        """Take over how far a step is."""
        labels = {"step": step.name, "unit": step.unit}
        self._done.labels(**labels).set(step.done)
        self._rate.labels(**labels).set(step.rate())
        if step.total is not None:
            self._total.labels(**labels).set(step.total)


@dataclass
class Measured(ForwardingProgress):
    """Progress that is shown as before and served as metrics.

    Attributes:
        metrics: Where it is served.
    """

    metrics: Metrics

    def tell(self, step: Step, edge: bool) -> None:
        """Serve how far the step is."""
        self.metrics.set(step)

    def warn(self, message: str) -> None:
        """Show a warning, and count it."""
        self.metrics.warnings.inc()
        super().warn(message)

"""The progress of a whole command, served to Prometheus.

Ray serves metrics of its actors, and only while it runs; these cover search and evaluation too.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, start_http_server

from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.runtime.progress import ProgressUpdate


class Metrics:
    """The gauges of one command, served over HTTP until its process ends.

    The address is ``host:port``; without a host, all network interfaces.

    Raises:
        InvalidInput: The address cannot be used.
    """

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        # A registry of its own: the default one also serves what other libraries register.
        registry = CollectorRegistry()
        labels = ("step", "unit")
        self._done = Gauge("ulcmod_step_done", "Work done in a step", labels, registry=registry)
        self._total = Gauge("ulcmod_step_total", "All work of a step", labels, registry=registry)
        self._rate = Gauge("ulcmod_step_rate", "Work a second", labels, registry=registry)
        self.warnings = Counter("ulcmod_warnings", "Warnings logged", registry=registry)
        try:
            server, _ = start_http_server(int(port), host or "0.0.0.0", registry)  # noqa: S104
        except (OSError, ValueError, OverflowError) as error:
            raise InvalidInput(
                f"Metrics cannot be served at {address!r}: {error}.",
                "Give --metrics a free HOST:PORT, such as 127.0.0.1:9400.",
            ) from error
        self.port = int(server.server_port)

    def set_step(self, update: ProgressUpdate) -> None:
        """Set the gauges of a step; a progress callback."""
        labels = {"step": update.step, "unit": update.unit}
        self._done.labels(**labels).set(update.done)
        self._rate.labels(**labels).set(update.rate)
        if update.total is not None:
            self._total.labels(**labels).set(update.total)

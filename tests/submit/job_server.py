"""A job server that speaks the part of Ray's protocol that submission needs, in one thread."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import ray


@dataclass
class JobServer:
    """What the server knows, every request it got, and how jobs end at once if they do.

    Of the next requests it leaves ``silent`` many without an answer.
    """

    token: str | None = None
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    packages: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    ending: dict[str, Any] = field(default_factory=dict)
    address: str = ""
    silent: int = 0

    def finish(self, name: str, status: str, code: int) -> None:
        """Let a job end."""
        self.jobs[name] |= {"status": status, "driver_exit_code": code}


@contextmanager
def running(server: JobServer) -> Iterator[JobServer]:
    """Serve on a free port of this machine."""

    class Handler(_Handler):
        state = server

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.address = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    state: JobServer

    def _answer(self, code: int, value: Any) -> None:
        body = json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _admitted(self) -> bool:
        if self.state.silent:
            self.state.silent -= 1
            self.close_connection = True
            return False
        self.state.requests.append(f"{self.command} {self.path}")
        shown = self.headers.get("Authorization")
        if self.state.token is None or shown == f"Bearer {self.state.token}":
            return True
        self._answer(403 if shown else 401, "no")
        return False

    def do_GET(self) -> None:
        if not self._admitted():
            return
        if self.path == "/api/version":
            self._answer(200, {"ray_version": ray.__version__})
        elif self.path.startswith("/api/packages/"):
            self._answer(200 if self.path in self.state.packages else 404, {})
        elif self.path == "/api/jobs/":
            self._answer(200, list(self.state.jobs.values()))
        elif self.path.endswith("/logs"):
            self._answer(200, {"logs": self._job().get("logs", "")})
        else:
            self._answer(200, self._job())

    def do_PUT(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        if self._admitted():
            self.state.packages[self.path] = content
            self._answer(200, {})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"] or 0)) or "{}")
        if not self._admitted():
            return
        if self.path.endswith("/stop"):
            stopped = self._job()["status"] == "RUNNING"
            self._answer(200, {"stopped": stopped})
            return
        name = asked["submission_id"]
        if name in self.state.jobs:
            self._answer(500, f"Job with submission_id {name} already exists.")
            return
        started = {"type": "SUBMISSION", "status": "RUNNING"}
        self.state.jobs[name] = asked | started | self.state.ending
        self._answer(200, {"job_id": name, "submission_id": name})

    def _job(self) -> dict[str, Any]:
        return self.state.jobs[self.path.split("/")[3]]

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Say nothing."""

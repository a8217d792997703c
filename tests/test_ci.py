"""What the proof is made of besides tests: scripts, and the audit of dependencies."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

CI = Path(__file__).parent.parent / ".ci"
ADVISORY = {
    "id": "TEST-2026-1",
    "summary": "planted",
    "affected": [
        {
            "package": {"name": "frail", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "2.0"}]}],
        }
    ],
}


class Database(BaseHTTPRequestHandler):
    """Knows one vulnerability."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        known = {"vulns": [ADVISORY]} if asked["package"]["name"] == "frail" else {}
        body = json.dumps(known).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


@pytest.fixture
def database() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Database) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1/query"
        server.shutdown()
        thread.join()


def test_script__passes_shellcheck() -> None:
    tool = Path(sys.executable).parent / "shellcheck"
    done = subprocess.run([tool, CI / "run"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def audited(folder: Path, package: str, url: str) -> subprocess.CompletedProcess[str]:
    """Audit a folder with one installed package."""
    record = folder / f"{package}-1.0.dist-info"
    record.mkdir()
    (record / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    return subprocess.run(
        [sys.executable, CI / "audit.py", f"--database={url}", f"--path={folder}"],
        capture_output=True,
        text=True,
        check=False,
    )


def test_audit__fails_on_a_package_with_a_known_vulnerability(
    tmp_path: Path, database: str
) -> None:
    done = audited(tmp_path, "frail", database)
    assert done.returncode != 0
    assert "TEST-2026-1" in done.stdout


def test_audit__passes_where_none_is_known(tmp_path: Path, database: str) -> None:
    done = audited(tmp_path, "sound", database)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert "No known vulnerabilities found" in done.stderr


def test_audit__says_whom_it_could_not_ask_and_does_not_fail(tmp_path: Path) -> None:
    done = audited(tmp_path, "frail", "http://127.0.0.1:9/v1/query")
    assert done.returncode == 0
    assert "NOT audited: http://127.0.0.1:9/v1/query does not answer" in done.stdout

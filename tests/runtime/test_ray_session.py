"""A local Ray opens nothing to others, and another machine's is not joined without a token."""

import os
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
import ray

from ulcmod_dist.errors import InvalidInput, UlcmodError
from ulcmod_dist.runtime.ray_session import choose_temp_folder, ray_session
from ulcmod_dist.runtime.ray_token import ensure_token

START = """
import os
os.umask(0o022)
from ulcmod_dist.runtime.ray_session import ray_session
with ray_session(None):
    print(os.environ["RAY_AUTH_MODE"])
"""


def test_ray_session__a_local_ray_leaves_a_token_of_its_owner_alone(tmp_path: Path) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    shown = subprocess.run(
        [sys.executable, "-c", START],
        env=kept | {"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert shown.stdout.strip() == "token"
    path = tmp_path / ".ray" / "auth_token"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_ray_session__a_home_that_cannot_be_written_leaves_the_token_in_memory(
    tmp_path: Path,
) -> None:
    (tmp_path / "file").touch()
    environment: dict[str, str] = {}
    ensure_token(environment, tmp_path / "file")
    assert len(environment["RAY_AUTH_TOKEN"]) == 64


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[dict[str, object]]:
    """What Ray is asked to start with, in a process without one, on request of `uv run`."""
    asked: list[dict[str, object]] = []
    constants = ray._private.ray_constants

    def init(**options: object) -> None:
        asked.append(options | {"packs": constants.RAY_ENABLE_UV_RUN_RUNTIME_ENV})

    for name in [name for name in os.environ if name.startswith("RAY_") or name == "TMPDIR"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    return asked


def test_ray_session__under_uv_run_the_folder_is_packed_on_request_alone(
    asked: list[dict[str, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with ray_session(None):
        pass
    monkeypatch.setenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "1")
    with ray_session(None):
        pass
    assert [options["packs"] for options in asked] == [False, True]
    assert ray._private.ray_constants.RAY_ENABLE_UV_RUN_RUNTIME_ENV  # as before


@pytest.mark.parametrize(("length", "folder"), [(30, "{}/ray"), (90, "/tmp/ray")])
def test_choose_temp_folder__leaves_room_for_the_sockets_of_ray(length: int, folder: str) -> None:
    place = Path("/tmp", "x" * (length - 5))
    assert str(choose_temp_folder({"TMPDIR": str(place)})) == folder.format(place)


def test_choose_temp_folder__a_path_that_was_asked_for_and_is_too_long_is_refused() -> None:
    place = "/tmp/" + "ü" * 40
    with pytest.raises(InvalidInput, match=f"at most .* bytes; {place} has 85. Set RAY_TMPDIR"):
        choose_temp_folder({"RAY_TMPDIR": place, "TMPDIR": "/tmp"})


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("127.0.0.1:PORT", "no Ray cluster at 127.0.0.1:.*: Connection refused"),
        ("ray://127.0.0.1:PORT", "no Ray cluster at ray://127.0.0.1:.*: Connection refused"),
        ("localhost", "is wrong: localhost is not of the form host:port"),
        ("localhost:gcs", "is wrong: "),
    ],
)
def test_ray_session__a_dead_or_wrong_address_is_named_within_seconds(
    asked: list[dict[str, object]],
    monkeypatch: pytest.MonkeyPatch,
    address: str,
    reason: str,
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = address.replace("PORT", str(taken.getsockname()[1]))
    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 64)
    began = time.monotonic()
    with pytest.raises(UlcmodError, match=reason), ray_session(None):
        pass
    assert time.monotonic() - began < 5
    assert asked == []


@pytest.mark.parametrize("by_environment", [False, True])
def test_ray_session__another_machine_is_not_joined_without_a_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_environment: bool
) -> None:
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("Ray was asked"))
    address = "198.51.100.7:6379"
    if by_environment:
        monkeypatch.setenv("RAY_ADDRESS", address)
    with (
        pytest.raises(InvalidInput, match=f"remote Ray cluster {address} without token"),
        ray_session(None if by_environment else address),
    ):
        pass

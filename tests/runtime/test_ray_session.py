"""A local Ray opens nothing to others, and another machine's is not joined without a token."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import ray

from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.runtime.ray_session import ray_session

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

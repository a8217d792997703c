import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.runtime.ray_token import (
    Token,
    ensure_token,
    find_token,
    get_token,
    is_loopback,
    require_token,
)

SECRET = "planted-secret-0123456789"


def token_file(path: Path, mode: int = 0o600, text: str = SECRET + "\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def test_token__is_found_where_ray_finds_it(tmp_path: Path) -> None:
    assert find_token({}, tmp_path) is None
    token_file(tmp_path / ".ray" / "auth_token", text="of the home")
    assert find_token({}, tmp_path) == Token(str(tmp_path / ".ray" / "auth_token"), "of the home")
    named = {"RAY_AUTH_TOKEN_PATH": str(token_file(tmp_path / "named", text="of the path"))}
    assert find_token(named, tmp_path) == Token(named["RAY_AUTH_TOKEN_PATH"], "of the path")
    both = named | {"RAY_AUTH_TOKEN": "of the environment"}
    assert find_token(both, tmp_path) == Token("RAY_AUTH_TOKEN", "of the environment")


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620, 0o602])
def test_token__refuses_a_file_open_to_others(tmp_path: Path, mode: int) -> None:
    path = token_file(tmp_path / ".ray" / "auth_token", mode)
    with pytest.raises(InvalidInput, match=f"chmod 600 {path}") as caught:
        find_token({}, tmp_path)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("name", ["missing", "empty"])
def test_token__refuses_a_named_file_without_one(tmp_path: Path, name: str) -> None:
    token_file(tmp_path / "empty", text=" \n")
    with pytest.raises(InvalidInput, match=name):
        find_token({"RAY_AUTH_TOKEN_PATH": str(tmp_path / name)}, tmp_path)


def test_token__does_not_print(tmp_path: Path) -> None:
    token = find_token({"RAY_AUTH_TOKEN": SECRET}, tmp_path)
    assert token is not None
    assert SECRET not in f"{token} {token!r} {[token]}"
    assert token.headers() == {"Authorization": f"Bearer {SECRET}"}


@pytest.mark.parametrize(
    ("address", "loopback"),
    [
        ("http://127.0.0.1:8265", True),
        ("http://127.8.9.1:8265", True),
        ("http://localhost:8265", True),
        ("http://[::1]:8265", True),
        ("https://10.0.0.7:8265", False),
        ("http://0.0.0.0:8265", False),
        ("http://localhost.example:8265", False),
        ("http://127.0.0.1@evil.example:8265", False),
        ("http://127.0.0.1.evil.example:8265", False),
    ],
)
def test_token__is_required_for_every_other_machine(
    tmp_path: Path, address: str, loopback: bool
) -> None:
    assert is_loopback(address) is loopback
    if loopback:
        assert get_token(address, {}, tmp_path) is None
    else:
        with pytest.raises(InvalidInput, match="RAY_AUTH_MODE=token"):
            get_token(address, {}, tmp_path)
    assert get_token(address, {"RAY_AUTH_TOKEN": "t"}, tmp_path) is not None


def test_make_token__is_the_owners_alone(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        ensure_token({}, tmp_path)
    finally:
        os.umask(before)
    path = tmp_path / ".ray" / "auth_token"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    found = find_token({}, tmp_path)
    assert found is not None
    assert len(found.value) == 64
    assert [entry.name for entry in path.parent.iterdir()] == ["auth_token"]


def test_make_token__keeps_one_that_is_there(tmp_path: Path) -> None:
    path = token_file(tmp_path / ".ray" / "auth_token", 0o644)
    ensure_token({}, tmp_path)
    assert path.read_text() == SECRET + "\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_make_token__of_many_at_once_all_see_the_same(tmp_path: Path) -> None:
    def make(_: int) -> Token | None:
        ensure_token({}, tmp_path)
        return find_token({}, tmp_path)

    with ThreadPoolExecutor(8) as pool:
        assert len({token.value for token in pool.map(make, range(32)) if token}) == 1


@pytest.mark.parametrize(
    "environment",
    [{"RAY_AUTH_TOKEN": "t"}, {"RAY_AUTH_TOKEN_PATH": "/t"}, {"RAY_AUTH_MODE": "disabled"}],
)
def test_make_token__leaves_the_home_alone_where_ray_does(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    ensure_token(environment, tmp_path)
    assert list(tmp_path.iterdir()) == []


REMOTE = "198.51.100.7:6379"
IN_TOKEN_MODE = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "t"}


@pytest.mark.parametrize(
    ("address", "environment"),
    [
        (REMOTE, {}),
        (f"ray://{REMOTE}", {}),
        ("head.example:6379", {}),
        ("auto", {"RAY_ADDRESS": REMOTE}),
        # Ray shows no token unless the mode says so.
        (REMOTE, {"RAY_AUTH_TOKEN": "t"}),
        (REMOTE, {"RAY_AUTH_MODE": "token"}),
        (REMOTE, {"RAY_JOB_CONFIG_JSON_ENV_VAR": "{}", "RAY_ADDRESS": "198.51.100.8:6379"}),
    ],
)
def test_require_token__refuses_another_machine(
    tmp_path: Path, address: str, environment: dict[str, str]
) -> None:
    with pytest.raises(InvalidInput, match="without token authentication"):
        require_token(address, environment, tmp_path)


@pytest.mark.parametrize(
    ("address", "environment"),
    [
        ("auto", {}),
        ("", {}),
        ("127.0.0.1:6379", {}),
        ("ray://localhost:10001", {}),
        ("[::1]:6379", {}),
        (REMOTE, IN_TOKEN_MODE),
        (REMOTE, {"RAY_JOB_CONFIG_JSON_ENV_VAR": "{}", "RAY_ADDRESS": REMOTE}),
    ],
)
def test_require_token__joins_its_own_machine_or_with_a_token(
    tmp_path: Path, address: str, environment: dict[str, str]
) -> None:
    require_token(address, environment, tmp_path)


def test_require_token__takes_a_mounted_file_that_a_group_reads(tmp_path: Path) -> None:
    path = token_file(tmp_path / "mounted", 0o440)
    require_token(
        REMOTE, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(path)}, tmp_path / "home"
    )

from pathlib import Path

import pytest

from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.submit.token import Token, find_token, is_loopback, token_for

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
        assert token_for(address, {}, tmp_path) is None
    else:
        with pytest.raises(InvalidInput, match="RAY_AUTH_MODE=token"):
            token_for(address, {}, tmp_path)
    assert token_for(address, {"RAY_AUTH_TOKEN": "t"}, tmp_path) is not None

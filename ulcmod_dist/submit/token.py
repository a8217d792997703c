"""The token that opens a Ray cluster: where it comes from, and when one is required.

The places and their order are Ray's own: ``RAY_AUTH_TOKEN``, the file named by
``RAY_AUTH_TOKEN_PATH``, ``~/.ray/auth_token``. A token lives in memory and in the header of a
request, nowhere else.
"""

from __future__ import annotations

import ipaddress
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from ulcmod_dist.errors import InvalidInput


@dataclass(frozen=True)
class Token:
    """A token and the place it came from; it prints as the place alone."""

    place: str
    value: str = field(repr=False)

    def headers(self) -> dict[str, str]:
        """The header that shows the token to a Ray cluster."""
        return {"Authorization": f"Bearer {self.value}"}


def find_token(environment: Mapping[str, str], home: Path) -> Token | None:
    """The token that Ray itself would use, or None where there is none.

    Raises:
        InvalidInput: The file can be read by others, is empty, or is not there although named.
    """
    if value := environment.get("RAY_AUTH_TOKEN", "").strip():
        return Token("RAY_AUTH_TOKEN", value)
    named = environment.get("RAY_AUTH_TOKEN_PATH", "")
    path = Path(named).expanduser() if named else home / ".ray" / "auth_token"
    if not path.is_file():
        if named:
            raise InvalidInput(f"RAY_AUTH_TOKEN_PATH names {path}, which is no file.")
        return None
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise InvalidInput(
            f"The token file {path} is open to others (mode {mode:03o}).",
            f"Close it with `chmod 600 {path}`, and change the token if others had access.",
        )
    value = path.read_text(encoding="utf-8").strip()
    if not value:
        raise InvalidInput(f"The token file {path} is empty.")
    return Token(str(path), value)


def is_loopback(address: str) -> bool:
    """Whether an HTTP address is on this machine and cannot be reached from another."""
    host = urlsplit(address).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def token_for(address: str, environment: Mapping[str, str], home: Path) -> Token | None:
    """The token to show to a Ray cluster at an HTTP address.

    Raises:
        InvalidInput: The address is not on this machine and there is no token. A Ray cluster
            without one runs whatever anybody on its network sends it.
    """
    token = find_token(environment, home)
    if token is None and not is_loopback(address):
        raise InvalidInput(
            f"{address} is another machine and there is no token; a Ray cluster that needs none "
            "runs whatever its network sends it.",
            "Start the cluster with RAY_AUTH_MODE=token and keep its token in ~/.ray/auth_token "
            "(mode 600), or name its file by RAY_AUTH_TOKEN_PATH.",
        )
    return token

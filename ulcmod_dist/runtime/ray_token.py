"""How a process meets Ray: quietly, and with the token that opens a cluster.

Where a token is looked for, and in which order, is Ray's own: ``RAY_AUTH_TOKEN``, the file named
by ``RAY_AUTH_TOKEN_PATH``, ``~/.ray/auth_token``. A token lives there, in memory and in the header
of a request, nowhere else.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import secrets
import socket
import stat
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from ulcmod_dist.errors import InvalidInput

_QUIET_ENV = {
    # Usage statistics would leave the machine; the other two only fill logs.
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_SCHEDULER_EVENTS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
_LOCAL_ADDRESSES = ("", "auto", "local")
"""Addresses by which Ray finds or starts a cluster on this machine."""

_RAY_JOB_ENV = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Ray sets it, and RAY_ADDRESS with it, for the driver of a job that it starts."""


def quiet_ray(environment: MutableMapping[str, str] = os.environ) -> None:
    """Keep Ray from sending statistics and from filling logs; before it starts in a process."""
    for name, value in _QUIET_ENV.items():
        environment.setdefault(name, value)


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
    path = Path(named).expanduser() if named else _default_path(home)
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


def ensure_token(environment: Mapping[str, str], home: Path) -> None:
    """Make a token that only its owner can read, where a local Ray would find none.

    Ray makes one itself, but open to whomever the umask lets read it.
    """
    elsewhere = environment.get("RAY_AUTH_TOKEN") or environment.get("RAY_AUTH_TOKEN_PATH")
    path = _default_path(home)
    if elsewhere or environment.get("RAY_AUTH_MODE", "token").lower() != "token" or path.exists():
        return
    # Where the home cannot be written, Ray says so in its own words.
    with contextlib.suppress(OSError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _create_file(path, secrets.token_hex(32))


def _default_path(home: Path) -> Path:
    return home / ".ray" / "auth_token"


def _create_file(path: Path, text: str) -> None:
    """Write a file of the owner's alone, unless another process was first.

    The link appears with its contents, so that nobody reads half a token.
    """
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    try:
        with open(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
            file.write(text)
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def is_loopback(address: str) -> bool:
    """Whether an HTTP address is on this machine and cannot be reached from another."""
    host = urlsplit(address).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def get_token(address: str, environment: Mapping[str, str], home: Path) -> Token | None:
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


def require_token(address: str, environment: Mapping[str, str], home: Path) -> None:
    """Refuse to join a Ray cluster on another machine without a token.

    A driver that Ray itself started joins the cluster it is in, whatever that is.

    Args:
        address: As ``ray.init`` takes it: ``10.0.0.1:6379``, ``ray://head:10001``, ``auto``.
        environment: Of this process.
        home: Home of the user.

    Raises:
        InvalidInput: The address is not on this machine, and Ray would show no token there.
    """
    named = environment.get("RAY_ADDRESS")
    if address == "auto" and named:  # as Ray reads it
        address = named
    inside = _RAY_JOB_ENV in environment and address == named
    if inside or _is_local(address):
        return
    # For an address that is given, Ray shows a token in this mode alone.
    if environment.get("RAY_AUTH_MODE", "").lower() == "token" and _has_token(environment, home):
        return
    raise InvalidInput(
        f"{address} is another machine and would be joined without a token; a Ray cluster that "
        "needs none runs whatever its network sends it.",
        "Start the cluster with RAY_AUTH_MODE=token, set that here too, and keep its token in "
        "~/.ray/auth_token (mode 600), or name its file by RAY_AUTH_TOKEN_PATH.",
    )


def _has_token(environment: Mapping[str, str], home: Path) -> bool:
    """Whether Ray finds a token; a file that is mounted may be open to its group."""
    if environment.get("RAY_AUTH_TOKEN", "").strip():
        return True
    named = environment.get("RAY_AUTH_TOKEN_PATH", "")
    return (Path(named).expanduser() if named else _default_path(home)).is_file()


def _is_local(address: str) -> bool:
    """Whether an address of Ray's is one of this machine's own."""
    if address in _LOCAL_ADDRESSES:
        return True
    url = address if "://" in address else f"ray://{address}"
    if is_loopback(url):
        return True
    host = urlsplit(url).hostname or ""
    return host == socket.gethostname().lower() or _is_own_ip(host)


def _is_own_ip(host: str) -> bool:
    """Whether packets to an IP address would come from that same address; nothing is sent."""
    try:
        version = ipaddress.ip_address(host).version
    except ValueError:
        return False
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((host, 9))
        except OSError:
            return False
        return str(probe.getsockname()[0]) == host

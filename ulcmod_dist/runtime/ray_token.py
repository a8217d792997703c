"""Token authentication of Ray clusters.

Tokens are looked up where Ray itself does, in its order: ``RAY_AUTH_TOKEN``, the file named by
``RAY_AUTH_TOKEN_PATH``, ``~/.ray/auth_token``. A token is never logged or stored elsewhere.
See https://docs.ray.io/en/latest/ray-security/token-auth.html.
"""

import ipaddress
import os
import secrets
import socket
import stat
import tempfile
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.runtime.files import publish_exclusively


def quiet_ray(environment: MutableMapping[str, str] = os.environ) -> None:
    """Turn off Ray's usage statistics and noisy logs; call before Ray starts in a process."""
    # Usage statistics would leave the machine; the other two only fill logs.
    environment.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    environment.setdefault("RAY_SCHEDULER_EVENTS", "0")
    environment.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")


@dataclass(frozen=True)
class Token:
    """A token and where it was found; its repr shows only the latter."""

    source: str
    value: str = field(repr=False)

    def headers(self) -> dict[str, str]:
        """The HTTP header that authenticates with a Ray cluster."""
        return {"Authorization": f"Bearer {self.value}"}


def find_token(environment: Mapping[str, str], home: Path) -> Token | None:
    """Find the token that Ray would use; None if there is none.

    Raises:
        InvalidInput: The token file is readable by others, is empty, or is named but missing.
    """
    if value := environment.get("RAY_AUTH_TOKEN", "").strip():
        return Token("RAY_AUTH_TOKEN", value)
    path = _get_path(environment, home)
    if not path.is_file():
        if environment.get("RAY_AUTH_TOKEN_PATH"):
            raise InvalidInput(f"RAY_AUTH_TOKEN_PATH names {path}, which is not a file.")
        return None
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise InvalidInput(
            f"The token file {path} is accessible to other users (mode {mode:03o}).",
            f"Run `chmod 600 {path}`, and replace the token if other users had access.",
        )
    value = path.read_text(encoding="utf-8").strip()
    if not value:
        raise InvalidInput(f"The token file {path} is empty.")
    return Token(str(path), value)


def get_token(address: str, environment: Mapping[str, str], home: Path) -> Token | None:
    """Get the token for a Ray cluster at an HTTP address; None is allowed on this machine only.

    Raises:
        InvalidInput: The address is on another machine and there is no token.
    """
    token = find_token(environment, home)
    if token is None and not is_loopback(address):
        raise _missing_token(address)
    return token


def require_token(address: str, environment: Mapping[str, str], home: Path) -> None:
    """Refuse to join a Ray cluster on another machine without a token.

    The driver of a Ray job may join the cluster that started it. The address is as ``ray.init``
    takes it: ``10.0.0.1:6379``, ``ray://head:10001``, ``auto``.

    Raises:
        InvalidInput: The address is on another machine, and Ray would send no token.
    """
    ray_address = environment.get("RAY_ADDRESS")
    if address == "auto" and ray_address:  # as ray.init resolves it
        address = ray_address
    # Ray sets both variables for the driver of a submitted job.
    is_own_cluster = "RAY_JOB_CONFIG_JSON_ENV_VAR" in environment and address == ray_address
    if is_own_cluster or _is_local(address):
        return
    # With an explicit address, Ray sends a token only in this mode. Unlike find_token this accepts
    # a file that its group may read, since Kubernetes mounts secrets that way.
    is_token_mode = environment.get("RAY_AUTH_MODE", "").lower() == "token"
    has_token = bool(environment.get("RAY_AUTH_TOKEN", "").strip())
    if not (is_token_mode and (has_token or _get_path(environment, home).is_file())):
        raise _missing_token(address)


def ensure_token(environment: MutableMapping[str, str], home: Path) -> None:
    """Create a token with mode 600 if a local Ray would find none.

    Ray 2.60 creates one as well, but leaves its mode to the umask (0644 by default).
    """
    is_elsewhere = environment.get("RAY_AUTH_TOKEN") or environment.get("RAY_AUTH_TOKEN_PATH")
    is_disabled = environment.get("RAY_AUTH_MODE", "token").lower() != "token"
    path = _get_path({}, home)
    if is_elsewhere or is_disabled or path.exists():
        return
    token = secrets.token_hex(32)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # A temporary file has mode 600 from the start.
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as draft:
            draft.write(token)
        # Processes that start together never see half a token, and the first one's is kept.
        publish_exclusively(Path(draft.name), path)
    except FileExistsError:
        return
    except OSError:
        # Without a home directory that can be written, the token lives as long as this Ray.
        environment["RAY_AUTH_TOKEN"] = token


def find_home() -> Path:
    """The home directory; a user who has none gets one that does not exist."""
    try:
        return Path.home()
    except RuntimeError:
        return Path("/nonexistent")


def is_loopback(address: str) -> bool:
    """Whether an HTTP address is on this machine and unreachable from others."""
    host = urlsplit(address).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _missing_token(address: str) -> InvalidInput:
    return InvalidInput(
        f"Refusing to connect to the remote Ray cluster {address} without token authentication: "
        "without it, a cluster runs code from anyone on its network.",
        "Start the cluster with RAY_AUTH_MODE=token, set RAY_AUTH_MODE=token here as well, and "
        "store its token in ~/.ray/auth_token (mode 600) or in the file that RAY_AUTH_TOKEN_PATH "
        "names.",
    )


def _get_path(environment: Mapping[str, str], home: Path) -> Path:
    if named := environment.get("RAY_AUTH_TOKEN_PATH"):
        return Path(named).expanduser()
    return home / ".ray" / "auth_token"


def _is_local(address: str) -> bool:
    """Whether an address, as ``ray.init`` takes it, is on this machine."""
    if address in ("", "auto", "local"):
        return True  # Ray finds or starts a cluster on this machine.
    url = address if "://" in address else f"ray://{address}"
    host = urlsplit(url).hostname or ""
    own = {each.address for addresses in psutil.net_if_addrs().values() for each in addresses}
    return is_loopback(url) or host in own or host == socket.gethostname().lower()

"""Detect credentials in URLs, anywhere in a text or in nested values."""

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

from ulcmod_dist.errors import InvalidInput

_PARAMETER = re.compile(r"[?#&;]([^=?#&;]+)=")
_SECRET_NAME = re.compile(
    r".*(signature|token|secret|passw|pwd|credential|api[-_]?key|access[-_]?key).*"
    r"|(.*[-_])?(sig|key|auth)",
    re.IGNORECASE | re.DOTALL,
)

# Azure puts the container's name before the host, where other schemes put the user's.
_AZURE = ("abfs", "abfss", "wasb", "wasbs")
_CONTAINER = re.compile(r"^[a-z0-9-]{3,63}@")

REMEDY = "Give credentials through the environment, on Kubernetes by a Secret."

REDACTED = "(not shown: it carries credentials)"
"""Replaces a value in a message."""


def has_credentials(text: str) -> bool:
    """Whether a text contains a URL with a user name, a password or a secret in its query.

    Schemes may be chained, as in ``simplecache::https://...``, so every ``://`` begins a URL. In
    doubt the answer is yes: keys of object stores contain any character, also ``/`` and ``?``.
    """
    urls = re.finditer(r"([a-z0-9+.-]*)://", text, re.IGNORECASE)
    return any(_is_secret_url(url[1].lower(), text[url.end() :]) for url in urls)


def _is_secret_url(scheme: str, rest: str) -> bool:
    host = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if scheme in _AZURE:
        host = _CONTAINER.sub("", host)
    names = (unquote(match[1]) for match in _PARAMETER.finditer(rest))
    if "@" in host or any(_SECRET_NAME.fullmatch(name) for name in names):
        return True
    _, colon, port = host.rpartition("]")[2].partition(":")
    if not colon:
        return False
    # After a colon comes a port, or a password, which may contain any character but an @.
    where = re.split(r"[?#]", rest, maxsplit=1)[0] if port.isdigit() else rest
    return "@" in where


def iter_texts(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Every text in nested values and in their keys, each with its dotted key."""
    pending: list[tuple[str, Any]] = [(key, value)]
    seen: set[int] = set()
    while pending:
        place, inner = pending.pop(0)
        if isinstance(inner, bytes):
            yield place, inner.decode("utf-8", "replace")
        elif isinstance(inner, str):
            yield place, inner
        # A YAML alias puts one value in many places, even inside itself.
        elif isinstance(inner, dict | list | tuple | set) and id(inner) not in seen:
            seen.add(id(inner))
            pending += [(place, part) for part in inner]
            if isinstance(inner, dict):
                prefix = f"{place}." if place else ""
                pending += [(f"{prefix}{name}", part) for name, part in inner.items()]


def reject_credentials(url: str, what: str) -> None:
    """Refuse a URL with credentials where URLs are shown and stored.

    Raises:
        InvalidInput: The URL carries credentials; the message names ``what`` and never the URL.
    """
    if has_credentials(url):
        raise InvalidInput(
            f"{what} is given by a URL that carries credentials; such names are shown and stored.",
            REMEDY,
        )


def redact(value: Any) -> str:
    """The ``repr`` of a value for a message, or a placeholder if it carries credentials."""
    hidden = any(has_credentials(text) for _, text in iter_texts(value))
    return REDACTED if hidden else repr(value)

"""JSON records that carry their own checksum, so that a flipped bit in one is noticed."""

from __future__ import annotations

import json
from typing import Any

from ulcmod_dist.errors import UlcmodError
from ulcmod_dist.runtime.rundir import canonical_json, fingerprint

SEAL = "checksum"


class Damaged(UlcmodError):
    """Stored bytes are not what was written."""


def seal(value: dict[str, Any]) -> bytes:
    """The canonical JSON of a value with the SHA-256 of the value added to it."""
    return canonical_json({**value, SEAL: fingerprint(value)})


def unseal(data: bytes, name: str) -> dict[str, Any]:
    """The value that was sealed.

    Raises:
        Damaged: The bytes differ from those that ``seal`` returned.
    """
    try:
        value = json.loads(data)
        checksum = value.pop(SEAL)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damaged(f"{name} is damaged: it is no sealed record.") from error
    # Canonical bytes, so that a flip in white space, which JSON ignores, is found as well.
    if checksum != fingerprint(value) or seal(value) != data:
        raise Damaged(f"{name} is damaged: its checksum does not match its contents.")
    assert isinstance(value, dict)
    return value

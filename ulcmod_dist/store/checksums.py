"""JSON records that carry their own checksum, so that a flipped bit in one is noticed."""

from __future__ import annotations

import json
from typing import Any

from ulcmod_dist.errors import UlcmodError
from ulcmod_dist.runtime.rundir import canonical_json, fingerprint

CHECKSUM_KEY = "checksum"


class CorruptionError(UlcmodError):
    """Stored bytes are not what was written."""


def dump_checksummed(value: dict[str, Any]) -> bytes:
    """The canonical JSON of a value with the SHA-256 of the value added to it."""
    return canonical_json({**value, CHECKSUM_KEY: fingerprint(value)})


def load_checksummed(data: bytes, name: str) -> dict[str, Any]:
    """The value that was sealed.

    Raises:
        CorruptionError: The bytes differ from those that ``dump_checksummed`` returned.
    """
    try:
        value = json.loads(data)
        checksum = value.pop(CHECKSUM_KEY)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptionError(f"{name} is damaged: it is no sealed record.") from error
    # Canonical bytes, so that a flip in white space, which JSON ignores, is found as well.
    if checksum != fingerprint(value) or dump_checksummed(value) != data:
        raise CorruptionError(f"{name} is damaged: its checksum does not match its contents.")
    assert isinstance(value, dict)
    return value

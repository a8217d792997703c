"""Digests of prompts in bulk: SHA-256 as rows of bytes, compared and looked up as columns.

As texts in a set, ten million digests take 1.5 GB; as bytes they take 320 MB.
"""

import hashlib
from collections.abc import Iterable
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Digests: TypeAlias = NDArray[np.uint8]
"""[digests, 32]: the bytes of SHA-256."""

DIGEST_BYTES = 32
_BLOCK = 2**16


def from_hex(names: Iterable[str]) -> Digests:
    """Digests from their hexadecimal names."""
    return _as_rows(bytes.fromhex("".join(names)))


def to_hex(digests: Digests) -> list[str]:
    """The hexadecimal names of digests, as in messages and in names of files."""
    text, width = digests.tobytes().hex(), 2 * DIGEST_BYTES
    return [text[start : start + width] for start in range(0, len(text), width)]


def join_digests(parts: Iterable[bytes | Digests]) -> Digests:
    """Digests one after another."""
    return _as_rows(b"".join(bytes(part) for part in parts))


def find_digests(digests: Digests, among: Digests) -> NDArray[np.int64]:
    """The first row of ``among`` that holds each digest; -1 where none does."""
    found = pc.index_in(to_arrow(digests), value_set=to_arrow(among))
    return np.asarray(found.fill_null(-1), np.int64)


def to_arrow(digests: Digests) -> pa.FixedSizeBinaryArray:
    """Digests as a column; shares their memory."""
    data = pa.py_buffer(np.ascontiguousarray(digests))
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(DIGEST_BYTES), len(digests), [None, data])


def from_arrow(column: pa.ChunkedArray) -> Digests:
    """The digests of a column of `to_arrow`."""
    parts = [
        _as_rows(chunk.buffers()[1])[chunk.offset : chunk.offset + len(chunk)]
        for chunk in column.chunks
        if len(chunk)
    ]
    return parts[0] if len(parts) == 1 else join_digests(parts)


def fingerprint_digests(digests: Digests) -> str:
    """`fingerprint` of the list of their names, which is never held whole."""
    total = hashlib.sha256(b"[")
    for start in range(0, len(digests), _BLOCK):
        names = '",\n "'.join(to_hex(digests[start : start + _BLOCK]))
        total.update(f'{"," if start else ""}\n "{names}"'.encode())
    total.update(b"\n]" if len(digests) else b"]")
    return total.hexdigest()


def _as_rows(data: bytes | pa.Buffer) -> Digests:
    values = np.frombuffer(data, np.uint8)
    return values[: len(values) // DIGEST_BYTES * DIGEST_BYTES].reshape(-1, DIGEST_BYTES)

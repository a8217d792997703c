"""What tells models apart, without loading torch: enough to see that nothing has changed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

FORWARD_VERSION = "1"
"""Raised by hand whenever the same model and prompt would yield other rows than before."""


def get_model_cache_key(model: str, revision: str | None) -> str:
    """Where a model comes from: id and revision on the hub, or the digest of a folder's files."""
    folder = Path(model)
    if not folder.is_dir():
        return f"{model} {revision}"
    return hash_files(path for path in sorted(folder.iterdir()) if path.is_file())


def hash_files(paths: Iterable[Path]) -> str:
    """SHA-256 over names and contents of files, in the order given."""
    total = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        total.update(f"{path.name} {digest}\n".encode())
    return total.hexdigest()

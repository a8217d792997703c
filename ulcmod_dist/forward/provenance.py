"""What activations depend on from the model's side, found out without importing torch."""

import hashlib
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from ulcmod_dist.config.schema import ModelConfig

FORWARD_VERSION = "1"
"""Raised by hand whenever the same model and prompt would yield other activations than before."""


def get_model_cache_key(model: ModelConfig) -> str:
    """Id and revision of a model on the hub, or the digest of all files in a model's folder."""
    folder = Path(model.id)
    if not folder.is_dir():
        return f"{model.id} {model.revision}"
    return hash_files(path for path in sorted(folder.iterdir()) if path.is_file())


def hash_files(paths: Iterable[Path]) -> str:
    """SHA-256 over names and contents of files, in the order given.

    A process reads a file again only after its inode, size or modification time has changed: a
    rerun asks for the digests of the same weights several times, and they may be hundreds of GiB.
    """
    total = hashlib.sha256()
    for path in paths:
        state = path.stat()
        digest = _hash_file(path, state.st_ino, state.st_size, state.st_mtime_ns)
        total.update(f"{path.name} {digest}\n".encode())
    return total.hexdigest()


@lru_cache(maxsize=4096)
def _hash_file(path: Path, _inode: int, _size: int, _mtime_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

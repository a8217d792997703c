"""What activations depend on from the model's side, found out without importing torch."""

import hashlib
import json
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

from ulcmod_dist.config.schema import ModelConfig

FORWARD_VERSION = "1"
"""Raised by hand whenever the same model and prompt would yield other activations than before."""
_LONGROPE_VERSION = "2"
"""The same for models with LongRoPE, whose rows depended on their batch in version 1."""

_EAGER = frozenset({"bloom", "gemma2", "gpt_oss"})
"""Model types with eager attention alone, so that a job that leaves it out equals one that says so.

Others of the kind are known only to transformers, which takes seconds to import.
"""


ATTRIBUTION = {
    "statistic": "attribution",
    "statistic.definition": "mean over counted tokens of |activation x gradient| of the loss, a "
    "sum over counted tokens after the prompt's first",
}
"""What provenance adds for the statistic; digests of rows of activations do without a word."""


def get_forward_version(model: ModelConfig) -> str:
    """Version of the forward pass of a model."""
    raw = read_raw_config(model)
    rope = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    parts = [rope, *rope.values()] if isinstance(rope, dict) else []
    kinds = {part.get("rope_type", part.get("type")) for part in parts if isinstance(part, dict)}
    # Configurations of Phi-3 had other names for it at first.
    names = {"longrope", "su"} | ({"yarn"} if raw.get("model_type") == "phi3" else set())
    return _LONGROPE_VERSION if kinds & names else FORWARD_VERSION


def split_gguf(model: ModelConfig) -> tuple[str, str] | None:
    """Folder or repository of a GGUF file, and its name there; None for a model of other files."""
    path = Path(model.id)
    if path.suffix != ".gguf" or path.is_dir():
        return None
    if path.is_absolute() or path.is_file():
        return str(path.parent), path.name
    owner, *rest = model.id.split("/", 2)
    return (f"{owner}/{rest[0]}", rest[1]) if len(rest) == 2 else None


def choose_attention(model: ModelConfig) -> str | None:
    """Attention implementation of the job, or where it names none that of the model's type.

    None where the model is not at hand.
    """
    if model.attention is not None:
        return model.attention
    model_type = read_raw_config(model).get("model_type")
    return None if model_type is None else "eager" if model_type in _EAGER else "sdpa"


def read_raw_config(model: ModelConfig) -> dict[str, Any]:
    """A model's ``config.json`` as it is written; empty where there is none at hand."""
    path: Any = Path(model.id, "config.json")
    try:
        if not path.parent.is_dir():
            from huggingface_hub import try_to_load_from_cache

            # It raises a ValueError if the id is the path of a folder that is gone, or of a file.
            path = try_to_load_from_cache(model.id, "config.json", revision=model.revision)
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def get_model_cache_key(model: ModelConfig) -> str:
    """Id and revision of a model on the hub, or the digest of a local model's file or files."""
    path = Path(model.id)
    if not path.exists():
        return f"{model.id} {model.revision}"
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return hash_files(file for file in files if file.is_file())


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

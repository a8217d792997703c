"""Pointers of Git LFS: small text files that a clone holds in place of large ones."""

from pathlib import Path

from ulcmod_dist.errors import InvalidInput

# https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md: the first line of every pointer.
_SIGNATURE = b"version https://git-lfs.github.com/spec/"


def is_lfs_pointer(head: bytes) -> bool:
    """Whether a file that begins with these bytes is a pointer of Git LFS."""
    return head.startswith(_SIGNATURE)


def reject_lfs_pointer(path: str | Path) -> None:
    """Refuse a local file that is a pointer of Git LFS; a missing file is another's concern.

    Raises:
        InvalidInput: It is one.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(len(_SIGNATURE))
    except OSError:
        return
    if is_lfs_pointer(head):
        raise lfs_pointer_error(path)


def lfs_pointer_error(path: str | Path) -> InvalidInput:
    """The error that names a pointer of Git LFS."""
    return InvalidInput(
        f"{path} is a pointer of Git LFS, not the file itself.",
        "Fetch the file with `git lfs pull`.",
    )

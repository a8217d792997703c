"""Local files: whether they can be written, and creating them where there are no hard links."""

import errno
import fcntl
import os
import secrets
from pathlib import Path

from ulcmod_dist.errors import InvalidInput

# https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md: the first line of every pointer.
_SIGNATURE = b"version https://git-lfs.github.com/spec/"


ELSEWHERE = "Name a run directory elsewhere, or change the permissions."


def create_exclusively(path: Path, data: bytes) -> None:
    """Write a file that must not exist yet; it appears whole, or not at all.

    Raises:
        FileExistsError: The file exists; of concurrent callers exactly one succeeds.
        OSError: The file system has neither links nor locks, or the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # obstore does not list names that end like this: it takes them for uploads in progress.
    draft = path.with_name(f"{path.name}#{secrets.randbelow(2**31)}")
    try:
        with draft.open("xb") as file:
            file.write(data)
        publish_exclusively(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def publish_exclusively(draft: Path, path: Path) -> None:
    """Give a written file its name in the same folder, unless the name is taken; errors as above.

    A hard link does this. exFAT, FAT and some other mounts have none: there the file is renamed
    while the folder is locked, which excludes other processes of this machine, and those of others
    where the mount shares its locks. In any case the draft is gone.
    """
    try:
        os.link(draft, path)
    except FileExistsError:
        raise
    except OSError:
        _rename_locked(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def check_writable(folder: Path) -> None:
    """Check that files can be created in a run directory that may have to be made; makes nothing.

    Raises:
        InvalidInput: A file is in its place, its name cannot be one, or it is read-only.
    """
    try:
        existing = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
        below = [entry.path for entry in os.scandir(folder)] if existing == folder else []
        longest = max(map(len, map(os.fsencode, folder.parts)))
        # Some file systems do not say how long a name may be.
        limit = os.pathconf(existing, "PC_NAME_MAX") if existing.is_dir() else 255
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        if isinstance(error, NotADirectoryError):
            reason = f"{error.filename} is a file, not a folder"
        raise InvalidInput(
            f"The run directory {folder} cannot be written: {reason}.", ELSEWHERE
        ) from error
    folders = [existing, *map(Path, below)]
    if not existing.is_dir():
        reason = f"{existing} is a file, not a folder"
    elif longest > limit:
        reason = f"a name of {longest} bytes is longer than the {limit} that its file system allows"
    elif locked := [path for path in folders if path.is_dir() and not _is_writable(path)]:
        reason = f"{locked[0]} is read-only"
    else:
        return
    raise InvalidInput(f"The run directory {folder} cannot be written: {reason}.", ELSEWHERE)


def nearest_folder(folder: Path) -> Path:
    """The folder itself, or the nearest one above it that exists."""
    return next(path for path in (folder, *folder.parents) if path.is_dir())


def _is_writable(folder: Path) -> bool:
    # False for root, too, where the file system is mounted read-only.
    return os.access(folder, os.W_OK | os.X_OK)


def _rename_locked(source: Path, target: Path) -> None:
    """Rename a file unless the new name is taken; the lock ends with the process at the latest."""
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        if target.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
        source.rename(target)
    finally:
        os.close(folder)


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

"""The versions of a run's results, ``versions/000003/``: copies of all but the activation store.

The newest is a copy of what lies in the run directory, made at the end of a rerun; a rerun may
therefore change the run directory and be killed at any moment without touching a version.
"""

import re
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

from ulcmod_dist.runtime.rundir import (
    ARTIFACTS,
    CHECKPOINTS,
    DRIFT,
    EVALUATION,
    FORMAT_FILE,
    JOB,
    REPORT,
    VERSIONS,
    RunDir,
    version_folder,
)
from ulcmod_dist.store.records import list_snapshots

RECORD = "version.json"
FOLDERS = (ARTIFACTS, "modules", EVALUATION, "figures", "tables", DRIFT)
FILES = (FORMAT_FILE, JOB, REPORT)

_FOLDER = re.compile(rf"(.+)/{VERSIONS}/\d+")
_RECORD_KEY = re.compile(rf"{VERSIONS}/(\d+)/{RECORD}")


@dataclass(frozen=True)
class Version:
    """The record of a version.

    ``snapshot`` is the version of the snapshot that its modules were found in, ``results`` their
    fingerprint, ``time`` when it was copied, in seconds since 1970.
    """

    number: int
    snapshot: int
    results: str
    time: float


def list_versions(run: RunDir) -> list[int]:
    """Numbers of the versions, ascending."""
    matches = (_RECORD_KEY.fullmatch(key) for key, _ in run.keys(VERSIONS))
    return sorted(int(match[1]) for match in matches if match)


def newest_version(run: RunDir) -> Version | None:
    """The newest version, or None."""
    there = list_versions(run)
    return read_version(version_directory(run, there[-1])) if there else None


def read_version(directory: RunDir) -> Version:
    """The record of the version in a directory of ``version_directory``."""
    return Version(**directory.read_json(RECORD))


def version_directory(run: RunDir, number: int) -> RunDir:
    """A version as a directory of its own."""
    return RunDir.at(run.show(version_folder(number)))


def containing_run(directory: RunDir) -> RunDir | None:
    """The run that a version's directory lies in, or None for the directory of a run."""
    match = _FOLDER.fullmatch(directory.url)
    return RunDir.at(match[1]) if match else None


def keep_version(run: RunDir, results: str, check: Callable[[], None]) -> Version:
    """Copy the results in the run directory to the next version; its record is written last.

    ``results`` is the fingerprint of the modules. ``check`` is called before the record is written
    and raises if this process may not write.
    """
    last = newest_version(run)
    number = 1 if last is None else last.number + 1
    # A rerun that was killed here may have left files.
    _remove(run, version_folder(number))
    target = version_directory(run, number)
    listed = [key for folder in FOLDERS for key, _ in run.keys(folder)]
    kept = [key for key in listed if not key.startswith(CHECKPOINTS)]
    for key in [*kept, *filter(run.exists, FILES)]:
        target.write(key, run.read(key))
    version = Version(number, list_snapshots(run)[-1], results, time.time())
    check()
    target.write_json(RECORD, asdict(version))
    return version


def prune_versions(run: RunDir, keep: int) -> None:
    """Delete all versions but the newest and the ``keep`` before it."""
    newest = list_versions(run)[-1]
    folders = {key.split("/")[1] for key, _ in run.keys(VERSIONS)}
    for number in sorted(map(int, folders)):
        if number < newest - keep:
            # The record first, so that a half-deleted folder is not listed as a version.
            run.delete(f"{version_folder(number)}/{RECORD}")
            _remove(run, version_folder(number))


def _remove(run: RunDir, folder: str) -> None:
    for key, _ in list(run.keys(folder)):
        run.delete(key)

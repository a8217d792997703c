"""What of a job travels to a cluster, and under which name.

An input written as a relative path is part of the job and travels with it; an absolute path or a
URL is the cluster's own and stays as it is. The name is a digest of all that travels, so the same
job has the same name wherever it is submitted from, and a second submission meets the first.
"""

from __future__ import annotations

import glob
import hashlib
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ulcmod_dist.config.job import Job, is_url
from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.runtime.rundir import fingerprint

JOB_FILE = "job.yaml"
MAX_BYTES = 256 * 2**20
"""Size of what may travel: Ray keeps it in the memory of the head node."""

Target = Literal["ray", "kuberay", "slurm"]


@dataclass(frozen=True)
class Parcel:
    """A job as the cluster will read it.

    Attributes:
        job: The job; its relative inputs are the files below, everything else is absolute.
        name: ``ulcmod-`` and 16 hexadecimal digits, a digest of the job and the files.
        files: Path beside the job file -> file on this machine.
    """

    job: Job
    name: str
    files: tuple[tuple[str, Path], ...]

    @property
    def text(self) -> str:
        """The job as YAML, every default written out."""
        return self.job.to_yaml()

    @property
    def command(self) -> str:
        """What the cluster calls, before the job file: a job with a schedule is rerun."""
        scheduled = self.job.cluster is not None and self.job.cluster.schedule is not None
        return "ulcmod rerun" if scheduled else "ulcmod run"

    @property
    def log_format(self) -> str:
        """``text`` or ``json``."""
        return "text" if self.job.cluster is None else self.job.cluster.log_format

    @property
    def size(self) -> int:
        """Bytes of the files that travel."""
        return sum(path.stat().st_size for _, path in self.files)

    def unpack(self, folder: Path) -> None:
        """Lay the job file and its inputs out in an empty folder."""
        (folder / JOB_FILE).write_text(self.text, encoding="utf-8")
        for name, source in self.files:
            place = folder / name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, place)


def pack(path: str | Path, overrides: Sequence[str], target: Target) -> Parcel:
    """The parcel of a job file for one kind of cluster.

    Slurm shares its file system with the place of submission, so there every path is made
    absolute. Ray takes relative inputs along. A Kubernetes manifest can hold no inputs.

    Raises:
        InvalidInput: The job is not valid, names something that the cluster cannot reach, or holds
            a secret.
    """
    path = Path(path)
    if target == "slurm":
        job = Job.from_yaml(path, overrides)
        if not is_url(job.run):
            job = job.model_copy(update={"run": str(Path(job.run).expanduser().resolve())})
        return Parcel(job, _name(job, ()), ())
    written = _read(path, overrides)
    _refuse_local_run(written, target)
    files = tuple(_inputs(written, path.parent))
    if files and target == "kuberay":
        raise InvalidInput(
            f"{files[0][0]} lies beside the job file, and a Kubernetes manifest holds no inputs.",
            "Put inputs on a volume or an object store and name them by absolute path or URL.",
        )
    parcel = Parcel(written, _name(written, files), files)
    if parcel.size > MAX_BYTES:
        raise InvalidInput(
            f"The inputs beside {path} hold {parcel.size:,} bytes; at most {MAX_BYTES:,} travel.",
            "Put them where the cluster sees them and name them by absolute path or URL.",
        )
    return parcel


def _read(path: Path, overrides: Sequence[str]) -> Job:
    """The job as it stands in its file, where an absolute path may exist on the cluster alone."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"The job file {path} cannot be read: {error}.") from error
    written = Job.as_written(text, source=str(path), overrides=overrides)
    if written.model is not None and not _elsewhere(written.model.id):
        written.resolved(path.parent)  # refuses an id on the hub without a revision
    return written


def _elsewhere(location: str) -> bool:
    """Whether a location means the same on every machine of the cluster."""
    return is_url(location) or Path(location).is_absolute() or location.startswith("~")


def _locations(job: Job) -> Iterator[tuple[str, str]]:
    yield "run", job.run
    if job.model is not None:
        yield "model.id", job.model.id
    if job.corpus is not None:
        yield from (("corpus.train", place) for place in job.corpus.train)
        yield from (("corpus.test", place) for place in job.corpus.test)
    if job.matrix is not None:
        yield "matrix.path", job.matrix.path
        if job.matrix.samples is not None:
            yield "matrix.samples", job.matrix.samples
        if job.matrix.units is not None:
            yield "matrix.units", job.matrix.units


def _refuse_local_run(job: Job, target: Target) -> None:
    if not _elsewhere(job.run):
        raise InvalidInput(
            f"run is {job.run!r}, a path relative to where a command is called; on a {target} "
            "cluster that is a folder which ends with the job.",
            "Give a shared folder or an object store, such as `--set run=/shared/runs/mine`.",
        )


def _inputs(written: Job, folder: Path) -> Iterator[tuple[str, Path]]:
    """The files behind every relative input, by their path below the job file's folder."""
    seen: set[str] = set()
    for key, location in _locations(written):
        if key == "run" or _elsewhere(location):
            continue
        if key == "model.id" and not (folder / location).exists():
            continue  # an id on the hub
        if ".." in Path(location).parts:
            raise InvalidInput(
                f"{key} is {location!r}, outside the folder of the job file, so it cannot travel.",
                "Move it beside the job file, or name it by absolute path or URL.",
            )
        for file in _files(folder, location, key):
            name = file.relative_to(folder).as_posix()
            _refuse_link_outside(file, folder, key)
            if name not in seen:
                seen.add(name)
                yield name, file


def _refuse_link_outside(file: Path, folder: Path, key: str) -> None:
    """Refuse what only a link puts beside the job file: a link can name any file there is."""
    if not file.resolve().is_relative_to(folder.resolve()):
        raise InvalidInput(
            f"{key} holds {str(file.relative_to(folder))!r}, a link to what lies outside the "
            "folder of the job file, so it cannot travel.",
            "Copy the file beside the job file, or name it by absolute path or URL.",
        )


def _files(folder: Path, location: str, key: str) -> list[Path]:
    found = [folder / place for place in glob.glob(location, root_dir=folder, recursive=True)]
    files = [file for place in found for file in ([place] if place.is_file() else _below(place))]
    if not files:
        raise InvalidInput(
            f"{key} is {location!r}, and no such file lies under {folder.resolve()}.",
            "Correct the path; an absolute path is looked up on the cluster.",
        )
    return sorted(files)


def _below(folder: Path) -> list[Path]:
    """Files of a folder but hidden ones: a .gitignore would tell Ray what not to take along."""
    return [
        file
        for file in folder.rglob("*")
        if file.is_file() and not any(p.startswith(".") for p in file.relative_to(folder).parts)
    ]


def _name(job: Job, files: Sequence[tuple[str, Path]]) -> str:
    contents = {name: _digest(file) for name, file in files}
    return named({"job": job.model_dump(mode="json"), "files": contents})


def named(value: object) -> str:
    """A name that Ray, Kubernetes and Slurm accept, from whatever decides an identity."""
    return f"ulcmod-{fingerprint(value)[:16]}"


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()

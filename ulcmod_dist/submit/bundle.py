"""A job as it is sent to a cluster: the job file, its inputs, and a name derived from both.

An input given by a relative path is part of the job and is sent along; an absolute path or a URL is
left for the cluster to resolve. The name is a digest of everything that is sent, so the same job
has the same name wherever it is submitted from, and resubmitting attaches to the running job.
"""

import glob
import hashlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

from ulcmod_dist.config.cluster import ClusterConfig
from ulcmod_dist.config.job import Job, is_url
from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.runtime.rundir import fingerprint

JOB_FILE = "job.yaml"
MAX_BYTES = 256 * 2**20
"""Size limit of the inputs sent along: Ray keeps them in the memory of the head node."""

ClusterKind = Literal["ray", "kuberay", "slurm"]


@dataclass(frozen=True)
class JobBundle:
    """A job and the files sent with it: its relative inputs, as (path in the job, file here)."""

    job: Job
    files: tuple[tuple[str, Path], ...] = ()

    @cached_property
    def name(self) -> str:
        """``ulcmod-`` and 16 hexadecimal digits, a digest of the job and the files."""
        digests = {}
        for name, file in self.files:
            with file.open("rb") as content:
                digests[name] = hashlib.file_digest(content, "sha256").hexdigest()
        return make_name({"job": self.job.model_dump(mode="json"), "files": digests})

    @property
    def text(self) -> str:
        """The job as YAML, every default written out."""
        return self.job.to_yaml()

    @property
    def command(self) -> str:
        """The command to run, followed by the job file: a job with a schedule is rerun."""
        return "ulcmod run" if self.cluster.schedule is None else "ulcmod rerun"

    @property
    def cluster(self) -> ClusterConfig:
        """The job's section `cluster`, or its defaults."""
        return self.job.cluster or ClusterConfig()

    def write_to(self, folder: Path) -> None:
        """Write the job file and its inputs to an empty folder."""
        (folder / JOB_FILE).write_text(self.text, encoding="utf-8")
        for name, source in self.files:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, path)


@dataclass(frozen=True)
class SubmittedJob:
    """A job on a cluster, whether this call submitted it (new) or found it there.

    The name is its submission id (Ray), object name (Kubernetes) or job name (Slurm), the label its
    name in messages; the state is in the cluster's own terms, the output for the user.
    """

    name: str
    state: str
    new: bool
    label: str
    details: Mapping[str, object] = field(default_factory=dict)
    output: str = ""


def create_bundle(
    path: str | Path, overrides: Sequence[str], cluster_kind: ClusterKind
) -> JobBundle:
    """Read a job file for one kind of cluster and collect its inputs.

    Slurm shares its file system with the place of submission, so there every path is made
    absolute. Ray uploads relative inputs. A Kubernetes manifest cannot contain inputs.

    Raises:
        InvalidInput: The job is not valid, names inputs that the cluster cannot reach, or contains
            credentials.
    """
    path = Path(path)
    if cluster_kind == "slurm":
        job = Job.from_yaml(path, overrides)
        if not is_url(job.run):
            job = job.model_copy(update={"run": str(Path(job.run).expanduser().resolve())})
        return JobBundle(job)
    job = _read_job(path, overrides)
    if not _is_absolute(job.run):
        raise InvalidInput(
            f"run is {job.run!r}, a relative path; on a {cluster_kind} cluster it would be a "
            "temporary folder that is deleted when the job ends.",
            "Use a shared folder or an object store, such as `--set run=/shared/runs/mine`.",
        )
    files = tuple(_collect_inputs(job, path.parent))
    if files and cluster_kind == "kuberay":
        raise InvalidInput(
            f"{files[0][0]} is an input beside the job file, and a Kubernetes manifest cannot "
            "contain inputs.",
            "Put inputs on a volume or an object store and use absolute paths or URLs.",
        )
    size = sum(file.stat().st_size for _, file in files)
    if size > MAX_BYTES:
        raise InvalidInput(
            f"The inputs beside {path} are {size:,} bytes; at most {MAX_BYTES:,} can be uploaded.",
            "Put them where the cluster can read them and use absolute paths or URLs.",
        )
    return JobBundle(job, files)


def _read_job(path: Path, overrides: Sequence[str]) -> Job:
    """Read a job as written, since an absolute path may exist on the cluster alone."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"The job file {path} cannot be read: {error}.") from error
    job = Job.parse(text, source=str(path), overrides=overrides)
    if job.model is not None and not _is_absolute(job.model.id):
        job.resolve_paths(path.parent)  # refuses an id on the hub without a revision
    return job


def _is_absolute(location: str) -> bool:
    """Whether a location means the same on every machine of the cluster."""
    return is_url(location) or Path(location).is_absolute() or location.startswith("~")


def _list_inputs(job: Job) -> Iterator[tuple[str, str]]:
    """Each input location of a job with the key that names it."""
    if job.model is not None:
        yield "model.id", job.model.id
    if job.corpus is not None:
        yield from (("corpus.train", location) for location in job.corpus.train)
        yield from (("corpus.test", location) for location in job.corpus.test)
    if job.matrix is not None:
        for name, location in job.matrix.locations().items():
            yield f"matrix.{name}", location


def _collect_inputs(job: Job, folder: Path) -> Iterator[tuple[str, Path]]:
    """The files of every relative input, by their path relative to the job file's folder."""
    seen: set[str] = set()
    for key, location in _list_inputs(job):
        is_hub_id = key == "model.id" and not (folder / location).exists()
        if _is_absolute(location) or is_hub_id:
            continue
        if ".." in Path(location).parts:
            raise InvalidInput(
                f"{key} is {location!r}, outside the folder of the job file, so it is not "
                "uploaded.",
                "Move it beside the job file, or use an absolute path or URL.",
            )
        for file in _find_files(folder, location, key):
            name = file.relative_to(folder).as_posix()
            # A symbolic link can point to any file of this machine, such as a private key.
            if not file.resolve().is_relative_to(folder.resolve()):
                raise InvalidInput(
                    f"{key} contains {name!r}, a link to a file outside the folder of the job "
                    "file, so it is not uploaded.",
                    "Copy the file beside the job file, or use an absolute path or URL.",
                )
            if name not in seen:
                seen.add(name)
                yield name, file


def _find_files(folder: Path, location: str, key: str) -> list[Path]:
    files: list[Path] = []
    for match in glob.glob(location, root_dir=folder, recursive=True):
        path = folder / match
        # Of a folder, all but hidden files: Ray would obey a .gitignore and skip inputs.
        files += [path] if path.is_file() else _list_visible(path)
    if not files:
        raise InvalidInput(
            f"{key} is {location!r}, and {folder.resolve()} contains no such file.",
            "Correct the path; only absolute paths are resolved on the cluster.",
        )
    return sorted(files)


def _list_visible(folder: Path) -> list[Path]:
    files = (file for file in folder.rglob("*") if file.is_file())
    return [file for file in files if "/." not in f"/{file.relative_to(folder).as_posix()}"]


def make_name(identity: object) -> str:
    """A name that Ray, Kubernetes and Slurm accept, derived from a JSON value."""
    return f"ulcmod-{fingerprint(identity)[:16]}"

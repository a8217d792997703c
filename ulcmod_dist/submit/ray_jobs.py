"""Ray Jobs: a job runs as a driver on the head node of an existing cluster.

The submission id is the bundle's name, so that resubmitting attaches to the running job. Ray never
reuses an id, so a job that failed is submitted again as ``<name>-2`` and so on; it continues from
its run directory.
"""

import contextlib
import math
import re
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
from ray.dashboard.utils import get_address_for_submission_client
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from ulcmod_dist.errors import InvalidInput, UlcmodError, one_line
from ulcmod_dist.runtime.credentials import reject_credentials
from ulcmod_dist.runtime.ray_token import get_token, require_token
from ulcmod_dist.submit.bundle import JOB_FILE, JobBundle, SubmittedJob

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
GRACE_SECONDS = 60
"""Between SIGTERM and SIGKILL of a job that is cancelled."""

POLL_SECONDS = 2.0
RECONNECT_SECONDS = 300.0
"""How long following a job survives an unreachable cluster: a restarted head, a lost network."""


def resolve_address(address: str | None, environment: Mapping[str, str], home: Path) -> str:
    """The HTTP address of a cluster's job server.

    Ray's client lets two environment variables override whatever address it is given. Here they
    only replace a missing address, and contradictions are refused, so that nothing is sent to a
    cluster that the user did not name.

    Raises:
        InvalidInput: The given address differs from that of the environment, it carries
            credentials, or it is the address of a remote cluster and there is no token.
    """
    for variable in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"):
        if other := environment.get(variable):
            if address is not None and address.rstrip("/") != other.rstrip("/"):
                raise InvalidInput(
                    f"--address is {address}, but {variable} is {other}.",
                    f"Unset {variable}, or leave --address out.",
                )
            address = other
            break
    address = address or DEFAULT_ADDRESS
    reject_credentials(address, "The Ray cluster")
    if not address.startswith(("http://", "https://")):
        # Ray connects to such a cluster to ask for the address of its job server.
        require_token(address, environment, home)
    try:
        resolved: str = get_address_for_submission_client(address)
    except Exception as error:
        raise UlcmodError(f"No Ray cluster answers at {address}: {one_line(error)}.") from error
    return resolved.rstrip("/")


def connect(address: str, environment: Mapping[str, str], home: Path) -> JobSubmissionClient:
    """Connect to a cluster's job server, with the token if there is one.

    Raises:
        InvalidInput: A remote cluster, and no token; or a token file that others can read.
        UlcmodError: The cluster does not answer or does not accept the token.
    """
    token = get_token(address, environment, home)
    with _translate_errors(address):
        return JobSubmissionClient(address, headers=token.headers() if token else None)


@contextlib.contextmanager
def _translate_errors(address: str) -> Iterator[None]:
    try:
        yield
    except AuthenticationError as error:
        raise UlcmodError(
            f"The Ray cluster at {address} rejects the token, or requires one and got none.",
            "Put the cluster's token into ~/.ray/auth_token (mode 600), or set "
            "RAY_AUTH_TOKEN_PATH to its file.",
        ) from error
    except (ConnectionError, requests.exceptions.ConnectionError) as error:
        raise _unreachable(address) from error


def _unreachable(address: str) -> UlcmodError:
    return UlcmodError(
        f"No Ray cluster answers at {address}.",
        "Start one with its dashboard, or set its address with --address.",
    )


def preview_request(bundle: JobBundle) -> dict[str, Any]:
    """What a submission sends besides the contents of files; contains no secrets."""
    return {
        "submission_id": bundle.name,
        "entrypoint": _get_entrypoint(bundle),
        "metadata": {"run": bundle.job.run},
        "files": {JOB_FILE: len(bundle.text.encode())}
        | {name: path.stat().st_size for name, path in bundle.files},
    }


def _get_entrypoint(bundle: JobBundle) -> str:
    command = f"{bundle.command} {JOB_FILE}"
    if not bundle.cluster.hours:
        return command
    # Ray jobs have no time limit. In the foreground, `timeout` stays in the process group that Ray
    # kills when the job is stopped.
    limit = math.ceil(bundle.cluster.hours * 3600)
    return f"timeout --foreground --kill-after={GRACE_SECONDS} {limit} {command}"


@dataclass(frozen=True)
class RayJob:
    """A job for the job server of a Ray cluster."""

    client: JobSubmissionClient
    bundle: JobBundle

    def submit(self, *, again: bool = False, entrypoint: str | None = None) -> SubmittedJob:
        """Submit the job, or attach to its latest submission.

        One that waits or runs is kept, and without ``again`` one that has succeeded; after one that
        failed or was stopped, a new one is made. ``entrypoint`` replaces the driver's command.
        """
        ended = {JobStatus.FAILED, JobStatus.STOPPED}
        if again:
            ended.add(JobStatus.SUCCEEDED)
        with _translate_errors(self.client.get_address()):
            latest, attempt = self._find_latest()
            if latest is not None and latest.status not in ended:
                return _as_submitted(latest.submission_id, latest.status, new=False)
            name = self.bundle.name if latest is None else f"{self.bundle.name}-{attempt + 1}"
            new = self._start(name, entrypoint or _get_entrypoint(self.bundle))
            return _as_submitted(name, self.client.get_job_status(name), new=new)

    def find(self) -> SubmittedJob:
        """The latest submission of the job; UlcmodError if the cluster has none."""
        address = self.client.get_address()
        with _translate_errors(address):
            latest, _ = self._find_latest()
        if latest is None:
            raise UlcmodError(
                f"The Ray cluster at {address} has no submission {self.bundle.name} of this job.",
                "Submit it with `ulcmod submit JOB --to ray`, with the same --set options.",
            )
        return _as_submitted(latest.submission_id, latest.status, new=False)

    def read_logs(self, *, follow: bool) -> Iterator[str]:
        """The output of the latest submission so far; with ``follow``, until it ends."""
        name = self.find().name
        if follow:
            yield from self.follow_logs(name)
            return
        with _translate_errors(self.client.get_address()):
            yield str(self.client.get_job_logs(name))

    def follow_logs(self, submission_id: str) -> Iterator[str]:
        """The output of a submission as it is printed, until it ends.

        Raises UlcmodError if the cluster has not answered for ``RECONNECT_SECONDS``.
        """
        position, last_answer = 0, time.monotonic()
        while True:
            try:
                ended = self.client.get_job_status(submission_id).is_terminal()
                text = str(self.client.get_job_logs(submission_id))
            except (ConnectionError, requests.exceptions.RequestException) as error:
                if time.monotonic() - last_answer > RECONNECT_SECONDS:
                    raise _unreachable(self.client.get_address()) from error
            else:
                last_answer = time.monotonic()
                if len(text) > position:
                    yield text[position:]
                    position = len(text)
                if ended:
                    return
            time.sleep(POLL_SECONDS)

    def get_result(self, submission_id: str) -> tuple[str, int]:
        """State and exit code of a submission that has ended."""
        with _translate_errors(self.client.get_address()):
            details = self.client.get_job_info(submission_id)
        succeeded = details.status == JobStatus.SUCCEEDED
        return details.status.value, 0 if succeeded else details.driver_exit_code or 1

    def cancel(self) -> SubmittedJob | None:
        """Ask the latest submission to stop; None if it has ended already.

        Ray sends SIGTERM and, after a grace period, SIGKILL. Committed shards are kept.
        """
        job = self.find()
        with _translate_errors(self.client.get_address()):
            return job if self.client.stop_job(job.name) else None

    def _find_latest(self) -> tuple[JobDetails | None, int]:
        """The submission with the highest attempt, and the number of that attempt."""
        pattern = re.compile(rf"{self.bundle.name}(?:-(\d+))?")
        attempts = {
            int(match[1] or 1): details
            for details in self.client.list_jobs()
            if (match := pattern.fullmatch(details.submission_id or ""))
        }
        latest = max(attempts, default=0)
        return attempts.get(latest), latest

    def _start(self, submission_id: str, entrypoint: str) -> bool:
        """Submit the job under a new id; False if another process has just done so."""
        with tempfile.TemporaryDirectory() as folder:
            self.bundle.write_to(Path(folder))
            try:
                self.client.submit_job(
                    entrypoint=entrypoint,
                    submission_id=submission_id,
                    runtime_env={
                        "working_dir": folder,
                        "env_vars": {
                            "RAY_JOB_STOP_WAIT_TIME_S": str(GRACE_SECONDS),
                            "ULCMOD_LOG_FORMAT": self.bundle.cluster.log_format,
                        },
                    },
                    metadata={"run": self.bundle.job.run},
                )
            except RuntimeError as error:
                if "already exists" in str(error):
                    return False
                raise UlcmodError(f"The Ray cluster rejected the job: {error}") from error
        return True


def _as_submitted(submission_id: str | None, status: JobStatus, *, new: bool) -> SubmittedJob:
    # Ray's drivers that were not submitted as jobs have no submission id; those are not listed.
    assert submission_id is not None
    return SubmittedJob(submission_id, status.value, new, label=submission_id)

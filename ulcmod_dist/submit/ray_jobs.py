"""Ray Jobs: a job runs as a driver on the head node of a cluster that stands already.

A submission's id is the parcel's name, so that submitting a job again meets the submission that is
there. Ray never reuses an id, so a job that failed is tried again as ``<name>-2`` and so on; the
run directory makes it continue where the last one stopped.
"""

from __future__ import annotations

import contextlib
import math
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import requests
from ray.dashboard.utils import get_address_for_submission_client
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from ulcmod_dist.errors import InvalidInput, UlcmodError, one_line
from ulcmod_dist.runtime.credentials import reject_credentials
from ulcmod_dist.runtime.ray_token import get_token, require_token
from ulcmod_dist.submit.parcel import JOB_FILE, Parcel

Client: TypeAlias = JobSubmissionClient
"""A connection to the job server of a cluster."""

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
GRACE_SECONDS = 60
"""Between SIGTERM and SIGKILL of a job that is cancelled."""

POLL_SECONDS = 2.0
SILENCE_SECONDS = 300.0
"""How long a job that is followed may not be heard of: a head or a network that comes back."""


@dataclass(frozen=True)
class Submission:
    """One submission of a job on a Ray cluster.

    Attributes:
        id: Its id there.
        state: PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED.
        new: Whether this call started it.
    """

    id: str
    state: str
    new: bool


def resolve(address: str | None, environment: Mapping[str, str], home: Path) -> str:
    """The HTTP address of a cluster's job server.

    Ray's client lets two environment variables override whatever address it is given. Here they
    only fill in for an address that is not given, and contradicting ones are refused, so that
    nothing goes to a cluster that the user did not name.

    Raises:
        InvalidInput: The address given and the one of the environment differ, it carries
            credentials, or it is a cluster's own on another machine and there is no token.
    """
    for variable in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"):
        if other := environment.get(variable):
            if address is not None and address.rstrip("/") != other.rstrip("/"):
                raise InvalidInput(
                    f"--address is {address}, and {variable} is {other}.",
                    f"Unset {variable}, or leave --address out.",
                )
            address = other
            break
    address = address or DEFAULT_ADDRESS
    reject_credentials(address, "The Ray cluster")
    if not address.startswith(("http://", "https://")):
        # The cluster itself is asked for its job server's address.
        require_token(address, environment, home)
    try:
        found: str = get_address_for_submission_client(address)
    except Exception as error:
        raise UlcmodError(f"No Ray cluster answers at {address}: {one_line(error)}.") from error
    return found.rstrip("/")


def connect(address: str, environment: Mapping[str, str], home: Path) -> Client:
    """A client of a cluster's job server, with the token where there is one.

    Raises:
        InvalidInput: Another machine, and no token; or a token file that others can read.
        UlcmodError: The cluster does not answer or does not accept the token.
    """
    token = get_token(address, environment, home)
    with _explained(address):
        return Client(address, headers=token.headers() if token else None)


@contextlib.contextmanager
def _explained(address: str) -> Iterator[None]:
    try:
        yield
    except AuthenticationError as error:
        raise UlcmodError(
            f"The Ray cluster at {address} refuses the token, or wants one and there is none.",
            "Put the cluster's own token into ~/.ray/auth_token (mode 600), or name its file by "
            "RAY_AUTH_TOKEN_PATH.",
        ) from error
    except (ConnectionError, requests.exceptions.ConnectionError) as error:
        raise _silent(address) from error


def _silent(address: str) -> UlcmodError:
    return UlcmodError(
        f"No Ray cluster answers at {address}.",
        "Start one with its dashboard, or give its address by --address.",
    )


def request(parcel: Parcel) -> dict[str, Any]:
    """What a submission sends, apart from the files: plain values without any secret."""
    return {
        "submission_id": parcel.name,
        "entrypoint": _command(parcel),
        "metadata": {"run": parcel.job.run},
        "files": {JOB_FILE: len(parcel.text.encode())}
        | {name: path.stat().st_size for name, path in parcel.files},
    }


def submit(
    client: Client,
    parcel: Parcel,
    *,
    again: bool = False,
    entrypoint: str | None = None,
) -> Submission:
    """Start a job, or meet the submission of it that is there.

    A submission that waits, runs or has succeeded is met; one that failed or was stopped is
    followed by another.

    Args:
        client: The cluster.
        parcel: The job.
        again: Follow a submission that has succeeded, too.
        entrypoint: Command of the driver, called beside the job file; by default the parcel's.
    """
    followed = {JobStatus.FAILED, JobStatus.STOPPED}
    if again:
        followed.add(JobStatus.SUCCEEDED)
    with _explained(client.get_address()):
        there, attempt = _latest(client, parcel.name)
        if there is not None and there.status not in followed:
            return Submission(_id(there), there.status.value, new=False)
        name = parcel.name if there is None else f"{parcel.name}-{attempt + 1}"
        new = _start(client, parcel, name, entrypoint or _command(parcel))
        return Submission(name, client.get_job_status(name).value, new=new)


def _command(parcel: Parcel) -> str:
    command = f"{parcel.command} {JOB_FILE}"
    cluster = parcel.job.cluster
    if cluster is None or not cluster.hours:
        return command
    # Ray's jobs have no time limit of their own.
    limit = math.ceil(cluster.hours * 3600)
    # In the foreground it stays in the group of processes that Ray ends.
    return f"timeout --foreground --kill-after={GRACE_SECONDS} {limit} {command}"


def _start(client: Client, parcel: Parcel, name: str, entrypoint: str) -> bool:
    """Send a job under a new id; False when somebody else has just sent it."""
    with tempfile.TemporaryDirectory() as folder:
        parcel.unpack(Path(folder))
        try:
            client.submit_job(
                entrypoint=entrypoint,
                submission_id=name,
                runtime_env={
                    "working_dir": folder,
                    "env_vars": {
                        "RAY_JOB_STOP_WAIT_TIME_S": str(GRACE_SECONDS),
                        "ULCMOD_LOG_FORMAT": parcel.log_format,
                    },
                },
                metadata={"run": parcel.job.run},
            )
        except RuntimeError as error:
            if "already exists" in str(error):
                return False
            raise UlcmodError(f"The Ray cluster refused the job: {error}") from error
    return True


def latest(client: Client, name: str) -> Submission:
    """The latest submission of a job.

    Raises:
        UlcmodError: The cluster has none.
    """
    with _explained(client.get_address()):
        found, _ = _latest(client, name)
    if found is None:
        raise UlcmodError(
            f"The Ray cluster at {client.get_address()} knows no submission {name} of this job.",
            "Submit it with `ulcmod submit JOB --to ray`, with the same --set options.",
        )
    return Submission(_id(found), found.status.value, new=False)


def _latest(client: Client, name: str) -> tuple[JobDetails | None, int]:
    """The submission of the highest attempt, and the number of that attempt."""
    numbered = [
        (int(suffix[1:]) if suffix else 1, details)
        for details in client.list_jobs()
        if (own := details.submission_id or "").startswith(name)
        and ((suffix := own.removeprefix(name)) == "" or suffix[1:].isdigit())
    ]
    if not numbered:
        return None, 0
    attempt, details = max(numbered, key=lambda pair: pair[0])
    return details, attempt


def _id(details: JobDetails) -> str:
    assert details.submission_id is not None
    return details.submission_id


def logs(client: Client, submission: Submission) -> str:
    """All that a submission has printed so far."""
    with _explained(client.get_address()):
        return str(client.get_job_logs(submission.id))


def follow(client: Client, submission: Submission) -> Iterator[str]:
    """What a submission prints, piece by piece until it ends.

    Raises:
        UlcmodError: The cluster has not answered for ``SILENCE_SECONDS``.
    """
    shown, heard = 0, time.monotonic()
    while True:
        try:
            ended = client.get_job_status(submission.id).is_terminal()
            text = str(client.get_job_logs(submission.id))
        except (ConnectionError, requests.exceptions.RequestException) as error:
            if time.monotonic() - heard > SILENCE_SECONDS:
                raise _silent(client.get_address()) from error
        else:
            heard = time.monotonic()
            if len(text) > shown:
                yield text[shown:]
                shown = len(text)
            if ended:
                return
        time.sleep(POLL_SECONDS)


def outcome(client: Client, submission: Submission) -> tuple[str, int]:
    """State and exit code of a submission that has ended."""
    with _explained(client.get_address()):
        details = client.get_job_info(submission.id)
    succeeded = details.status == JobStatus.SUCCEEDED
    return details.status.value, 0 if succeeded else details.driver_exit_code or 1


def cancel(client: Client, submission: Submission) -> bool:
    """Ask a submission to end; False when it has ended already.

    Ray sends SIGTERM and, after a grace time, SIGKILL. Finished shards stay.
    """
    with _explained(client.get_address()):
        return bool(client.stop_job(submission.id))

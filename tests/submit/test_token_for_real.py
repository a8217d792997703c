"""The cluster that cluster/ray/cluster.yaml describes, on a machine of its own: who gets in."""

import json
import secrets
import shlex
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from tests.submit.hosts import Host, host, needs_root, network, wait_for
from tests.submit.job_files import HUB_JOB, job_file
from ulcmod_dist.cli import app
from ulcmod_dist.errors import InvalidInput, UlcmodError
from ulcmod_dist.submit import ray_jobs
from ulcmod_dist.submit.bundle import create_bundle
from ulcmod_dist.submit.ray_jobs import RayJob

pytestmark = [pytest.mark.faults, needs_root]

LAUNCHER = Path(__file__).parents[2] / "cluster" / "ray" / "cluster.yaml"


@dataclass(frozen=True)
class Guarded:
    """A head node that asks for a token."""

    machine: Host
    token: str

    @property
    def url(self) -> str:
        return f"http://{self.machine.address}:8265"


def head_command() -> list[str]:
    """How the launcher starts Ray on the head, less what only a cloud has.

    The dashboard listens beyond the head, as it does on Kubernetes, so that a stranger on another
    machine can try.
    """
    commands = yaml.safe_load(LAUNCHER.read_text())["head_start_ray_commands"]
    (line,) = (line for line in commands if "ray start" in line)
    words = [word for word in shlex.split(line) if not word.startswith("--autoscaling-config")]
    return [word.replace("127.0.0.1", "0.0.0.0") for word in words]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    token = secrets.token_hex(32)
    path = folder / "auth_token"
    path.touch(mode=0o600)
    path.write_text(token)
    environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(path)}
    with network(92) as switch, host(switch, 1, folder, environment) as machine:
        machine.run(*head_command(), "--num-cpus=1", f"--node-ip-address={machine.address}")
        yield Guarded(machine, token)


def answer(url: str, token: str | None) -> int:
    """Status that a submission gets which comes from no client of ours."""
    body = json.dumps({"entrypoint": "true"}).encode()
    request = urllib.request.Request(f"{url}/api/jobs/", body, {"Content-Type": "application/json"})
    if token is not None:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=30) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_cluster__refuses_a_submission_without_the_token(guarded: Guarded) -> None:
    assert answer(guarded.url, None) == 401
    assert answer(guarded.url, "0" * 64) == 403
    assert answer(guarded.url, guarded.token) == 200


def test_client__refuses_before_it_sends_anything(guarded: Guarded, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="without token authentication"):
        ray_jobs.connect(guarded.url, {}, tmp_path)
    path = tmp_path / "token"
    path.write_text(guarded.token)
    path.chmod(0o644)
    with pytest.raises(InvalidInput, match="chmod 600") as caught:
        ray_jobs.connect(guarded.url, {"RAY_AUTH_TOKEN_PATH": str(path)}, tmp_path)
    assert guarded.token not in str(caught.value)


def test_client__explains_a_wrong_token(guarded: Guarded, tmp_path: Path) -> None:
    with pytest.raises(UlcmodError, match="rejects the token"):
        ray_jobs.connect(guarded.url, {"RAY_AUTH_TOKEN": "0" * 64}, tmp_path)


def test_client__with_the_token_runs_a_job_and_tells_nobody(
    guarded: Guarded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "token"
    path.touch(mode=0o600)
    path.write_text(guarded.token)
    environment = {"RAY_AUTH_TOKEN_PATH": str(path)}
    client = ray_jobs.connect(guarded.url, environment, tmp_path)
    bundle = create_bundle(job_file(tmp_path, HUB_JOB), [], "ray")
    # The driver itself joins the cluster, which asks it for the token too.
    work = (
        'python -c "import ray; ray.init(); print(sorted(ray.cluster_resources()))"; cat job.yaml'
    )
    submission = RayJob(client, bundle).submit(entrypoint=work)
    assert submission.new
    shown = "".join(RayJob(client, bundle).follow_logs(submission.name))
    assert RayJob(client, bundle).get_result(submission.name) == ("SUCCEEDED", 0), shown
    assert "'CPU'" in shown
    assert bundle.text in shown
    assert not RayJob(client, bundle).submit(entrypoint=work).new

    processes = guarded.machine.run("ps", "axww", "--format", "args")
    assert "ray" in processes
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(path))
    words = [str(tmp_path / "job.yaml"), "--to", "ray", "--address", guarded.url]
    preview = CliRunner().invoke(app, ["submit", *words, "--dry-run"])
    again = CliRunner().invoke(app, ["submit", *words])
    assert (preview.exit_code, again.exit_code) == (0, 0)
    jobs = json.dumps([details.model_dump(mode="json") for details in client.list_jobs()])
    told = [processes, shown, jobs, preview.output, again.output]
    assert not [text for text in told if guarded.token in text]
    written = guarded.machine.run("grep", "--recursive", "--files-with-matches", "--text",
                                  guarded.token, "/tmp/ray", check=False)  # fmt: skip
    assert written == ""


def test_cancel__ends_a_job_on_the_cluster(guarded: Guarded, tmp_path: Path) -> None:
    client = ray_jobs.connect(guarded.url, {"RAY_AUTH_TOKEN": guarded.token}, tmp_path)
    bundle = create_bundle(job_file(tmp_path, HUB_JOB), ["discover.seed=9"], "ray")
    job = RayJob(client, bundle)
    job.submit(entrypoint="sleep 600")
    wait_for(lambda: job.find().state == "RUNNING", 60, "the job's start")
    assert job.cancel()
    wait_for(lambda: job.find().state == "STOPPED", 60, "the job's end")
    # The same job again continues under the next number.
    assert job.submit(entrypoint="true").name == f"{bundle.name}-2"

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray.job_submission import JobSubmissionClient
from typer.testing import CliRunner

from tests.submit.job_files import HUB_JOB, MATRIX_JOB, job_file
from tests.submit.job_server import JobServer, running
from ulcmod_dist.cli import app
from ulcmod_dist.errors import InvalidInput, UlcmodError
from ulcmod_dist.submit import ray_jobs
from ulcmod_dist.submit.bundle import JobBundle, create_bundle
from ulcmod_dist.submit.ray_jobs import RayJob

SECRET = "planted-secret-0123456789"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[JobServer]:
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(ray_jobs, "POLL_SECONDS", 0.05)
    with running(JobServer()) as server:
        yield server


@pytest.fixture
def bundle(tmp_path: Path) -> JobBundle:
    (tmp_path / "matrix.npy").write_bytes(b"numbers")
    return create_bundle(job_file(tmp_path, MATRIX_JOB.format(run="/shared/runs/mine")), [], "ray")


def client(server: JobServer, home: Path) -> JobSubmissionClient:
    return ray_jobs.connect(server.address, {}, home)


def test_submit__sends_the_job_and_its_inputs_under_its_own_name(
    server: JobServer, bundle: JobBundle, tmp_path: Path
) -> None:
    submission = RayJob(client(server, tmp_path), bundle).submit()
    assert (submission.name, submission.state, submission.new) == (bundle.name, "RUNNING", True)
    job = server.jobs[bundle.name]
    assert job["entrypoint"] == "ulcmod run job.yaml"
    assert job["runtime_env"]["env_vars"]["ULCMOD_LOG_FORMAT"] == "text"
    (package,) = server.packages.values()
    with zipfile.ZipFile(io.BytesIO(package)) as sent:
        assert sorted(sent.namelist()) == ["job.yaml", "matrix.npy"]
        assert sent.read("matrix.npy") == b"numbers"


def test_submit__of_a_job_with_a_schedule_is_a_rerun(server: JobServer, tmp_path: Path) -> None:
    bundle = create_bundle(job_file(tmp_path, HUB_JOB), ["cluster.schedule=0 2 * * *"], "ray")
    RayJob(client(server, tmp_path), bundle).submit()
    assert server.jobs[bundle.name]["entrypoint"] == "ulcmod rerun job.yaml"


def test_submit__of_a_job_with_a_time_limit_is_ended_by_it(
    server: JobServer, tmp_path: Path
) -> None:
    bundle = create_bundle(job_file(tmp_path, HUB_JOB), ["cluster.hours=1.5"], "ray")
    RayJob(client(server, tmp_path), bundle).submit()
    command = server.jobs[bundle.name]["entrypoint"]
    assert command == "timeout --foreground --kill-after=60 5400 ulcmod run job.yaml"


def test_follow__survives_a_short_outage_and_gives_up_after_a_long_one(
    server: JobServer, bundle: JobBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = client(server, tmp_path)
    submission = RayJob(connection, bundle).submit()
    server.jobs[bundle.name]["logs"] = "one\n"
    pieces = RayJob(connection, bundle).follow_logs(submission.name)
    assert next(pieces) == "one\n"
    server.silent = 3
    server.jobs[bundle.name] |= {"logs": "one\ntwo\n", "status": "SUCCEEDED"}
    assert list(pieces) == ["two\n"]
    assert server.silent == 0
    monkeypatch.setattr(ray_jobs, "RECONNECT_SECONDS", 0.2)
    server.silent = 10**6
    with pytest.raises(UlcmodError, match="No Ray cluster answers"):
        list(RayJob(connection, bundle).follow_logs(submission.name))


def test_submit__twice_attaches_to_the_running_job(
    server: JobServer, bundle: JobBundle, tmp_path: Path
) -> None:
    RayJob(client(server, tmp_path), bundle).submit()
    for status in ("RUNNING", "SUCCEEDED"):
        server.finish(bundle.name, status, 0)
        second = RayJob(client(server, tmp_path), bundle).submit()
        assert (second.name, second.state, second.new) == (bundle.name, status, False)
    assert len(server.jobs) == 1


@pytest.mark.parametrize("status", ["FAILED", "STOPPED"])
def test_submit__after_a_failure_continues_under_the_next_number(
    server: JobServer, bundle: JobBundle, tmp_path: Path, status: str
) -> None:
    for attempt in ("", "-2", "-3"):
        submission = RayJob(client(server, tmp_path), bundle).submit()
        assert submission.name == bundle.name + attempt
        server.finish(submission.name, status, 1)
    assert RayJob(client(server, tmp_path), bundle).find().name == f"{bundle.name}-3"


def test_submit__again_repeats_a_success(
    server: JobServer, bundle: JobBundle, tmp_path: Path
) -> None:
    RayJob(client(server, tmp_path), bundle).submit()
    server.finish(bundle.name, "SUCCEEDED", 0)
    assert RayJob(client(server, tmp_path), bundle).submit(again=True).name == f"{bundle.name}-2"
    assert not RayJob(client(server, tmp_path), bundle).submit(again=True).new


def test_submit__of_two_at_once_the_second_attaches_to_the_first(
    server: JobServer, bundle: JobBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = client(server, tmp_path)
    RayJob(connection, bundle).submit()
    monkeypatch.setattr(connection, "list_jobs", list)
    late = RayJob(connection, bundle).submit()
    assert (late.name, late.new) == (bundle.name, False)


def test_connect__sends_the_token_and_explains_a_wrong_one(
    server: JobServer, bundle: JobBundle, tmp_path: Path
) -> None:
    server.token = SECRET
    for environment in ({}, {"RAY_AUTH_TOKEN": "another"}):
        with pytest.raises(UlcmodError, match="rejects the token") as caught:
            ray_jobs.connect(server.address, environment, tmp_path)
        assert "another" not in str(caught.value)
    connection = ray_jobs.connect(server.address, {"RAY_AUTH_TOKEN": SECRET}, tmp_path)
    assert RayJob(connection, bundle).submit().new
    assert SECRET not in json.dumps(server.jobs)
    assert SECRET.encode() not in b"".join(server.packages.values())


def test_connect__sends_nothing_to_another_machine_without_a_token(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="without token authentication"):
        ray_jobs.connect("http://192.0.2.1:8265", {}, tmp_path)


def test_connect__names_the_address_that_does_not_answer(tmp_path: Path) -> None:
    with pytest.raises(UlcmodError, match="No Ray cluster answers"):
        ray_jobs.connect("http://127.0.0.1:9", {}, tmp_path)


def test_address__of_the_environment_never_replaces_the_one_given(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other = {"RAY_API_SERVER_ADDRESS": "http://192.0.2.1:8265"}
    with pytest.raises(InvalidInput, match="Unset RAY_API_SERVER_ADDRESS"):
        ray_jobs.resolve_address("http://127.0.0.1:8265", other, tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert ray_jobs.resolve_address(None, other, tmp_path) == "http://192.0.2.1:8265"
    assert ray_jobs.resolve_address(None, {}, tmp_path) == "http://127.0.0.1:8265"
    assert (
        ray_jobs.resolve_address("http://127.0.0.1:8265/", {}, tmp_path) == "http://127.0.0.1:8265"
    )


@pytest.mark.parametrize("address", ["ray://192.0.2.1:10001", "192.0.2.1:6379"])
def test_address__of_a_remote_cluster_needs_a_token(tmp_path: Path, address: str) -> None:
    with pytest.raises(InvalidInput, match="without token authentication"):
        ray_jobs.resolve_address(address, {}, tmp_path)


def test_address__with_credentials_is_refused_and_not_shown(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="carries credentials") as caught:
        ray_jobs.resolve_address(f"http://me:{SECRET}@127.0.0.1:8265", {}, tmp_path)
    assert SECRET not in str(caught.value)


def test_cancel__stops_a_running_job(server: JobServer, bundle: JobBundle, tmp_path: Path) -> None:
    job = RayJob(client(server, tmp_path), bundle)
    with pytest.raises(UlcmodError, match="has no submission"):
        job.find()
    job.submit()
    assert job.cancel()
    server.finish(bundle.name, "STOPPED", 143)
    assert not job.cancel()


@pytest.mark.parametrize(("status", "code"), [("SUCCEEDED", 0), ("FAILED", 3)])
def test_command__waits_and_exits_with_the_code_of_the_job(
    server: JobServer, bundle: JobBundle, tmp_path: Path, status: str, code: int
) -> None:
    server.ending = {"status": status, "driver_exit_code": code, "logs": "12 shards\n"}
    words = [str(tmp_path / "job.yaml"), "--to", "ray", "--address", server.address]
    waited = CliRunner().invoke(app, ["submit", *words, "--wait"])
    assert waited.exit_code == code
    assert waited.stdout.startswith("12 shards\n")
    assert f"{bundle.name} has ended: {status}." in waited.stdout
    told = CliRunner().invoke(app, ["status", *words, "--json"])
    assert json.loads(told.stdout)["state"] == status
    shown = CliRunner().invoke(app, ["logs", *words])
    assert (shown.exit_code, shown.stdout) == (0, "12 shards\n")


def test_command__previews_without_contacting_a_cluster(server: JobServer, tmp_path: Path) -> None:
    path = job_file(tmp_path, HUB_JOB)
    words = ["submit", str(path), "--to", "ray", "--address", server.address, "--dry-run"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0
    shown = json.loads(done.stdout)
    assert shown["submission_id"] == create_bundle(path, [], "ray").name
    assert list(shown["files"]) == ["job.yaml"]
    assert server.requests == []

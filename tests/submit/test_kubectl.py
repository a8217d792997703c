"""Calls of kubectl: submitting a job, following it, and reading its state."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.submit.job_files import job_file
from ulcmod_dist.cli import app
from ulcmod_dist.errors import UlcmodError
from ulcmod_dist.submit.bundle import create_bundle
from ulcmod_dist.submit.kuberay import Manifest

KINDS = ("RayJob", "RayCronJob", "CronJob")


@pytest.fixture
def kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A kubectl that writes down how it was called, and answers `get` with a file beside."""
    tools = tmp_path / "tools"
    tools.mkdir()
    calls = tmp_path / "calls"
    (tmp_path / "there").touch()
    program = tools / "kubectl"
    program.write_text(
        f'#!/bin/sh\necho "$@" >> {calls}\n'
        f"case $1 in get) exec cat {tmp_path}/there ;; apply) cat >> {calls} ;; esac\necho done\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tools), prepend=":")
    return calls


RAY_JOB = Manifest("RayJob", "ulcmod-1", "kind: RayJob\n")


def test_submit__applies_the_objects_through_standard_input(kubectl: Path) -> None:
    sent = RAY_JOB.submit()
    assert (sent.name, sent.new, sent.output) == ("ulcmod-1", True, "done\n")
    assert kubectl.read_text().endswith("apply -f -\nkind: RayJob\n")


@pytest.mark.parametrize(
    ("state", "again", "done"),
    [
        ("Failed FAILED", False, ["delete", "apply"]),
        ("ValidationFailed", False, ["delete", "apply"]),
        ("Complete STOPPED", False, ["delete", "apply"]),
        ("Complete SUCCEEDED", False, []),
        ("Complete SUCCEEDED", True, ["delete", "apply"]),
        ("Running RUNNING", True, []),
        ("Retrying", True, []),
        ("", True, []),
    ],
)
def test_submit__of_an_existing_job_attaches_or_replaces_it(
    kubectl: Path, state: str, again: bool, done: list[str]
) -> None:
    (kubectl.parent / "there").write_text(f"ulcmod-1 {state}")
    sent = RAY_JOB.submit(again=again)
    calls = [line for line in kubectl.read_text().splitlines() if not line.startswith("kind")]
    assert [line.split()[0] for line in calls] == ["get", *done]
    assert sent.new == bool(done)
    assert done or sent.state == (state or "New")


def test_submit__of_a_schedule_replaces_it(kubectl: Path) -> None:
    assert Manifest("CronJob", "ulcmod-1", "kind: CronJob\n").submit().new
    assert kubectl.read_text() == "apply -f -\nkind: CronJob\n"


def test_command__reports_the_state_of_an_existing_job(kubectl: Path) -> None:
    path = job_file(kubectl.parent)
    name = create_bundle(path, [], "kuberay").name
    (kubectl.parent / "there").write_text(f"{name} Running RUNNING")
    done = CliRunner().invoke(app, ["submit", str(path), "--to", "kuberay", "--json"])
    facts = json.loads(done.stdout)
    assert (facts["submission"], facts["state"], facts["new"]) == (name, "Running RUNNING", False)


@pytest.mark.parametrize("kind", KINDS)
def test_state__is_asked_of_kubectl(kubectl: Path, kind: str) -> None:
    (kubectl.parent / "there").write_text("Running RUNNING\n")
    assert Manifest(kind, "ulcmod-1", "").find().state == "Running RUNNING"
    assert kubectl.read_text().startswith(f"get {kind.lower()} ulcmod-1 -o jsonpath=")


def test_logs__come_from_the_pod_that_follows_the_job(kubectl: Path) -> None:
    assert "".join(RAY_JOB.read_logs(follow=True)) == "done\n"
    assert "logs --selector=job-name=ulcmod-1 --tail=-1 --follow" in kubectl.read_text()


@pytest.mark.parametrize(
    ("kind", "listed", "where"),
    [
        ("CronJob", "pod/ulcmod-1-28-a\npod/ulcmod-1-29-b\n", "pod/ulcmod-1-29-b"),
        (
            "RayCronJob",
            "rayjob.ray.io/ulcmod-1-x\nrayjob.ray.io/ulcmod-1-y\n",
            "--selector=job-name=ulcmod-1-y",
        ),
    ],
)
def test_logs__of_a_schedule_are_those_of_its_newest_job(
    kubectl: Path, kind: str, listed: str, where: str
) -> None:
    (kubectl.parent / "there").write_text(listed)
    assert "".join(Manifest(kind, "ulcmod-1", "").read_logs(follow=False)) == "done\n"
    asked, shown = kubectl.read_text().splitlines()
    assert "--sort-by=.metadata.creationTimestamp" in asked
    assert shown == f"logs {where} --tail=-1"


def test_logs__of_a_schedule_that_has_not_started_say_so(kubectl: Path) -> None:
    with pytest.raises(UlcmodError, match="started no job yet"):
        Manifest("CronJob", "ulcmod-1", "").read_logs(follow=False)


def test_command__without_kubectl_prints_the_command_to_apply_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    words = [str(job_file(tmp_path)), "--to", "kuberay", "--set", "discover.modules=[2, 3]"]
    done = CliRunner().invoke(app, ["submit", *words])
    assert done.exit_code == 1
    assert "--set 'discover.modules=[2, 3]' --dry-run | kubectl apply -f -" in done.stdout


def test_tools__that_are_missing_are_named_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UlcmodError, match="--dry-run"):
        Manifest("RayJob", "ulcmod-1", "").submit()

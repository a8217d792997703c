"""A rendered script in a real Slurm: queued, put back in the middle, and done."""

import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.submit import batch_system
from tests.submit.batch_system import needs_slurm
from tests.submit.hosts import Host, host, needs_root, network, wait_for
from tests.submit.job_files import MATRIX_JOB, job_file
from ulcmod_dist.submit.bundle import JobBundle, create_bundle
from ulcmod_dist.submit.slurm import render_script

DEMO = Path(__file__).parents[2] / "jobs" / "demo"
pytestmark = [pytest.mark.faults, needs_root, needs_slurm]


@pytest.fixture
def login(tmp_path: Path) -> Iterator[Host]:
    """The machine from which jobs are submitted, and on which they run."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    known = batch_system.environment(folder)
    with network(93) as switch, host(switch, 1, tmp_path, known) as machine:
        batch_system.start(machine, folder)
        yield machine


@pytest.fixture
def bundle(tmp_path: Path) -> JobBundle:
    rng = np.random.default_rng(0)
    np.save(tmp_path / "matrix.npy", np.abs(rng.normal(size=(60, 40))).astype("f4"))
    path = job_file(tmp_path, MATRIX_JOB.format(run=tmp_path / "run"))
    return create_bundle(path, ["cluster={cpus: 2, memory_gib: 4, hours: 1}"], "slurm")


def state(login: Host, number: str) -> str:
    shown = login.run("scontrol", "show", "job", number, "--oneliner", check=False)
    fields = dict(word.split("=", 1) for word in shown.split() if "=" in word)
    return fields.get("JobState", "GONE")


def sbatch(login: Host, text: str, folder: Path) -> str:
    script = folder / "job.sh"
    script.write_text(text)
    return login.run("sbatch", "--parsable", str(script), cwd=folder).strip()


def test_script__put_back_twice_continues_and_completes(
    login: Host, bundle: JobBundle, tmp_path: Path
) -> None:
    # A driver that joins Ray, and hangs the first and second time.
    driver = tmp_path / "driver.sh"
    driver.write_text(
        "#!/bin/sh\n"
        'python -c \'import ray; ray.init(); print(ray.cluster_resources()["CPU"], "CPUs")\'\n'
        f"echo attempt >> {tmp_path}/attempts\n"
        f"test $(wc -l < {tmp_path}/attempts) = 3 && exec echo third attempt with $1\n"
        "sleep 600\n"
    )
    driver.chmod(0o755)
    script = render_script(bundle, entrypoint=str(driver))
    number = sbatch(login, script.text, tmp_path)

    wait_for(lambda: attempts(tmp_path) == 1, 240, "the first attempt")
    (token,) = login.home.rglob("*.token")
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    secret = token.read_text()
    assert secret not in login.run("ps", "axww", "--format", "args")
    login.run("scontrol", "requeue", number)

    wait_for(lambda: attempts(tmp_path) == 2, 240, "the second attempt")
    assert token.read_text() != secret
    # What Slurm sends when the time limit is near.
    login.run("scancel", "--batch", "--signal=USR1", number)

    wait_for(lambda: state(login, number) == "COMPLETED", 240, "the third attempt")
    shown = (tmp_path / script.log).read_text()
    assert "goes back to the queue" in shown
    assert f"third attempt with {tmp_path}/{script.name}.yaml" in shown
    assert shown.count("2.0 CPUs") == 3
    assert secret not in shown
    assert list(login.home.rglob("*.token")) == []


def attempts(folder: Path) -> int:
    path = folder / "attempts"
    return len(path.read_text().splitlines()) if path.exists() else 0


def test_demo__put_back_in_the_middle_of_its_shards_computes_none_twice(
    login: Host, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    small = ["extract.shard_samples=32", "extract.batch_tokens=512", "discover.modules=7"]
    small.append("ablate.with_run=false")
    machine = "cluster={cpus: 2, memory_gib: 8, hours: 1}"
    bundle = create_bundle(DEMO / "demo.yaml", [f"run={run}", machine, *small], "slurm")
    number = sbatch(login, render_script(bundle).text, tmp_path)
    commits = run / "activations.zarr" / "commits"
    wait_for(lambda: len(list(commits.glob("*.json"))) >= 3, 300, "some shards")
    login.run("scontrol", "requeue", number)
    wait_for(lambda: state(login, number) != "RUNNING", 60, "the end of the first attempt")
    written = {path.name: path.stat().st_mtime_ns for path in commits.glob("*.json")}

    wait_for(lambda: state(login, number) in ("COMPLETED", "FAILED"), 500, "the second attempt")
    assert state(login, number) == "COMPLETED", (tmp_path / f"{bundle.name}.log").read_text()
    now = {path.name: path.stat().st_mtime_ns for path in commits.glob("*.json")}
    assert len(now) > len(written) >= 3
    assert written.items() <= now.items()
    assert (run / "report.html").exists()


def test_script__submitted_without_an_environment_still_runs_its_driver(
    login: Host, bundle: JobBundle, tmp_path: Path
) -> None:
    driver = tmp_path / "driver.sh"
    driver.write_text("#!/bin/sh\necho $ULCMOD_LOG_FORMAT with $(command -v ulcmod)\n")
    driver.chmod(0o755)
    script = tmp_path / "job.sh"
    script.write_text(render_script(bundle, entrypoint=str(driver)).text)
    submit = ["sbatch", "--parsable", "--export=NONE", str(script)]
    number = login.run(*submit, cwd=tmp_path).strip()
    wait_for(lambda: state(login, number) in ("FAILED", "COMPLETED"), 240, "the end")
    shown = (tmp_path / f"{bundle.name}.log").read_text()
    assert state(login, number) == "COMPLETED", shown
    assert f"text with {Path(sys.executable).parent}/ulcmod" in shown


def test_script__fails_as_its_driver_does(login: Host, bundle: JobBundle, tmp_path: Path) -> None:
    number = sbatch(login, render_script(bundle, entrypoint="false").text, tmp_path)
    wait_for(lambda: state(login, number) in ("FAILED", "COMPLETED"), 240, "the end")
    assert state(login, number) == "FAILED"

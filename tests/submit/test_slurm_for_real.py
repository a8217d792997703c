"""A rendered script in a real Slurm: queued, put back once in the middle, and done."""

from collections.abc import Iterator
from pathlib import Path

import batch_system
import numpy as np
import pytest
from batch_system import needs_slurm
from hosts import Host, host, needs_root, network, wait_for
from job_files import MATRIX_JOB, job_file

from ulcmod_dist.submit.parcel import Parcel, pack
from ulcmod_dist.submit.slurm import render_script

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
def parcel(tmp_path: Path) -> Parcel:
    rng = np.random.default_rng(0)
    np.save(tmp_path / "matrix.npy", np.abs(rng.normal(size=(60, 40))).astype("f4"))
    path = job_file(tmp_path, MATRIX_JOB.format(run=tmp_path / "run"))
    return pack(path, ["cluster={cpus: 2, memory_gib: 4, hours: 1}"], "slurm")


def state(login: Host, number: str) -> str:
    shown = login.run("scontrol", "show", "job", number, "--oneliner", check=False)
    fields = dict(word.split("=", 1) for word in shown.split() if "=" in word)
    return fields.get("JobState", "GONE")


def sbatch(login: Host, text: str, folder: Path) -> str:
    script = folder / "job.sh"
    script.write_text(text)
    return login.run("sbatch", "--parsable", str(script), cwd=folder).strip()


def open_files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*.token") if path.stat().st_mode & 0o077]


def test_script__put_back_in_the_middle_continues_and_completes(
    login: Host, parcel: Parcel, tmp_path: Path
) -> None:
    # A driver that joins Ray, and hangs the first time, until the job is put back.
    driver = tmp_path / "driver.sh"
    driver.write_text(
        "#!/bin/sh\n"
        'python -c \'import ray; ray.init(); print(ray.cluster_resources()["CPU"], "CPUs")\'\n'
        f"test -e {tmp_path}/attempt && exec echo second attempt with $1\n"
        f"touch {tmp_path}/attempt; sleep 600\n"
    )
    driver.chmod(0o755)
    script = render_script(parcel, entrypoint=str(driver))
    number = sbatch(login, script.text, tmp_path)
    log = tmp_path / script.log
    wait_for((tmp_path / "attempt").exists, 240, "the first attempt")
    tokens = list(login.home.rglob("*.token"))
    assert tokens
    assert open_files(login.home) == []
    secret = tokens[0].read_text()
    assert secret not in login.run("ps", "axww", "--format", "args")

    login.run("scontrol", "requeue", number)
    wait_for(lambda: state(login, number) == "COMPLETED", 400, "the second attempt")
    shown = log.read_text()
    assert f"second attempt with {tmp_path}/{script.name}.yaml" in shown
    assert "2.0 CPUs" in shown
    assert secret not in shown
    assert list(login.home.rglob("*.token")) == []


def test_script__fails_as_its_driver_does(login: Host, parcel: Parcel, tmp_path: Path) -> None:
    number = sbatch(login, render_script(parcel, entrypoint="false").text, tmp_path)
    wait_for(lambda: state(login, number) in ("FAILED", "COMPLETED"), 240, "the end")
    assert state(login, number) == "FAILED"

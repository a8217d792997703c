import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.submit.job_files import CLUSTER, HUB_JOB, MATRIX_JOB, job_file
from ulcmod_dist.cli import app
from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.submit import slurm
from ulcmod_dist.submit.bundle import create_bundle
from ulcmod_dist.submit.slurm import BatchScript, render_script

OVERRIDES = ["cluster.partition=gpu", "cluster.account=lab-7"]


def rendered(folder: Path, *overrides: str) -> str:
    (folder / "matrix.npy").write_bytes(b"")
    path = job_file(folder, MATRIX_JOB.format(run="/shared/runs/mine") + CLUSTER)
    return render_script(create_bundle(path, overrides, "slurm")).text


def directives(text: str) -> set[str]:
    return {line.removeprefix("#SBATCH ") for line in text.splitlines() if "#SBATCH" in line}


@pytest.mark.parametrize("overrides", [[], OVERRIDES, ["cluster.nodes=1", "cluster.gpus=0"]])
def test_script__passes_shellcheck(tmp_path: Path, overrides: list[str]) -> None:
    script = tmp_path / "job.sh"
    script.write_text(rendered(tmp_path, *overrides))
    tool = Path(sys.executable).parent / "shellcheck"
    done = subprocess.run([tool, script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_script__asks_for_the_machines_of_the_job(tmp_path: Path) -> None:
    asked = directives(rendered(tmp_path, *OVERRIDES))
    assert asked >= {
        "--nodes=3",
        "--ntasks-per-node=1",
        "--cpus-per-task=16",
        "--mem=64G",
        "--gpus-per-node=2",
        "--time=90",
        "--partition=gpu",
        "--account=lab-7",
        "--exclusive",
    }


def test_script__limits_the_object_store_and_spilling_as_the_job_says(tmp_path: Path) -> None:
    limits = ["cluster.object_store_gib=1.5", "cluster.spill_limit=0.8"]
    text = rendered(tmp_path, *limits)
    assert "    --object-store-memory 1610612736 \\\n    -- env RAY_ADDRESS" in text
    assert "\nexport RAY_local_fs_capacity_threshold=0.8\n" in text
    assert "object-store-memory" not in rendered(tmp_path)
    with pytest.raises(InvalidInput, match="object_store_gib 64 is not below memory_gib 64"):
        rendered(tmp_path, *OVERRIDES, "cluster.object_store_gib=64")


def test_script__comes_back_after_a_preemption_and_is_no_array(tmp_path: Path) -> None:
    asked = directives(rendered(tmp_path))
    assert "--requeue" in asked
    assert any(line.startswith("--signal=B:USR1@") for line in asked)
    assert not any("array" in line for line in asked)


def test_script__its_steps_keep_the_environment_whatever_sbatch_exports(tmp_path: Path) -> None:
    before_steps = rendered(tmp_path).split("\n    srun ")[0]
    assert "\nexport SLURM_EXPORT_ENV=ALL\n" in before_steps


def test_script__prints_and_reruns_as_the_job_says(tmp_path: Path) -> None:
    assert 'exec ulcmod run "$2"' in rendered(tmp_path)
    changed = rendered(tmp_path, "cluster.schedule=0 2 * * *", "cluster.log_format=json")
    assert 'exec ulcmod rerun "$2"' in changed
    assert "export ULCMOD_LOG_FORMAT=json" in changed


def test_script__carries_the_job_and_no_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "planted-secret")
    text = rendered(tmp_path, "discover.seed=4")
    job = text.split("<<'ULCMOD_JOB'\n")[1].split("ULCMOD_JOB\n")[0]
    (tmp_path / "again.yaml").write_text(job)
    assert "seed: 4" in job
    assert create_bundle(tmp_path / "again.yaml", [], "slurm").text == job
    assert "planted" not in text


def test_script__quotes_the_folder_of_programs(tmp_path: Path) -> None:
    (tmp_path / "matrix.npy").write_bytes(b"")
    bundle = create_bundle(job_file(tmp_path, MATRIX_JOB.format(run="/runs")), [], "slurm")
    text = render_script(bundle, environment=Path("/opt/my $(programs)/bin")).text
    assert "export PATH='/opt/my $(programs)/bin':\"$PATH\"" in text


def part(text: str, first: str, last: str) -> str:
    """Lines of a script from the one that begins with ``first`` to the one before ``last``."""
    return text[text.index(f"\n{first}") : text.index(f"\n{last}")]


def run_part(lines: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    known = {"PATH": os.environ["PATH"], "HOME": str(folder), "SLURM_JOB_ID": "7"}
    return subprocess.run(
        ["bash", "-c", f"set -euo pipefail\n{lines}"],
        env=known | environment,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def test_script__forgets_the_memory_and_the_ray_of_the_job_it_was_sent_from(tmp_path: Path) -> None:
    text = rendered(tmp_path)
    unset = part(text, "unset SLURM_MEM_PER_CPU", "job=")
    assert text.index(unset) < text.index("\nsrun ")
    inherited = {"SLURM_MEM_PER_CPU": "2000", "SLURM_MEM_PER_GPU": "1", "RAY_ADDRESS": "other:1"}
    done = run_part(f"{unset}\nenv", tmp_path, **inherited)
    assert not [name for name in inherited if name in done.stdout]


def test_script__makes_the_token_private_and_nothing_else(tmp_path: Path) -> None:
    lines = part(rendered(tmp_path), "token=", "trap 'rm -f")
    done = run_part(f"umask 022\n{lines}\ntouch results\necho $token", tmp_path)
    token = Path(done.stdout.strip())
    assert len(token.read_text()) == 64
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "results").stat().st_mode) == 0o644


def test_script__reads_the_address_of_a_named_network_on_the_node(tmp_path: Path) -> None:
    lines = part(rendered(tmp_path), 'if [[ -n "${ULCMOD_INTERFACE', "export RAY_SYMMETRIC")
    ip = tmp_path / "ip"
    ip.write_text(
        "#!/bin/sh\n"
        '[ "$*" = "-4 -o addr show dev ib0" ] && echo "3: ib0    inet 10.0.0.7/16 brd x"\n'
    )
    ip.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    shown = run_part(f"{lines}\necho $address", tmp_path, PATH=path, ULCMOD_INTERFACE="ib0")
    assert shown.stdout == f"10.0.0.7:{slurm.PORT}\n"
    missing = run_part(lines, tmp_path, PATH=path, ULCMOD_INTERFACE="ib9")
    assert missing.returncode == 1
    assert "ULCMOD_INTERFACE=ib9" in missing.stderr


def test_script__goes_back_to_the_queue_a_hundred_times_at_most(tmp_path: Path) -> None:
    requeue = part(rendered(tmp_path), "requeue() {", "trap requeue")
    lines = f"end_step() {{ :; }}\nscontrol() {{ echo $*; }}\n{requeue}\nrequeue"
    often = run_part(lines, tmp_path, SLURM_RESTART_COUNT="99")
    assert often.stdout.endswith("requeue 7\n")
    too_often = run_part(lines, tmp_path, SLURM_RESTART_COUNT="100")
    assert (too_often.returncode, too_often.stdout) == (1, "")


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An sbatch, a squeue and an scancel that share one file, the queue."""
    tools = tmp_path / "tools"
    tools.mkdir()
    jobs = tmp_path / "queue"
    jobs.touch()
    for name, line in {
        "sbatch": f"cat > {tmp_path}/script; echo '17 PENDING' > {jobs}; echo '17;cluster'",
        "squeue": f"cat {jobs}",
        "scancel": f": > {jobs}",
    }.items():
        (tools / name).write_text(f"#!/bin/sh\n{line}\n")
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tools), prepend=":")
    return jobs


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        (HUB_JOB.replace("/data/", "data/"), "data/train.parquet"),
        (MATRIX_JOB.format(run="/runs"), "matrix.npy"),
    ],
)
def test_command__requires_existing_inputs(
    tmp_path: Path, queue: Path, text: str, missing: str
) -> None:
    path = job_file(tmp_path, text)
    for option in ([], ["--dry-run"]):
        done = CliRunner().invoke(app, ["submit", str(path), "--to", "slurm", *option])
        assert isinstance(done.exception, InvalidInput) or done.exit_code == 2
        assert missing in f"{done.output}{done.exception}"
    assert queue.read_text() == ""


def test_submit__queues_once_and_then_attaches(tmp_path: Path, queue: Path) -> None:
    script = BatchScript("ulcmod-1", "#!/bin/sh\n")
    first = script.submit()
    assert (first.details["number"], first.new) == ("17", True)
    assert (tmp_path / "script").read_text() == script.text
    queue.write_text("17 RUNNING\n")
    second = script.submit()
    assert (second.details["number"], second.state, second.new) == ("17", "RUNNING", False)


def test_cancel__takes_the_job_out_of_the_queue(queue: Path) -> None:
    script = BatchScript("ulcmod-1", "#!/bin/sh\n")
    assert script.cancel() is None
    script.submit()
    cancelled = script.cancel()
    assert cancelled is not None
    assert cancelled.details["number"] == "17"
    assert queue.read_text() == ""


def test_logs__are_read_where_the_job_was_submitted(
    tmp_path: Path, queue: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ulcmod-1.log").write_text("shard 3 of 4\n")
    assert "".join(BatchScript("ulcmod-1", "").read_logs(follow=True)) == "shard 3 of 4\n"

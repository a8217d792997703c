"""Secrets in the environment of a run stay there: planted, and looked for wherever it speaks."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

from tests.pipeline.demo_corpus import DEMO

SECRET = "planted0secret0" * 4
PROMPT = "Confidential: the heron lands at noon."
PLANTED = {
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": SECRET,
    "HF_TOKEN": SECRET,
    "AWS_SECRET_ACCESS_KEY": SECRET,
}
JOB = f"""\
model: {{id: {DEMO / "model"}}}
corpus: {{train: train.parquet, id: id, category: category}}
extract: {{workers: 1, cpus: 0.5}}
discover: {{modules: [2], restarts: 1}}
evaluate: {{seeds: 1, null_permutations: 0, baselines: []}}
report: {{prompts: none}}
"""


@pytest.fixture
def ray_folder() -> Iterator[Path]:
    """Ray's own folder; paths of sockets must be short."""
    with tempfile.TemporaryDirectory(prefix="ray") as folder:
        yield Path(folder)


@pytest.mark.faults
def test_run__keeps_secrets_and_prompts_out_of_all_it_leaves_and_shows(
    tmp_path: Path, ray_folder: Path
) -> None:
    rows = pq.read_table(DEMO / "train.parquet")[:24].to_pylist()
    rows[3]["text"] = PROMPT
    table = pq.read_table(DEMO / "train.parquet")
    pq.write_table(table.from_pylist(rows, schema=table.schema), tmp_path / "train.parquet")
    run = tmp_path / "run"
    (tmp_path / "job.yaml").write_text(f"run: {run}\n{JOB}")
    program = [str(Path(sys.executable).parent / "ulcmod"), "--log-format=json"]
    commands: set[str] = set()
    with (
        (tmp_path / "printed").open("wb") as printed,
        subprocess.Popen(
            [*program, "run", str(tmp_path / "job.yaml")],
            env=os.environ | PLANTED | {"RAY_TMPDIR": str(ray_folder)},
            stdout=printed,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        while process.poll() is None:
            commands.update(command_lines())
            time.sleep(0.2)
    shown = (tmp_path / "printed").read_text()
    assert process.returncode == 0, shown
    assert any("raylet" in command for command in commands)
    assert (run / "report.html").exists()
    # Where the run worked with the token, all have it in their environment and nowhere else.
    assert not [command for command in commands if SECRET in command]
    assert SECRET not in shown
    assert holding(SECRET, run) == holding(SECRET, ray_folder) == []
    assert PROMPT not in shown
    assert holding(PROMPT, run) == []
    logged = [line for line in shown.splitlines() if line.startswith("{")]
    assert {json.loads(line)["event"] for line in logged} >= {"started", "ended"}


def command_lines() -> Iterator[str]:
    """What everybody on the machine can see of every process."""
    for process in psutil.process_iter():
        try:
            yield " ".join(process.cmdline())
        except psutil.Error:
            continue


def holding(text: str, folder: Path) -> list[str]:
    """Files that hold a text."""
    options = ["--recursive", "--files-with-matches", "--text", "--fixed-strings"]
    words = ["grep", *options, text, str(folder)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return done.stdout.splitlines()


def test_search_of_files__finds_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "leak").write_bytes(b"\0" + SECRET.encode())
    assert holding(SECRET, tmp_path) == [str(tmp_path / "leak")]

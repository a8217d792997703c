"""Secrets of a run stay where they are: planted, and looked for wherever it writes or speaks."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

import ulcmod_dist as um
from tests.pipeline.conftest import Ulcmod
from tests.pipeline.demo_corpus import DEMO, write_demo_corpus

SECRET = "planted0secret0" * 4
PROMPT = "Confidential: the heron lands at noon."
SENTINEL = "xylographist"  # in every prompt of a confidential corpus
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


def test_run__confidential_prompts_are_nowhere_but_in_the_corpus(
    tmp_path: Path, ulcmod: Ulcmod, local_ray: None
) -> None:
    write_demo_corpus(tmp_path)
    for split in ("train", "test"):
        table = pq.read_table(tmp_path / f"{split}.parquet")
        texts = [f"{SENTINEL} {text}" for text in table["text"].to_pylist()]
        place = table.schema.get_field_index("text")
        pq.write_table(table.set_column(place, "text", [texts]), tmp_path / f"{split}.parquet")
    (tmp_path / "job.yaml").write_text(f"run: {tmp_path / 'run'}\n{JOB}")
    changes = [
        "corpus.test=test.parquet",
        "discover.modules=[3]",
        "explain.with_run=true",
        "ablate={with_run: true, samples: 4, random_sets: 1}",
    ]
    words = [word for change in changes for word in ("--set", change)]
    answer = ulcmod("run", tmp_path / "job.yaml", *words, "--json")
    assert answer.code == 0, answer.err
    shown = [answer.out, answer.err, *map(content, (tmp_path / "run").rglob("*"))]
    assert len(shown) > 60
    assert [text[:200] for text in shown if SENTINEL in text.lower()] == []
    assert content(tmp_path / "train.parquet").count(SENTINEL) == 60
    page = (tmp_path / "run/report.html").read_text(encoding="utf-8")
    assert "report.prompts is none" in page
    assert "Selective modules" in page


def content(path: Path) -> str:
    """What a file says: the rows of a table, the characters of any other."""
    if path.suffix == ".parquet":
        return str(pq.read_table(path).to_pylist())
    return path.read_bytes().decode("utf-8", "replace") if path.is_file() else ""


def test_samples__texts_obey_the_job_that_leaves_them_out(searched: Path, tmp_path: Path) -> None:
    shutil.copytree(searched / "run", tmp_path / "run")
    job = tmp_path / "run/job.yaml"
    job.write_text(job.read_text().replace("prompts: all", "prompts: none"))
    with pytest.raises(um.InvalidInput, match=r"report\.prompts is none"):
        um.open_run(tmp_path / "run").samples(3, texts=True)
    with pytest.raises(um.InvalidInput, match="has no report"):
        um.open_run(tmp_path / "run").report()


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

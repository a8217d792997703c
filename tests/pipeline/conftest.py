import contextlib
import io
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.pipeline.demo_corpus import DEMO, write_demo_corpus
from ulcmod_dist import cli


@dataclass(frozen=True)
class Answer:
    """What a command printed and ended with."""

    code: int
    out: str
    err: str

    def json(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.out)
        return value


Ulcmod = Callable[..., Answer]


def call_ulcmod(*words: object) -> Answer:
    """Run the command line in this process."""
    out, err = io.StringIO(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        patch.setattr(sys, "argv", ["ulcmod", *map(str, words)])
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
    return Answer(code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="session")
def ulcmod() -> Ulcmod:
    return call_ulcmod


@pytest.fixture(scope="session")
def searched(local_ray: None, tmp_path_factory: pytest.TempPathFactory, ulcmod: Ulcmod) -> Path:
    """A folder with a run of a few prompts whose modules are found and not yet evaluated."""
    folder = tmp_path_factory.mktemp("searched")
    write_demo_corpus(folder, 8, 2)
    (folder / "job.yaml").write_text(
        f"run: {folder / 'run'}\n"
        f"model: {{id: {DEMO / 'model'}}}\n"
        "corpus: {train: train.parquet, test: test.parquet, id: id, category: category}\n"
        "extract: {workers: 1}\n"
        "discover: {modules: [3, 4], restarts: 1}\n"
    )
    for command in ("extract", "discover"):
        assert ulcmod(command, folder / "job.yaml").code == 0
    return folder


@dataclass(frozen=True)
class Planted:
    """A small matrix with modules that a search finds again."""

    path: Path
    activations: NDArray[np.float32]
    sample_labels: NDArray[np.int64]
    unit_labels: NDArray[np.int64]


def plant(folder: Path) -> Planted:
    """Write the matrix into a folder."""
    rng = np.random.default_rng(7)
    samples, units = np.arange(60) % 3, np.arange(90) // 30
    values = rng.random((60, 90)) + 2.0 * (samples[:, None] == units)
    path = folder / "activations.npy"
    np.save(path, values.astype(np.float32))
    return Planted(path, values.astype(np.float32), samples, units)


@pytest.fixture
def planted(tmp_path: Path) -> Planted:
    return plant(tmp_path)


def copy_run(folder: Path, copy: Path) -> Path:
    """Copy a folder with its run in ``run``, whose job then names the copy; returns the run."""
    shutil.copytree(folder, copy)
    job = copy / "run" / "job.yaml"
    job.write_text(job.read_text().replace(str(folder), str(copy)))
    return copy / "run"

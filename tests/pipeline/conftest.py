import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

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


@pytest.fixture
def ulcmod(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ulcmod:
    """Run the command line in this process."""

    def run(*words: object) -> Answer:
        monkeypatch.setattr(sys, "argv", ["ulcmod", *map(str, words)])
        capsys.readouterr()
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        printed = capsys.readouterr()
        return Answer(code, printed.out, printed.err)

    return run


@dataclass(frozen=True)
class Planted:
    """A small matrix with modules that a search finds again."""

    path: Path
    activations: NDArray[np.float32]
    sample_labels: NDArray[np.int64]
    unit_labels: NDArray[np.int64]


@pytest.fixture
def planted(tmp_path: Path) -> Planted:
    rng = np.random.default_rng(7)
    samples, units = np.arange(60) % 3, np.arange(90) // 30
    values = rng.random((60, 90)) + 2.0 * (samples[:, None] == units)
    path = tmp_path / "activations.npy"
    np.save(path, values.astype(np.float32))
    return Planted(path, values.astype(np.float32), samples, units)

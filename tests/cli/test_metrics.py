"""The progress and the warnings of a command, as Prometheus reads them."""

import logging
import socket
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from tests.pipeline.conftest import Ulcmod, ulcmod
from ulcmod_dist.cli.app import log_to_stderr, set_options
from ulcmod_dist.cli.metrics import Metrics
from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.runtime.progress import track

__all__ = ["ulcmod"]


def scrape(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return str(answer.read().decode())


def test_metrics__serve_the_progress_of_each_step() -> None:
    metrics = Metrics("127.0.0.1:0")
    with track(metrics.set_step, "Searching", 40, "iterations") as step:
        step.update(10)
        metrics.warnings.inc()
        seen = scrape(metrics.port)
    assert 'ulcmod_step_done{step="Searching",unit="iterations"} 10.0' in seen
    assert 'ulcmod_step_total{step="Searching",unit="iterations"} 40.0' in seen
    assert 'ulcmod_step_rate{step="Searching",unit="iterations"}' in seen
    assert "ulcmod_warnings_total 1.0" in seen


def test_metrics__count_the_warnings_of_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    logger = logging.getLogger("ulcmod_dist.somewhere")
    with log_to_stderr():
        set_options(metrics=f"127.0.0.1:{port}")
        logger.info("A fact.")
        logger.warning("An attempt failed.")
    assert "ulcmod_warnings_total 1.0" in scrape(port)
    assert capsys.readouterr().err == "A fact.\nWarning: An attempt failed.\n"


@pytest.mark.parametrize("address", ["nowhere", "127.0.0.1:99999", "127.0.0.1:x"])
def test_metrics__an_invalid_address_is_named(address: str) -> None:
    with pytest.raises(InvalidInput, match=f"Metrics cannot be served at '{address}'"):
        Metrics(address)


def test_command__serves_metrics_without_changing_its_result(
    tmp_path: Path, ulcmod: Ulcmod
) -> None:
    np.save(tmp_path / "a.npy", np.random.default_rng(0).random((30, 12), np.float32))
    words = ("import", tmp_path / "a.npy", "--out", tmp_path / "run", "--json")
    assert ulcmod("--metrics", "127.0.0.1:0", *words).json()["samples"] == 30
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        refused = ulcmod("--metrics", f"127.0.0.1:{port}", *words)
    assert refused.code == 2
    assert "Give --metrics a free HOST:PORT" in refused.err

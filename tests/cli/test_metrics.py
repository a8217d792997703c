"""The progress of a whole command, as Prometheus reads it."""

import logging
import socket
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from tests.pipeline.conftest import Ulcmod, ulcmod
from ulcmod_dist.cli.metrics import Metrics
from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.runtime.progress import track

__all__ = ["ulcmod"]


def scraped(metrics: Metrics) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{metrics.port}/metrics", timeout=10) as answer:
        return str(answer.read().decode())


def test_metrics__tell_how_far_each_step_is() -> None:
    metrics = Metrics("127.0.0.1:0")
    logger = logging.Logger("ulcmod_dist.somewhere")
    logger.addHandler(metrics.warning_counter())
    with track(metrics.set_step, "Searching", 40, "iterations") as step:
        step.update(10)
        logger.info("A fact.")
        logger.warning("An attempt failed.")
        seen = scraped(metrics)
    assert 'ulcmod_step_done{step="Searching",unit="iterations"} 10.0' in seen
    assert 'ulcmod_step_total{step="Searching",unit="iterations"} 40.0' in seen
    assert 'ulcmod_step_rate{step="Searching",unit="iterations"}' in seen
    assert "ulcmod_warnings_total 1.0" in seen


@pytest.mark.parametrize("address", ["nowhere", "127.0.0.1:99999", "127.0.0.1:x"])
def test_metrics__an_address_that_is_none_is_named(address: str) -> None:
    with pytest.raises(InvalidInput, match=f"Metrics cannot be served at '{address}'"):
        Metrics(address)


def test_command__serves_metrics_and_answers_as_without(tmp_path: Path, ulcmod: Ulcmod) -> None:
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

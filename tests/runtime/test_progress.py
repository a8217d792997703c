"""Progress through one callback, messages through `logging`."""

import io
import json
import logging
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from tests.pipeline.conftest import Ulcmod, ulcmod
from ulcmod_dist.runtime.progress import (
    ConsoleProgress,
    ProgressUpdate,
    broadcast,
    json_progress,
    throttle,
    track,
)

__all__ = ["ulcmod"]


def parse_lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_track__reports_start_moves_and_end() -> None:
    seen: list[ProgressUpdate] = []
    with track(seen.append, "Extracting", 10, "prompts") as step:
        time.sleep(0.01)
        step.update(4, "2 actors")
        step.update(10, total=20)
    assert [update.state for update in seen] == ["started", "running", "running", "finished"]
    started, moved, further, finished = seen
    assert (started.step, started.done, started.total, started.unit) == (
        "Extracting",
        0,
        10,
        "prompts",
    )
    assert started.seconds_left is None
    assert (moved.done, moved.note) == (4, "2 actors")
    assert moved.rate == pytest.approx(4 / moved.seconds)
    assert moved.seconds_left == pytest.approx(6 / moved.rate)
    assert (further.total, finished.done) == (20, 10)
    assert 0 <= started.seconds < moved.seconds <= finished.seconds


def test_track__an_exception_ends_the_step_as_failed() -> None:
    seen: list[ProgressUpdate] = []
    with pytest.raises(KeyboardInterrupt), track(seen.append, "Extracting", 10, "prompts"):
        raise KeyboardInterrupt
    assert [update.state for update in seen] == ["started", "failed"]


def test_broadcast__sends_every_update_to_every_callback() -> None:
    one: list[ProgressUpdate] = []
    other: list[ProgressUpdate] = []
    with track(broadcast(one.append, other.append), "Searching", None, "iterations") as step:
        step.update(1)
    assert one == other
    assert len(one) == 3


def test_console_progress__shows_a_bar_for_each_of_several_steps() -> None:
    stream = io.StringIO()
    shown = ConsoleProgress(Console(file=stream, width=80, force_terminal=True))
    for name in ("Planning", "Searching"):
        with track(shown, name, 4, "iterations") as step:
            step.update(2)
        step.update(3, "too late")
    for name in ("Planning", "Searching"):
        assert f"{name} \x1b[" in stream.getvalue()
    assert "too late" not in stream.getvalue()
    assert stream.getvalue().count("\x1b[?25h") == 2


def test_console_progress__an_exception_closes_the_bar_without_a_line() -> None:
    stream = io.StringIO()
    shown = ConsoleProgress(Console(file=stream, width=80, force_terminal=True))
    with pytest.raises(KeyboardInterrupt), track(shown, "Searching", 4, "iterations"):
        raise KeyboardInterrupt
    assert stream.getvalue().count("\x1b[?25h") == 1
    assert "✓" not in stream.getvalue()


def test_throttle__passes_changes_of_state_and_few_moves() -> None:
    seen: list[ProgressUpdate] = []
    with track(throttle(seen.append, seconds=60), "Searching", None, "iterations") as step:
        for done in range(1000):
            step.update(done)
    assert [update.state for update in seen] == ["started", "finished"]


def test_json_progress__is_one_object_a_line() -> None:
    stream = io.StringIO()
    with track(json_progress(stream, interval=0), "Extracting", 10, "prompts") as step:
        step.update(4, "2 actors")
    lines = parse_lines(stream.getvalue())
    assert all(datetime.fromisoformat(line["time"]).tzinfo for line in lines)
    started, moved, ended = lines
    assert [line["event"] for line in lines] == ["started", "progress", "ended"]
    assert (started["level"], started["step"], started["total"]) == ("info", "Extracting", 10)
    assert (moved["step"], moved["done"], moved["total"]) == ("Extracting", 4, 10)
    assert (moved["unit"], moved["note"]) == ("prompts", "2 actors")
    assert moved["rate"] > 0 < moved["seconds_left"]
    assert (ended["done"], ended["unit"]) == (4, "prompts")
    assert ended["seconds"] > 0


def test_console_progress__in_a_log_is_a_line_now_and_then() -> None:
    stream = io.StringIO()
    shown = ConsoleProgress(Console(file=stream, width=80), interval=0)
    with track(shown, "Extracting", 1000, "prompts") as step:
        step.update(400, "2 actors")
    moved, finished = stream.getvalue().splitlines()
    assert moved.startswith("Extracting: 400 of 1,000 prompts, ")
    assert moved.endswith(" s left, 2 actors")
    assert finished.startswith("✓ Extracting (400 prompts, ")


def test_console_progress__in_a_terminal_gives_the_cursor_back() -> None:
    stream = io.StringIO()
    shown = ConsoleProgress(Console(file=stream, width=80, force_terminal=True))
    with track(shown, "Searching", 4, "iterations"):
        with track(shown, "Inner", 2, "passes") as step:
            step.update(1)
        assert not stream.getvalue().endswith("\x1b[?25h")
    assert stream.getvalue().count("\x1b[?25h") == stream.getvalue().count("\x1b[?25l") == 1
    assert "Inner" in stream.getvalue()
    closing = stream.getvalue().rsplit("\x1b[?25h", 1)[1]
    assert closing.index("✓") < closing.index("Searching")


LIBRARY = """
import sys
import ulcmod_dist as um
print(um.run(um.Job.from_yaml(sys.argv[1])).exit_code)
"""


def test_logging__users_of_the_library_see_warnings_without_configuration(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.random.default_rng(0).random((30, 12), np.float32))
    job = tmp_path / "job.yaml"
    job.write_text(
        f"run: {tmp_path / 'run'}\n"
        "matrix: {path: a.npy}\ndiscover: {modules: [2], restarts: 1}\n"
        "evaluate: {null_permutations: 0, baselines: [], seeds: 1}\nreport: {prompts: none}\n"
    )
    script = "import logging; logging.getLogger('ulcmod_dist.pipeline').warning('Look here.')"
    done = subprocess.run(
        [sys.executable, "-c", LIBRARY + script, str(job)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "0\n"
    assert done.stderr == "Look here.\n"


def test_logging__a_command_shows_messages_as_lines_and_leaves_no_handler(
    tmp_path: Path, ulcmod: Ulcmod
) -> None:
    np.save(tmp_path / "a.npy", np.random.default_rng(0).random((30, 12), np.float32))
    words = ("--out", tmp_path / "run", "--set", "discover={modules: 2, restarts: 1}")
    assert ulcmod("import", tmp_path / "a.npy", *words).code == 0
    answer = ulcmod("--log-format", "json", "discover", tmp_path / "run")
    lines = parse_lines(answer.err)
    assert {line["event"] for line in lines} == {"message", "started", "ended", "result"}
    assert {line["level"] for line in lines} == {"info"}
    result = lines[-1]
    assert (result["event"], result["exit_code"]) == ("result", 0)
    assert result["answer"]["rows"][0]["num_modules"] == 2
    failed = ulcmod("--log-format", "json", "discover", tmp_path / "[nowhere]")
    (error,) = parse_lines(failed.err)
    assert (error["level"], error["event"]) == ("error", "error")
    assert "[nowhere]" in error["message"]
    assert logging.getLogger("ulcmod_dist").handlers == []
    assert "Error: " in ulcmod("discover", tmp_path / "[nowhere]").err

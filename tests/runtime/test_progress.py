import io
import json
from datetime import datetime
from typing import Any

import pytest

from ulcmod_dist.runtime import progress
from ulcmod_dist.runtime.progress import JsonProgress


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_events__are_one_json_object_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LOG_INTERVAL", 0.0)
    stream = io.StringIO()
    events = JsonProgress(stream)
    with events.step("Extracting", 10, "prompts") as step:
        step.update(4, "2 actors")
    events.say("[green]✓[/green] two\nlines")
    events.warn("Attempt 1 failed.")
    events.fail("run [x] is in use.")
    events.result({"rows": []}, ["Nothing new."], 4)
    started, moved, ended, said, warned, failed, result = lines(stream)
    assert all(datetime.fromisoformat(line["time"]).tzinfo for line in lines(stream))
    assert [started["event"], moved["event"], ended["event"]] == ["started", "progress", "ended"]
    assert (moved["step"], moved["done"], moved["total"]) == ("Extracting", 4, 10)
    assert (moved["unit"], moved["note"]) == ("prompts", "2 actors")
    assert moved["rate"] > 0 < moved["seconds_left"]
    assert said["message"] == "✓ two\nlines"
    assert (warned["level"], warned["message"]) == ("warning", "Attempt 1 failed.")
    assert (result["event"], result["level"], result["exit_code"]) == ("result", "warning", 4)
    assert (result["closing"], result["answer"]) == (["Nothing new."], {"rows": []})
    assert (failed["level"], failed["message"]) == ("error", "run [x] is in use.")


def test_events__come_now_and_then_however_often_a_step_moves() -> None:
    stream = io.StringIO()
    with JsonProgress(stream).step("Searching", None, "iterations") as step:
        for done in range(1000):
            step.update(done)
    assert [line["event"] for line in lines(stream)] == ["started", "ended"]

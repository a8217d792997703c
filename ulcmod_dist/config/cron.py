"""Cron schedules and time zones, validated as Kubernetes does when it creates a CronJob."""

from __future__ import annotations

import re
import zoneinfo
from collections.abc import Sequence

_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_DAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
_FIELDS: tuple[tuple[str, int, int, Sequence[str]], ...] = (
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of the month", 1, 31, ()),
    ("month", 1, 12, _MONTHS),
    ("day of the week", 0, 6, _DAYS),
)
"""Name, lowest and highest value of each field, and the names of its values."""


def check_schedule(schedule: str | None) -> str | None:
    """The schedule with single spaces between its five fields.

    Raises:
        ValueError: Kubernetes would not accept the schedule.
    """
    if schedule is None:
        return None
    fields = schedule.split()
    if len(fields) != len(_FIELDS):
        raise ValueError(f"{schedule!r} has not five fields, such as 0 2 * * *")
    for text, (name, low, high, names) in zip(fields, _FIELDS, strict=True):
        for part in text.split(","):
            if not _is_valid_part(part, low, high, names):
                allowed = f"{low} to {high}" + (f" or {names[0]} to {names[-1]}" if names else "")
                raise ValueError(f"{part!r} is no {name} of a schedule: {allowed}")
    return " ".join(fields)


def _is_valid_part(part: str, low: int, high: int, names: Sequence[str]) -> bool:
    """Whether a part is ``*``, a value or a range, each with or without a step."""
    span, slash, step = part.partition("/")
    if slash and re.fullmatch(r"0*[1-9][0-9]*", step) is None:
        return False
    if span == "*":
        return True
    known = {name: low + number for number, name in enumerate(names)}
    known |= {f"{n:0{width}}": n for n in range(low, high + 1) for width in (1, 2)}
    ends = [known.get(end.lower()) for end in span.split("-")]
    if None in ends or len(ends) > 2:
        return False
    return ends == sorted(ends, key=lambda end: end or 0)


def is_time_zone(name: str) -> bool:
    """Whether a time zone exists; true for any name where the system has no time zone database."""
    try:
        return zoneinfo.ZoneInfo(name).key == name
    except (zoneinfo.ZoneInfoNotFoundError, ValueError):
        # Slim container images come without tzdata; the Kubernetes API checks the name again.
        return not zoneinfo.available_timezones()

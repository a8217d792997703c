"""Types of the job's values that are checked or converted: sizes, schedules, lists of texts."""

import re
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator

_SIZE = re.compile(r"(\d*\.?\d+(?:e\d+)?)\s*(?:([kmgtp])(i?))?b?")
_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_DAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
_CRON_FIELDS: tuple[tuple[str, int, int, Sequence[str]], ...] = (
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of the month", 1, 31, ()),
    ("month", 1, 12, _MONTHS),
    ("day of the week", 0, 6, _DAYS),
)
"""Name, lowest and highest value of each field, and the names of its values."""


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str | int) else value


StrList = Annotated[tuple[str, ...], BeforeValidator(_as_list)]
"""One text, or a list of these."""
IntList = Annotated[tuple[int, ...], BeforeValidator(_as_list)]
"""One number, or a list of these."""


def _parse_size(value: Any) -> Any:
    """Bytes from a text such as ``8 GiB``, ``500 MB`` or ``8Gi``.

    Neither by Dask, which takes half a second to import, nor by pydantic's ByteSize, which ignores
    what follows a size: ``8.5.1 GiB`` would be 8 bytes.
    """
    if not isinstance(value, str):
        return value
    size = _SIZE.fullmatch(value.strip().lower())
    if size is None:
        raise ValueError(f"{value!r} is no size such as 8 GiB")
    number, prefix, binary = size.groups()
    return int(float(number) * (1024 if binary else 1000) ** "_kmgtp".index(prefix or "_"))


Size = Annotated[int, BeforeValidator(_parse_size)]
"""Bytes, as a number or as a text with a unit."""


def _check_schedule(schedule: str | None) -> str | None:
    """The schedule with single spaces, checked as Kubernetes does when it creates a CronJob."""
    if schedule is None:
        return None
    fields = schedule.split()
    if len(fields) != len(_CRON_FIELDS):
        raise ValueError(f"{schedule!r} has not five fields, such as 0 2 * * *")
    for text, (name, low, high, names) in zip(fields, _CRON_FIELDS, strict=True):
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


Schedule = Annotated[str | None, AfterValidator(_check_schedule)]
"""The five fields of a CronJob's schedule."""

"""Format text for people: safe printing of untrusted input, short labels and numbers."""

import math
import re

# A prompt with control characters could command the terminal; one with bidirectional marks could
# reorder the text around it. Lone surrogates cannot be encoded.
_CONTROLS = re.compile(
    "[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
    "\ud800-\udfff\ufffe\uffff]"
)

PROMPT_LIMIT = 600
"""Maximal length of a prompt on the page, in characters."""

LABEL_LIMIT = 24
"""Maximal length of a label of a figure, in characters."""

MINUS, DASH, TIMES = "\u2212", "\u2013", "\u00d7"


def strip_control_chars(text: str) -> str:
    """Return the text without control and bidirectional characters, except tab and newline."""
    return _CONTROLS.sub("", text.replace("\r\n", "\n"))


def shorten(text: str, limit: int = PROMPT_LIMIT) -> str:
    """Cut a text to ``limit`` characters and say how many are left out."""
    clean = strip_control_chars(text).strip()
    if len(clean) <= limit:
        return clean
    return f"{clean[:limit].rstrip()} … ({len(clean) - limit:,} more characters)"


def label(text: str, limit: int = LABEL_LIMIT) -> str:
    """Return a text as one line of at most ``limit`` characters."""
    line = " ".join(strip_control_chars(text).split())
    return line if len(line) <= limit else f"{line[: limit - 1].rstrip()}…"


def number(value: float, digits: int = 3) -> str:
    """Format a number with ``digits`` significant digits, thousands in full, NaN as a dash."""
    if math.isnan(value):
        return DASH
    if math.isinf(value):
        return "∞" if value > 0 else f"{MINUS}∞"
    size = abs(value)
    if value == round(value) and size < 1e15:
        text = f"{value:,.0f}"
    elif size >= min(1000, 10 ** (digits - 1)):
        text = f"{value:,.0f}" if size < 1e12 else f"{value:.{digits - 1}e}"
    elif size >= 1e-4:
        places = digits - 1 - math.floor(math.log10(size))
        text = f"{value:.{places}f}"
    else:
        text = f"{value:.{digits - 1}e}"
    return text.replace("-", MINUS)


def compact(text: str) -> str:
    """Shorten a whole number with separated thousands: "1,137,348" is "1.14M"."""
    value, *groups = float(text.replace(",", "")), *text.split(",")[1:]
    return f"{number(value / 1000 ** len(groups))}{' kMBT'[min(4, len(groups))]}"


def percent(share: float) -> str:
    """Format a share as whole percents, with "<1%" for small ones that would round to 0%."""
    if math.isnan(share):
        return DASH
    if 0 < share < 0.005:
        return "<1%"
    return f"{share:.0%}"


def count(amount: int, singular: str, plural: str | None = None) -> str:
    """Format an amount with its noun: ``count(2, "layer")`` is "2 layers"."""
    noun = singular if amount == 1 else plural or f"{singular}s"
    return f"{amount:,} {noun}"

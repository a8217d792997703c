"""Text for people: untrusted input made safe to print, numbers and labels made short."""

import math
import re

# Control characters and the marks that reorder text would let a prompt disturb its surroundings.
_CONTROLS = re.compile(
    "[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
    "\ud800-\udfff\ufffe\uffff]"
)
PROMPT_LIMIT = 600
"""Characters of a prompt that the page shows; the rest is counted."""

LABEL_LIMIT = 24
"""Characters of a label beside a picture."""

MINUS, DASH, TIMES = "\u2212", "\u2013", "\u00d7"

_SPACES = re.compile(r"\s+")


def strip_control_chars(text: str) -> str:
    """Return the text without control and reordering characters (tab and newline stay)."""
    return _CONTROLS.sub("", text.replace("\r\n", "\n"))


def shorten(text: str, limit: int = PROMPT_LIMIT) -> str:
    """Return a printable text of at most ``limit`` characters and how many were left out."""
    clean = strip_control_chars(text).strip()
    if len(clean) <= limit:
        return clean
    return f"{clean[:limit].rstrip()} … ({len(clean) - limit:,} more characters)"


def label(text: str, limit: int = LABEL_LIMIT) -> str:
    """Return a text as one short line."""
    line = _SPACES.sub(" ", strip_control_chars(text)).strip()
    return line if len(line) <= limit else f"{line[: limit - 1].rstrip()}…"


def number(value: float, digits: int = 3) -> str:
    """Return a number with ``digits`` significant digits, whole thousands in full.

    A missing number (NaN) is a dash.
    """
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


def percent(share: float) -> str:
    """Return a share as whole percents, with "<1%" for what would round to nothing."""
    if math.isnan(share):
        return DASH
    if 0 < share < 0.005:
        return "<1%"
    return f"{share:.0%}"


def count(amount: int, singular: str, plural: str | None = None) -> str:
    """Return an amount with its noun, e.g. ``count(2, "layer")`` is "2 layers"."""
    noun = singular if amount == 1 else plural or f"{singular}s"
    return f"{amount:,} {noun}"

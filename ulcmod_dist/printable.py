"""Untrusted texts, made safe to show: on a page, in a terminal and in a log."""

import re

# Control characters and the marks that reorder text would let a prompt disturb its surroundings.
_CONTROLS = re.compile(
    "[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
    "\ud800-\udfff\ufffe\uffff]"
)


def printable(text: str) -> str:
    """Return the text without control and reordering characters (tab and newline stay)."""
    return _CONTROLS.sub("", text.replace("\r\n", "\n"))

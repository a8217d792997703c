"""Words of prompts in any language, for counting."""

from __future__ import annotations

import re
import sys
import unicodedata
from functools import cache

LONGEST_WORD = 40
"""Longer runs of letters are encoded data, not words."""

# Scripts written without spaces: Thai, Lao, Myanmar, Khmer, Japanese, Chinese.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
)


def words_of(text: str) -> list[str]:
    """The words of a text, folded in case and width, numbers and single letters left out.

    Marks stay with their letters (Hindi, Arabic), ``c++`` and ``c#`` stay whole, and runs of
    scripts without spaces become overlapping pairs of characters.
    """
    found = _pattern().finditer(unicodedata.normalize("NFKC", text).casefold())
    words = []
    for match in found:
        word = match[0]
        if match["unspaced"]:
            words += [word[i : i + 2] for i in range(max(1, len(word) - 1))]
        elif 1 < len(word) <= LONGEST_WORD:
            words.append(word)
    return words


@cache
def _pattern() -> re.Pattern[str]:
    # The standard library's \w leaves combining marks out, which would cut Indic words apart.
    characters = map(chr, range(sys.maxunicode + 1))
    marks = "".join(c for c in characters if unicodedata.category(c) in {"Mn", "Mc"})
    spaced = rf"(?:(?![{_UNSPACED}])[^\W\d_])"
    letter = rf"(?:{spaced}|(?![{_UNSPACED}])[{re.escape(marks)}])"
    unspaced = rf"(?P<unspaced>(?:[{_UNSPACED}](?<![\W\d_])[{re.escape(marks)}]*)+)"
    return re.compile(rf"{unspaced}|{spaced}{letter}*(?:['\u2019]{letter}+|\+\+|#)?")

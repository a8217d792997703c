"""Topics in words: any language, no list of stop words, nothing shown that must not be."""

import numpy as np
import pytest

from ulcmod_dist.evaluate import topics
from ulcmod_dist.evaluate.topics import describe_topics, find_keywords
from ulcmod_dist.evaluate.words import words_of
from ulcmod_dist.results.types import Absent

TEXTS = [
    "Write a Python function that sorts the list of numbers.",
    "Fix the bug in the Python function.",
    "Explain what a Python list is in the code.",
    "Translate the sentence into French, please.",
    "Please translate the French word.",
    "Is the French translation of the sentence right?",
]
LABELS = np.array([0, 0, 0, 1, 1, 1])
MARGINS = np.array([0.1, 0.9, 0.5, 0.3, 0.2, 0.6])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("It's C++ and C#, not x1 or 42!", ["it's", "c++", "and", "c#", "not", "or"]),
        ("Größe ＧＲÖẞＥ", ["grösse", "grösse"]),
        ("हिन्दी में लिखो", ["हिन्दी", "में", "लिखो"]),
        ("翻译这句话。", ["翻译", "译这", "这句", "句话"]),
        ("ภาษาไทย", ["ภา", "าษ", "ษา", "าไ", "ไท", "ทย"]),
        ("日 x", ["日"]),
        ("A" * 50, []),
        ("español مرحبا بك", ["español", "مرحبا", "بك"]),
    ],
)
def test_words_of__every_script_has_words(text: str, words: list[str]) -> None:
    assert words_of(text) == words


def test_find_keywords__set_modules_apart_without_stop_words() -> None:
    first, second = find_keywords(TEXTS, LABELS, 2, 3)
    assert isinstance(first, tuple)
    assert first[0] == "python"
    assert "the" not in first
    assert isinstance(second, tuple)
    assert second[0] == "french"


def test_find_keywords__absent_where_nothing_can_be_said() -> None:
    assert isinstance(find_keywords(None, LABELS, 2, 3)[0], Absent)
    assert isinstance(find_keywords(["1", "2"], np.array([0, 1]), 2, 3)[1], Absent)
    same = find_keywords(["same words"] * 4, np.array([0, 0, 1, 1]), 2, 3)
    assert same == (Absent("No word sets its prompts apart."),) * 2


def test_find_keywords__large_modules_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topics, "MAX_TEXTS", 2)
    assert find_keywords(TEXTS, LABELS, 2, 3, seed=1) == find_keywords(TEXTS, LABELS, 2, 3, seed=1)


def test_describe_topics__typical_prompts_mix_length_and_name() -> None:
    first, second, third = describe_topics(
        MARGINS,
        LABELS,
        3,
        texts=TEXTS,
        categories=["Coding"] * 3 + ["Translation", "Translation", "Linguistic"],
        tokens=np.array([10, 20, 30, 5, 5, 5]),
        num_typical=2,
    )
    assert first.typical == (1, 2)
    assert first.categories == (("Coding", 1.0),)
    assert first.length == (11.0, 15.0, 20.0, 25.0, 29.0)
    assert first.name.startswith("Coding: python")
    assert second.name.startswith("Translation / Linguistic: french")
    assert second.categories == (("Translation", 2 / 3), ("Linguistic", 1 / 3))
    assert (third.name, third.typical, third.length) == ("Module 2", (), None)


def test_describe_topics__without_texts_nothing_of_them_shows() -> None:
    first, _ = describe_topics(MARGINS, LABELS, 2)
    assert isinstance(first.keywords, Absent)
    assert first.name == "Module 0"
    assert first.typical == (1, 2, 0)


def test_describe_topics__equal_prompts_are_shown_once() -> None:
    first, _ = describe_topics(MARGINS, LABELS, 2, texts=["same", "same", "other", "x", "y", "z"])
    assert first.typical == (1, 2)


def test_describe_topics__prompts_that_say_the_same_come_after_others() -> None:
    texts = ["Sort these words now: cat, dog", "Sort these words now: red, dog", "Write a poem"]
    margins, labels = np.array([0.9, 0.8, 0.1]), np.zeros(3, np.int64)
    few, many = (
        describe_topics(margins, labels, 1, texts=texts, num_typical=count)[0] for count in (2, 3)
    )
    assert few.typical == (0, 2)
    assert many.typical == (0, 2, 1)

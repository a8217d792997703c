"""Topics in words: any language, no list of stop words, nothing shown that must not be."""

from collections.abc import Sequence

import numpy as np
import pytest

from ulcmod_dist.config.schema import ReportConfig
from ulcmod_dist.evaluate import topics
from ulcmod_dist.evaluate.topics import Samples, describe_modules, find_keywords, split_words
from ulcmod_dist.results.discovery import Module, TypicalPrompt
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
NO_TEXTS = Absent("The matrix was imported without its prompts.")
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
def test_split_words__every_script_has_words(text: str, words: list[str]) -> None:
    assert split_words(text) == words


def test_find_keywords__set_modules_apart_without_stop_words() -> None:
    first, second = find_keywords(TEXTS, LABELS, 2, 3)
    assert isinstance(first, tuple)
    assert first[0] == "python"
    assert "the" not in first
    assert isinstance(second, tuple)
    assert second[0] == "french"


def test_find_keywords__absent_where_nothing_can_be_said() -> None:
    assert isinstance(find_keywords(["1", "2"], np.array([0, 1]), 2, 3)[1], Absent)
    same = find_keywords(["same words"] * 4, np.array([0, 0, 1, 1]), 2, 3)
    assert same == (Absent("No word sets its prompts apart."),) * 2


def test_find_keywords__large_modules_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topics, "MAX_TEXTS", 2)
    assert find_keywords(TEXTS, LABELS, 2, 3, seed=1) == find_keywords(TEXTS, LABELS, 2, 3, seed=1)


def describe(
    texts: list[str] | Absent = NO_TEXTS,
    categories: Sequence[str | None] = (None,) * 6,
    tokens: Sequence[int] = (0,) * 6,
    num_modules: int = 2,
    typical: int = 8,
) -> tuple[Module, ...]:
    samples = Samples(
        ids=list("abcdef"),
        categories=list(categories),
        tokens=np.array(tokens, dtype=np.int64),
        texts=texts,
    )
    units = np.array([0, 1, 1, *range(num_modules)])
    config = ReportConfig(typical=typical)
    return describe_modules(
        samples, MARGINS, LABELS, units, num_modules, config, unit_stability=units / 4
    )


def typical_ids(module: Module) -> list[str]:
    assert not isinstance(module.prompts, Absent)
    return [prompt.sample_id for prompt in module.prompts]


def test_describe_modules__prompts_sizes_length_stability_and_name() -> None:
    first, second, third = describe(
        TEXTS,
        ["Coding"] * 3 + ["Translation", "Translation", "Linguistic"],
        tokens=[10, 20, 30, 5, 5, 5],
        num_modules=3,
        typical=2,
    )
    assert typical_ids(first) == ["b", "c"]
    assert not isinstance(first.prompts, Absent)
    assert first.prompts[0] == TypicalPrompt("b", TEXTS[1], 0.9, "Coding")
    assert (first.num_samples, first.num_units) == (3, 2)
    assert (second.num_samples, second.num_units) == (3, 3)
    assert first.length == (11.0, 15.0, 20.0, 25.0, 29.0)
    assert (first.stability, second.stability) == (0.0, 0.25)
    assert first.name.startswith("Coding: python")
    assert second.name.startswith("Translation / Linguistic: french")
    assert (third.name, third.prompts, third.length) == ("Module 2", (), None)


def test_describe_modules__without_texts_nothing_of_them_shows() -> None:
    first, _ = describe()
    assert first.keywords == first.prompts == NO_TEXTS
    assert (first.name, first.length) == ("Module 0", None)


def test_describe_modules__equal_prompts_are_shown_once() -> None:
    first, _ = describe(["same", "same", "other", "x", "y", "z"])
    assert typical_ids(first) == ["b", "c"]


def test_describe_modules__near_duplicates_come_after_others() -> None:
    texts = ["Write a poem", "Sort these words now: cat, dog", "Sort these words now: red, dog"]
    few, many = (describe([*texts, "x", "y", "z"], typical=count)[0] for count in (2, 3))
    assert typical_ids(few) == ["b", "a"]
    assert typical_ids(many) == ["b", "a", "c"]

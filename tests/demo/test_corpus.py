"""The demo's corpus: what a user may count on in train.parquet and test.parquet."""

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from jobs.demo.corpus import CATEGORIES, Pair, Splits, generate
from jobs.demo.corpus.base import distinct
from jobs.demo.corpus.phrases import LANGUAGES, PATTERNS, SENTENCES, WORDS
from jobs.demo.corpus.translation import LOCAL
from jobs.demo.write_corpus import HERE, SEED, write

from .answers import expected


@pytest.fixture(scope="module")
def splits() -> Splits:
    return generate(SEED, extra=300)


def prompts(splits: Splits, category: str) -> list[str]:
    groups = (splits.train, splits.test, splits.extra)
    return [pair.text for group in groups for pair in group[category]]


def test_categories__are_the_seven_of_the_paper() -> None:
    names = {"Coding", "Math", "Linguistic", "Knowledge", "Translation", "Ethical", "Writing"}
    assert set(CATEGORIES) == names
    assert len(CATEGORIES) == len(names)


def test_counts__each_category_has_150_train_and_30_test_prompts(splits: Splits) -> None:
    assert {name: len(pairs) for name, pairs in splits.train.items()} == dict.fromkeys(
        CATEGORIES, 150
    )
    assert {name: len(pairs) for name, pairs in splits.test.items()} == dict.fromkeys(
        CATEGORIES, 30
    )


def test_prompts__all_differ_and_no_split_shares_one(splits: Splits) -> None:
    everything = [text for category in CATEGORIES for text in prompts(splits, category)]
    assert len(everything) == 7 * (150 + 30 + 300)
    assert max(Counter(text.lower() for text in everything).values()) == 1


@pytest.mark.parametrize("category", CATEGORIES)
def test_prompts__differ_by_more_than_their_opening(splits: Splits, category: str) -> None:
    tested = {pair.text for pair in splits.test[category]}
    trained = {pair.text for pair in splits.train[category]}
    for text in tested:
        assert not any(other.endswith(text) or text.endswith(other) for other in trained)


@pytest.mark.parametrize("category", CATEGORIES)
def test_lengths__run_from_a_few_words_to_long_requests(splits: Splits, category: str) -> None:
    lengths = [len(text.split()) for text in prompts(splits, category)]
    assert 3 <= min(lengths) <= 10
    assert 40 <= max(lengths) <= 90
    assert len(set(lengths)) >= 20


@pytest.mark.parametrize("category", CATEGORIES)
def test_texts__are_whole_sentences_without_gaps(splits: Splits, category: str) -> None:
    pairs = [*splits.train[category], *splits.test[category], *splits.extra[category]]
    for pair in pairs:
        assert pair.text == pair.text.strip()
        assert pair.answer == pair.answer.strip()
        assert len(pair.answer) > 3
        for text in (pair.text, pair.answer):
            if category != "Coding":
                assert not re.search(r"[{}]|\bNone\b|  ", text), text


def test_same_seed__same_bytes(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        write(tmp_path / name, SEED)
    for file in ("train.parquet", "test.parquet"):
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes()


def test_other_seed__other_prompts(splits: Splits) -> None:
    other = generate(SEED + 1)
    for category in CATEGORIES:
        shared = {p.text for p in other.train[category]} & {p.text for p in splits.train[category]}
        assert len(shared) < 75


def test_extra__leaves_the_corpus_as_it_is(splits: Splits) -> None:
    alone = generate(SEED)
    assert alone.train == splits.train
    assert alone.test == splits.test
    assert all(pairs == [] for pairs in alone.extra.values())


@pytest.mark.parametrize("split", ["train", "test"])
def test_committed_files__are_what_the_generators_write(split: str, tmp_path: Path) -> None:
    write(tmp_path)
    fresh, kept = (pq.read_table(folder / f"{split}.parquet") for folder in (tmp_path, HERE))
    assert kept.column_names == ["id", "category", "text", "answer"]
    assert kept.equals(fresh)
    assert len(set(kept["id"].to_pylist())) == kept.num_rows


def test_math__answers_follow_from_the_questions(splits: Splits) -> None:
    for pairs in (splits.train, splits.test, splits.extra):
        for pair in pairs["Math"]:
            said = pair.answer.rpartition("The answer is ")[2].removesuffix(".")
            said = re.sub(r"^\$|^x = | (square |cubic )?(km|cm|m|hours|degrees)\b.*$", "", said)
            assert said == expected(pair.text), pair


def test_coding__python_answers_are_valid_code(splits: Splits) -> None:
    checked = 0
    for pair in [*splits.train["Coding"], *splits.extra["Coding"]]:
        for code in re.findall(r"```python\n(.*?)```", pair.answer, re.DOTALL):
            compile(code, "answer", "exec")
            checked += 1
    assert checked > 50


def test_coding__says_what_programs_print(
    splits: Splits, capsys: pytest.CaptureFixture[str]
) -> None:
    checked = 0
    for pair in [*splits.train["Coding"], *splits.extra["Coding"]]:
        if pair.answer.startswith("The program prints:"):
            code = re.findall(r"```python\n(.*?)```", pair.text, re.DOTALL)[0]
            exec(compile(code, "question", "exec"), {})
            assert pair.answer == f"The program prints:\n```\n{capsys.readouterr().out}```"
            checked += 1
    assert checked > 20


def test_coding__has_at_least_five_languages(splits: Splits) -> None:
    fences = Counter(
        fence
        for pair in splits.train["Coding"]
        for fence in set(re.findall(r"```([a-z]+)\n", pair.answer))
    )
    assert sum(count >= 3 for count in fences.values()) >= 8


def test_translation__has_at_least_four_languages_beside_english(splits: Splits) -> None:
    opening = {name: text.format("") for name, text in LOCAL.items()}
    asked = Counter(
        name
        for pair in splits.train["Translation"]
        for name in LANGUAGES
        if re.search(rf"\b{name}\b", pair.text) or opening.get(name, "\0") in pair.text
    )
    assert all(asked[name] >= 15 for name in LANGUAGES)
    assert len(LANGUAGES) - 1 >= 4


def test_translation__tables_hold_every_language() -> None:
    for row in (*SENTENCES, *PATTERNS, *WORDS):
        assert len(row) == len(LANGUAGES)
    for row in PATTERNS:
        assert all("{0}" in part and "{1}" in part for part in row)


def test_distinct__a_generator_that_repeats_itself_is_refused() -> None:
    with pytest.raises(ValueError, match="only 1 distinct prompts of the 2"):
        distinct(lambda _: Pair("the same", "again"), np.random.default_rng(0), 2)

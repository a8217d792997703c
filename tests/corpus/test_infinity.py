"""The paper's corpus: one category a prompt, cut by a seed, nothing in both splits."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ulcmod_dist.config.schema import CorpusConfig
from ulcmod_dist.corpus.infinity import (
    choose_categories,
    find_categories,
    load_category_map,
    split_infinity,
    write_split,
)
from ulcmod_dist.corpus.prompts import read_corpus
from ulcmod_dist.errors import InvalidInput


def row(number: int, text: str, *abilities: str, speaker: str = "human") -> dict[str, Any]:
    turns = [{"from": speaker, "value": text}, {"from": "gpt", "value": "An answer."}]
    return {"id": number, "conversations": turns, "label": {"ability_en": list(abilities)}}


@pytest.fixture
def published(tmp_path: Path) -> Path:
    rows = [
        row(number, f"{category} {number}", abilities[number % len(abilities)], "unlisted")
        for category, abilities in load_category_map().items()
        for number in range(6)
    ]
    rows += [
        row(90, "two", "code writing", "creative writing"),
        row(91, "none", "logical reasoning"),
        row(92, "robot", "code writing", speaker="gpt"),
        row(93, "Coding 0", "sql programming"),
        row(94, "no label"),
    ]
    for number, entry in enumerate(rows):
        entry["id"] = number
    path = tmp_path / "published.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def test_single_category__listed_abilities_must_agree() -> None:
    assert find_categories(["python programming", "code writing", "logic"]) == {"Coding"}
    assert find_categories(["python programming", "mathematical proof"]) == {"Coding", "Math"}
    assert find_categories(["logic"]) == set()


def test_split_infinity__cuts_each_category_and_counts_what_was_dropped(published: Path) -> None:
    split = split_infinity([str(published)], train=3, test=2, seed=1)
    for table, size in ((split.train, 3), (split.test, 2)):
        categories = table["category"].to_pylist()
        assert {name: categories.count(name) for name in load_category_map()} == dict.fromkeys(
            load_category_map(), size
        )
    assert not set(split.train["text"].to_pylist()) & set(split.test["text"].to_pylist())
    assert split.available == dict.fromkeys(load_category_map(), 6)
    assert split.dropped == {
        "abilities of several categories": 1,
        "no listed ability": 1,
        "no text by a human in the first turn, or no abilities": 2,
        "repeated text": 1,
    }


def test_split_infinity__seed_decides(published: Path) -> None:
    first, again, other = (
        split_infinity([str(published)], train=3, test=2, seed=seed).train for seed in (1, 1, 2)
    )
    assert first.equals(again)
    assert not first.equals(other)


def test_write_split__files_are_read_as_a_corpus(published: Path, tmp_path: Path) -> None:
    split = split_infinity([str(published)], train=2, test=1, categories=["Math", "Coding"])
    train, test = write_split(split, tmp_path / "corpus")
    prompts = read_corpus(
        CorpusConfig(train=(str(train),), test=(str(test),), category="category", id="id")
    )
    assert prompts.table["category"].to_pylist() == ["Coding"] * 2 + ["Math"] * 2 + [
        "Coding",
        "Math",
    ]


def test_split_infinity__too_few_prompts_are_counted(published: Path) -> None:
    with pytest.raises(InvalidInput, match=r"Too few prompts for 1000 train .*: Coding 6, Math 6"):
        split_infinity([str(published)])


def test_choose_categories__unknown_key_names_the_nearest() -> None:
    with pytest.raises(InvalidInput, match="'Maths'; the nearest known one is 'Math'"):
        choose_categories(["Maths"])


def test_split_infinity__other_files_are_refused(tmp_path: Path) -> None:
    odd = {"id": [1], "conversations": ["[3]"], "label": ["no JSON"]}
    pq.write_table(pa.table(odd), tmp_path / "x.parquet")
    with pytest.raises(InvalidInput, match=r"Coding 0, .* dropped were 1 with no text"):
        split_infinity([str(tmp_path)])
    pq.write_table(pa.table({"id": [1]}), tmp_path / "x.parquet")
    with pytest.raises(InvalidInput, match="no column 'conversations', 'label'"):
        split_infinity([str(tmp_path)])

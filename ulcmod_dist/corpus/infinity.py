"""The paper's corpus: train and test samples selected from the files of Infinity-Instruct.

Each published prompt is labelled with abilities; those in our map belong to one of seven
categories. A prompt is kept when all of its mapped abilities belong to the same category. The kept
prompts of each category are shuffled with a seed; the first are train samples, the next held out.
"""

import difflib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import yaml

from ulcmod_dist.corpus.columns import parse_json, reject_value, to_text
from ulcmod_dist.corpus.files import SourceFile, find_files
from ulcmod_dist.corpus.tables import read_table
from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.runtime.rundir import RunDir

SCHEMA = pa.schema([("id", pa.string()), ("category", pa.string()), ("text", pa.large_string())])
_FIELDS = ("id", "conversations", "label")


@dataclass(frozen=True)
class InfinitySplit:
    """The paper's corpus: tables like ``SCHEMA``, categories in the order of the map.

    No text is in both; ``available`` counts the kept prompts of each category before the split,
    ``dropped`` the dropped ones by reason.
    """

    train: pa.Table
    test: pa.Table
    available: Mapping[str, int]
    dropped: Mapping[str, int]


@cache
def load_category_map() -> Mapping[str, tuple[str, ...]]:
    """Abilities of each category, as the paper lists them."""
    text = files("ulcmod_dist.corpus").joinpath("infinity.yaml").read_text(encoding="utf-8")
    categories = yaml.safe_load(text)["categories"]
    return {name: tuple(abilities) for name, abilities in categories.items()}


def choose_categories(names: Sequence[str] | None) -> tuple[str, ...]:
    """The categories named, or all of them, in the order of the map."""
    known = load_category_map()
    for name in names or ():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
            raise InvalidInput(
                f"Unknown category {name!r}; the nearest known one is {near!r}.",
                f"The categories are {', '.join(known)}.",
            )
    return tuple(name for name in known if names is None or name in names)


def find_categories(abilities: Sequence[str]) -> set[str]:
    """The categories of the listed abilities among these."""
    return {
        category
        for category, listed in load_category_map().items()
        if not set(listed).isdisjoint(abilities)
    }


def split_infinity(
    locations: Sequence[str],
    *,
    train: int = 1000,
    test: int = 200,
    seed: int = 0,
    categories: Sequence[str] | None = None,
) -> InfinitySplit:
    """Select and split the paper's corpus from the published files.

    ``train`` and ``test`` are numbers of samples of each category; ``seed`` shuffles within each.
    All seven categories are taken by default.

    Raises:
        InvalidInput: Files cannot be read or lack the published fields, a category is not known,
            or one has too few prompts.
    """
    if train < 1 or test < 0:
        raise InvalidInput(f"{train} train and {test} test samples a category make no corpus.")
    wanted = choose_categories(categories)
    kept, dropped = _select(locations, wanted)
    available = {name: len(kept[name]) for name in wanted}
    scarce = {name: count for name, count in available.items() if count < train + test}
    if scarce:
        counts = ", ".join(f"{name} {count}" for name, count in scarce.items())
        reasons = ", ".join(f"{count} with {why}" for why, count in sorted(dropped.items()))
        raise InvalidInput(
            f"Too few prompts for {train} train and {test} test samples: {counts}; dropped were "
            f"{reasons or 'none'}.",
            "Give more files, or ask for fewer samples or other categories.",
        )
    rng = np.random.default_rng(seed)
    shuffled = {name: [kept[name][i] for i in rng.permutation(len(kept[name]))] for name in wanted}
    return InfinitySplit(
        train=_make_table(shuffled, 0, train),
        test=_make_table(shuffled, train, train + test),
        available=available,
        dropped=dict(sorted(dropped.items())),
    )


def write_split(split: InfinitySplit, folder: Path) -> tuple[Path, Path]:
    """Write ``train.parquet`` and ``test.parquet``; each appears whole or not at all."""
    directory = RunDir.at(folder)
    directory.write_parquet("train.parquet", split.train)
    directory.write_parquet("test.parquet", split.test)
    return folder / "train.parquet", folder / "test.parquet"


Row = tuple[str, str]


def _select(
    locations: Sequence[str], wanted: Sequence[str]
) -> tuple[dict[str, list[Row]], Counter[str]]:
    kept: dict[str, list[Row]] = {name: [] for name in wanted}
    dropped: Counter[str] = Counter()
    seen: set[str] = set()
    for location in locations:
        for source in find_files(location, "train"):
            for row_id, text, abilities in _iter_rows(source):
                categories = find_categories(abilities)
                reason = _explain_drop(text, abilities, categories, wanted, seen)
                if reason is not None:
                    dropped[reason] += 1
                else:
                    seen.add(text)
                    kept[categories.pop()].append((row_id, text))
    return kept, dropped


def _explain_drop(
    text: str,
    abilities: Sequence[str],
    categories: AbstractSet[str],
    wanted: Sequence[str],
    seen: set[str],
) -> str | None:
    """Why a prompt is dropped, or None if it is kept."""
    if not text.strip() or not abilities:
        return "no text by a human in the first turn, or no abilities"
    if len(categories) != 1:
        return "abilities of several categories" if categories else "no listed ability"
    if categories.isdisjoint(wanted):
        return "another category"
    return "repeated text" if text in seen else None


def _iter_rows(source: SourceFile) -> Iterator[tuple[str, str, list[str]]]:
    """Id, prompt (empty where there is none) and English abilities of each published row."""
    number, chats, label = _FIELDS
    table = read_table(source, [number], [chats, label])
    columns = (table[name].to_pylist() for name in _FIELDS)
    for row, (row_id, conversations, labels) in enumerate(zip(*columns, strict=True)):
        turns = _decode(conversations)
        first = turns[0] if isinstance(turns, list) and turns else None
        text = _get_field(first, "value") if _get_field(first, "from") == "human" else None
        abilities = _get_field(_decode(labels), "ability_en")
        try:
            prompt = to_text(text) if isinstance(text, str) else ""
        except ValueError as error:
            raise reject_value(source.path, row, chats, text, error) from error
        yield str(row_id), prompt or "", abilities if isinstance(abilities, list) else []


def _get_field(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None


def _decode(value: str | None) -> Any:
    """What a JSON text holds, or None if it is malformed."""
    try:
        return None if value is None else parse_json(value)
    except ValueError:
        return None


def _make_table(shuffled: Mapping[str, Sequence[Row]], start: int, stop: int) -> pa.Table:
    rows = [
        {"id": row_id, "category": name, "text": text}
        for name, kept in shuffled.items()
        for row_id, text in kept[start:stop]
    ]
    return pa.Table.from_pylist(rows, schema=SCHEMA)

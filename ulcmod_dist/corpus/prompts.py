"""The corpus: prompts read from files, checked, and cut into shards."""

import json
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ulcmod_dist.config.schema import CorpusConfig
from ulcmod_dist.corpus.chats import (
    Prompt,
    digest_prompt,
    encode_chat,
    list_user_texts,
    parse_chat,
)
from ulcmod_dist.corpus.columns import (
    MAX_SHOWN,
    blank_to_null,
    find_repeated,
    is_blank,
    join_first,
)
from ulcmod_dist.corpus.files import SourceFile, find_files
from ulcmod_dist.corpus.tables import read_table
from ulcmod_dist.errors import InvalidInput

SCHEMA = pa.schema(
    [
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("category", pa.string()),
        pa.field("text", pa.large_string(), nullable=False),
        pa.field("chat", pa.large_string()),
    ]
)
"""Columns of a corpus; texts have 64-bit offsets, since they may exceed 2 GiB together."""


@dataclass(frozen=True)
class Corpus:
    """The samples of a job in memory: train samples first, then held-out ones, a row each.

    Where the job names a column of messages, ``chat`` is their JSON and ``text`` the user's words
    joined by empty lines; else ``chat`` is null.
    """

    table: pa.Table

    def __post_init__(self) -> None:
        # One chunk a column, so that looking up a prompt does not search the chunks of all files.
        object.__setattr__(self, "table", self.table.cast(SCHEMA).combine_chunks())

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def prompt(self, index: int) -> Prompt:
        """The prompt at a row: its text, or its messages where the corpus holds chats."""
        chat = self.table["chat"][index].as_py()
        if chat is None:
            return str(self.table["text"][index].as_py())
        return tuple(json.loads(chat))

    def prompts(self, rows: Sequence[int]) -> list[Prompt]:
        """The prompts at several rows, in the order given."""
        return [self.prompt(row) for row in rows]

    def digests(self) -> list[str]:
        """SHA-256 (hexadecimal) of each prompt; equal prompts, equal digests."""
        return [digest_prompt(self.prompt(index)) for index in range(len(self))]


@dataclass(frozen=True)
class _Split:
    """The rows of one split as read, and the files that they came from."""

    name: str
    sources: tuple[SourceFile, ...]
    tables: tuple[pa.Table, ...]

    def column(self, name: str) -> pa.ChunkedArray:
        chunks = [chunk for table in self.tables for chunk in table[name].chunks]
        return pa.chunked_array(chunks, pa.large_string())

    def rows(self) -> int:
        return sum(table.num_rows for table in self.tables)

    def describe_row(self, row: int) -> str:
        """A row of the split as the row of its file, counted from 0."""
        ends = list(accumulate(table.num_rows for table in self.tables))
        number = int(np.searchsorted(ends, row, side="right"))
        start = ends[number - 1] if number else 0
        return f"row {row - start} of {self.sources[number].path}"


def read_corpus(corpus: CorpusConfig) -> Corpus:
    """Read and check the samples of a job: train first, then held-out ones, files in path order.

    Chats are lists of messages or such lists as JSON, see `parse_chat`. A null category means none.
    Without a column of ids, ids are ``<split>-<row>``, counted from row 0.

    Raises:
        InvalidInput: Something cannot be read, a column is missing, an id occurs twice or a text
            is missing or empty; rows are named by file and number.
    """
    splits = [_read_split("train", corpus.train, corpus)]
    if corpus.test:
        splits.append(_read_split("test", corpus.test, corpus))
    tables = [_make_table(split, corpus) for split in splits]
    _require_unique_ids(splits, tables)
    return Corpus(pa.concat_tables(tables))


def _read_split(name: str, locations: Iterable[str], corpus: CorpusConfig) -> _Split:
    sources = tuple(file for location in locations for file in find_files(location, name))
    named = (corpus.text, corpus.category, corpus.id)
    texts = [column for column in named if column is not None]
    chats = [] if corpus.messages is None else [corpus.messages]
    tables = tuple(read_table(file, texts, chats) for file in sources)
    split = _Split(name, sources, tables)
    if split.rows() == 0:
        raise InvalidInput(f"The {name} samples at {', '.join(locations)} have no rows.")
    return split


def _make_table(split: _Split, corpus: CorpusConfig) -> pa.Table:
    rows = split.rows()
    if corpus.messages is None:
        texts = _read_texts(split, str(corpus.text))
        chats: pa.ChunkedArray | pa.Array = pa.nulls(rows, pa.large_string())
    else:
        texts, chats = _read_chats(split, corpus.messages)
    arrays = {
        "sample_id": _read_ids(split, corpus.id),
        "split": pa.repeat(pa.scalar(split.name, pa.string()), rows),
        "category": _read_labels(split, corpus.category),
        "text": texts,
        "chat": chats,
    }
    return pa.table(arrays).cast(SCHEMA)


def _raise_for_rows(
    split: _Split,
    faulty: Sequence[int],
    fault: str,
    remedy: str,
    reasons: Mapping[int, str] | None = None,
) -> None:
    """Raise if there are faulty rows: their number and the first few of them, with ``reasons``."""
    if not faulty:
        return
    places = [
        split.describe_row(row) + (f": {reasons[row]}" if reasons else "")
        for row in faulty[:MAX_SHOWN]
    ]
    raise InvalidInput(
        f"{len(faulty)} of {split.rows()} {split.name} samples {fault}: "
        f"{join_first(places, len(faulty))}.",
        remedy,
    )


def _read_texts(split: _Split, name: str) -> pa.ChunkedArray:
    column = split.column(name)
    faulty = np.flatnonzero(is_blank(column).to_numpy()).tolist()
    _raise_for_rows(split, faulty, f"have no text in {name!r}", "Correct or remove them.")
    return column


def _read_labels(split: _Split, name: str | None) -> pa.ChunkedArray | pa.Array:
    if name is None:
        return pa.nulls(split.rows(), pa.string())
    return blank_to_null(split.column(name))


def _read_ids(split: _Split, name: str | None) -> pa.ChunkedArray | pa.Array:
    if name is None:
        return pa.array([f"{split.name}-{row}" for row in range(split.rows())], pa.string())
    ids = _read_labels(split, name)
    faulty = np.flatnonzero(pc.is_null(ids).to_numpy()).tolist()
    _raise_for_rows(split, faulty, f"have no id in {name!r}", "Correct or remove them.")
    return ids


def _require_unique_ids(splits: Sequence[_Split], tables: Sequence[pa.Table]) -> None:
    ids = [sample_id for table in tables for sample_id in table["sample_id"].to_pylist()]
    repeated = find_repeated(ids)
    if not repeated:
        return
    places = [
        f"{ids[row]!r} ({_describe_row(splits, row)}, before: {_describe_row(splits, before)})"
        for row, before in repeated[:MAX_SHOWN]
    ]
    raise InvalidInput(
        f"{len(repeated)} ids occur again: {join_first(places, len(repeated))}.",
        "Ids are unique over train and test samples.",
    )


def _describe_row(splits: Sequence[_Split], row: int) -> str:
    """A row of the corpus as the row of its file."""
    train = splits[0].rows()
    return splits[0].describe_row(row) if row < train else splits[1].describe_row(row - train)


def _read_chats(split: _Split, name: str) -> tuple[pa.Array, pa.Array]:
    """The user's text and the JSON of every chat."""
    texts, chats = [], []
    faults: dict[int, str] = {}
    for row, encoded in enumerate(split.column(name).to_pylist()):
        try:
            messages = parse_chat(encoded)
            chats.append(encode_chat(messages))
            texts.append("\n\n".join(list_user_texts(messages)))
        except ValueError as error:
            faults[row] = str(error)
    _raise_for_rows(
        split,
        list(faults),
        f"have no chat in {name!r}",
        "A chat is a list of messages {role, content} or {from, value}.",
        faults,
    )
    return pa.array(texts, pa.large_string()), pa.array(chats, pa.large_string())


def plan_shards(
    digests: Sequence[str], known: AbstractSet[str], shard_samples: int
) -> list[tuple[int, ...]]:
    """Cut the prompts that are not committed yet into shards, in corpus order.

    A prompt with a known digest is reused, so prompts added to a corpus form new shards and leave
    the old ones as they are. Samples with equal prompts share one row.

    Each shard is the indices of its ``shard_samples`` samples; the last takes the rest.
    """
    if shard_samples < 1:
        raise InvalidInput(f"A shard holds at least 1 sample, not {shard_samples}.")
    first_rows: dict[str, int] = {}
    for row, digest in enumerate(digests):
        first_rows.setdefault(digest, row)
    rows = [row for digest, row in first_rows.items() if digest not in known]
    starts = range(0, len(rows), shard_samples)
    return [tuple(rows[start : start + shard_samples]) for start in starts]

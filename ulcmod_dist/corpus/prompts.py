"""The corpus: prompts read from files, checked, and cut into shards."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ulcmod_dist.config.schema import CorpusConfig
from ulcmod_dist.corpus.chats import (
    ANSWERING_ROLES,
    Prompt,
    digest_prompt,
    encode_chat,
    list_user_texts,
    parse_chat,
)
from ulcmod_dist.corpus.columns import blank_to_null, is_blank
from ulcmod_dist.corpus.digests import Digests, find_digests, join_digests
from ulcmod_dist.corpus.files import find_files
from ulcmod_dist.corpus.tables import Rows, read_table
from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.runtime.rundir import fingerprint

SCHEMA = pa.schema(
    [
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("category", pa.string()),
        pa.field("text", pa.large_string(), nullable=False),
        pa.field("chat", pa.large_string()),
        pa.field("answer", pa.large_string()),
    ]
)
"""Columns of a corpus; texts have 64-bit offsets, since they may exceed 2 GiB together."""

_BLOCK = 2**14
"""Prompts that are Python objects at a time, where all are gone through."""


@dataclass(frozen=True)
class Corpus:
    """The samples of a job in memory: train samples first, then held-out ones, a row each.

    Where the job names a column of messages, ``chat`` is their JSON and ``text`` the user's words
    joined by empty lines; else ``chat`` is null. ``answer`` is null where there is none.
    """

    table: pa.Table
    files: str = ""  # see `fingerprint_files`; from before they were read

    def __post_init__(self) -> None:
        # One chunk a column, so that looking up a prompt does not search the chunks of all files.
        object.__setattr__(self, "table", self.table.cast(SCHEMA).combine_chunks())

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def describe_row(self, row: int) -> str:
        """The sample at a row, for messages: its id, and its row among those of its split."""
        split = self.table["split"][row].as_py()
        number = row - pc.index(self.table["split"], split).as_py()
        return f"{self.table['sample_id'][row].as_py()} (row {number} of the {split} samples)"

    @property
    def has_chats(self) -> bool:
        """Whether a prompt may be a chat."""
        return bool(self.table["chat"].null_count < len(self))

    def fingerprint(self) -> str:
        """SHA-256 of what the samples are; answers are no part of it."""
        total = hashlib.sha256()
        for column in self.table.drop_columns("answer").columns:
            for chunk in column.chunks:
                _hash_texts(total, chunk)
        return total.hexdigest()

    def prompt(self, row: int) -> Prompt:
        """The prompt at a row."""
        return self.prompts([row])[0]

    def prompts(self, rows: Sequence[int] | NDArray[np.int64]) -> list[Prompt]:
        """The prompts at several rows, in the order given: texts, or the messages of chats."""
        return _parse_prompts(self.table.select(["text", "chat"]).take(pa.array(rows, pa.int64())))

    def blocks(self) -> Iterator[list[Prompt]]:
        """All prompts in order, some thousands at a time."""
        columns = self.table.select(["text", "chat"])
        for start in range(0, len(self), _BLOCK):
            yield _parse_prompts(columns.slice(start, _BLOCK))

    def digests(self) -> Digests:
        """The digest of each prompt; equal prompts, equal digests."""
        return join_digests(b"".join(map(digest_prompt, block)) for block in self.blocks())

    def sizes(self) -> NDArray[np.int64]:
        """Bytes of UTF-8 of each prompt; of a chat, of its JSON."""
        column = pc.coalesce(self.table["chat"], self.table["text"])
        return np.asarray(pc.binary_length(column), np.int64)


def _hash_texts(total: Any, texts: pa.Array) -> None:
    """Add the lengths of texts, -1 for null, and their bytes to a hash."""
    filled = pc.fill_null(texts, "")
    _, offsets, data = filled.buffers()
    kind = np.int64 if pa.types.is_large_string(texts.type) else np.int32
    bounds = np.frombuffer(offsets, kind)[filled.offset : filled.offset + len(filled) + 1]
    total.update(np.where(texts.is_null(), -1, np.diff(bounds)).astype(np.int64))
    total.update(memoryview(data or b"")[bounds[0] : bounds[-1]])


def fingerprint_files(corpus: CorpusConfig) -> str:
    """SHA-256 of the files of a corpus and of how the job reads them; parses none of them."""
    files = [
        [split, file.fingerprint()]
        for split, locations in (("train", corpus.train), ("test", corpus.test))
        for location in locations
        for file in find_files(location, split)
    ]
    return fingerprint({"files": files, "config": corpus.model_dump(mode="json")})


def _parse_prompts(columns: pa.Table) -> list[Prompt]:
    pairs = zip(columns["text"].to_pylist(), columns["chat"].to_pylist(), strict=True)
    return [text if chat is None else tuple(json.loads(chat)) for text, chat in pairs]


def read_corpus(corpus: CorpusConfig) -> Corpus:
    """Read and check the samples of a job: train first, then held-out ones, files in path order.

    Chats are lists of messages or such lists as JSON, see `parse_chat`. A null category means none.
    Without a column of ids, ids are ``<split>-<row>``, counted from row 0.

    Raises:
        InvalidInput: Something cannot be read, a column is missing, an id occurs twice or a text
            is missing or empty; rows are named by file and number.
    """
    files = fingerprint_files(corpus)
    splits = {"train": _read_rows("train", corpus.train, corpus)}
    if corpus.test:
        splits["test"] = _read_rows("test", corpus.test, corpus)
    table = pa.concat_tables(_make_table(name, rows, corpus) for name, rows in splits.items())
    sources = tuple(source for rows in splits.values() for source in rows.sources)
    tables = tuple(part for rows in splits.values() for part in rows.tables)
    if corpus.id is not None:
        Rows("samples", sources, tables).reject_repeated(table["sample_id"], "ids")
    return Corpus(table, files)


def _read_rows(split: str, locations: Iterable[str], corpus: CorpusConfig) -> Rows:
    sources = tuple(file for location in locations for file in find_files(location, split))
    named = (corpus.text, corpus.category, corpus.id, corpus.answer)
    texts = [column for column in named if column is not None]
    chats = [] if corpus.messages is None else [corpus.messages]
    tables = tuple(read_table(file, texts, chats) for file in sources)
    rows = Rows(f"{split} samples", sources, tables)
    if len(rows) == 0:
        raise InvalidInput(f"The {split} samples at {', '.join(locations)} have no rows.")
    return rows


def _make_table(split: str, rows: Rows, corpus: CorpusConfig) -> pa.Table:
    count = len(rows)
    if corpus.messages is None:
        texts = _read_texts(rows, str(corpus.text))
        chats: pa.ChunkedArray | pa.Array = pa.nulls(count, pa.large_string())
    else:
        texts, chats = _read_chats(rows, corpus.messages)
    arrays = {
        "sample_id": pc.binary_join_element_wise(split, pa.array(range(count)).cast("str"), "-")
        if corpus.id is None
        else rows.ids(corpus.id),
        "split": pa.repeat(pa.scalar(split, pa.string()), count),
        "category": pa.nulls(count, pa.string())
        if corpus.category is None
        else rows.labels(corpus.category),
        "text": texts,
        "chat": chats,
        "answer": pa.nulls(count, pa.large_string())
        if corpus.answer is None
        else _read_answers(rows, corpus.answer, chats),
    }
    return pa.table(arrays).cast(SCHEMA)


def _read_texts(rows: Rows, name: str) -> pa.ChunkedArray:
    column = rows.column(name)
    rows.reject(np.flatnonzero(is_blank(column).to_numpy()), f"have no text in {name!r}")
    return column


def _read_chats(rows: Rows, name: str) -> tuple[pa.Array, pa.Array]:
    """The user's text and the JSON of every chat."""
    texts, chats = [], []
    faults: dict[int, str] = {}
    for row, encoded in enumerate(rows.column(name).to_pylist()):
        try:
            messages = parse_chat(encoded)
            chats.append(encode_chat(messages))
            texts.append("\n\n".join(list_user_texts(messages)))
        except ValueError as error:
            faults[row] = str(error)
    rows.reject(
        list(faults),
        f"have no chat in {name!r}",
        "A chat is a list of messages {role, content} or {from, value}.",
        faults,
    )
    return pa.array(texts, pa.large_string()), pa.array(chats, pa.large_string())


def _read_answers(rows: Rows, name: str, chats: pa.Array) -> pa.ChunkedArray:
    """The expected answers, null where there is none; no chat that has one ends with another."""
    answers = blank_to_null(rows.column(name))
    given = zip(answers.is_valid().to_pylist(), chats.to_pylist(), strict=True)
    closed = [
        row
        for row, (is_answered, chat) in enumerate(given)
        if is_answered and chat and json.loads(chat)[-1]["role"] in ANSWERING_ROLES
    ]
    remedy = "End the chat with the turn before, or leave its answer blank."
    rows.reject(closed, f"have an answer in {name!r} after a chat that ends with one", remedy)
    return answers


def plan_shards(
    digests: Digests, known: Digests, splits: NDArray[np.int32], shard_samples: int
) -> list[NDArray[np.int64]]:
    """Cut the prompts that are not committed yet into shards, in corpus order.

    A prompt with a known digest is reused, so prompts added to a corpus form new shards and leave
    the old ones as they are. Samples with equal prompts share one row. Shards never mix splits, so
    that the statistics of the train samples merge from theirs.

    Each shard is the rows of its ``shard_samples`` samples; the last of a split takes the rest.
    """
    if shard_samples < 1:
        raise InvalidInput(f"A shard holds at least 1 sample, not {shard_samples}.")
    is_new = find_digests(digests, digests) == np.arange(len(digests))
    is_new &= find_digests(digests, known) < 0
    parts = (np.flatnonzero(is_new & (splits == number)) for number in np.unique(splits))
    return [
        rows[start : start + shard_samples]
        for rows in parts
        for start in range(0, len(rows), shard_samples)
    ]

"""The corpus in memory: every prompt of a job with its id, split and category."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

import pyarrow as pa

from ulcmod_dist.runtime.rundir import fingerprint

SCHEMA = pa.schema(
    [
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("category", pa.string()),
        pa.field("text", pa.large_string(), nullable=False),
        pa.field("chat", pa.large_string()),
    ]
)
"""Columns of a corpus; offsets of 64 bits, since texts may exceed 2 GiB together."""


class Message(TypedDict):
    """One turn of a chat: who speaks and what is said."""

    role: str
    content: str


Prompt = str | tuple[Message, ...]


@dataclass(frozen=True)
class Prompts:
    """The samples of a job in corpus order: train samples first, then held-out ones.

    Attributes:
        table: One row a sample, columns as in ``SCHEMA``. ``chat`` is the canonical JSON of the
            messages where the job names a messages column, else null; ``text`` is then the user's
            messages joined by empty lines.
    """

    table: pa.Table

    def __post_init__(self) -> None:
        # One chunk a column makes the lookup of a single prompt independent of the files' sizes.
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
        """SHA-256 (hexadecimal) of each prompt's canonical JSON; equal prompts, equal digests."""
        return [fingerprint(self.prompt(index)) for index in range(len(self))]

"""A model that is arithmetic: exact, quick, and able to fail where a test asks for it."""

import errno
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ulcmod_dist.corpus.chats import Prompt
from ulcmod_dist.corpus.prompts import SCHEMA, Corpus
from ulcmod_dist.forward.architectures import LayerUnits
from ulcmod_dist.forward.batches import (
    NonFiniteActivation,
    PooledActivations,
    PromptTooLarge,
    RefusedPrompt,
    TokenizedPrompt,
)

UNITS = (LayerUnits(0, "layers.0.mlp.down_proj", 5), LayerUnits(1, "layers.1.mlp.down_proj", 7))
EXPERTS = (*UNITS, LayerUnits(2, "layers.2.mlp.experts", 4, 0), LayerUnits(2, "e", 4, 1))
RECORD = {"model.id": "fake", "model.dtype": "float32", "prompt.tokenizer": "letters"}

# What a machine does, and no prompt.
MACHINE: dict[str, Exception] = {
    "disk": OSError(errno.ENOSPC, "No space left on device", "/tmp/spilled"),
    "ecc": RuntimeError("CUDA error: uncorrectable ECC error encountered"),
}


def row_of(ids: Sequence[int], width: int) -> np.ndarray:
    """Activations that follow from the tokens alone."""
    unit = np.arange(1, width + 1, dtype=np.float32)
    return np.float32(sum(ids) % 97) / unit + np.float32(len(ids))


@dataclass
class FakeForward:
    """Tokens are letters; a row is arithmetic on them.

    Attributes:
        units: What it says it captures.
        seconds: Time a batch takes.
        largest: Batches of more prompts than this do not fit into memory and are halved.
        poison: Word -> what a batch with it does: nan, large, raise, kill, eat (memory); or
            one of `MACHINE`.
        refused: Word whose prompts cannot be tokenized.
        illness: File without which no word is poison.
        gate: File that batches wait for.
        free_batches: Number of first batches that do not wait for it.
        marks: Folder that gets a file for each batch that is run.
    """

    units: tuple[LayerUnits, ...] = UNITS
    seconds: float = 0.0
    largest: int = 10**9
    poison: dict[str, str] = field(default_factory=dict)
    refused: str | None = None
    illness: str | None = None
    marks: str | None = None
    gate: str | None = None
    free_batches: int = 0
    started: int = 0

    def encode(self, prompts: Sequence[Prompt]) -> list[TokenizedPrompt]:
        for position, prompt in enumerate(prompts):
            if self.refused is not None and self.refused in str(prompt):
                raise RefusedPrompt(position, "The prompt is too long.")
        return [
            TokenizedPrompt(tuple(map(ord, str(prompt))), (True,) * len(str(prompt)))
            for prompt in prompts
        ]

    def run(self, batch: Sequence[TokenizedPrompt]) -> tuple[PooledActivations, tuple[int, ...]]:
        if len(batch) > self.largest:
            middle = len(batch) // 2
            parts = [self.run(batch[:middle]), self.run(batch[middle:])]
            return PooledActivations.concatenate([rows for rows, _ in parts]), parts[0][1] + parts[
                1
            ][1]
        time.sleep(self.seconds)
        self.started += 1
        is_free = self.gate is None or self.started <= self.free_batches
        while not is_free and not Path(str(self.gate)).exists():
            time.sleep(0.02)
        for position, entry in enumerate(batch):
            self._suffer("".join(map(chr, entry.ids)), position)
        if self.marks is not None:
            name = f"{time.time_ns()}-{os.getpid()}-{len(batch)}"
            Path(self.marks, name).touch()
        width = sum(part.width for part in self.units)
        slots = sum(part.expert is not None for part in self.units)
        rows = np.array([row_of(entry.ids, width) for entry in batch], np.float32)
        counts = [[len(entry.ids) % (slot + 2) for slot in range(slots)] for entry in batch]
        return PooledActivations(rows, np.array(counts, np.int32) if slots else None), (len(batch),)

    def _suffer(self, text: str, position: int) -> None:
        for word, what in self.poison.items():
            if word not in text or (self.illness is not None and not Path(self.illness).exists()):
                continue
            if what == "nan":
                raise NonFiniteActivation(position, f"The prompt at position {position} gives nan.")
            if what == "large":
                raise PromptTooLarge("A prompt does not fit.")
            if what == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if what == "eat":
                eaten: list[bytes] = []
                while len(eaten) < 80:  # at most 8 GiB
                    eaten.append(b"x" * (100 * 2**20))
                    time.sleep(0.05)
                return
            if what in MACHINE:
                raise MACHINE[what]
            raise RuntimeError(f"device assert on {word}")


@dataclass(frozen=True)
class FakeFactory:
    """Makes the fake in an actor."""

    options: tuple[tuple[str, Any], ...] = ()

    def __call__(self) -> FakeForward:
        return FakeForward(**dict(self.options))


def fake(**options: Any) -> FakeFactory:
    return FakeFactory(tuple(options.items()))


@dataclass(frozen=True)
class SlowStore:
    """Notes when each point of each shard is passed; a written shard takes long to be checked."""

    folder: str

    def __call__(self, point: str, digest: str) -> None:
        (Path(self.folder) / f"{time.time_ns()}-{point}-{digest}").touch()
        time.sleep(0.5 if point == "written" else 0)


def prompts_of(texts: Sequence[str], test: int = 0) -> Corpus:
    count = len(texts)
    return Corpus(
        pa.table(
            {
                "sample_id": [f"s{number}" for number in range(count)],
                "split": ["train"] * (count - test) + ["test"] * test,
                "category": [f"c{number % 3}" for number in range(count)],
                "text": list(texts),
                "chat": pa.nulls(count, pa.large_string()),
                "answer": pa.nulls(count, pa.large_string()),
            },
            schema=SCHEMA,
        )
    )


def words(count: int, start: int = 0) -> list[str]:
    """Different texts of different lengths."""
    return [f"prompt {number} " + "x" * (number * 7 % 23) for number in range(start, start + count)]


def expected(texts: Sequence[str], width: int = 12) -> np.ndarray:
    return np.array([row_of(tuple(map(ord, text)), width) for text in texts], np.float32)

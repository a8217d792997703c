"""Prompts that could not be computed: named, with the reason, until someone asks for a retry."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from ulcmod_dist.runtime.rundir import RunDir
from ulcmod_dist.store.checksums import dump_checksummed, load_checksummed
from ulcmod_dist.store.schema import QUARANTINE, quarantine_key


@dataclass(frozen=True)
class QuarantineEntry:
    """A prompt that failed too often.

    Attributes:
        prompt: Its digest.
        sample_ids: Samples with this prompt.
        reason: What went wrong the last time, in one line.
        attempts: How often it was tried.
    """

    prompt: str
    sample_ids: tuple[str, ...]
    reason: str
    attempts: int


def add_to_quarantine(run: RunDir, entry: QuarantineEntry) -> None:
    """Put a prompt into quarantine; a later run leaves it out."""
    run.write(quarantine_key(entry.prompt), dump_checksummed(asdict(entry)))


def read_quarantine(run: RunDir) -> dict[str, QuarantineEntry]:
    """What is in quarantine, by the prompt's digest.

    Raises:
        CorruptionError: An entry's bytes have changed.
    """
    found = {}
    for key, _ in run.keys(QUARANTINE):
        value = load_checksummed(run.read(key), run.show(key))
        entry = QuarantineEntry(**{**value, "sample_ids": tuple(value["sample_ids"])})
        found[entry.prompt] = entry
    return found


def clear_quarantine(run: RunDir) -> int:
    """Let every prompt out of quarantine, to be tried again; returns how many there were."""
    keys = [key for key, _ in run.keys(QUARANTINE)]
    for key in keys:
        run.delete(key)
    return len(keys)

"""Prompts that could not be computed: named, with the reason, until someone asks for a retry."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from ulcmod_dist.runtime.rundir import RunDir
from ulcmod_dist.store.schema import QUARANTINE, quarantine_key
from ulcmod_dist.store.sealed import seal, unseal


@dataclass(frozen=True)
class Quarantined:
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


def quarantine(run: RunDir, entry: Quarantined) -> None:
    """Put a prompt into quarantine; a later run leaves it out."""
    run.write(quarantine_key(entry.prompt), seal(asdict(entry)))


def quarantined(run: RunDir) -> dict[str, Quarantined]:
    """What is in quarantine, by the prompt's digest.

    Raises:
        Damaged: An entry's bytes have changed.
    """
    found = {}
    for key, _ in run.keys(QUARANTINE):
        value = unseal(run.read(key), run.show(key))
        entry = Quarantined(**{**value, "sample_ids": tuple(value["sample_ids"])})
        found[entry.prompt] = entry
    return found


def release_quarantined(run: RunDir) -> int:
    """Let every prompt out of quarantine, to be tried again; returns how many there were."""
    keys = [key for key, _ in run.keys(QUARANTINE)]
    for key in keys:
        run.delete(key)
    return len(keys)

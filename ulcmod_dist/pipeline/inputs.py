"""What an extraction was made from, noted so that a rerun sees whether it has changed.

The record of a store says the same in more words, but takes the model's configuration and tokenizer
and so torch to make.
"""

from __future__ import annotations

from collections.abc import Sequence

from ulcmod_dist.config.job import Job
from ulcmod_dist.corpus.prompts import Corpus
from ulcmod_dist.forward.provenance import FORWARD_VERSION, get_model_cache_key
from ulcmod_dist.runtime.rundir import RunDir, fingerprint
from ulcmod_dist.store.records import list_snapshots

EXTRACTED = "status/extracted.json"


def inputs_mark(job: Job, prompts: Corpus, digests: Sequence[str]) -> str:
    """Fingerprint of the corpus, the model and how its prompts become tokens."""
    assert job.model is not None
    columns = {name: prompts.table[name].to_pylist() for name in ("sample_id", "split", "category")}
    model = job.model.model_dump(mode="json", exclude={"id", "revision"})
    return fingerprint(
        {
            "samples": {**columns, "prompt": list(digests)},
            "model": {**model, "source": get_model_cache_key(job.model)},
            "prompt": job.prompt.model_dump(mode="json"),
            "forward": FORWARD_VERSION,
        }
    )


def note_extracted(run: RunDir, mark: str) -> None:
    """Note what the newest view of a run was made from."""
    run.write_json(EXTRACTED, {"fingerprint": mark, "view": list_snapshots(run)[-1]})


def is_extracted(run: RunDir, mark: str) -> bool:
    """Whether the newest view of a run was made from just that."""
    try:
        noted = run.read_json(EXTRACTED)
    except FileNotFoundError:
        return False
    there = list_snapshots(run)
    return bool(there) and bool(noted == {"fingerprint": mark, "view": there[-1]})

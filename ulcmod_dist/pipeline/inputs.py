"""What a snapshot is made from beside the keys of the job."""

from __future__ import annotations

from collections.abc import Sequence

from ulcmod_dist.config.job import Job
from ulcmod_dist.corpus.prompts import Corpus
from ulcmod_dist.forward.provenance import FORWARD_VERSION, get_model_cache_key
from ulcmod_dist.runtime.rundir import fingerprint


def observe_inputs(job: Job, corpus: Corpus, digests: Sequence[str]) -> dict[str, str]:
    """Corpus, model files and version of the forward pass.

    The provenance of a store says the same in more detail, but takes the model's configuration and
    tokenizer, and so torch, to make.
    """
    model = job.require_model()
    columns = {name: corpus.table[name].to_pylist() for name in ("sample_id", "split", "category")}
    return {
        "corpus": fingerprint({**columns, "prompt": list(digests)}),
        "model files": fingerprint(get_model_cache_key(model)),
        "forward pass": FORWARD_VERSION,
    }

"""What steps read of a run's corpus and model beside its store."""

import logging
from collections.abc import Mapping

from ulcmod_dist.api import Run
from ulcmod_dist.config.job import Job
from ulcmod_dist.corpus.prompts import Corpus, read_corpus
from ulcmod_dist.errors import InvalidInput, UlcmodError
from ulcmod_dist.forward.provenance import get_forward_version, get_model_cache_key
from ulcmod_dist.results.types import Absent
from ulcmod_dist.runtime.rundir import fingerprint

CORPUS_FILES = "corpus files"
"""Fact in the record of a snapshot: the files that the corpus was read from."""

logger = logging.getLogger(__name__)


def observe_inputs(job: Job, corpus: str) -> dict[str, str]:
    """The fingerprint of the corpus, the model files and the version of the forward pass.

    The provenance of a store says the same in more detail, but takes the model's configuration and
    tokenizer, and so torch, to make.
    """
    model = job.require_model()
    return {
        "corpus": corpus,
        "model files": fingerprint(get_model_cache_key(model)),
        "forward pass": get_forward_version(model),
    }


def observe_answers(corpus: Corpus) -> dict[str, str]:
    """The expected answers, on which nothing but ablation depends."""
    table = corpus.table.filter(corpus.table["answer"].is_valid())
    return {"answers": fingerprint(table.select(["sample_id", "answer"]).to_pydict())}


def read_texts(job: Job, run: Run) -> dict[str, str] | Absent:
    """Text of each sample of the run by its id, read again from the corpus; or why there is none.

    An unreadable or changed corpus costs the texts, never the rest of the evaluation.
    """
    if job.report.prompts == "none":
        return Absent("The job leaves the prompts' texts out (report.prompts is none).")
    if job.corpus is None:
        return Absent("The matrix was imported without its prompts.")
    try:
        table = read_corpus(job.corpus).table
    except UlcmodError as error:
        reason = f"The corpus could not be read again: {error.fact}"
        logger.warning(reason)
        return Absent(reason)
    texts = dict(zip(table["sample_id"].to_pylist(), table["text"].to_pylist(), strict=True))
    missing = [sample_id for sample_id in run.sample_ids(None) if sample_id not in texts]
    if missing:
        reason = (
            f"The corpus has changed since extraction: {len(missing)} samples are no longer in it, "
            f"the first is {missing[0]}."
        )
        logger.warning(reason)
        return Absent(reason)
    return texts


def read_run_corpus(job: Job, run: Run, split: str | None = "train") -> Corpus:
    """The corpus of a run, read again; it still has the samples of the split (None: all).

    Raises:
        InvalidInput: It cannot be read, or lacks samples of the run.
    """
    assert job.corpus is not None
    prompts = read_corpus(job.corpus)
    known = set(prompts.table["sample_id"].to_pylist())
    missing = [sample_id for sample_id in run.sample_ids(split) if sample_id not in known]
    if missing:
        raise InvalidInput(
            f"The corpus has changed since extraction: it lacks {len(missing)} samples, the first "
            f"is {missing[0]}.",
            "Restore the corpus, or extract it again.",
        )
    return prompts


def explain_no_ablation(provenance: Mapping[str, str]) -> str | None:
    """Why ablation has no loss to measure, by the provenance of a store; None where it has."""
    if "model.architecture" not in provenance:
        return "The matrix was imported without its model, so no unit can be ablated."
    # transformers takes a second to import, which an imported matrix need not wait for.
    from ulcmod_dist.forward.architectures import is_decoder

    if is_decoder(provenance["model.architecture"]):
        return None
    return (
        f"{provenance['model.id']} is an encoder without a head that predicts the next token, so "
        "its prompts have no loss that ablating a module could increase."
    )

"""The prompts' texts for those stages that show them; a store keeps none."""

from __future__ import annotations

import logging

from ulcmod_dist.api import Run
from ulcmod_dist.corpus.prompts import read_corpus
from ulcmod_dist.errors import UlcmodError
from ulcmod_dist.pipeline.context import Context
from ulcmod_dist.results.types import Absent

logger = logging.getLogger(__name__)


def texts_of(context: Context, run: Run) -> dict[str, str] | Absent:
    """Text of each sample of the run by its id, read again from the corpus; or why there is none.

    An unreadable or changed corpus costs the texts, never the rest of the evaluation.
    """
    job = context.job
    if job.report.prompts == "none":
        return Absent("The job leaves the prompts' texts out (report.prompts is none).")
    if job.corpus is None:
        return Absent("The matrix was imported without its prompts.")
    try:
        table = read_corpus(job.corpus).table
    except UlcmodError as error:
        return _without(f"The corpus could not be read again: {error.fact}")
    texts = dict(zip(table["sample_id"].to_pylist(), table["text"].to_pylist(), strict=True))
    missing = [sample_id for sample_id in run.sample_ids(None) if sample_id not in texts]
    if missing:
        return _without(
            f"The corpus has changed since extraction: {len(missing)} samples are no longer in "
            f"it, the first is {missing[0]}.",
        )
    return texts


def _without(reason: str) -> Absent:
    logger.warning(reason)
    return Absent(reason)

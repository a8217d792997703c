"""``ulcmod extract``: the forward passes of a job, into its activation store."""

from ulcmod_dist.extract.driver import extract as run_extraction
from ulcmod_dist.extract.monitor import ExtractionProgress
from ulcmod_dist.pipeline.context import Context, save_job, writing
from ulcmod_dist.pipeline.inputs import CORPUS_FILES, observe_inputs
from ulcmod_dist.pipeline.ledger import replacing
from ulcmod_dist.pipeline.plan import (
    check_search,
    dropping_unused_plan,
    make_model_loader,
    prepare_extraction,
)
from ulcmod_dist.pipeline.summary import Summary
from ulcmod_dist.runtime.progress import track
from ulcmod_dist.runtime.signals import defer_sigterm
from ulcmod_dist.store.records import describe_quarantine


def extract(context: Context, *, retry_quarantined: bool = False, update: bool = False) -> Summary:
    """Compute the rows that are not there yet and make the corpus the run's snapshot.

    With ``update``, corpus and model may have changed since an earlier extraction.

    Raises:
        InvalidInput: The job cannot be used, or the run was made from a different one.
        UlcmodError: The cluster, the disk or the model does not allow it.
    """
    with writing(context, "extract") as held:
        prepared = prepare_extraction(held, save=True, update=update)
        with (
            dropping_unused_plan(held),
            track(held.on_progress, "Extracting", prepared.plan.prompts, "prompts") as step,
            defer_sigterm() as stop,
        ):
            check_search(held.job, prepared)
            save_job(held)

            def show(progress: ExtractionProgress) -> None:
                note = (
                    f"{progress.tokens_per_second:,.0f} tokens/s, "
                    f"{progress.shards_done}/{progress.shards} shards, {progress.actors} actors"
                )
                if progress.failures:
                    note += f", {progress.failures} failures"
                step.update(progress.prompts_done, note, total=progress.prompts)

            done = run_extraction(
                held.run,
                prepared,
                make_model_loader(held.job, prepared),
                held.job.extract,
                fence=held.fence,
                retry_quarantined=retry_quarantined,
                on_progress=show,
                stop=stop,
            )
        inputs = observe_inputs(held.job, prepared.prompts.fingerprint())
        snapshot = done.snapshot
        samples, units = snapshot.samples.num_rows, snapshot.units.num_rows
        with replacing(held, "snapshot", observed=inputs) as record:
            record.identity = snapshot.digest
            record.facts = {"version": snapshot.version, "samples": samples, "units": units}
            record.facts[CORPUS_FILES] = prepared.prompts.files
    facts = {
        "samples": samples,
        "reused": done.reused,
        "computed": done.progress.prompts_done,
        "units": units,
    }
    closing = describe_quarantine(done.quarantined)
    return Summary(title="Extraction", facts=facts, closing=closing, exit_code=done.exit_code)

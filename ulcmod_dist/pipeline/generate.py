"""``ulcmod generate``: what a model says to prompts, untouched and with modules scaled."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console, ConsoleOptions
from rich.table import Table
from rich.text import Text

from ulcmod_dist.api import Run
from ulcmod_dist.config.job import Job
from ulcmod_dist.corpus.chats import Prompt, list_user_texts
from ulcmod_dist.corpus.prompts import read_corpus
from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.forward.tokens import PromptTokenizer
from ulcmod_dist.intervene.ablation import AblationPool
from ulcmod_dist.intervene.generate import Sampling, SteeringEngine
from ulcmod_dist.intervene.masks import Mask, read_layer_units
from ulcmod_dist.pipeline.context import Context
from ulcmod_dist.pipeline.inputs import explain_no_ablation
from ulcmod_dist.pipeline.steering import check_model
from ulcmod_dist.pipeline.summary import Summary
from ulcmod_dist.runtime.progress import track
from ulcmod_dist.runtime.ray_session import ray_session
from ulcmod_dist.runtime.text import TIMES, shorten, strip_control_chars


class Completions(Summary):
    """Completions side by side, each pair below its prompt."""

    def _tables(self, console: Console, options: ConsoleOptions) -> Iterator[Table]:
        for row in self.rows:
            title = Text(shorten(row["prompt"]), style="bold")
            table = Table(title=title, title_justify="left", expand=True)
            for heading in self.columns.values():
                table.add_column(heading, ratio=1, overflow="fold")
            table.add_row(*(Text(strip_control_chars(row[name])) for name in self.columns))
            yield table


def generate(
    context: Context,
    *,
    prompts: Sequence[str],
    file: Path | None,
    num_modules: int,
    scales: Sequence[str],
    sampling: Sampling,
) -> Summary:
    """Complete prompts by the run's model, untouched and with modules scaled; writes nothing.

    A ``file`` has the format and the columns of the job's corpus.

    Raises:
        InvalidInput: The run's model is no decoder or its files have changed, a module or a factor
            is none, a prompt cannot be read or leaves no room for the completion.
        UlcmodError: The model failed, or no machine can hold it.
    """
    run, job = Run(context.run), context.job
    if (reason := explain_no_ablation(run.snapshot.provenance)) is not None:
        raise InvalidInput(reason, "Completions need a run whose model is a decoder.")
    if sampling.temperature != 0 and not 0.01 <= sampling.temperature < math.inf:
        raise InvalidInput(
            f"The temperature is {sampling.temperature}, neither 0 nor a number from 0.01."
        )
    factors = parse_scales(scales)
    labels = run.modules(num_modules).unit_labels
    mask = Mask.scaling(read_layer_units(run.snapshot.units), labels, factors)
    given = [*prompts, *_read_prompts(job, file)]
    if not given:
        raise InvalidInput("There is no prompt to complete.", "Give --prompt or --prompts.")
    model = job.require_model()
    check_model(model.id, model.revision, run.snapshot.provenance, "Restore the run's model.")
    # Every token counts here: none is left out of a completion.
    options = job.prompt.model_copy(update={"tokens": "all"})
    tokenizer = PromptTokenizer.load(model, options)
    calls = [
        (prompt, sampling, each) for prompt in tokenizer.encode(given) for each in (None, mask)
    ]
    texts: list[str] = []
    with (
        track(context.on_progress, "Completing", len(calls), "completions") as step,
        ray_session(job.extract.address),
        AblationPool(model, job.extract) as pool,
    ):
        for ids in pool.map(SteeringEngine.complete, calls):
            texts.append(tokenizer.decode(ids))
            step.update(len(texts))
    rows = [
        {"prompt": prompt if isinstance(prompt, str) else "\n\n".join(list_user_texts(prompt)),
         "untouched": untouched, "changed": changed}
        for prompt, untouched, changed in zip(given, texts[::2], texts[1::2], strict=True)
    ]  # fmt: skip
    words = ", ".join(f"module {module} {TIMES} {factor:g}" for module, factor in factors.items())
    columns = {"untouched": "Untouched", "changed": words[0].upper() + words[1:]}
    scale = {str(module): factor for module, factor in factors.items()}
    data = {"num_modules": num_modules, "scale": scale, **asdict(sampling)}
    return Completions(title="Completions", columns=columns, rows=rows, data=data)


def parse_scales(scales: Sequence[str]) -> dict[int, float]:
    """Factor of each module from words such as ``2=0.5``; InvalidInput if one is not like that."""
    factors: dict[int, float] = {}
    for word in scales:
        module, _, factor = word.partition("=")
        try:
            number, value = int(module), float(factor)
        except ValueError:
            raise InvalidInput(
                f"--scale {word!r} is not of the form MODULE=FACTOR, such as 2=0 or 5=1.5."
            ) from None
        if number in factors:
            raise InvalidInput(f"--scale names module {number} twice.")
        factors[number] = value
    if not factors:
        raise InvalidInput("No module is scaled.", "Give --scale MODULE=FACTOR, such as 2=0.")
    return factors


def _read_prompts(job: Job, file: Path | None) -> Sequence[Prompt]:
    """The prompts of a file with the columns of the job's corpus."""
    if file is None:
        return []
    assert job.corpus is not None
    changes = {"train": (str(file),), "test": (), "category": None, "id": None}
    corpus = read_corpus(job.corpus.model_copy(update=changes))
    return corpus.prompts(range(len(corpus)))

"""All that is known of the modules of one K, put together for evaluation and report."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ulcmod_dist.config.job import Job
from ulcmod_dist.evaluate.confounds import measure_confounds, surface_properties
from ulcmod_dist.evaluate.downstream import measure_agreement, score_downstream
from ulcmod_dist.evaluate.features import ModuleFeatures
from ulcmod_dist.evaluate.hierarchy import link_modules
from ulcmod_dist.evaluate.similarity import activation_heatmap, category_similarity
from ulcmod_dist.evaluate.spread import spread_over_categories, spread_over_layers
from ulcmod_dist.evaluate.topics import Topic, describe_topics
from ulcmod_dist.results.discovery import (
    Agreement,
    Categories,
    Confound,
    Discovery,
    Downstream,
    Layers,
    MethodRow,
    Module,
    Restart,
    TypicalPrompt,
)
from ulcmod_dist.results.types import Absent, Objective
from ulcmod_dist.store.modules import StoredModules

NOT_ABLATED = "Ablation has not been run: ulcmod ablate measures it."


@dataclass(frozen=True)
class Samples:
    """What is known of the samples of a split beside their activations.

    Attributes:
        ids: Id of each sample.
        categories: Category of each sample, None where it has none.
        tokens: Token count of each sample; 0 where it is not known.
        texts: Text of each sample, or why there is none.
    """

    ids: list[str]
    categories: list[str | None]
    tokens: NDArray[np.int64]
    texts: list[str] | Absent

    @classmethod
    def of(cls, table: pa.Table, texts: dict[str, str] | Absent) -> Samples:
        """The samples of a view's table; ``texts`` by id."""
        ids = table["sample_id"].to_pylist()
        return cls(
            ids=ids,
            categories=table["category"].to_pylist(),
            tokens=table["tokens"].to_numpy(),
            texts=texts if isinstance(texts, Absent) else [texts[sample_id] for sample_id in ids],
        )


@dataclass(frozen=True, eq=False)
class Found:
    """The modules of one K with their features.

    Attributes:
        stored: The modules' tables and metrics.
        train: Module features of the train samples.
        test: Module features of the held-out samples, if there are any.
    """

    stored: StoredModules
    train: ModuleFeatures
    test: ModuleFeatures | None

    @property
    def num_modules(self) -> int:
        """K."""
        return int(self.stored.metrics["num_modules"])

    def sample_labels(self, split: str) -> NDArray[np.int64]:
        """Module of each sample of a split."""
        return self.stored.sample_labels(split).astype(np.int64)

    @property
    def unit_labels(self) -> NDArray[np.int64]:
        """Module of each unit."""
        return self.stored.unit_labels.astype(np.int64)


def describe(
    job: Job,
    found: Found,
    samples: dict[str, Samples],
    *,
    null: tuple[Objective, ...] | Absent,
    methods: tuple[MethodRow, ...] | Absent,
) -> Discovery:
    """Put together what is known of the modules of one K; no pass over the matrix.

    Args:
        job: The job.
        found: The modules and their features.
        samples: Samples by split.
        null: Objectives of the null model.
        methods: Comparison with other methods.
    """
    metrics = found.stored.metrics
    labels = found.sample_labels("train")
    features = found.train.values
    return Discovery(
        num_modules=found.num_modules,
        seed=metrics["seed"],
        objective=Objective(metrics["xi"], metrics["balance"]),
        activation=activation_heatmap(features, labels, found.num_modules),
        modules=_modules(job, found, samples["train"]),
        restarts=_restarts(found.stored),
        restart_agreement=_restart_agreement(found.stored),
        null=null,
        methods=methods,
        downstream=_downstream(job, found, samples),
        agreement=_agreement(found, samples),
        categories=_categories(found, samples["train"]),
        layers=_layers(found),
        linkage=link_modules(features),
        ablation=Absent(NOT_ABLATED),
        confounds=_confounds(found, samples["train"]),
    )


def _modules(job: Job, found: Found, samples: Samples) -> tuple[Module, ...]:
    labels = found.sample_labels("train")
    margins = found.train.margins(labels.astype(np.int32))
    topics = describe_topics(
        margins,
        labels,
        found.num_modules,
        texts=None if isinstance(samples.texts, Absent) else samples.texts,
        categories=samples.categories,
        tokens=samples.tokens if samples.tokens.any() else None,
        num_typical=job.report.typical,
        num_keywords=job.report.keywords,
        seed=job.evaluate.seed,
    )
    units = np.bincount(found.unit_labels, minlength=found.num_modules)
    stability = _stability(found)
    return tuple(
        Module(
            number=topic.module,
            name=topic.name,
            num_samples=int((labels == topic.module).sum()),
            num_units=int(units[topic.module]),
            keywords=samples.texts if isinstance(samples.texts, Absent) else topic.keywords,
            prompts=_prompts(topic, samples, margins),
            length=topic.length,
            stability=None if stability is None else float(stability[topic.module]),
        )
        for topic in topics
    )


def _stability(found: Found) -> NDArray[np.float64] | None:
    """Mean stability of each module's units, or None where there was a single restart."""
    column = found.stored.units["stability"]
    if column.null_count:
        return None
    sums = np.bincount(found.unit_labels, column.to_numpy(), minlength=found.num_modules)
    return sums / np.bincount(found.unit_labels, minlength=found.num_modules)


def _prompts(
    topic: Topic, samples: Samples, margins: NDArray[np.float64]
) -> tuple[TypicalPrompt, ...] | Absent:
    if isinstance(samples.texts, Absent):
        return samples.texts
    return tuple(
        TypicalPrompt(
            samples.ids[row], samples.texts[row], float(margins[row]), samples.categories[row]
        )
        for row in topic.typical
    )


def _restarts(stored: StoredModules) -> tuple[Restart, ...]:
    history = stored.history.to_pandas()
    return tuple(
        Restart(
            number=int(str(number)),
            objectives=tuple(rows["objective"].tolist()),
            converged=int(rows["units_moved"].iloc[-1] + rows["samples_moved"].iloc[-1]) == 0,
        )
        for number, rows in history.groupby("restart")
    )


def _restart_agreement(stored: StoredModules) -> tuple[float, float] | None:
    units, samples = (stored.metrics[f"{side}_agreement"] for side in ("unit", "sample"))
    return None if units is None or samples is None else (float(units), float(samples))


def _downstream(job: Job, found: Found, samples: dict[str, Samples]) -> Downstream | Absent:
    return score_downstream(
        found.train.values,
        samples["train"].categories,
        None if found.test is None else found.test.values,
        samples["test"].categories,
        seed=job.evaluate.seed,
    )


def _agreement(found: Found, samples: dict[str, Samples]) -> tuple[Agreement, ...] | Absent:
    measured = [
        measure_agreement(split, found.sample_labels(split), samples[split].categories)
        for split in ("train", "test")
    ]
    present = tuple(value for value in measured if isinstance(value, Agreement))
    if present:
        return present
    assert isinstance(measured[0], Absent)
    return measured[0]


def _categories(found: Found, samples: Samples) -> Categories | Absent:
    spread = spread_over_categories(
        found.sample_labels("train"), samples.categories, found.num_modules
    )
    if isinstance(spread, Absent):
        return spread
    similarity = category_similarity(found.train.values, samples.categories)
    cosines = similarity if isinstance(similarity, Absent) else similarity[1]
    return Categories(spread.names, spread.counts, spread.breadth, cosines)


def _layers(found: Found) -> Layers | Absent:
    column = found.stored.units["layer"]
    if column.null_count:
        return Absent("The matrix was imported without the layers of its units.")
    layers = column.to_numpy().astype(np.int64)
    number = int(layers.max()) + 1
    spread = spread_over_layers(found.unit_labels, layers, found.num_modules, number)
    return Layers(tuple(f"{layer}" for layer in range(number)), spread.counts, spread.concentration)


def _confounds(found: Found, samples: Samples) -> tuple[Confound, ...] | Absent:
    properties: dict[str, NDArray[np.generic]] = {}
    if samples.tokens.any():
        properties["prompt length in tokens"] = samples.tokens
    if not isinstance(samples.texts, Absent):
        properties.update(surface_properties(samples.texts))
    labels = found.sample_labels("train")
    return measure_confounds(properties, labels, found.train.values, found.num_modules)

"""All that is known of the modules of one K, put together for evaluation and report."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ulcmod_dist.config.job import Job
from ulcmod_dist.evaluate.confounds import count_characters, measure_confounds
from ulcmod_dist.evaluate.downstream import (
    measure_agreement,
    score_downstream,
    select_categories,
)
from ulcmod_dist.evaluate.features import ModuleFeatures
from ulcmod_dist.evaluate.structure import (
    average_by_module,
    describe_categories,
    describe_layers,
    link_modules,
)
from ulcmod_dist.evaluate.topics import Samples, describe_modules
from ulcmod_dist.results.discovery import (
    Agreement,
    Confound,
    Discovery,
    Layers,
    MethodComparison,
    Module,
    PromptProperty,
    Restart,
)
from ulcmod_dist.results.types import Absent, Objective
from ulcmod_dist.store.modules import StoredModules

NOT_ABLATED = "Ablation has not been run for these modules: ulcmod ablate measures it."


def read_samples(table: pa.Table, texts: dict[str, str] | Absent) -> Samples:
    """The samples of a store's table; ``texts`` by id."""
    ids = table["sample_id"].to_pylist()
    return Samples(
        ids=ids,
        categories=table["category"].to_pylist(),
        tokens=table["tokens"].to_numpy(),
        texts=texts if isinstance(texts, Absent) else [texts[sample_id] for sample_id in ids],
    )


@dataclass(frozen=True, eq=False)
class Found:
    """The modules of one K with their features."""

    stored: StoredModules  # the modules' tables and metrics
    train: ModuleFeatures  # module features of the train samples
    test: ModuleFeatures | None  # module features of the held-out samples, if there are any

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
    methods: MethodComparison,
) -> Discovery:
    """Put together what is known of the modules of one K; no pass over the matrix."""
    metrics = found.stored.metrics
    labels = found.sample_labels("train")
    features = found.train.values
    return Discovery(
        num_modules=found.num_modules,
        seed=metrics["seed"],
        objective=Objective(metrics["xi"], metrics["balance"]),
        activation=average_by_module(features, labels, found.num_modules),
        modules=_modules(job, found, samples["train"]),
        restarts=_restarts(found.stored),
        restart_agreement=_restart_agreement(found.stored),
        null=null,
        methods=methods.rows,
        methods_left_out=methods.left_out,
        downstream=score_downstream(
            features,
            None if found.test is None else found.test.values,
            select_categories(samples["train"].categories, samples["test"].categories),
            seed=job.evaluate.seed,
            memory=job.discover.memory,
        ),
        agreement=_agreement(found, samples),
        categories=describe_categories(
            features, labels, samples["train"].categories, found.num_modules
        ),
        layers=_layers(found),
        linkage=link_modules(features),
        ablation=Absent(NOT_ABLATED),
        confounds=_confounds(found, samples["train"]),
    )


def _modules(job: Job, found: Found, samples: Samples) -> tuple[Module, ...]:
    labels = found.sample_labels("train")
    stability = found.stored.units["stability"]
    train = found.stored.samples["split"].to_numpy() == "train"
    return describe_modules(
        samples,
        found.stored.samples["margin"].to_numpy()[train],
        labels,
        found.unit_labels,
        found.num_modules,
        job.report,
        unit_stability=None if stability.null_count else stability.to_numpy(),
        seed=job.evaluate.seed,
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


def _layers(found: Found) -> Layers | Absent:
    column = found.stored.units["layer"]
    if column.null_count:
        return Absent("The matrix was imported without the layers of its units.")
    layers = column.to_numpy().astype(np.int64)
    return describe_layers(found.unit_labels, layers, found.num_modules)


def _confounds(found: Found, samples: Samples) -> tuple[Confound, ...] | Absent:
    properties: dict[PromptProperty, NDArray[Any]] = {}
    if samples.tokens.any():
        properties[PromptProperty.LENGTH] = samples.tokens
    if not isinstance(samples.texts, Absent):
        properties.update(count_characters(samples.texts))
    labels = found.sample_labels("train")
    return measure_confounds(properties, labels, found.train.values, found.num_modules)

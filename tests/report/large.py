"""Reports as large as they come, of any numbers: what counts is how much there is to show."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
from scipy.cluster.hierarchy import linkage

from ulcmod_dist.evaluate.structure import MAX_COMPARED, count_overlap
from ulcmod_dist.results.ablation import Ablation
from ulcmod_dist.results.discovery import Categories, Discovery, Downstream, Layers, ReportData
from ulcmod_dist.results.types import Absent, Objective

SAMPLES, UNITS = 200_000, 400_000


def enlarge_report(
    data: ReportData, numbers: Sequence[int], *, num_categories: int, num_layers: int
) -> ReportData:
    """The report of a run with that many modules, categories and layers."""
    found = data.discoveries[0]
    rng = np.random.default_rng(3)
    units = {k: rng.permutation(np.arange(5_000) * k // 5_000) for k in numbers}
    samples = {k: rng.integers(0, k, 1_000) for k in numbers}
    overlaps = tuple(
        count_overlap((units[k], units[m]), (samples[k], samples[m]), (k, m))
        for k, m in pairwise(numbers)
    )
    enlarged = tuple(_enlarge(found, k, num_categories, num_layers) for k in numbers)
    run = replace(data.run, num_samples=SAMPLES, num_units=UNITS)
    return replace(data, run=run, discoveries=enlarged, overlaps=overlaps)


def _enlarge(found: Discovery, size: int, num_categories: int, num_layers: int) -> Discovery:
    rng = np.random.default_rng(size)
    names = tuple(f"Category {i} of {num_categories}" for i in range(num_categories))
    square, by_category = (size, size), (size, num_categories)
    modules = [
        replace(found.modules[i % len(found.modules)], number=i, num_samples=SAMPLES // size)
        for i in range(size)
    ]
    compared = min(MAX_COMPARED, num_categories)
    ablation, scored = found.ablation, found.downstream
    assert isinstance(ablation, Ablation)
    assert isinstance(scored, Downstream)
    rows = [
        replace(ablation.modules[i % len(ablation.modules)], module=i, extreme=None)
        for i in range(size)
    ]
    classifiers = tuple(
        replace(
            classifier,
            f1=(0.5,) * num_categories,
            confusion=rng.integers(0, 3, (num_categories, num_categories)),
        )
        for classifier in scored.classifiers
    )
    return replace(
        found,
        num_modules=size,
        objective=Objective(1.137348, SAMPLES * UNITS / size**2),
        activation=rng.normal(size=square),
        modules=tuple(modules),
        # The page opens with the most stable, here the largest.
        methods=(replace(found.methods[0], halves_agreement=size / 100), *found.methods[1:]),
        downstream=replace(scored, categories=names, classifiers=classifiers),
        categories=Categories(
            names, rng.integers(0, 90, by_category), rng.uniform(1, 9, size),
            rng.uniform(-1, 1, (compared, compared)), tuple(range(compared)),
        ),
        layers=Layers(
            tuple(map(str, range(num_layers))), rng.integers(0, 900, (size, num_layers)),
            rng.uniform(0, 1, size),
        ),
        membership=Absent("Not computed."),
        linkage=linkage(rng.normal(size=(size, 3)), "average"),
        ablation=replace(
            ablation,
            by_module=rng.normal(size=square),
            control_by_module=rng.normal(size=square),
            by_category=rng.normal(size=by_category),
            control_by_category=rng.normal(size=by_category),
            categories=names,
            modules=tuple(rows),
        ),
    )  # fmt: skip

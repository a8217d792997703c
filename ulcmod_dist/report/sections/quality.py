"""The section on the quality of the modules: objective, other methods, classifiers."""

import math
from collections.abc import Iterator

import numpy as np

from ulcmod_dist.report.blocks import (
    Block,
    Collapsible,
    Note,
    Picture,
    Section,
    build_choices,
)
from ulcmod_dist.report.figures.modules import draw_activation
from ulcmod_dist.report.figures.quality import draw_by_method, draw_confusion
from ulcmod_dist.report.tables import (
    Column,
    ColumnKind,
    Table,
    build_table,
    interval_cells,
    interval_columns,
)
from ulcmod_dist.results.discovery import RANDOM_GROUPS, Discovery, Downstream, ReportData
from ulcmod_dist.results.types import Absent, Repeats
from ulcmod_dist.runtime.text import count

NULL_NAME = "Null model"
SMALL_BALANCE = 0.1
"""Share of the balance of even modules below which L says little but that one is tiny."""
SVC_NAME = "support vector machine"


def build_quality_section(data: ReportData) -> Section:
    """Return the objective, its comparisons, and what can be read from the modules."""
    lead = (
        "The objective L is the activation modularity ξ (how far above its own mean a unit is on "
        "the samples of its module, in standard deviations) times the balance B (the harmonic "
        "mean of units times samples over the modules, largest where they are of even size)."
    )
    return Section(
        "quality", "Quality of the modules", lead, by_num_modules=build_choices(data, _blocks)
    )


def _blocks(found: Discovery) -> tuple[Block, ...]:
    return (
        Picture("activation", draw_activation(found)),
        *_comparison(found),
        *_downstream(found),
        *_agreement(found),
    )


def _comparison(found: Discovery) -> tuple[Block, ...]:
    compared: tuple[Block, ...] = ()
    if found.methods:
        compared = (tabulate_methods(found), tabulate_measures(found))
    compared += (*_warn_of_empty_modules(found), *_explain_left_out(found))
    pictures = tuple(_draw_methods(found))
    return (*pictures, *(_warn_of_single_start(found) if pictures else ()), *compared)


def _draw_methods(found: Discovery) -> Iterator[Picture]:
    """Yield a figure for L, for xi, and for two measures that favour no method."""
    null = () if isinstance(found.null, Absent) else found.null
    for subject, measure, key, of_null in (
        ("methods", "Objective L", "value", tuple(score.value for score in null)),
        ("methods-xi", "Modularity ξ", "xi", tuple(score.xi for score in null)),
        ("methods-accuracy", "Category accuracy", "accuracy", ()),
        ("methods-rand", "Adjusted Rand", "adjusted_rand", ()),
    ):
        values = {row.method: getattr(row, key) for row in found.methods if getattr(row, key)}
        if of_null:
            values[NULL_NAME] = Repeats(of_null)
        if len(values) > 1:
            spec = draw_by_method(measure, [*values], [*values.values()], _pooled_basis(found))
            yield Picture(subject, spec)


def _warn_of_empty_modules(found: Discovery) -> Iterator[Note]:
    """Yield a sentence on methods whose L says nothing but that they have a tiny module."""
    units = sum(module.num_units for module in found.modules)
    samples = sum(module.num_samples for module in found.modules)
    even = units * samples / found.num_modules**2
    uneven = [r.method for r in found.methods if min(r.balance.values) < SMALL_BALANCE * even]
    if uneven:
        yield Note(
            f"With an (almost) empty module for at least one seed: {', '.join(uneven)}. Where B is "
            f"below {SMALL_BALANCE:.0%} of that of even modules, L collapses through B alone. "
            "Compare ξ and the measures that favour no method."
        )


def _explain_left_out(found: Discovery) -> Iterator[Absent]:
    """Yield why methods are not in the table, a sentence a reason."""
    for reason in dict.fromkeys(fact.value for fact in found.methods_left_out):
        methods = [fact.label for fact in found.methods_left_out if fact.value == reason]
        yield Absent(f"Left out: {', '.join(methods)}. {reason}")


def _pooled_basis(found: Discovery) -> str:
    """Return the seeds and restarts behind a figure of several methods."""
    last = found.seed + (found.methods[0].num_seeds if found.methods else 1) - 1
    seeds = f"seeds {found.seed} to {last}" if last > found.seed else f"seed {found.seed}"
    tries = len(found.restarts)
    parts = [
        f"{'each method' if found.best_baseline else 'IterD'} with {seeds}",
        f"IterD with each seed the best of {tries} restarts" if tries > 1 else "no restarts",
    ]
    if found.random_groups is not None:
        parts.append(f"random groups drawn {found.random_groups.num_seeds} times")
    if not isinstance(found.null, Absent):
        parts.append(f"null model from {count(len(found.null), 'permutation')}, one start each")
    return f"K = {found.num_modules}, {', '.join(parts)}."


def _warn_of_single_start(found: Discovery) -> Iterator[Note]:
    """Yield a caveat for comparing the modules' L with that of the null model."""
    tries = len(found.restarts)
    if tries > 1 and not isinstance(found.null, Absent):
        yield Note(
            f"Each search of the null model has one start, while the modules are the best of "
            f"{tries} restarts; part of the difference in L comes from that choice."
        )


def tabulate_methods(found: Discovery) -> Table:
    """Return L and its parts for each method, IterD first."""
    columns = (
        Column("method", "Method"),
        *interval_columns(objective="L", xi="ξ", balance="B"),
        Column("num_seeds", "Seeds", ColumnKind.COUNT),
    )
    rows = (
        (row.method, *interval_cells(row.value, row.xi, row.balance), row.num_seeds)
        for row in found.methods
    )
    caption = (
        "Means over the seeds, above their range. L is what IterD maximises. IterD is the whole "
        "search, restarts included; the other methods run once with the same seeds. The row "
        f"{RANDOM_GROUPS} is the level: groups as large as the modules, drawn at random."
    )
    return build_table("methods", "Methods compared", columns, rows, caption)


def tabulate_measures(found: Discovery) -> Table:
    """Return the measures that favour no method, in the order of `tabulate_methods`."""
    titles = {
        "accuracy": "Accuracy",
        "macro_f1": "Macro-F1",
        "adjusted_rand": "Adjusted Rand",
        "mutual_information": "Mutual information",
        "stand_out": "Stand out",
    }
    columns = (
        Column("method", "Method"),
        *interval_columns(**titles),
        Column("selective", "Selective", ColumnKind.COUNT),
        Column("selectivity", "Median selectivity", ColumnKind.NUMBER),
        Column("units_seeds", "Units over seeds", ColumnKind.NUMBER),
        Column("samples_seeds", "Samples over seeds", ColumnKind.NUMBER),
        Column("units_halves", "Units over halves", ColumnKind.NUMBER),
    )
    ablations = found.ablations
    rows = (
        (
            row.method,
            *interval_cells(*(getattr(row, key) for key in titles)),
            ablations[row.method].num_selective if row.method in ablations else None,
            ablations[row.method].selectivity_quantiles[1] if row.method in ablations else None,
            *(row.seeds_agreement or (None, None)),
            row.halves_agreement,
        )
        for row in found.methods
    )
    caption = (
        f"Accuracy and macro-F1: of the {SVC_NAME} on the K module features. Adjusted Rand and "
        "mutual information (normalised): the samples' modules against the categories. Stand out: "
        "modules that tell a category better than 95% of random groups. Selective and "
        "median selectivity: of the modules by ablation, where the job ablates them (ablate and "
        "ablate.baselines). Over seeds: mean adjusted Rand index between seeds. Over halves: "
        "the same between the modules of two halves of the samples, with the first seed."
    )
    title = "Measures that favour no method"
    return build_table("measures", title, columns, rows, caption)


def _downstream(found: Discovery) -> tuple[Block, ...]:
    downstream = found.downstream
    if isinstance(downstream, Absent):
        return (downstream,)
    return (
        _classifier_table(found, downstream),
        *((Note(downstream.note),) if downstream.note else ()),
        Picture("confusion", draw_confusion(found, downstream)),
        Collapsible(_category_table(downstream)),
        Collapsible(tabulate_confusion(downstream)),
    )


def _classifier_table(found: Discovery, downstream: Downstream) -> Table:
    title = "Categories predicted from the modules"
    columns = (
        Column("classifier", "Classifier"),
        *interval_columns(accuracy="Accuracy", macro_f1="Macro-F1"),
    )
    rows = (
        (name, *interval_cells(accuracy, macro_f1))
        for name, accuracy, macro_f1 in (
            *((c.name, c.accuracy, c.macro_f1) for c in downstream.classifiers),
            *((f"{downstream.classifiers[0].name}, {RANDOM_GROUPS}", r.accuracy, r.macro_f1)
              for r in found.methods if r.method == RANDOM_GROUPS),
        )
    )  # fmt: skip
    caption = (
        f"Classifiers that predict which of {len(downstream.categories)} categories a sample has "
        f"from its {found.num_modules} module features. Fitted on "
        f"{count(downstream.num_train, 'sample')}, scored on {downstream.num_scored:,} "
        f"({_scored_on(downstream)}); intervals from bootstrap draws of these. "
        "Random groups of units as large as the modules are the level: mean and range of the draws."
    )
    return build_table("downstream", title, columns, rows, caption)


def _scored_on(downstream: Downstream) -> str:
    if downstream.folds is None:
        return "held-out samples"
    return f"{downstream.folds}-fold cross-validation on train"


def _category_table(downstream: Downstream) -> Table:
    columns = [Column("category", "Category"), Column("scored", "Scored samples", ColumnKind.COUNT)]
    columns += [
        Column(f"f1_{i}", f"F1, {classifier.name}", ColumnKind.NUMBER)
        for i, classifier in enumerate(downstream.classifiers)
    ]
    support = downstream.classifiers[0].confusion.sum(axis=1).tolist()
    f1 = [classifier.f1 for classifier in downstream.classifiers]
    rows = zip(downstream.categories, support, *f1, strict=True)
    return build_table("category-f1", "Scores of each category", columns, rows)


def tabulate_confusion(downstream: Downstream) -> Table:
    """Return the confusion matrix of each classifier, a row for each cell that holds samples."""
    columns = (
        Column("classifier", "Classifier"),
        Column("category", "Category"),
        Column("predicted", "Predicted"),
        Column("samples", "Samples", ColumnKind.COUNT),
    )
    get_names = downstream.categories
    rows = [
        (classifier.name, get_names[row], get_names[column], int(classifier.confusion[row, column]))
        for classifier in downstream.classifiers
        for row, column in np.argwhere(classifier.confusion > 0)
    ]
    caption = "Scored samples by true and predicted category; pairs without samples are left out."
    return build_table("category-confusion", "Confusion", columns, rows, caption)


def _agreement(found: Discovery) -> tuple[Block, ...]:
    if isinstance(found.agreement, Absent):
        # Without categories the classifiers' sentence has said so already.
        said = isinstance(found.downstream, Absent)
        return () if said else (found.agreement,)
    columns = (
        Column("split", "Samples"),
        Column("adjusted_rand", "Adjusted Rand", ColumnKind.NUMBER),
        Column("mutual_information", "Mutual information", ColumnKind.NUMBER),
        Column("purity", "Purity", ColumnKind.NUMBER),
    )
    rows = [(a.split, a.adjusted_rand, a.mutual_information, a.purity) for a in found.agreement]
    if (level := found.random_groups) and level.adjusted_rand and level.mutual_information:
        means = level.adjusted_rand.mean, level.mutual_information.mean
        rows.append((f"train, {RANDOM_GROUPS}", *means, math.nan))
    caption = (
        "1 means that modules and categories are the same partition. "
        "Held-out samples go to the module of largest mean activation."
    )
    title = "Agreement with the categories"
    return (build_table("agreement", title, columns, rows, caption),)

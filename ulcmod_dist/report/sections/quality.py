"""The section on the quality of the modules: objective, other methods, classifiers."""

from collections.abc import Iterator

import numpy as np

from ulcmod_dist.report.blocks import (
    Block,
    Collapsible,
    KeyFigure,
    KeyFigures,
    Note,
    Section,
    build_choices,
    build_picture,
    describe_sizes,
    explain_absence,
    name_for,
)
from ulcmod_dist.report.figures.modules import draw_activation
from ulcmod_dist.report.figures.quality import draw_confusion, draw_objective_by_method
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
from ulcmod_dist.runtime.text import TIMES, count, number, percent

NULL_NAME = "Null model"
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
        _key_figures(found),
        Note(describe_sizes(found)),
        build_picture("activation", found, draw_activation(found)),
        *_comparison(found),
        *_downstream(found),
        *_agreement(found),
    )


def _key_figures(found: Discovery) -> KeyFigures:
    score = found.objective
    figures = [
        KeyFigure(number(score.value, 6), "Objective L", _compare_with_null(found)),
        KeyFigure(number(score.xi), "Modularity ξ"),
        KeyFigure(number(score.balance, 6), "Balance B"),
    ]
    if isinstance(found.downstream, Downstream):
        main = found.downstream.classifiers[0]
        note = f"{main.name}, {_scored_on(found.downstream)}"
        figures.append(KeyFigure(f"{main.accuracy.mean:.1%}", "Category accuracy", note))
    return KeyFigures(tuple(figures))


def estimate_null(found: Discovery) -> Repeats | None:
    """Return the null model's objectives, or None where it was not run."""
    if isinstance(found.null, Absent):
        return None
    return Repeats(tuple(score.value for score in found.null))


def _compare_with_null(found: Discovery) -> str:
    null = estimate_null(found)
    if null is None or null.mean <= 0:
        return ""
    return f"{number(found.objective.value / null.mean)} {TIMES} the null model"


def _comparison(found: Discovery) -> tuple[Block, ...]:
    null = estimate_null(found)
    rows = [(row.method, row.value) for row in found.methods]
    compared: tuple[Block, ...] = (tabulate_methods(found),) if rows else ()
    compared += tuple(_explain_left_out(found))
    if null is not None:
        rows.append((NULL_NAME, null))
    if len(rows) < 2:
        return compared
    methods, values = [name for name, _ in rows], [value for _, value in rows]
    spec = draw_objective_by_method(methods, values, _pooled_basis(found))
    return (build_picture("methods", found, spec), *_warn_of_single_start(found), *compared)


def _explain_left_out(found: Discovery) -> Iterator[Note]:
    """Yield why methods are not in the table, a sentence a reason."""
    for reason in dict.fromkeys(fact.value for fact in found.methods_left_out):
        methods = [fact.label for fact in found.methods_left_out if fact.value == reason]
        yield Note(f"Left out: {', '.join(methods)}. {reason}", quiet=True)


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


def _warn_of_single_start(found: Discovery) -> tuple[Note, ...]:
    """Return a caveat for comparing the modules' L with that of the null model."""
    tries = len(found.restarts)
    if isinstance(found.null, Absent) or tries < 2:
        return ()
    return (
        Note(
            f"Each search of the null model has one start, while the modules are the best of "
            f"{tries} restarts; part of the difference in L comes from that choice."
        ),
    )


def tabulate_methods(found: Discovery) -> Table:
    """Return the comparison of methods, IterD first."""
    columns = (
        Column("method", "Method"),
        *interval_columns("objective", "L"),
        *interval_columns("xi", "ξ"),
        *interval_columns("balance", "B"),
        *interval_columns("accuracy", "Accuracy"),
        *interval_columns("adjusted_rand", "Adjusted Rand"),
        *interval_columns("mutual_information", "Mutual information"),
        *interval_columns("stand_out", "Stand out"),
        Column("units_seeds", "Units over seeds", ColumnKind.NUMBER),
        Column("samples_seeds", "Samples over seeds", ColumnKind.NUMBER),
        Column("units_halves", "Units over halves", ColumnKind.NUMBER),
        Column("num_seeds", "Seeds", ColumnKind.COUNT),
    )
    rows = (
        (
            row.method,
            *interval_cells(row.value),
            *interval_cells(row.xi),
            *interval_cells(row.balance),
            *interval_cells(row.accuracy),
            *interval_cells(row.adjusted_rand),
            *interval_cells(row.mutual_information),
            *interval_cells(row.stand_out),
            *(row.seeds_agreement or (None, None)),
            row.halves_agreement,
            row.num_seeds,
        )
        for row in found.methods
    )
    caption = (
        "Means over the seeds, above their range. L is what IterD maximises; the measures beside "
        f"ξ and B favour no method. Accuracy: of the {SVC_NAME} on the K module features. Adjusted "
        "Rand and mutual information (normalised): the samples' modules against the categories. "
        "Stand out: modules that tell a category better than 95% of random groups of units. Over "
        "seeds: mean adjusted Rand index between seeds. Over halves: the same between the modules "
        "of two halves of the samples; for IterD alone, as other methods would have to run again. "
        f"The row {RANDOM_GROUPS} is the level of all these: groups as large as the modules. IterD "
        "is the whole search, restarts included; the other methods run once with the same seeds."
    )
    return build_table(name_for("methods", found), "Methods compared", columns, rows, caption)


def _downstream(found: Discovery) -> tuple[Block, ...]:
    downstream = found.downstream
    if isinstance(downstream, Absent):
        return (explain_absence(downstream),)
    return (
        _classifier_table(found, downstream),
        *((Note(downstream.note),) if downstream.note else ()),
        build_picture("confusion", found, draw_confusion(found, downstream)),
        Collapsible(_category_table(found, downstream)),
        Collapsible(tabulate_confusion(found, downstream)),
    )


def _classifier_table(found: Discovery, downstream: Downstream) -> Table:
    title = "Categories predicted from the modules"
    columns = (
        Column("classifier", "Classifier"),
        *interval_columns("accuracy", "Accuracy"),
        *interval_columns("macro_f1", "Macro-F1"),
    )
    rows = (
        (c.name, *interval_cells(c.accuracy), *interval_cells(c.macro_f1))
        for c in downstream.classifiers
    )
    chance = percent(1 / max(1, len(downstream.categories)))
    caption = (
        f"Classifiers that predict which of {len(downstream.categories)} categories a sample has "
        f"from its {found.num_modules} module features; guessing evenly gives {chance}. Fitted on "
        f"{count(downstream.num_train, 'sample')}, scored on {downstream.num_scored:,} "
        f"({_scored_on(downstream)}); intervals from bootstrap draws of these."
    )
    return build_table(name_for("downstream", found), title, columns, rows, caption)


def _scored_on(downstream: Downstream) -> str:
    if downstream.folds is None:
        return "held-out samples"
    return f"{downstream.folds}-fold cross-validation on train"


def _category_table(found: Discovery, downstream: Downstream) -> Table:
    columns = [Column("category", "Category"), Column("scored", "Scored samples", ColumnKind.COUNT)]
    columns += [
        Column(f"f1_{i}", f"F1, {classifier.name}", ColumnKind.NUMBER)
        for i, classifier in enumerate(downstream.classifiers)
    ]
    support = downstream.classifiers[0].confusion.sum(axis=1).tolist()
    f1 = [classifier.f1 for classifier in downstream.classifiers]
    rows = zip(downstream.categories, support, *f1, strict=True)
    return build_table(name_for("category-f1", found), "Scores of each category", columns, rows)


def tabulate_confusion(found: Discovery, downstream: Downstream) -> Table:
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
    return build_table(name_for("category-confusion", found), "Confusion", columns, rows, caption)


def _agreement(found: Discovery) -> tuple[Block, ...]:
    if isinstance(found.agreement, Absent):
        # Without categories the classifiers' sentence has said so already.
        said = isinstance(found.downstream, Absent)
        return () if said else (explain_absence(found.agreement),)
    columns = (
        Column("split", "Samples"),
        Column("adjusted_rand", "Adjusted Rand", ColumnKind.NUMBER),
        Column("mutual_information", "Mutual information", ColumnKind.NUMBER),
        Column("purity", "Purity", ColumnKind.NUMBER),
    )
    rows = ((a.split, a.adjusted_rand, a.mutual_information, a.purity) for a in found.agreement)
    caption = (
        "1 means that modules and categories are the same partition. "
        "Held-out samples go to the module of largest mean activation."
    )
    title = "Agreement with the categories"
    return (build_table(name_for("agreement", found), title, columns, rows, caption),)

"""The section on ablation."""

from collections.abc import Iterator

import numpy as np

from ulcmod_dist.report.blocks import (
    Block,
    Collapsible,
    KeyFigure,
    KeyFigures,
    Note,
    Picture,
    Section,
    build_choices,
)
from ulcmod_dist.report.figures.ablation import (
    draw_loss_by_category,
    draw_loss_by_module,
    draw_selectivity,
    draw_selectivity_by_method,
)
from ulcmod_dist.report.specs import format_interval
from ulcmod_dist.report.tables import (
    Column,
    ColumnKind,
    Table,
    build_table,
    interval_cells,
    interval_columns,
)
from ulcmod_dist.results.ablation import CONTROLS, AblatedModule, Ablation, AnswerEffects, Effect
from ulcmod_dist.results.discovery import RANDOM_GROUPS, Discovery, ReportData
from ulcmod_dist.results.types import Absent
from ulcmod_dist.runtime.text import count, number


def build_ablation_section(data: ReportData) -> Section:
    """Return what ablating each module costs."""
    lead = (
        "Ablating a module in the real forward pass should increase the loss of its own samples "
        "more than that of others, and more than ablating as many other units in each layer."
    )
    statistics = [fact.value for fact in data.run.facts if fact.label == "Statistic"]
    if any(name != "activation" for name in statistics):
        lead += f" The modules were found in the units' {statistics[0]}, not in their activation."
    return Section(
        "ablation", "Ablation", lead,
        by_num_modules=build_choices(data, _blocks),
    )  # fmt: skip


def _blocks(found: Discovery) -> tuple[Block, ...]:
    ablation = found.ablation
    if isinstance(ablation, Absent):
        return (ablation,)
    return (
        _key_figures(ablation),
        Note(_what_was_done(ablation)),
        *map(Note, _describe_exceptions(ablation)),
        Picture("ablation", draw_selectivity(found, ablation), wide=True),
        Picture("ablation-modules", draw_loss_by_module(found, ablation)),
        _by_category(found, ablation),
        *_compare_methods(found),
        Collapsible(tabulate_ablation(found, ablation)),
        Collapsible(tabulate_matrix(ablation)),
    )


def _key_figures(ablation: Ablation) -> KeyFigures:
    least, median = ablation.selectivity_quantiles
    return KeyFigures(
        (
            KeyFigure(f"{ablation.num_selective} of {len(ablation.modules)}", "Selective modules"),
            KeyFigure(number(least), "Least selectivity of a module"),
            KeyFigure(
                number(median),
                "Median selectivity",
                f"mean {format_interval(ablation.selectivity)}; control sets "
                f"{format_interval(ablation.control_selectivity)}",
            ),
            KeyFigure(
                number(ablation.intact_accuracy),
                "Accuracy of the next token, intact",
                f"loss {number(ablation.intact_loss)} nats a token",
            ),
            *_answer_figures(ablation),
        )
    )


def _answer_figures(ablation: Ablation) -> Iterator[KeyFigure]:
    if (answers := ablation.answers) is not None:
        least, median = answers.selectivity_quantiles
        note = (
            f"least {number(least)}; of {count(answers.num_samples, 'sample')}; intact: accuracy "
            f"{number(answers.intact_accuracy)}, loss {number(answers.intact_loss)}"
        )
        yield KeyFigure(number(median), "Median selectivity on the answers", note)


def _what_was_done(ablation: Ablation) -> str:
    replaced = {
        "resample": "The ablated units took the values that they have in a sample of another "
        "module, token by token.",
        "zero": "The values of the ablated units were replaced by zero.",
        "mean": "The values of the ablated units were replaced by their means.",
    }[ablation.method]
    return (
        f"{replaced} The loss is that of the tokens of the prompt's own text, in nats a token. "
        "Selectivity is the mean loss increase on a module's own samples less that on all others. "
        "A module is selective if the interval of its selectivity lies above zero and above those "
        "of its control sets. General machinery costs the other samples more than all control sets "
        "do, and more than half as much as its own, and does not count as selective. Control sets "
        "have as many units in each layer, of other modules: drawn at random, of equal mean "
        "activation, or of low activation. Intervals come from 1,000 draws of the measured samples "
        "within each module."
    )


def _describe_exceptions(ablation: Ablation) -> Iterator[str]:
    """Name the modules that are not selective, and units of extreme activation."""
    for row in ablation.modules:
        own, other = number(row.loss.own.mean), number(row.loss.other.mean)
        if not row.is_selective:
            verdict = "general machinery" if row.is_general else "not selective"
            yield (
                f"Module {row.module} is {verdict}: "
                f"ablating it costs its own samples {own} and others {other} nats a token."
            )
        if (extreme := row.extreme) is not None:
            yield (
                f"Module {row.module} holds {', '.join(extreme.units)}, whose mean activation is "
                "at least 100 times the median of the layer. Ablated alone, they cost "
                f"{number(extreme.alone.own.mean)} of the module's {own} nats a token on its own "
                f"samples and {number(extreme.alone.other.mean)} of {other} on others; without "
                f"them its selectivity is {format_interval(extreme.without.selectivity)}."
            )


def _by_category(found: Discovery, ablation: Ablation) -> Block:
    increase, control = ablation.by_category, ablation.control_by_category
    if isinstance(increase, Absent) or isinstance(control, Absent):
        return Absent("The corpus has no categories.")
    spec = draw_loss_by_category(found, ablation, increase, control)
    return Picture("ablation-categories", spec)


def _compare_methods(found: Discovery) -> tuple[Block, ...]:
    if not found.ablated_methods:
        return ()
    return (
        Picture("ablation-methods", draw_selectivity_by_method(found)),
        tabulate_ablated_methods(found),
    )


def tabulate_ablated_methods(found: Discovery) -> Table:
    """Return how selective the modules of each method are, IterD first."""
    columns = (
        Column("method", "Method"),
        Column("selective", "Selective", ColumnKind.COUNT),
        Column("general", "General machinery", ColumnKind.COUNT),
        Column("least", "Least", ColumnKind.NUMBER),
        Column("median", "Median", ColumnKind.NUMBER),
        *interval_columns(selectivity="Mean", controls="Control sets", advantage="Advantage"),
    )
    rows = (
        (
            method,
            ablation.num_selective,
            len(ablation.general),
            *ablation.selectivity_quantiles,
            *interval_cells(ablation.selectivity, ablation.control_selectivity, ablation.advantage),
        )
        for method, ablation in found.ablations.items()
    )
    title = "Ablation of the modules of each method"
    caption = (
        f"Selective: of {found.num_modules} modules. Least, median and mean: of the modules' "
        "selectivities, in nats a token. Advantage: the mean less that of the control sets. Each "
        "method is measured on samples of its own modules, drawn with the same seed; its modules "
        f"are those of its first seed. {RANDOM_GROUPS.capitalize()} are the level."
    )
    return build_table("ablated-methods", title, columns, rows, caption)


def tabulate_ablation(found: Discovery, ablation: Ablation) -> Table:
    """Return what ablating each module, its control sets and its extreme units costs."""
    columns = [
        Column("module", "Module", ColumnKind.COUNT),
        Column("name", "Name"),
        Column("ablated", "Ablated"),
        *interval_columns(own="Own samples", other="Other samples", selectivity="Selectivity"),
    ]
    rows = (
        (
            row.module,
            found.modules[row.module].name,
            ablated,
            *interval_cells(effect.own, effect.other, effect.selectivity),
        )
        for row in ablation.modules
        for ablated, effect in _list_effects(row, ablation.answers)
    )
    title = "Loss increase, nats a token"
    caption = "Means, above their 95% intervals. Accuracy is the share of tokens predicted right."
    return build_table("ablation", title, columns, rows, caption)


def _list_effects(
    row: AblatedModule, answers: AnswerEffects | None
) -> Iterator[tuple[str, Effect]]:
    yield "module", row.loss
    for control in row.controls:
        yield CONTROLS[control.kind], control.loss
    if row.extreme is not None:
        yield "extreme units alone", row.extreme.alone
        yield "module without extreme units", row.extreme.without
    yield "module: accuracy lost", row.accuracy
    if answers is not None:
        yield "module, on the answers", answers.loss[row.module]
        yield "control sets, on the answers", answers.control_loss[row.module]
        yield "module: accuracy lost on the answers", answers.accuracy[row.module]


def tabulate_matrix(ablation: Ablation) -> Table:
    """Return the loss increase for each ablated module and module of the samples."""
    columns = (
        Column("module", "Ablated module", ColumnKind.COUNT),
        Column("samples_of", "Samples of module", ColumnKind.COUNT),
        Column("rise", "Loss increase", ColumnKind.NUMBER),
        Column("control_rise", "Control sets", ColumnKind.NUMBER),
    )
    rows = (
        (row, column, float(rise), float(ablation.control_by_module[row, column]))
        for (row, column), rise in np.ndenumerate(ablation.by_module)
    )
    title = "Loss increase, module by module"
    return build_table("ablation-matrix", title, columns, rows)

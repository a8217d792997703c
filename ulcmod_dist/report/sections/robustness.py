"""The section on robustness: null model, restarts and confounds."""

from collections.abc import Iterator

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
from ulcmod_dist.report.figures.modules import draw_length
from ulcmod_dist.report.tables import Column, ColumnKind, Table, build_table
from ulcmod_dist.results.discovery import (
    Confound,
    ConfoundMeasure,
    Discovery,
    PromptProperty,
    ReportData,
)
from ulcmod_dist.results.types import Absent, Objective
from ulcmod_dist.runtime.text import count, number, percent

_COUNTED_TOKENS = (
    "Which tokens count is a choice as well. To see what it does to the modules, run the job "
    "again with another prompt.tokens and compare the two runs with ulcmod compare."
)


_PROPERTIES = {
    PromptProperty.LENGTH: "prompt length in tokens",
    PromptProperty.DIGITS: "share of digits",
    PromptProperty.PUNCTUATION: "share of punctuation",
    PromptProperty.NON_ASCII: "share of letters outside ASCII",
}


def build_robustness_section(data: ReportData) -> Section:
    """Return the null model, the restarts and the confounds."""
    lead = (
        "A search finds modules in any data. These checks tell whether the modules are more than "
        "chance, do not depend on one start, and reflect more than the length of a prompt."
    )
    return Section("robustness", "Robustness", lead, by_num_modules=build_choices(data, _blocks))


def _blocks(found: Discovery) -> tuple[Block, ...]:
    return (
        KeyFigures(tuple(_key_figures(found))),
        found.null
        if isinstance(found.null, Absent)
        else Collapsible(tabulate_null(found.objective, found.null)),
        _length(found),
        Collapsible(tabulate_restarts(found)),
        *_confounds(found),
    )


def _key_figures(found: Discovery) -> Iterator[KeyFigure]:
    if not isinstance(found.null, Absent):
        largest = max(score.value for score in found.null)
        searches = count(len(found.null), "permutation")
        if found.objective.value > 0:
            share = percent(largest / found.objective.value)
            yield KeyFigure(share, "Found by chance", f"of L, most of {searches}")
    if found.restart_agreement is not None:
        pairs = f"adjusted Rand between {len(found.restarts)} restarts"
        for side, value in zip(("units", "samples"), found.restart_agreement, strict=True):
            yield KeyFigure(f"{value:.2f}", f"Agreement of {side}", pairs)
    if found.methods and (halves := found.methods[0].halves_agreement) is not None:
        note = "adjusted Rand between the modules of two halves of the samples"
        yield KeyFigure(f"{halves:.2f}", "Units over halves", note)
    if not isinstance(found.confounds, Absent):
        first = found.confounds[0]
        yield KeyFigure(
            number(first.value, 2), _PROPERTIES[first.property].capitalize(), _measure(first)
        )


def tabulate_null(measured: Objective, null: tuple[Objective, ...]) -> Table:
    """Return the objective found on the data and on each permutation."""
    columns = (
        Column("data", "Data"),
        Column("objective", "L", ColumnKind.NUMBER),
        Column("xi", "ξ", ColumnKind.NUMBER),
        Column("balance", "B", ColumnKind.NUMBER),
    )
    scores = [("as measured", measured), *((f"permutation {i}", s) for i, s in enumerate(null))]
    rows = ((name, score.value, score.xi, score.balance) for name, score in scores)
    caption = "Each permutation permutes each unit's column over the samples."
    return build_table("null", "Null model", columns, rows, caption)


def tabulate_restarts(found: Discovery) -> Table:
    """Return how each restart ended."""
    columns = (
        Column("restart", "Restart", ColumnKind.COUNT),
        Column("start", "L at the start", ColumnKind.NUMBER),
        Column("end", "L at the end", ColumnKind.NUMBER),
        Column("iterations", "Iterations", ColumnKind.COUNT),
        Column("converged", "Ended because"),
    )
    rows = (
        (
            r.number,
            r.objectives[0],
            r.objectives[-1],
            len(r.objectives) - 1,
            "nothing moved" if r.converged else "limit of iterations or tolerance",
        )
        for r in found.restarts
    )
    return build_table("restarts", "Restarts", columns, rows)


def _length(found: Discovery) -> Block:
    known = [module.length for module in found.modules if module.length is not None]
    if len(known) < len(found.modules):
        return Absent("The number of tokens of each sample is not known.")
    return Picture("length", draw_length(found, known))


def _confounds(found: Discovery) -> tuple[Block, ...]:
    if isinstance(found.confounds, Absent):
        return (found.confounds,)
    return (Note(_COUNTED_TOKENS), Collapsible(tabulate_confounds(found.confounds)))


def tabulate_confounds(confounds: tuple[Confound, ...]) -> Table:
    """Return properties of the prompts that are related to the modules."""
    columns = (
        Column("subject", "What"),
        Column("measure", "Measure"),
        Column("value", "Value", ColumnKind.NUMBER),
    )
    rows = ((_PROPERTIES[c.property], _measure(c), c.value) for c in confounds)
    title = "Confounds: what else is related to the modules"
    caption = (
        "Where modules are related to the length of a prompt or to a kind of character, part of "
        "their activation may follow from that; so may a category that differs in length. A share "
        "of 0.5, or a correlation of 0.7, is strong; below 0.1, or 0.3, it is weak."
    )
    return build_table("confounds", title, columns, rows, caption)


def _measure(confound: Confound) -> str:
    return {
        ConfoundMeasure.EXPLAINED_VARIANCE: "variance of ranks explained by the module "
        "(epsilon squared)",
        ConfoundMeasure.MODULE_CORRELATION: "largest rank correlation with a module's mean "
        f"activation (module {confound.index})",
        ConfoundMeasure.COMPONENT_CORRELATION: "rank correlation with principal component "
        f"{confound.index} of the module features",
    }[confound.measure]

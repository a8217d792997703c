"""The first section: what was found, with its evidence, and a table to choose K by."""

from ulcmod_dist.report.blocks import Block, Claim, Claims, Section, build_choices
from ulcmod_dist.report.specs import format_interval
from ulcmod_dist.report.tables import Column, ColumnKind, Table, build_table
from ulcmod_dist.results.ablation import Ablation
from ulcmod_dist.results.discovery import Discovery, Downstream, ReportData
from ulcmod_dist.results.types import Absent
from ulcmod_dist.runtime.text import count, number


def build_finding_section(data: ReportData) -> Section:
    """Return the findings for each K, and what every K reaches."""
    run = data.run
    held_out = f" and {run.num_test_samples:,} held-out ones" if run.num_test_samples else ""
    lead = (
        f"Run {run.name}: {count(run.num_units, 'unit')} were split, together with "
        f"{count(run.num_samples, 'sample')}{held_out}, into modules, so that the units of a "
        "module are active on its own samples and quiet elsewhere."
    )
    return Section(
        "finding", "Finding", lead,
        shared=(tabulate_choices(data),), by_num_modules=build_choices(data, _blocks),
    )  # fmt: skip


def find_opening(data: ReportData) -> Discovery:
    """Return the K that the page opens with: one that was ablated, of these the most stable."""
    return max(_ablated(data) or data.discoveries, key=_rate_stability)


def _ablated(data: ReportData) -> list[Discovery]:
    return [found for found in data.discoveries if isinstance(found.ablation, Ablation)]


def _rate_stability(found: Discovery) -> tuple[bool, float]:
    """Return a key by which the most stable K is the largest; one module alone always agrees."""
    known = [value for value in (_agree_halves(found), _agree_restarts(found)) if value is not None]
    return found.num_modules > 1, known[0] if known else -1.0


def _agree_halves(found: Discovery) -> float | None:
    return found.methods[0].halves_agreement if found.methods else None


def _agree_restarts(found: Discovery) -> float | None:
    return None if found.restart_agreement is None else found.restart_agreement[0]


def _blocks(found: Discovery) -> tuple[Block, ...]:
    return (Claims((_claim_modules(found), _claim_categories(found), _claim_selectivity(found))),)


def _claim_modules(found: Discovery) -> Claim | Absent:
    value = found.objective.value
    if isinstance(found.null, Absent):
        return found.null
    largest = max(score.value for score in found.null)
    searches = count(len(found.null), "search", "searches")
    if value <= largest:
        text = f"The {found.num_modules} modules are no more than chance finds."
    else:
        text = f"The units fall into {found.num_modules} modules, which chance does not explain."
    times = f"{number(value / largest)} times" if 0 < largest < value else "against"
    evidence = (
        f"The objective L is {number(value, 4)}, {times} the {number(largest, 4)} that {searches} "
        "on permuted activations reached at most."
    )
    return Claim(text, evidence, "quality")


def _claim_categories(found: Discovery) -> Claim | Absent:
    if isinstance(found.downstream, Absent):
        return found.downstream
    main, level = found.downstream.classifiers[0].accuracy, found.random_groups
    samples = "held-out" if found.downstream.folds is None else "cross-validated"
    name = found.downstream.classifiers[0].name
    evidence = (
        f"Given the mean activation of each module, the {name} assigns {main.mean:.1%} of the "
        f"{samples} samples to their category"
    )
    text = "The modules predict the category of a sample"
    if level is not None and level.accuracy is not None:
        evidence += f"; given random groups of as many units, {level.accuracy.mean:.1%}"
        reached = level.accuracy.mean if level.accuracy.high is None else level.accuracy.high
        if (main.mean if main.low is None else main.low) <= reached:
            text += " no better than random groups of units do"
    return Claim(f"{text}.", f"{evidence}.", "quality")


def _claim_selectivity(found: Discovery) -> Claim | Absent:
    ablation = found.ablation
    if isinstance(ablation, Absent):
        return ablation
    least, median = ablation.selectivity_quantiles
    evidence = (
        "Ablating a module increases the loss on its own samples more than on others by "
        f"{number(least)} nats a token at least and {number(median)} in the median, ablating "
        f"control sets by {format_interval(ablation.control_selectivity)} in the mean."
    )
    if ablation.general:
        named = ", ".join(map(str, ablation.general))
        evidence += f" General machinery, which all samples need: module {named}."
    if found.ablated_methods:
        others = (f"{x.method} {x.ablation.num_selective}" for x in found.ablated_methods)
        evidence += f" Selective modules of other methods: {', '.join(others)}."
    amount = f"{ablation.num_selective} of {len(ablation.modules)}"
    return Claim(f"{amount} modules serve their own samples.", evidence, "ablation")


def tabulate_choices(data: ReportData) -> Table:
    """Return what every K reaches, a row each."""
    columns = (
        Column("num_modules", "K", ColumnKind.COUNT),
        Column("objective", "L", ColumnKind.NUMBER),
        Column("xi", "ξ", ColumnKind.NUMBER),
        Column("null_ratio", "L / null model", ColumnKind.NUMBER),
        Column("accuracy", "Accuracy", ColumnKind.NUMBER),
        Column("random_accuracy", "Random groups", ColumnKind.NUMBER),
        Column("adjusted_rand", "Adjusted Rand", ColumnKind.NUMBER),
        Column("restarts_agreement", "Restarts agree", ColumnKind.NUMBER),
        Column("halves_agreement", "Halves agree", ColumnKind.NUMBER),
        Column("selective", "Selective", ColumnKind.COUNT),
        Column("least_selectivity", "Least selectivity", ColumnKind.NUMBER),
    )
    rows = [_choice_row(found) for found in data.discoveries]
    caption = (
        f"{_explain_opening(data)}L falls as K grows, so compare its ratio to the null model. "
        "Accuracy: of the category, beside that of random groups of units. Adjusted Rand: of the "
        "modules and the categories. Agree: adjusted Rand of the units' modules between restarts "
        "and between halves of the samples. Selective: modules, by ablation."
    )
    return build_table("choices", "The numbers of modules compared", columns, rows, caption)


def _choice_row(found: Discovery) -> tuple[float | None, ...]:
    null = () if isinstance(found.null, Absent) else found.null
    largest = max((score.value for score in null), default=0.0)
    level = found.random_groups
    scored = found.downstream if isinstance(found.downstream, Downstream) else None
    ablation = found.ablation if isinstance(found.ablation, Ablation) else None
    return (
        found.num_modules,
        found.objective.value,
        found.objective.xi,
        found.objective.value / largest if largest > 0 else None,
        scored.classifiers[0].accuracy.mean if scored else None,
        level.accuracy.mean if level and level.accuracy else None,
        None if isinstance(found.agreement, Absent) else found.agreement[0].adjusted_rand,
        _agree_restarts(found),
        _agree_halves(found),
        ablation.num_selective if ablation else None,
        ablation.selectivity_quantiles[0] if ablation else None,
    )


def _explain_opening(data: ReportData) -> str:
    """Return why the page opens with its K, where it shows several."""
    if len(data.discoveries) < 2:
        return ""
    opened, ablated = find_opening(data), _ablated(data)
    reason = {0: "the most stable", 1: "which was ablated"}
    why = reason.get(len(ablated), "the most stable of those that were ablated")
    return f"The page opens with K = {opened.num_modules}, {why}. "

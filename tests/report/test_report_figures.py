"""Arrays to figures, figures to plotly and to PNG."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.text import Text
from scipy.cluster.hierarchy import linkage

from tests.report.planted import RESTARTS
from ulcmod_dist.report import paper
from ulcmod_dist.report.colours import (
    DARK,
    get_scale_bar,
)
from ulcmod_dist.report.figures.ablation import (
    draw_loss_by_category,
    draw_loss_by_module,
    draw_selectivity,
)
from ulcmod_dist.report.figures.modules import (
    MAX_PARTS,
    compute_layer_shares,
    compute_mean_layers,
    draw_activation,
    draw_category_mix,
    draw_category_similarity,
    draw_layers,
)
from ulcmod_dist.report.figures.quality import (
    draw_by_method,
    draw_confusion,
)
from ulcmod_dist.report.figures.relations import MIN_LINK, draw_flow, draw_tree
from ulcmod_dist.report.page import collect_figures
from ulcmod_dist.report.plotly_layout import PlotStyle, escape_html
from ulcmod_dist.report.plotly_traces import build_figure, build_variants
from ulcmod_dist.report.sections import build_sections
from ulcmod_dist.report.specs import Figure, Heatmap, Scale
from ulcmod_dist.results.ablation import AblatedModule, Ablation, Control, Effect
from ulcmod_dist.results.discovery import (
    Categories,
    Discovery,
    Downstream,
    Layers,
    Overlap,
    ReportData,
)
from ulcmod_dist.results.types import Interval, Repeats
from ulcmod_dist.runtime.text import DASH, MINUS

SUBJECTS = (
    "ablation", "ablation-categories", "ablation-methods", "ablation-modules", "activation",
    "categories", "category-similarity", "confusion", "hierarchy", "layers", "length", "methods",
    "methods-accuracy", "methods-rand", "methods-xi",
)  # fmt: skip
PICTURES = ("flow", *(f"{subject}-k{k}" for subject in SUBJECTS for k in ("007", "010")))
NAMES = ("alpha", "beta", "gamma")


@pytest.fixture(scope="module")
def found(report_data: ReportData) -> Discovery:
    """Three modules with short names."""
    first = report_data.discoveries[0]
    modules = [
        replace(module, name=name) for module, name in zip(first.modules, NAMES, strict=False)
    ]
    return replace(first, num_modules=3, modules=tuple(modules))


@pytest.fixture(scope="module")
def two(found: Discovery) -> Discovery:
    return replace(found, num_modules=2, modules=found.modules[:2])


def make_categories(counts: Any, names: tuple[str, ...]) -> Categories:
    similarity, compared = np.eye(len(names)), tuple(range(len(names)))
    return Categories(names, np.array(counts), np.ones(len(counts)), similarity, compared)


def make_layers(units: Any) -> Layers:
    return Layers(("0", "1", "2"), np.array(units), np.zeros(len(units)))


def get_ablation(found: Discovery, **changes: Any) -> Ablation:
    assert isinstance(found.ablation, Ablation)
    return replace(found.ablation, **changes)


def test_draw_activation__words_name_the_diagonal_and_the_strongest_cell_off_it(
    found: Discovery,
) -> None:
    means = np.array([[1.0, 0.0, 0.1], [0.0, 0.8, 0.5], [0.0, 0.0, 0.6]])
    spec = draw_activation(replace(found, activation=means))
    assert "0.800" in spec.alternative
    assert "samples of module 1 on units of module 2: 0.500" in spec.alternative
    assert spec.hover(1, 2).startswith("Samples of module 1 (beta)\nUnits of module 2 (gamma)")
    assert spec.scale is Scale.DIVERGING


def test_draw_category_mix__shares_of_each_module_sum_to_one_and_empty_modules_stay_empty(
    found: Discovery,
) -> None:
    spec = draw_category_mix(found, make_categories([[3, 1], [0, 0], [0, 5]], ("law", "code")))
    np.testing.assert_allclose(spec.shares, [[0.75, 0.25], [0.0, 0.0], [0.0, 1.0]])


def test_draw_category_mix__many_categories_are_gathered_without_losing_a_sample(
    two: Discovery,
) -> None:
    counts = np.arange(1, 1 + 2 * 12).reshape(2, 12)
    spec = draw_category_mix(two, make_categories(counts, tuple(f"c{i}" for i in range(12))))
    assert len(spec.parts) == MAX_PARTS
    assert spec.parts[-1] == "5 others"
    np.testing.assert_allclose(spec.shares.sum(axis=1), 1)


def test_draw_category_similarity__a_pair_without_samples_is_not_the_most_similar(
    found: Discovery,
) -> None:
    cosines = np.array([[0.9, 0.1, np.nan], [0.1, 0.8, 0.4], [np.nan, 0.4, 0.7]])
    categories = replace(make_categories([[1, 1, 1]], ("law", "code", "art")), similarity=cosines)
    spec = draw_category_similarity(found, categories)
    assert "similar categories are code and art (0.400)" in spec.alternative
    assert spec.cell_texts is not None
    assert spec.cell_texts[0][2] == ""


def test_draw_confusion__colour_is_the_share_of_the_row_and_text_the_count(
    found: Discovery,
) -> None:
    assert isinstance(found.downstream, Downstream)
    counts = np.array([[9, 1], [0, 4]])
    main = replace(found.downstream.classifiers[0], confusion=counts)
    scored = replace(found.downstream, categories=("law", "code"), classifiers=(main,))
    spec = draw_confusion(found, scored)
    np.testing.assert_allclose(spec.values, [[0.9, 0.1], [0.0, 1.0]])
    assert spec.cell_texts == (("9", "1"), ("", "4"))
    assert "13 of 14" in spec.alternative


def test_compute_mean_layers__layers_of_different_size_weigh_the_same() -> None:
    units = np.array([[10, 0, 50], [10, 20, 50]])
    np.testing.assert_allclose(compute_layer_shares(units), [[0.5, 0, 0.5], [0.5, 1, 0.5]])
    np.testing.assert_allclose(compute_mean_layers(units), [1.0, 1.0])


def test_draw_layers__modules_are_sorted_by_their_mean_layer(found: Discovery) -> None:
    spec = draw_layers(found, make_layers([[0, 0, 4], [4, 0, 0], [0, 4, 0]]))
    assert spec.row_modules == (1, 2, 0)
    assert spec.row_labels[0] == "1 beta"
    assert spec.marks == pytest.approx((0, 1, 2))


def test_draw_by_method__words_name_the_best_method_and_every_seed_is_a_dot() -> None:
    values = (Repeats((0.9, 1.0)), Repeats((0.4,)))
    spec = draw_by_method("Category accuracy", ("IterD", "k-means"), values, "")
    assert spec.alternative.startswith("The highest is that of IterD: IterD 0.950 (0.900 to 1);")
    (series,) = spec.series
    assert series.points == [(0, 0.9), (0, 1.0), (1, 0.4)]
    # No interval is drawn, so that none can leave what is possible.
    assert np.isnan(series.bounds).all()
    means, points = build_figure(spec)["data"]
    assert (means["x"], points["x"]) == ([0.95, 0.4], [0.9, 1.0, 0.4])
    assert points["y"] == pytest.approx([0.2, 0.2, 1.2])


def test_draw_tree__every_module_is_a_leaf_once(found: Discovery) -> None:
    spec = draw_tree(found, linkage(np.array([[0.0], [0.1], [5.0]]), "average"))
    assert sorted(spec.labels) == ["0 alpha", "1 beta", "2 gamma"]
    assert len(spec.branches) == 2
    assert "Modules 0 and 1 are the most alike" in spec.alternative
    made = build_figure(spec)["layout"]
    assert (made["shapes"][0]["x0"], made["annotations"][0]["text"]) == (1.0, "unrelated (r = 0)")


def test_draw_flow__small_overlaps_are_left_out_and_colours_follow_the_first_level(
    found: Discovery, two: Discovery
) -> None:
    overlap = np.array([[60, 40, 1], [0, 0, 90]])
    spec = draw_flow((Overlap(2, 3, overlap, overlap, 0.995, 0.53),), (two, found))
    assert [(link.source, link.target, link.size) for link in spec.links] == [
        (0, 2, 60.0),
        (0, 3, 40.0),
        (1, 4, 90.0),
    ]
    assert [node.group for node in spec.nodes] == [0, 1, 0, 0, 1]
    assert spec.columns() == [[0, 1], [2, 3, 4]]
    assert MIN_LINK * 91 > 1
    assert "100% lie in their module's main parent of K = 2 (53% if" in spec.caption


def test_draw_loss_by_module__words_compare_own_others_and_control_sets(two: Discovery) -> None:
    increase, random = np.array([[0.9, 0.1], [0.3, 1.5]]), np.array([[0.1, 0.2], [0.4, 0.3]])
    spec = draw_loss_by_module(two, get_ablation(two, by_module=increase, control_by_module=random))
    assert "its own samples 1.20 nats a token and others 0.200" in spec.alternative
    assert "control sets cost 0.200 and 0.300" in spec.alternative
    assert spec.hover(1, 0).endswith("Control sets: 0.400")


def test_draw_loss_by_category__words_name_the_largest_difference(two: Discovery) -> None:
    increase = np.array([[0.9, 0.1, np.nan], [0.2, 0.3, 1.5]])
    spec = draw_loss_by_category(
        two, get_ablation(two, categories=("law", "code", "art")), increase, np.full((2, 3), 0.25)
    )
    assert "1.25 nats a token: module 1 ablated, samples of art" in spec.alternative
    assert spec.hover(1, 2).endswith("Loss increase 1.50 nats a token\nControl sets: 0.250")


def test_draw_selectivity__counts_selective_modules(two: Discovery) -> None:
    def row(module: int, selectivity: Interval) -> AblatedModule:
        around = Interval(0.1, 0.0, 0.2)
        return AblatedModule(
            module,
            loss=Effect(selectivity, Interval(0.0), selectivity),
            accuracy=Effect(around, around, around),
            controls=(Control("random", Effect(around, around, around)),),
            extreme=None,
        )

    rows = (row(0, Interval(0.9, 0.8, 1.0)), row(1, Interval(0.3, 0.15, 0.4)))
    spec = draw_selectivity(two, get_ablation(two, modules=rows))
    assert spec.alternative.startswith("1 of 2 modules are selective.")
    assert "Module 0: 0.900 (0.800 to 1), control sets up to 0.100." in spec.alternative


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("narrow", [False, True])
def test_build_figure__plotly_accepts_every_property(
    figures: dict[str, Figure], name: str, narrow: bool
) -> None:
    go.Figure(build_figure(figures[name], PlotStyle(DARK, narrow)))


@pytest.mark.parametrize("name", PICTURES)
def test_build_variants__dark_changes_turn_the_light_figure_into_the_dark_one(
    figures: dict[str, Figure], name: str
) -> None:
    made = json.loads(json.dumps(build_variants(figures[name]), allow_nan=False))
    parts = {"data": made["data"], "layout": made["layout"]}
    assert made["dark"]
    for path, value in made["dark"]:
        part = parts
        for key in path[:-1]:
            part = part[key]
        part[path[-1]] = value
    assert parts == json.loads(json.dumps(build_figure(figures[name], PlotStyle(theme=DARK))))


@given(st.text())
def test_escape_html__no_text_can_open_a_tag(text: str) -> None:
    shown = escape_html(text)
    assert ">" not in shown.replace("<br>", "")
    assert "<" not in shown.replace("<br>", "")


@pytest.mark.parametrize("name", ["activation-k007", "categories-k007", "ablation-k007", "flow"])
def test_render__is_png_svg_and_pdf_with_the_same_bytes_each_time(
    figures: dict[str, Figure], name: str
) -> None:
    first = paper.render(figures[name])
    starts = {ending: content.lstrip()[:5] for ending, content in first.items()}
    assert starts == {"png": b"\x89PNG\r", "svg": b"<?xml", "pdf": b"%PDF-"}
    assert paper.render(figures[name]) == first
    assert not any(b"atplotlib v" in content for content in first.values())


def test_digest__is_that_of_what_a_figure_shows(
    figures: dict[str, Figure], report_data: ReportData
) -> None:
    digests = {name: paper.digest(spec) for name, spec in figures.items()}
    again = collect_figures(build_sections(report_data))
    assert {name: paper.digest(spec) for name, spec in again.items()} == digests
    assert len({*digests.values()}) == len(figures)
    spec = figures["activation-k007"]
    assert isinstance(spec, Heatmap)
    changed = spec.values.copy()
    changed[0, 0] = np.nextafter(changed[0, 0], np.inf)
    others = [replace(spec, values=changed), replace(spec, column_axis="Other")]
    assert digests["activation-k007"] not in {
        paper.digest(spec, titles=False),
        *map(paper.digest, others),
    }


def test_render__titles_are_left_out_where_the_job_says_so(figures: dict[str, Figure]) -> None:
    spec = figures["activation-k007"]
    with_titles, without = (
        {text.get_text() for text in paper.draw(spec, titles=titles).findobj(Text)}
        for titles in (True, False)
    )
    assert spec.title in with_titles - without
    assert spec.column_axis in without  # type: ignore[union-attr]


@pytest.mark.parametrize("name", [name for name in PICTURES if name.endswith(("w", "k010"))])
def test_draw__every_text_is_whole_within_the_width_of_a_column(
    figures: dict[str, Figure], name: str
) -> None:
    canvas = paper.draw(figures[name])
    assert canvas.get_figwidth() == 3.3
    drawn = canvas.get_tightbbox().extents
    assert min(drawn) >= 0
    assert all(end <= size for end, size in zip(drawn[2:], canvas.get_size_inches(), strict=True))


def test_render__a_text_of_dollars_and_missing_glyphs_is_drawn(found: Discovery) -> None:
    names = (r"$\frac{1}{0}$", "中文 \U0001f600", "tab\tnewline\n")
    modules = [replace(m, name=name) for m, name in zip(found.modules, names, strict=True)]
    odd = replace(found, modules=tuple(modules), activation=np.eye(3))
    assert paper.render(draw_activation(odd))


def test_render__arrays_of_one_module_or_without_variation_are_drawn(found: Discovery) -> None:
    one = replace(found, num_modules=1, modules=found.modules[:1], activation=np.zeros((1, 1)))
    assert paper.render(draw_activation(one))
    assert build_figure(draw_activation(one))["data"][0]["zmax"] == 1.0


def test_heatmap__a_cell_without_a_value_stays_empty(two: Discovery) -> None:
    increase = np.array([[0.9, np.nan], [0.2, 1.5]])
    spec = draw_loss_by_category(
        two, get_ablation(two, categories=("law", "code")), increase, np.zeros((2, 2))
    )
    assert build_figure(spec)["data"][0]["z"] == [[0.9, None], [0.2, 1.5]]
    assert DASH in spec.hover(0, 1)
    assert paper.render(spec)


def test_heatmap__marks_leave_the_texts_of_their_cells_free(figures: dict[str, Figure]) -> None:
    marks = build_figure(figures["layers-k010"])["data"][-1]
    assert {round(y % 1, 2) for y in marks["y"]} == {0.38}


@pytest.mark.parametrize(("narrow", "columns"), [(False, 20), (True, 10)])
def test_heatmap__columns_are_thinned_on_a_phone_and_rows_keep_their_labels(
    found: Discovery, narrow: bool, columns: int
) -> None:
    modules = [replace(found.modules[0], number=i, name=f"module {i}") for i in range(20)]
    many = replace(found, num_modules=20, modules=tuple(modules), activation=np.eye(20))
    layout = build_figure(draw_activation(many), PlotStyle(narrow=narrow))["layout"]
    assert len(layout["xaxis"]["ticktext"]) == columns
    assert len(layout["yaxis"]["ticktext"]) == 20


def test_basis__every_figure_of_modules_names_its_seed_and_restarts(
    figures: dict[str, Figure],
) -> None:
    assert set(figures) == set(PICTURES)
    assert figures["flow"].basis == f"K = 7 and 10, seed 0, best of {RESTARTS} restarts each."
    for name in ("ablation", "ablation-modules", "ablation-categories"):
        assert figures[f"{name}-k010"].basis == (
            f"K = 10, seed 0, best of {RESTARTS} restarts. Measured on 200 samples, beside "
            "3 control sets a module; both drawn with seed 0."
        )


def test_get_scale_bar__prints_the_two_ends_of_the_colours(
    figures: dict[str, Figure], two: Discovery
) -> None:
    bar = get_scale_bar(draw_activation(replace(two, activation=np.diag([0.5, 0.25]))))
    assert bar is not None
    assert bar.ends == (f"{MINUS}0.50", "0.50")
    assert get_scale_bar(figures["flow"]) is None

"""Sections to one HTML file that opens offline and runs no text of the corpus.

Templates escape everything; figures travel as JSON without any character that HTML reads; and
the page's own policy lets no script run but the two it names by digest, and no request leave.
"""

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from plotly.offline import get_plotlyjs

from ulcmod_dist.report.blocks import Collapsible, Picture, Section
from ulcmod_dist.report.colours import define_css_colours, get_legend, get_scale_bar
from ulcmod_dist.report.plotly_traces import build_figure, build_variants
from ulcmod_dist.report.sections import build_sections
from ulcmod_dist.report.sections.finding import find_opening
from ulcmod_dist.report.specs import Figure, Heatmap
from ulcmod_dist.report.tables import Cell, ColumnKind, Table, format_cell
from ulcmod_dist.results.discovery import ReportData
from ulcmod_dist.runtime.text import PROMPT_LIMIT, compact, label, shorten, strip_control_chars

PROMPT_HEAD = 220
"""Characters of a prompt that show before it is expanded."""

LONG_TABLE = 20
"""Rows above which a table stays closed until the reader opens it."""

MAX_ROWS = 500
"""Rows of a table on the page; browsers open many more only slowly. Its file has them all."""

_LONG_NUMBER = re.compile(r"\d{3}(?:,\d{3})+|\d{1,2}(?:,\d{3}){2,}")

HALF_COLUMNS = 6
"""Columns up to which the cells of a heatmap in half the width have room for their texts."""


def render_page(data: ReportData) -> str:
    """Return the report of a run as one HTML file; equal data give equal text."""
    choices = [found.num_modules for found in data.discoveries]
    opened = find_opening(data).num_modules
    return render_document(data.run.model or data.run.name, build_sections(data), choices, opened)


def render_document(
    title: str, parts: Sequence[Section], choices: Sequence[int] = (), opened: int | None = None
) -> str:
    """Return sections as one HTML file.

    Args:
        title: Title of the page. Untrusted text, like all others.
        parts: The sections.
        choices: The values of K between which the reader switches.
        opened: The K that the page opens with.
    """
    plotly, script = _script(get_plotlyjs()), _script(_asset("page.js"))
    return _environment().get_template("page.html.j2").render(
        title=strip_control_chars(title),
        opened=opened,
        sections=parts,
        choices=choices,
        figures=_figures(parts),
        style=Markup(define_css_colours() + _asset("page.css")),  # noqa: S704 - the package's own file
        plotly=plotly,
        script=script,
        script_sources=" ".join(_source(text) for text in (plotly, script)),
    )  # fmt: skip


def collect_figures(parts: Iterable[Section]) -> dict[str, Figure]:
    """Return all figures of a page by name, for files."""
    return {
        block.name: block.spec
        for part in parts
        for block in part.blocks()
        if isinstance(block, Picture)
    }


def collect_tables(parts: Iterable[Section]) -> dict[str, Table]:
    """Return all tables of a page by name, for Parquet, the terminal and JSON."""
    blocks = (block for part in parts for block in part.blocks())
    shown = (block.table if isinstance(block, Collapsible) else block for block in blocks)
    return {block.name: block for block in shown if isinstance(block, Table)}


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("ulcmod_dist.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "label": label,
        "printable": strip_control_chars,
        "shorten": shorten,
        "cell": lambda cell, kind: _fit_phone(format_cell(cell, kind), kind),
        "fit": _fit_phone,
        "exact": _exact,
        "wide": _is_wide,
        "kind": lambda block: type(block).__name__,
        "height": lambda spec: build_figure(spec)["layout"]["height"],
        "legend": get_legend,
        "scale_bar": get_scale_bar,
    }
    environment.globals |= {
        "prompt_head": PROMPT_HEAD,
        "prompt_limit": PROMPT_LIMIT,
        "long_table": LONG_TABLE,
        "max_rows": MAX_ROWS,
    }
    return environment


def _exact(value: Cell, kind: ColumnKind) -> Markup:
    """Return the attribute that holds a number as it is; a text has none."""
    if value is None:
        return Markup(' data-v=""')
    return Markup("") if kind == ColumnKind.TEXT else Markup(' data-v="{}"').format(value)


def _fit_phone(text: str, kind: ColumnKind = ColumnKind.NUMBER) -> Markup:
    """Return a text in which each number of six digits or more is short on a phone."""
    if kind == ColumnKind.TEXT:
        return escape(text)
    words = Markup('<span class="long">{}</span><span class="short">{}</span>').format
    return Markup(_LONG_NUMBER.sub(lambda match: words(match[0], compact(match[0])), escape(text)))  # noqa: S704 - escaped


def _is_wide(picture: Picture) -> bool:
    """Return whether a picture has a row of its own, as its texts need or it asks for."""
    spec = picture.spec
    if picture.wide or not isinstance(spec, Heatmap):
        return picture.wide
    return spec.shows_cell_texts and len(spec.column_labels) > HALF_COLUMNS


def _figures(parts: Iterable[Section]) -> Markup:
    """Return all figures as JSON that is safe inside a script element."""
    values = {}
    for name, spec in collect_figures(parts).items():
        words = {"title": spec.title, "basis": spec.basis, "picks": spec.row_modules}
        values[name] = {**build_variants(spec), **words}
    text = json.dumps(values, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)  # noqa: S704 - no character that HTML reads is left


def _asset(name: str) -> str:
    return (files("ulcmod_dist.report") / "templates" / name).read_text(encoding="utf-8")


def _script(text: str) -> Markup:
    return Markup(text.replace("\r", ""))  # noqa: S704 - the package's or plotly's own file


def _source(script: str) -> str:
    digest = hashlib.sha256(script.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"

"""How values show themselves in a notebook: tables in HTML, with no text taken for markup."""

from collections.abc import Sequence
from html import escape

from ulcmod_dist.runtime.text import DASH, label, number

_SHADE = "background:rgba(66, 133, 244, {:.2f})"  # over a light page and over a dark one


def render_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], shaded: int
) -> str:
    """A table whose last ``shaded`` columns are a heatmap of values from 0 to 1."""
    head = "".join(f"<th>{escape(label(name))}</th>" for name in columns)
    body = "".join(
        "<tr>" + "".join(_render_cell(c, i >= len(columns) - shaded) for i, c in enumerate(row))
        for row in rows
    )
    return f"<p>{escape(label(title, 200))}</p><table><tr>{head}</tr>{body}</table>"


def _render_cell(cell: object, is_shaded: bool) -> str:
    if not isinstance(cell, int | float):
        return f"<td>{escape(DASH if cell is None else label(str(cell)))}</td>"
    shade = _SHADE.format(min(max(cell, 0.0), 1.0) * 0.7) if is_shaded and cell == cell else ""
    return f'<td style="text-align:right;{shade}">{number(cell)}</td>'

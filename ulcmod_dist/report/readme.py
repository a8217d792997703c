"""The README of exported modules, in Markdown with the front matter of a model card."""

import re
from collections.abc import Mapping

from jinja2 import Environment, PackageLoader, StrictUndefined

from ulcmod_dist.results.ablation import Ablation
from ulcmod_dist.results.discovery import Discovery
from ulcmod_dist.runtime.text import DASH, label, number

# Names come from a corpus: no character of theirs may become markup.
_MARKUP = re.compile(r"([\\`*_{}\[\]<>()#+|~!$&:-])")


def render_readme(
    discovery: Discovery | None, sizes: Mapping[int, int], **facts: str | float
) -> str:
    """What the modules are, how they were found, and how to apply them.

    Args:
        discovery: Their evaluation, if there is one.
        sizes: Units of each module.
        facts: ``model``, ``version``, ``mask`` (its name, for the example), ``num_modules``,
            ``objective`` and ``seed``.
    """
    environment = Environment(
        loader=PackageLoader("ulcmod_dist.report"),
        undefined=StrictUndefined,
        trim_blocks=True,
        autoescape=False,  # noqa: S701 - Markdown, in which `md` escapes
    )
    environment.filters |= {"md": escape_markdown, "number": number}
    rows = [(k, f"{size:,}", *_describe(discovery, k)) for k, size in sizes.items()]
    return environment.get_template("readme.md.j2").render(rows=rows, **facts)


def _describe(discovery: Discovery | None, module: int) -> tuple[str, ...]:
    """Samples, mean z, whether selective, and name of a module."""
    if discovery is None:
        return (DASH, DASH, DASH, "")
    ablated = discovery.ablation.modules if isinstance(discovery.ablation, Ablation) else ()
    selective = {row.module: "yes" if row.is_selective else "no" for row in ablated}
    return (
        f"{discovery.modules[module].num_samples:,}",
        number(float(discovery.activation[module, module])),
        selective.get(module, DASH),
        discovery.names[module],
    )


def escape_markdown(text: str) -> str:
    """A text on one line, as it is, in Markdown."""
    return _MARKUP.sub(r"\\\1", label(text, 80))

"""The README of exported modules, in Markdown with the front matter of a model card."""

import re

from jinja2 import Environment, PackageLoader, StrictUndefined

from ulcmod_dist.results.ablation import Ablation
from ulcmod_dist.results.discovery import Discovery
from ulcmod_dist.runtime.text import label, number

# Names come from a corpus: no character of theirs may become markup.
_MARKUP = re.compile(r"([\\`*_{}\[\]<>()#+|~!$&:-])")


def render_readme(discovery: Discovery | None, **facts: str | float) -> str:
    """What the modules are, how they were found, and how to apply them.

    Args:
        discovery: Their evaluation, if there is one.
        facts: ``model``, ``arguments`` (of `from_pretrained`) and ``mask`` (its name) for the
            example, ``version``, ``num_modules``, ``objective`` and ``seed``.
    """
    environment = Environment(
        loader=PackageLoader("ulcmod_dist.report"),
        undefined=StrictUndefined,
        trim_blocks=True,
        autoescape=False,  # noqa: S701 - Markdown, in which `md` escapes
    )
    environment.filters |= {"md": escape_markdown, "number": number}
    measured = discovery is not None and isinstance(discovery.ablation, Ablation)
    template = environment.get_template("readme.md.j2")
    return template.render(discovery=discovery, is_ablated=measured, **facts)


def escape_markdown(text: str) -> str:
    """A text on one line, as it is, in Markdown."""
    return _MARKUP.sub(r"\\\1", label(text, 80))

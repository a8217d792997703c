"""Sphinx configuration; `make docs` builds the site.

Warnings fail the build, including broken links between pages. So does a page that loads fonts,
scripts, styles or formulas from another host: the site works offline.
"""

import re
from importlib.metadata import version as installed_version
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.errors import SphinxError

project = "ulcmod_dist"
author = "the ulcmod_dist authors"
release = version = installed_version("ulcmod-dist")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_heading_anchors = 3
highlight_language = "text"

# Docstrings use single backticks for code, as in Markdown.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_class_signature = "separated"
autodoc_default_options = {"exclude-members": "__init__, __new__"}
maximum_signature_line_length = 88
autodoc_typehints_format = "short"
napoleon_use_rtype = False

html_theme = "furo"
html_title = "ulcmod_dist"
html_copy_source = False
html_show_sourcelink = False

REMOTE = re.compile(r"""(?:src|<link[^>]*href|url\()\s*=?\s*["']?((?:https?:)?//[^"')\s>]+)""")


def find_remote_resources(site: Path) -> set[str]:
    """Return the addresses on other hosts that the pages and style sheets of a site load."""
    pages = [*site.rglob("*.html"), *site.rglob("*.css")]
    return {address for page in pages for address in REMOTE.findall(page.read_text("utf-8"))}


def refuse_remote_resources(app: Sphinx, exception: Exception | None) -> None:
    """Fail a finished build whose pages need another host."""
    remote = find_remote_resources(Path(app.outdir)) if exception is None else set()
    if remote:
        raise SphinxError(f"The pages load from other hosts: {', '.join(sorted(remote))}")


def setup(app: Sphinx) -> None:
    """Check each finished build."""
    app.connect("build-finished", refuse_remote_resources)

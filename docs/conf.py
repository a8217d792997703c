"""How Sphinx builds these pages: `make docs`.

Every warning fails the build, so a link between pages that leads nowhere fails it too. The pages
ask no other host for anything: no fonts, no scripts, no formulas drawn elsewhere.
"""

from importlib.metadata import version as installed_version

project = "ulcmod_dist"
author = "the ulcmod_dist authors"
release = version = installed_version("ulcmod-dist")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_heading_anchors = 3
highlight_language = "text"

# Docstrings put code between single backticks, as Markdown does.
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

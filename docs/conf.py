"""Sphinx: see tests/tools/site, which copies the sources and calls it."""

from spikecore import __version__
from tests.tools.site.markup import rst

project = "spikecore"
author = copyright = "The spikecore developers"
release = version = __version__
root_doc = "docs/index"
extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["**/CHANGELOG.md"]

html_theme = "furo"
html_title = f"spikecore {version}"
html_static_path = ["site"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False

myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
autodoc_inherit_docstrings = False

# Types in signatures are those of torch and of private modules, whose pages are not here.
nitpick_ignore_regex = [("py:.*", ".*")]
# A signature with a type that only the type checker imports stays text, and a name in it may stand at several doors.
suppress_warnings = ["ref.python"]


def plain(app, what, name, obj, options, lines):
    """Docstrings are written for `help()`."""
    lines[:] = rst("\n".join(lines))


def setup(app):
    app.connect("autodoc-process-docstring", plain)

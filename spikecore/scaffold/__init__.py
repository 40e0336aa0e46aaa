"""A new plugin from templates: `spike new-plugin`. No torch; the templates are package data beside this module."""

from spikecore.scaffold.names import Names, names_for
from spikecore.scaffold.render import render

__all__ = ["Names", "names_for", "render"]

"""A new plugin from templates: `spike new-plugin`. No torch; the templates are package data beside this module."""

from spikecore.scaffold.names import Names, collisions, names_for
from spikecore.scaffold.render import render

__all__ = ["Names", "collisions", "names_for", "render"]

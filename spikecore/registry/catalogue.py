"""Which plugin of this project holds a component that is not installed, and the line that installs it.

`make catalogue` generates `known.json` from the `pyproject.toml` files. It is used for suggestions only: a stale or
missing file changes no other behaviour. The project does not own its names on a public index yet, so the suggested line
installs from a checkout: suggesting an unregistered name would invite anyone to register it (dependency confusion).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files

CORE_ID = "core"
PUBLISHED: frozenset[str] = frozenset()
"""Plugins whose distribution is on the public index."""


@lru_cache(maxsize=1)
def known() -> Mapping[tuple[str, str], str]:
    """`(kind, name)` → plugin id, for core and all plugins of this project; commands and tables of choices too."""
    try:
        owners = json.loads(files("spikecore.registry").joinpath("known.json").read_text("utf-8"))
    except (OSError, ValueError):
        owners = None
    if not isinstance(owners, dict):
        return {}  # no suggestions then
    # The first colon ends the kind; a name may have colons of its own.
    pairs = {component.partition(":"): owner for component, owner in owners.items()}
    return {(kind, name): owner for (kind, _, name), owner in pairs.items()}


def install_hint(kind: str, name: str) -> str:
    """`mnist is in the plugin …: pip install …`, or "" for an unknown component and one of core.

    Args:
        kind: of the component.
        name: its name, or `distribution:name`.
    """
    if (kind, name) not in known():
        name = name.partition(":")[2]
    owner = known().get((kind, name), CORE_ID)
    if owner == CORE_ID:
        return ""
    if owner in PUBLISHED:
        return f"{name} is in the plugin {owner}: pip install spikecore-{owner}"
    return f"{name} is in the plugin {owner}: pip install ./plugins/{owner} in a checkout of spikecore"

"""Names of nodes: letters, digits and underscores, because readers make them attributes, paths and variables."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable

RESERVED = ("input", "output")
"""What the ends of a graph are called."""


def escaped_name(name: str, taken: Iterable[str]) -> str:
    """A name that every reader takes and that is not taken.

    Example:
        >>> escaped_name("layers.1", ()), escaped_name("layer/1#2", ("layer_1_2",)), escaped_name("3", ())
        ('layers_1', 'layer_1_2_2', 'n3')
    """
    plain = re.sub(r"\W", "_", name, flags=re.ASCII) or "node"
    if plain[0].isdigit() or plain.startswith("_") or keyword.iskeyword(plain):
        plain = f"n{plain}"
    used = {*taken, *RESERVED}
    unique, count = plain, 1
    while unique in used:
        count += 1
        unique = f"{plain}_{count}"
    return unique

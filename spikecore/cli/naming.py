"""The two ways to name a component on the command line: `KIND NAME` and `KIND:NAME`."""

from __future__ import annotations

from collections.abc import Sequence

import click


def kind_and_name(words: Sequence[str]) -> tuple[str, str]:
    """`("neuron", "lif")` from `neuron lif` or `neuron:lif`; a qualified name keeps its own colon.

    Raises:
        click.UsageError: neither form.
    """
    if len(words) == 1 and ":" in words[0]:
        kind, _, name = words[0].partition(":")
    elif len(words) == 2:
        kind, name = words
    else:
        raise click.UsageError(f"expected KIND NAME or KIND:NAME, as in `neuron lif`; got {' '.join(words)!r}")
    return kind, name

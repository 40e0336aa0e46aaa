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
        raise click.UsageError(
            f"expected KIND NAME or KIND:NAME, as in `neuron lif`; got {' '.join(words)!r}{_meant(words)}"
        )
    return kind, name


def _meant(words: Sequence[str]) -> str:
    """`; did you mean `neuron lif`?` where one word names components, in whatever case; else ""."""
    from spikecore.registry import registry

    if len(words) != 1:
        return ""
    named = [entry for entry in registry().entries() if entry.name.lower() == words[0].lower()]
    choices = " or ".join(f"`{entry.kind} {entry.name}`" for entry in named)
    return f"; did you mean {choices}?" if choices else ""

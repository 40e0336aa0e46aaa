"""`--input-shape C,H,W`, as the commands that build a net take it."""

from __future__ import annotations

from spikecore.errors import ConfigError


def parse_shape(text: str) -> tuple[int, ...]:
    """The shape of one sample, without T and B: `(3, 224, 224)` from `3,224,224`.

    Raises:
        ConfigError: these are no sizes of 1 or more.
    """
    try:
        sizes = tuple(int(size) for size in text.split(","))
    except ValueError:
        sizes = ()
    if not sizes or min(sizes) < 1:
        raise ConfigError(f"--input-shape {text}: expected sizes of 1 or more, as in 1,28,28")
    return sizes

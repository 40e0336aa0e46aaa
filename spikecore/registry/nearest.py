"""The names nearest to a misspelt one, ignoring case and separators."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, names: Iterable[str], count: int = 1) -> list[str]:
    """At most `count` of `names` that `name` may have meant, the nearest first; one that is the same alone.

    Example:
        >>> nearest("LIF", ["if", "lif"], 3), nearest("RateCrossEntropy", ["rate_mse", "rate_cross_entropy"])
        (['lif'], ['rate_cross_entropy'])
    """
    by_form: dict[str, str] = {}
    for candidate in names:
        by_form.setdefault(_form(candidate), candidate)
    if _form(name) in by_form:
        return [by_form[_form(name)]]
    return [by_form[form] for form in difflib.get_close_matches(_form(name), by_form, n=count)]


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """`; did you mean 'tau'?`, or "" if no name is near."""
    near = nearest(name, names)
    return f"; did you mean {near[0]!r}?" if near else ""


def _form(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")

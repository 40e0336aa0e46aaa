"""TOML and JSON that somebody else wrote: bounded in length and depth before anything walks through them.

    parse_toml(text)    parse_json(data, most_bytes=1 << 20)

A document of a few kilobytes may nest thousands of tables, and whatever walks through it by recursion dies of that.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["MOST_DEPTH", "MOST_TOML_BYTES", "DocumentError", "parse_json", "parse_toml"]

MOST_DEPTH = 100
"""Of lists and tables within each other."""
MOST_TOML_BYTES = 1 << 20
"""Configurations are written by people."""

_PART = r"""(?:[A-Za-z0-9_-]+|"[^"\n]*"|'[^'\n]*')"""
_LONG_KEY = re.compile(rf"(?<![A-Za-z0-9_-])(?:{_PART}[ \t]*\.[ \t]*){{{MOST_DEPTH + 1}}}")


class DocumentError(ValueError):
    """A document is longer or deeper than is accepted."""


def parse_toml(text: str, *, most_bytes: int = MOST_TOML_BYTES) -> dict[str, Any]:
    """The tables of a TOML text.

    Raises:
        DocumentError: it is too long, or nested too deeply.
        tomllib.TOMLDecodeError: it is not TOML; both are ValueErrors.
    """
    _check_length(text, most_bytes)
    if _LONG_KEY.search(text):  # the parser would take time by the square of the number of parts
        raise _too_deep()
    try:
        tables = tomllib.loads(text)
    except RecursionError:
        raise _too_deep() from None
    _check_depth(tables)
    return tables


def parse_json(data: bytes | str, *, most_bytes: int) -> Any:
    """The value of a JSON text.

    Raises:
        DocumentError: it is too long, or nested too deeply.
        ValueError: it is not JSON, or no UTF-8.
    """
    _check_length(data, most_bytes)
    try:
        value = json.loads(data)
    except RecursionError:
        raise _too_deep() from None
    _check_depth(value)
    return value


def _check_length(data: bytes | str, most_bytes: int) -> None:
    num_bytes = len(data) if isinstance(data, bytes) else _num_bytes(data, most_bytes)
    if num_bytes > most_bytes:
        raise DocumentError(f"is {num_bytes} bytes long; at most {most_bytes} bytes are accepted")


def _num_bytes(text: str, most_bytes: int) -> int:
    """In UTF-8; the number of characters where that alone is too many, so that no more memory is taken for it."""
    return len(text) if len(text) > most_bytes else len(text.encode(errors="surrogatepass"))


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MOST_DEPTH):
        below: list[Any] = []
        for item in level:
            if isinstance(item, Mapping):
                below += item.values()
            elif isinstance(item, list):
                below += item
        level = [item for item in below if isinstance(item, Mapping | list)]
        if not level:
            return
    raise _too_deep()


def _too_deep() -> DocumentError:
    return DocumentError(f"nests lists or tables more than {MOST_DEPTH} deep")

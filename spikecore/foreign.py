"""Text that somebody else wrote (metadata, files, compilers), made safe to print.

printable("\\x1b[2Jowned")    ->    "\\\\x1b[2Jowned"
"""

from __future__ import annotations

import unicodedata

__all__ = ["MOST_CHARACTERS", "odd_characters", "printable", "printable_lines"]

MOST_CHARACTERS = 300
"""A longer text is cut."""


def printable(text: object, limit: int = MOST_CHARACTERS) -> str:
    """One line of at most `limit` characters, none of which moves the cursor, colours, or turns the direction of text.

    Other characters are shown as Python writes them (`\\\\x1b`, `\\\\u202e`), so that one sees that they are there.
    """
    whole = str(text)
    if whole.isprintable() and len(whole) <= limit:
        return whole
    shown = "".join(map(_shown, whole[: limit + 1]))
    return shown if len(shown) <= limit else f"{shown[: limit - 1]}…"


def printable_lines(text: object, limit: int = 100_000) -> str:
    """The same for a text of several lines, such as the message of an error; the lines stay."""
    lines = str(text)[:limit].split("\n")
    return "\n".join(printable(line, limit) for line in lines)


def odd_characters(text: str, usual: str) -> list[str]:
    """The characters of `text` outside `usual`, each once, with the name that Unicode gives it.

    A look-alike is told apart so: `'і' (CYRILLIC SMALL LETTER BYELORUSSIAN-UKRAINIAN I)`.
    """
    odd = [sign for sign in dict.fromkeys(text) if sign not in usual]
    return [f"'{printable(sign)}' ({unicodedata.name(sign, 'unnamed')})" for sign in odd]


def _shown(sign: str) -> str:
    # `isprintable` refuses controls, surrogates, and all formats: those of direction, and those of no width. It also
    # refuses every space but one; the no-break space stands before units and in French, and does no harm.
    is_safe = sign.isprintable() or unicodedata.category(sign) == "Zs"
    return sign if is_safe else repr(sign)[1:-1]

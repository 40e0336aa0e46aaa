"""Names the plugin whose import ends the process: nothing can be said after that, so it is said before.

On a terminal a line shows what is being imported, and is wiped out when the import has ended. Elsewhere nothing is
printed unless the import calls `os._exit`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from spikecore.foreign import printable
from spikecore.terminal import width

ERASE = "\r\x1b[K"
"""Back to the beginning of the line, and clear it."""


@contextmanager
def named_while_imported(text: str) -> Iterator[None]:
    """Inside, an end of the process leaves `text` on stderr.

    Args:
        text: says what is imported.
    """
    line = printable(text, 1000)
    columns = width()
    if columns is not None:
        # A line that the terminal breaks could not be wiped out.
        shown = line if len(line) < columns else f"{line[: columns - 2]}…"
        print(shown, end="", file=sys.stderr, flush=True)
        try:
            yield
        finally:
            print(ERASE, end="", file=sys.stderr, flush=True)
        return
    plain, own = os._exit, os.getpid()
    is_importing = True

    def exit_with_notice(status: int) -> NoReturn:
        # A module may keep this function (`from os import _exit`), and a child of a fork may call it.
        if is_importing and os.getpid() == own:
            print(f"{line}: it ended the process with os._exit({status})", file=sys.stderr, flush=True)
        plain(status)

    os._exit = exit_with_notice
    try:
        yield
    finally:
        is_importing = False
        os._exit = plain

"""Errors of the neuron language that show the user's own line."""

from __future__ import annotations

import linecache
import os
import sys
from types import FrameType

from spikecore.errors import DynamicsError

_HERE = os.path.dirname(os.path.abspath(__file__))
_FOREIGN = ("torch", "numpy")


def refuse(problem: str, cure: str, kind: type[DynamicsError] = DynamicsError) -> DynamicsError:
    """The error to raise: the problem, the line of the user's code that caused it, and the cure."""
    frame = user_frame()
    if frame is None:
        return kind(f"{problem}\n  {cure}")
    file, line = frame.f_code.co_filename, frame.f_lineno
    source = linecache.getline(file, line, frame.f_globals).strip() or "(source not available)"
    return kind(f'{problem}\n  File "{file}", line {line}, in {frame.f_code.co_name}\n    {source}\n  {cure}')


def user_frame() -> FrameType | None:
    """The innermost frame that belongs neither to this package nor to torch or numpy."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        is_ours = os.path.dirname(os.path.abspath(frame.f_code.co_filename)) == _HERE
        if not is_ours and package not in _FOREIGN:
            return frame
        frame = frame.f_back
    return None

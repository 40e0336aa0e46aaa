"""The settings of a process that no component may change: threads, default dtype, denormal numbers, generators, modes.

A component that changes one of them changes the results or the speed of code that has nothing to do with it. The kit
compares them around every check, and some checks around every call.
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

Setting = tuple[Callable[[], Any], Callable[[Any], object]]
"""How to read a setting, and how to set it."""


def _keeps_denormals() -> bool:
    """Whether this thread computes with numbers below the smallest normal one, or takes them for zero."""
    smallest = torch.tensor([sys.float_info.min], dtype=torch.float64)
    return bool((smallest / 4 != 0).all())


def _set_keeps_denormals(keeps: bool) -> None:
    torch.set_flush_denormal(not keeps)


def _deterministic() -> tuple[bool, bool]:
    return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()


def _set_deterministic(modes: tuple[bool, bool]) -> None:
    torch.use_deterministic_algorithms(modes[0], warn_only=modes[1])


SETTINGS: dict[str, Setting] = {
    "torch.get_num_threads()": (torch.get_num_threads, torch.set_num_threads),
    "torch.get_default_dtype()": (torch.get_default_dtype, torch.set_default_dtype),
    "torch.get_default_device()": (torch.get_default_device, torch.set_default_device),
    "torch.is_grad_enabled()": (torch.is_grad_enabled, torch.set_grad_enabled),
    "torch.is_anomaly_enabled()": (torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
    "deterministic algorithms (on, warn only)": (_deterministic, _set_deterministic),
    "torch.get_float32_matmul_precision()": (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    "computing with denormal numbers": (_keeps_denormals, _set_keeps_denormals),
    "the working directory": (os.getcwd, os.chdir),
}
"""Name → how to read and how to restore it. Torch's number of interop threads is left out: it can be set only once."""

GENERATORS: dict[str, Setting] = {
    "Python's global random generator": (random.getstate, random.setstate),
    "numpy's global random generator": (lambda: np.random.get_state(legacy=True), np.random.set_state),
}
"""Generators that nothing here may draw from: seeds reach components through torch's generators alone."""


def snapshot() -> dict[str, Any]:
    """Name → present value, of all settings and generators."""
    return {name: read() for name, (read, _) in (SETTINGS | GENERATORS).items()}


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """One line for every setting that differs."""
    lines = []
    for name, value in before.items():
        if name in GENERATORS:
            if not _same_state(value, after[name]):
                lines.append(f"{name} was drawn from or seeded")
        elif after[name] != value:
            lines.append(f"{name} was {value!r}, is {after[name]!r}")
    return lines


def restore(before: dict[str, Any]) -> None:
    """Set whatever differs from `before` back."""
    after = snapshot()
    for name, (_, write) in (SETTINGS | GENERATORS).items():
        differs = not _same_state(before[name], after[name]) if name in GENERATORS else before[name] != after[name]
        if differs:
            write(before[name])


def _same_state(ours: Any, theirs: Any) -> bool:
    """Whether two states of a generator are equal; numpy's holds an array."""
    return all(np.array_equal(own, other) for own, other in zip(ours, theirs, strict=True))


@contextmanager
def unchanged(what: str) -> Iterator[None]:
    """Inside, a change of a setting is a failure of the check; the setting is restored.

    Args:
        what: the call inside, for the message.
    """
    given = snapshot()
    # The generators may be freshly seeded. They are drawn from, so that seeding them again with the same number shows.
    random.random()
    np.random.random()
    before = snapshot()
    try:
        yield
    finally:
        lines = changes(before, snapshot())
        restore(given)
    assert not lines, f"{what} changed settings of the whole process: {'; '.join(lines)}"

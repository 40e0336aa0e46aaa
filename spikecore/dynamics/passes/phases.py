"""Which gradients arrive at which step of a backward pass.

A gradient that does not arrive is not zero: zero times infinity is not a number, whereas a missing term contributes
nothing. So a backward pass runs another graph (`with_gaps`) at steps at which gradients are missing. Which ones are
missing depends on the program and on what arrives from outside, never on the data.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from spikecore.dynamics.graph import Graph, Program
from spikecore.dynamics.vjp import reached, with_gaps


class Phase(NamedTuple):
    """Steps of a backward pass, one after the other, at which the same gradients arrive.

    Args:
        arriving: the outputs of a step (`out`, `state.NAME`) whose gradient arrives.
        num_steps: how many steps, at least one.
    """

    arriving: frozenset[str]
    num_steps: int


def phases(program: Program, arriving: Sequence[bool], steps: int) -> tuple[Phase, ...]:
    """The phases of a backward pass, from the last step to the first.

    Args:
        program: the program.
        arriving: is there a gradient of `out`, of each final state, of each recorded sequence?
        steps: T; with 0 there are no phases.
    """
    return _phases(program, tuple(arriving), steps)


def reached_by(program: Program, arriving: Sequence[bool], steps: int) -> frozenset[str]:
    """The inputs (`x`, `state.NAME` of the initial states, `param.NAME`) that a gradient reaches in a whole pass.

    Args:
        program: the program.
        arriving: as in `phases`.
        steps: T; with 0 gradients of final states are those of the initial ones, and that of `out` is that of x.
    """
    return _reached_by(program, tuple(arriving), steps)


@lru_cache(maxsize=4096)
def gradient_at(program: Program, arriving: frozenset[str]) -> Graph:
    """The gradient of a step at which the gradients of these outputs arrive, and no others."""
    return program.backward if len(arriving) == len(program.forward.outputs) else with_gaps(program, sorted(arriving))


@lru_cache(maxsize=4096)
def _phases(program: Program, arriving: tuple[bool, ...], steps: int) -> tuple[Phase, ...]:
    finals, always = _seeds(program, arriving)
    present = finals
    runs: list[Phase] = []
    left = steps
    while left:
        here = present | always
        following = _states(reached(program.forward, here))
        count = left if following == present else 1  # from a fixed point on, nothing changes
        if runs and runs[-1].arriving == here:
            runs[-1] = Phase(here, runs[-1].num_steps + count)
        else:
            runs.append(Phase(here, count))
        present = following
        left -= count
    return tuple(runs)


@lru_cache(maxsize=4096)
def _reached_by(program: Program, arriving: tuple[bool, ...], steps: int) -> frozenset[str]:
    if not steps:
        finals, always = _seeds(program, arriving)
        return finals | ({"x"} if "out" in always else set())
    inputs: set[str] = set()
    names: frozenset[str] = frozenset()
    for phase in phases(program, arriving, steps):
        names = reached(program.forward, phase.arriving)
        inputs |= names
    # The gradient of an initial state is what the first step hands on, which is the last one that ran.
    return frozenset(name for name in inputs if not name.startswith("state.")) | _states(names)


def _seeds(program: Program, arriving: tuple[bool, ...]) -> tuple[frozenset[str], frozenset[str]]:
    """`(final states whose gradient arrives, outputs whose gradient arrives at every step)`."""
    num_states = len(program.states)
    finals = frozenset(
        f"state.{name}" for name, is_there in zip(program.states, arriving[1 : 1 + num_states], strict=True) if is_there
    )
    always = {
        f"state.{name}" for name, is_there in zip(program.record, arriving[1 + num_states :], strict=True) if is_there
    }
    if arriving[0]:
        always.add("out")
    return finals, frozenset(always)


def _states(names: frozenset[str]) -> frozenset[str]:
    return frozenset(name for name in names if name.startswith("state."))

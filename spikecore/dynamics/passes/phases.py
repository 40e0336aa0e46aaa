"""Which gradients arrive at which step of a backward pass.

A missing gradient is not a zero gradient: zero times infinity is NaN, whereas a missing term contributes nothing. A
backward pass therefore runs another graph (`with_gaps`) at steps with missing gradients. Which ones are missing depends
on the program and on which gradients the caller passes in, never on the data.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from spikecore.dynamics.graph import Graph, Program
from spikecore.dynamics.vjp import reached_inputs, with_gaps


class Phase(NamedTuple):
    """Consecutive steps of a backward pass at which the same gradients arrive.

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
        arriving: whether a gradient arrives for `out`, for every final state and for every recorded sequence.
        steps: T; with T = 0 there are no phases.
    """
    return _phases(program, tuple(arriving), steps)


def reached_in_pass(program: Program, arriving: Sequence[bool], steps: int) -> frozenset[str]:
    """The inputs (`x`, `state.NAME` of the initial states, `param.NAME`) that a gradient reaches in a whole pass.

    As under torch's autograd, what is reached through `round`, `floor` or `sign` alone has a gradient, of zeros.

    Args:
        program: the program.
        arriving: as in `phases`.
        steps: T. With T = 0 the final states are the initial ones, and `out` is as empty as x.
    """
    return _reached_by(program, tuple(arriving), steps)


@lru_cache(maxsize=4096)
def gradient_at(program: Program, arriving: frozenset[str]) -> Graph:
    """The gradient of a step at which only the gradients of these outputs arrive."""
    if len(arriving) == len(program.forward.outputs):
        return program.backward
    return with_gaps(program, sorted(arriving))


@lru_cache(maxsize=4096)
def _phases(program: Program, arriving: tuple[bool, ...], steps: int, through_flat: bool = False) -> tuple[Phase, ...]:
    from_states, always = _seeds(program, arriving)
    result: list[Phase] = []
    num_left = steps
    while num_left:
        at_step = from_states | always
        to_previous = _states(reached_inputs(program.forward, at_step, through_flat))
        # Once a step passes on what it received, all earlier steps receive the same.
        count = num_left if to_previous == from_states else 1
        if result and result[-1].arriving == at_step:
            result[-1] = Phase(at_step, result[-1].num_steps + count)
        else:
            result.append(Phase(at_step, count))
        from_states = to_previous
        num_left -= count
    return tuple(result)


@lru_cache(maxsize=4096)
def _reached_by(program: Program, arriving: tuple[bool, ...], steps: int) -> frozenset[str]:
    if not steps:
        finals, always = _seeds(program, arriving)
        return finals | {"x"} if "out" in always else finals
    not_states: set[str] = set()
    names: frozenset[str] = frozenset()
    for phase in _phases(program, arriving, steps, through_flat=True):
        names = reached_inputs(program.forward, phase.arriving, through_flat=True)
        not_states |= names - _states(names)
    # x and parameters get gradients from all steps, the initial states only from step 0, which is visited last.
    return _states(names) | not_states


def _seeds(program: Program, arriving: tuple[bool, ...]) -> tuple[frozenset[str], frozenset[str]]:
    """`(final states whose gradient arrives, outputs whose gradient arrives at every step)`."""
    num_states = len(program.states)
    of_states = arriving[1 : 1 + num_states]
    of_records = arriving[1 + num_states :]
    finals = {f"state.{name}" for name, arrives in zip(program.states, of_states, strict=True) if arrives}
    always = {f"state.{name}" for name, arrives in zip(program.record, of_records, strict=True) if arrives}
    if arriving[0]:
        always.add("out")
    return frozenset(finals), frozenset(always)


def _states(names: frozenset[str]) -> frozenset[str]:
    return frozenset(name for name in names if name.startswith("state."))

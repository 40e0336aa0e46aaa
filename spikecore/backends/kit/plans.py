"""What a kernel that loops over time in registers is printed for: segments, checkpoints, missing gradients.

The states before every K-th step are kept: the rows. A backward pass goes from the last segment to the first. In each
it reads a row, computes the K steps again, all in registers, then steps back through them. That costs 1/K of a write
and a read for each state and step, instead of one for each.

    steps     0 .. K-1 | K .. 2K-1 | ... | mK .. (m+1)K-1 | ... T-1
              segments, all alike        | cells, each with a printed form of its own

At the last steps some gradients do not arrive (see `dynamics.phases`), and the last segment may be short. Those
segments are *cells*: the text of a kernel spells out their steps. The rest is one loop over equal segments, so a kernel
depends on T only through T modulo K.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from spikecore.dynamics import Program, phases, reached_inputs

MOST_CELLS = 2
"""Cells of one kernel. More cells are spread over several calls; only programs whose states pass their gradients on in
a cycle have more."""


class BackwardStep(NamedTuple):
    """One step of a backward pass.

    Args:
        arriving: the outputs (`out`, `state.NAME`) whose gradient arrives.
        carried: those states among them whose gradient comes from the step behind it, or from a final state; a
            recorded sequence may add to it.
    """

    arriving: frozenset[str]
    carried: frozenset[str]


@dataclass(frozen=True)
class ForwardPlan:
    """The form of a forward kernel.

    Args:
        segment: K, steps of a segment.
        rest: steps behind the last whole segment, less than K.
        keeps: the states before each segment are written to the rows.
        carries: the final states are written.
        uniform: the inputs (`x`, `state.NAME`) of which one number stands for all lanes of a step.
        split: the sequences that are read whose steps consist of rows at a distance.
        aligned: all distances between steps and rows are multiples of 16 elements.
    """

    segment: int
    rest: int
    keeps: bool
    carries: bool
    uniform: frozenset[str]
    split: frozenset[str]
    aligned: bool


@dataclass(frozen=True)
class BackwardPlan:
    """The form of a backward kernel. It visits the cells, then a number of segments that is an argument.

    Args:
        segment: K, steps of a segment.
        cells: the steps of each cell, the last step of the last cell first.
        steady: every step of the segments before the cells; None where there are none.
        has_rows: states before a segment are read from the rows; otherwise there is one cell, and it begins with the
            initial states.
        recorded: the states with a gradient of their recorded sequence.
        uniform: as in `ForwardPlan`, and `grad.out`, `grad.state.NAME`, `grad.recorded.NAME`.
        split: as in `ForwardPlan`, likewise.
        aligned: as in `ForwardPlan`.
    """

    segment: int
    cells: tuple[tuple[BackwardStep, ...], ...]
    steady: BackwardStep | None
    has_rows: bool
    recorded: frozenset[str]
    uniform: frozenset[str]
    split: frozenset[str]
    aligned: bool

    @property
    def steps(self) -> list[BackwardStep]:
        """A step of each form, in the order of visits."""
        visited = [step for cell in self.cells for step in cell]
        return visited if self.steady is None else [*visited, self.steady]

    @property
    def enters(self) -> frozenset[str]:
        """The states whose gradient is read at the beginning."""
        return self.steps[0].carried

    def leaves(self, program: Program) -> frozenset[str]:
        """The states whose gradient is written at the end."""
        return _reached_states(program, self.steps[-1])


class BackwardCall(NamedTuple):
    """One call of a backward pass.

    Args:
        cells: see `BackwardPlan`.
        steady: likewise.
        first: the row of its earliest cell; so many segments follow if the plan has a steady step.
    """

    cells: tuple[tuple[BackwardStep, ...], ...]
    steady: BackwardStep | None
    first: int


def segment_length(program: Program) -> int:
    """K: what a backward pass computes again stays in registers, K values for each state."""
    num_states = len(program.states)
    if num_states <= 1:
        return 8
    return 4 if num_states <= 3 else 2


def num_rows(segment: int, steps: int) -> int:
    """How many rows a forward pass over so many steps keeps: none if there is one segment."""
    return -(-steps // segment) if steps > segment else 0


@lru_cache(maxsize=4096)
def backward_calls(program: Program, arriving: tuple[bool, ...], steps: int, segment: int) -> tuple[BackwardCall, ...]:
    """The calls of a backward pass, in their order.

    Args:
        program: the program.
        arriving: as in `dynamics.phases`.
        steps: T, at least 1.
        segment: K.
    """
    runs = list(_runs(program, arriving, steps))
    steady, num_steady = runs[-1]
    num_segments = num_steady // segment if steps > segment else 0
    # The last steps, from T - 1 down to the first one that belongs to no steady segment.
    tail = [step for step, count in runs[:-1] for _ in range(count)]
    tail += [steady] * (num_steady - num_segments * segment)
    cells: list[tuple[BackwardStep, ...]] = []
    end = steps
    while tail:
        length = (end - 1) % segment + 1
        cells.append(tuple(tail[:length]))
        tail, end = tail[length:], end - length
    calls: list[BackwardCall] = []
    row = num_segments + len(cells)
    while True:
        some, cells = cells[:MOST_CELLS], cells[MOST_CELLS:]
        row -= len(some)
        is_last = not cells
        calls.append(BackwardCall(tuple(some), steady if is_last and num_segments else None, row))
        if is_last:
            return tuple(calls)


def _runs(program: Program, arriving: Sequence[bool], steps: int) -> Iterator[tuple[BackwardStep, int]]:
    """Equal steps with their number, from the last step to the first."""
    of_finals = arriving[1 : 1 + len(program.states)]
    carried = frozenset(f"state.{name}" for name, arrives in zip(program.states, of_finals, strict=True) if arrives)
    for phase in phases(program, arriving, steps):
        num_left = phase.num_steps
        while num_left:
            step = BackwardStep(phase.arriving, carried)
            passed_on = _reached_states(program, step)
            count = num_left if passed_on == carried else 1
            yield step, count
            carried, num_left = passed_on, num_left - count


def _reached_states(program: Program, step: BackwardStep) -> frozenset[str]:
    reached = reached_inputs(program.forward, step.arriving)
    return frozenset(name for name in reached if name.startswith("state."))

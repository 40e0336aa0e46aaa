"""The text of kernels that run a whole sequence, for any language with loops and pointers.

A lane of the kernel is an element of a step. It runs through time with its state in registers; the K steps of a segment
are spelled out (see `kit.plans`). All loads of a segment come before its arithmetic, so that many are in flight.

A subclass writes single statements in its language. Names are numbered after the places of states and parameters in the
program, never after a user's. These names exist in every kernel: `lanes` (the index of the lane), `channel`, the
arguments (see `arguments`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from spikecore.backends.kit.divisions import multiply_by_reciprocals
from spikecore.backends.kit.plans import BackwardPlan, BackwardStep, ForwardPlan
from spikecore.dynamics import Graph, Printer, Program, gradient_at, inputs_of, reached_inputs

INTEGERS = ("num_segments", "num_lanes", "inner", "channels")
"""The arguments that every kernel has: attributes of a `Launch`."""
OF_INPUT_DTYPE = ("x", "out", "grad.out", "grad.x")
"""The tensors with the dtype of x; all others have that of the state."""


def pointer(program: Program, name: str) -> str:
    """The argument that points to a tensor of a launch, such as `row0_ptr` for `row.v`."""
    if "." not in name:
        return f"{name}_ptr"
    kind, last = name.rsplit(".", 1)
    if kind == "grad":
        return f"grad_{last}_ptr"
    names = [param.name for param in program.params] if kind in ("param", "sum") else list(program.states)
    return f"{kind.replace('.', '_')}{names.index(last)}_ptr"


def is_distance(argument: str) -> bool:
    """Is this integer argument a distance in memory, in elements?"""
    return argument.endswith(("_step", "_width", "_row")) or argument == "num_lanes"


def integer_arguments(program: Program, plan: ForwardPlan | BackwardPlan) -> dict[str, tuple[str, str]]:
    """The integer arguments of a kernel that belong to sequences: name → (sequence, what).

    `step` is the distance between two steps. A split sequence has rows of `width` lanes at a distance of `row`.
    """
    integers: dict[str, tuple[str, str]] = {}
    for name in arguments(program, plan)[1]:
        base = pointer(program, name).removesuffix("_ptr")
        for what in ("step", "width", "row") if name in plan.split else ("step",):
            integers[f"{base}_{what}"] = (name, what)
    return integers


def arguments(program: Program, plan: ForwardPlan | BackwardPlan) -> tuple[list[str], list[str]]:
    """The tensors of a launch and the sequences that are read, in the order of a kernel's arguments.

    A kernel takes pointers to the tensors, then `integer_arguments`, then `INTEGERS`, then the program's numbers.
    """
    states = [f"state.{name}" for name in program.states]
    params = [f"param.{param.name}" for param in program.params]
    if isinstance(plan, ForwardPlan):
        tensors = ["x", *states, *params, "out"]
        tensors += [f"final.{name}" for name in program.states if plan.carries]
        tensors += [f"recorded.{name}" for name in program.record]
        tensors += [f"row.{name}" for name in program.states if plan.keeps]
        return tensors, ["x"]
    sequences = ["x"]
    if any("out" in step.arriving for step in plan.steps):
        sequences.append("grad.out")
    sequences += [f"grad.recorded.{name}" for name in program.record if f"state.{name}" in plan.recorded]
    before = [f"row.{name}" for name in program.states] if plan.has_rows else states
    leaves = plan.leaves(program)
    tensors = [*sequences, *before, *params]
    tensors += [f"grad.{name}" for name in states if name in plan.enters]
    tensors.append("grad.x")
    tensors += [f"grad.initial.{name}" for name in program.states if f"state.{name}" in leaves]
    tensors += [f"sum.{param.name}" for param in program.params if param.learnable]
    return tensors, sequences


class KernelText:
    """One kernel while it is printed.

    Args:
        program: the program.
        plan: the kernel's form.
        printer: for its graphs.
        reciprocals: divide by numbers as torch does on a GPU, see `multiply_by_reciprocals`; otherwise as on a CPU.
    """

    def __init__(self, program: Program, plan: ForwardPlan | BackwardPlan, printer: Printer, reciprocals: bool) -> None:
        self.program, self.plan, self.printer, self.reciprocals = program, plan, printer, reciprocals
        self.states = [f"state.{name}" for name in program.states]
        self.lines: list[str] = []
        self.depth = 1
        self._num_graphs = 0

    # The language, for a subclass.

    def statement(self, text: str) -> str:
        """A whole statement from one without its end."""
        raise NotImplementedError(f"{type(self).__name__} must implement statement()")

    def declare(self, name: str, text: str) -> str:
        """A new variable: a pointer, an index, or a number that each lane has and that may be assigned again."""
        raise NotImplementedError(f"{type(self).__name__} must implement declare()")

    def load(self, name: str, address: str, index: str) -> str:
        """A new variable with `address[index]` in the dtype of the state; without an index with `address[0]`."""
        raise NotImplementedError(f"{type(self).__name__} must implement load()")

    def store(self, address: str, value: str) -> str:
        """Writes `address[lanes]`."""
        raise NotImplementedError(f"{type(self).__name__} must implement store()")

    def loop(self, variable: str, count: str) -> tuple[str, str]:
        """The lines before and behind the body of a loop, `variable` from 0 to `count` - 1; "" for no line."""
        raise NotImplementedError(f"{type(self).__name__} must implement loop()")

    def scope(self) -> tuple[str, str]:
        """Likewise for a block whose variables end with it."""
        raise NotImplementedError(f"{type(self).__name__} must implement scope()")

    def quotient(self, dividend: str, divisor: str) -> str:
        """Of two integers that are not negative, rounded down."""
        raise NotImplementedError(f"{type(self).__name__} must implement quotient()")

    def of_lanes(self, value: str) -> str:
        """A value that was printed as one number for all lanes as a number of each. Default: itself."""
        return value

    def prepared(self, graph: Graph) -> Graph:
        """A graph as it is printed. Default: with reciprocals if the kernel has them, else as it is."""
        return multiply_by_reciprocals(graph) if self.reciprocals else graph

    # The kernel.

    def print_body(self) -> list[str]:
        """The lines of the kernel's body, behind the definition of `lanes`."""
        for name in arguments(self.program, self.plan)[1]:
            if name in self.plan.split:
                base = pointer(self.program, name).removesuffix("_ptr")
                row = f"({self.quotient('lanes', f'{base}_width')}) * {base}_row"
                self._add(self.declare(f"{base}_lanes", f"{row} + lanes % {base}_width"))
        if isinstance(self.plan, ForwardPlan):
            self._forward(self.plan)
        else:
            self._backward(self.plan)
        return self.lines

    def _add(self, *lines: str) -> None:
        self.lines += ["    " * self.depth + line for line in lines]

    def _do(self, text: str) -> None:
        self._add(self.statement(text))

    @contextmanager
    def _within(self, borders: tuple[str, str]) -> Iterator[None]:
        begin, end = borders
        if begin:
            self._add(begin)
            self.depth += 1
        yield
        if begin:
            self.depth -= 1
        if end:
            self._add(end)

    def _load_params(self) -> dict[str, str]:
        """Loads the parameters; input → name."""
        names: dict[str, str] = {}
        if any(param.per_channel for param in self.program.params):
            self._add(self.declare("channel", f"({self.quotient('lanes', 'inner')}) % channels"))
        for place, param in enumerate(self.program.params):
            names[f"param.{param.name}"] = f"param{place}"
            self._add(self.load(f"param{place}", f"param{place}_ptr", "channel" if param.per_channel else ""))
        return names

    def _load_step(self, variable: str, address: str, name: str) -> None:
        """One step of a sequence; a uniform one as one number."""
        index = "lanes"
        if name in self.plan.uniform:
            index = ""
        elif name in self.plan.split:
            index = pointer(self.program, name).removesuffix("_ptr") + "_lanes"
        self._add(self.load(variable, address, index))

    def _load_state(self, variable: str, address: str, name: str) -> None:
        """A state or its gradient, which is assigned again later."""
        if name in self.plan.uniform:
            self._add(self.load(f"{variable}_all", address, ""))
            self._add(self.declare(variable, self.of_lanes(f"{variable}_all")))
        else:
            self._add(self.load(variable, address, "lanes"))

    def _print(self, graph: Graph, inputs: Mapping[str, str], wanted: Iterable[str]) -> dict[str, str]:
        """Prints a graph; output → text, with one number for each lane."""
        wanted = tuple(wanted)
        prepared = self.prepared(graph)
        statements, values = self.printer.print(prepared, inputs, wanted, tag=f"{self._num_graphs}_")
        self._num_graphs += 1
        self._add(*statements)
        for name in wanted:
            if not self._has_lanes(prepared, name):
                values[name] = self.of_lanes(values[name])
        return values

    def _has_lanes(self, graph: Graph, output: str) -> bool:
        """Does an output depend on anything of which each lane has its own?"""
        per_channel = {f"param.{param.name}" for param in self.program.params if param.per_channel}
        for name in inputs_of(graph, [output]):
            if name.startswith(("state.", "grad.state.")) or name in per_channel:
                return True
            if name in ("x", "grad.out") and name not in self.plan.uniform:
                return True
        return False

    def _forward(self, plan: ForwardPlan) -> None:
        params = self._load_params()
        for place, name in enumerate(self.states):
            self._load_state(f"state{place}", f"state{place}_ptr", name)
        rows = [f"row{place}" for place in range(len(self.states)) if plan.keeps]
        recorded = [self.program.states.index(name) for name in self.program.record]
        written = ["out", *(f"recorded{place}" for place in recorded)]
        for name in ("x", *written, *rows):
            self._add(self.declare(f"{name}_at", f"{name}_ptr"))
        with self._within(self.loop("segment", "num_segments")):
            self._forward_steps(plan.segment, params, rows, recorded)
            self._do(f"x_at += {plan.segment} * x_step")
            for name in written:
                self._do(f"{name}_at += {plan.segment} * num_lanes")
            for name in rows:
                self._do(f"{name}_at += num_lanes")
        if plan.rest:
            with self._within(self.scope()):
                self._forward_steps(plan.rest, params, rows, recorded)
        if plan.carries:
            for place in range(len(self.states)):
                self._add(self.store(f"final{place}_ptr", f"state{place}"))

    def _forward_steps(
        self, num_steps: int, params: Mapping[str, str], rows: Sequence[str], recorded: Sequence[int]
    ) -> None:
        for step in range(num_steps):
            self._load_step(f"x_{step}", f"x_at + {step} * x_step", "x")
        for place, row in enumerate(rows):
            self._add(self.store(f"{row}_at", f"state{place}"))
        for step in range(num_steps):
            inputs = {"x": f"x_{step}", **params}
            inputs |= {name: f"state{place}" for place, name in enumerate(self.states)}
            values = self._print(self.program.forward, inputs, ["out", *self.states])
            self._add(self.store(f"out_at + {step} * num_lanes", values["out"]))
            for place, name in enumerate(self.states):
                self._do(f"state{place} = {values[name]}")
            for place in recorded:
                self._add(self.store(f"recorded{place}_at + {step} * num_lanes", f"state{place}"))

    def _backward(self, plan: BackwardPlan) -> None:
        params = self._load_params()
        learned = [place for place, param in enumerate(self.program.params) if param.learnable]
        zero = self.of_lanes(self.printer.constant(0.0, is_bool=False))
        for place in learned:
            self._add(self.declare(f"sum{place}", zero))
        reached: set[str] = set()
        for step in plan.steps:
            reached |= reached_inputs(self.program.forward, step.arriving)
        for place, name in enumerate(self.states):
            if name in plan.enters:
                self._load_state(f"grad{place}", f"grad_state{place}_ptr", f"grad.{name}")
            elif name in reached:
                self._add(self.declare(f"grad{place}", zero))  # assigned before it is read
        for place, cell in enumerate(plan.cells):
            with self._within(self.scope()):
                self._add(self.declare("row", f"num_segments + {len(plan.cells) - 1 - place}"))
                self._cell(plan, cell, params)
        if plan.steady is not None:
            with self._within(self.loop("visit", "num_segments")):
                self._add(self.declare("row", "num_segments - 1 - visit"))
                self._cell(plan, (plan.steady,) * plan.segment, params)
        leaves = plan.leaves(self.program)
        for place, name in enumerate(self.states):
            if name in leaves:
                self._add(self.store(f"grad_initial{place}_ptr", f"grad{place}"))
        for place in learned:
            self._add(self.store(f"sum{place}_ptr", f"sum{place}"))

    def _cell(self, plan: BackwardPlan, cell: Sequence[BackwardStep], params: Mapping[str, str]) -> None:
        """The steps of a segment: forward again from its row, then back, `cell[0]` first."""
        sequences = arguments(self.program, plan)[1]
        bases = [pointer(self.program, name).removesuffix("_ptr") for name in sequences]
        self._add(self.declare("first", f"row * {plan.segment}"))
        self._add(self.declare("grad_x_at", "grad_x_ptr + first * num_lanes"))
        for base in bases:
            self._add(self.declare(f"{base}_at", f"{base}_ptr + first * {base}_step"))
        for place, name in enumerate(self.states):
            if plan.has_rows:
                self._add(self.load(f"state{place}_0", f"row{place}_ptr + row * num_lanes", "lanes"))
            else:
                self._load_state(f"state{place}_0", f"state{place}_ptr", name)
        for step, form in enumerate(reversed(cell)):
            for name, base in zip(sequences, bases, strict=True):
                if name != "grad.out" or "out" in form.arriving:
                    self._load_step(f"{base}_{step}", f"{base}_at + {step} * {base}_step", name)
        for step in range(len(cell) - 1):
            values = self._print(self.program.forward, {**self._inputs(step), **params}, self.states)
            for place, name in enumerate(self.states):
                self._add(self.declare(f"state{place}_{step + 1}", values[name]))
        for step, form in zip(reversed(range(len(cell))), cell, strict=True):
            self._step_back(plan, step, form, params)

    def _inputs(self, step: int) -> dict[str, str]:
        return {"x": f"x_{step}", **{name: f"state{place}_{step}" for place, name in enumerate(self.states)}}

    def _step_back(self, plan: BackwardPlan, step: int, form: BackwardStep, params: Mapping[str, str]) -> None:
        inputs = {**self._inputs(step), **params, "grad.out": f"grad_out_{step}"}
        for place, name in enumerate(self.states):
            parts = [f"grad{place}"] if name in form.carried else []
            if name in plan.recorded:
                parts.append(f"grad_recorded{place}_{step}")
            if parts:
                inputs[f"grad.{name}"] = " + ".join(parts)
        reached = reached_inputs(self.program.forward, form.arriving)
        wanted = ["grad.x", *(f"grad.{name}" for name in self.states if name in reached)]
        learned: dict[int, str] = {}
        for place, param in enumerate(self.program.params):
            if param.learnable and f"param.{param.name}" in reached:
                learned[place] = f"grad.param.{param.name}"
        values = self._print(gradient_at(self.program, form.arriving), inputs, [*wanted, *learned.values()])
        self._add(self.store(f"grad_x_at + {step} * num_lanes", values["grad.x"]))
        for place, name in enumerate(self.states):
            if name in reached:
                self._do(f"grad{place} = {values[f'grad.{name}']}")
        for place, name in learned.items():
            self._do(f"sum{place} += {values[name]}")

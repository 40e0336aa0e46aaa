"""The text of kernels: one lane for each element of a step, time in a loop, K steps of it spelled out.

All loads of a segment come before its arithmetic, so that many are in flight. Names are numbered after the places of
states and parameters in the program, never after a user's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from spikecore.backends.kit import ALIGNMENT, BackwardPlan, BackwardStep, ForwardPlan
from spikecore.dynamics import Graph, Program, gradient_at, inputs_of, reached_inputs
from spikecore_triton_backend.printer import NUMBER, TritonPrinter, multiply_by_powers

KERNEL = "kernel"
INTEGERS = ("num_segments", "num_lanes", "inner", "channels")


def pointer(program: Program, name: str) -> str:
    """The argument that points to a tensor of a launch, such as `row0` for `row.v`."""
    if "." not in name:
        return f"{name}_ptr"
    kind, last = name.rsplit(".", 1)
    if last in ("x", "out") and kind == "grad":
        return f"grad_{last}_ptr"
    names = [param.name for param in program.params] if kind in ("param", "sum") else list(program.states)
    return f"{kind.replace('.', '_')}{names.index(last)}_ptr"


def step_argument(program: Program, name: str) -> str:
    """The argument with the distance between two steps of a sequence that is read."""
    return pointer(program, name).replace("_ptr", "_step")


def is_distance(argument: str) -> bool:
    """Is this integer argument a distance in memory? In an aligned plan it is passed in units of `ALIGNMENT`."""
    return argument.endswith("_step") or argument == "num_lanes"


def arguments(program: Program, plan: ForwardPlan | BackwardPlan) -> tuple[list[str], list[str]]:
    """`(names of tensors, names of sequences that are read)` of a launch, in the order of the kernel's arguments."""
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


def print_kernel(program: Program, plan: ForwardPlan | BackwardPlan, is_double: bool) -> str:
    """The source of a kernel, named `kernel`."""
    text = _Text(program, plan, is_double)
    if isinstance(plan, ForwardPlan):
        text.forward(plan)
    else:
        text.backward(plan)
    return text.source()


class _Text:
    """One kernel while it is printed."""

    def __init__(self, program: Program, plan: ForwardPlan | BackwardPlan, is_double: bool) -> None:
        self.program, self.plan, self.is_double = program, plan, is_double
        self.printer = TritonPrinter(is_double)
        self.states = [f"state.{name}" for name in program.states]
        self.step_graph = multiply_by_powers(program.forward)
        self.num_printed = 0
        self.lines: list[str] = []
        self.depth = 1

    def add(self, *lines: str) -> None:
        self.lines += ["    " * self.depth + line for line in lines]

    def source(self) -> str:
        """Everything, with the head that needs what the body has used."""
        number = '"i64"' if self.is_double else '"fp32"'
        tensors, sequences = arguments(self.program, self.plan)
        names = [pointer(self.program, name) for name in tensors]
        names += [f'{step_argument(self.program, name)}: "i64"' for name in sequences]
        names += [f'{name}: "i64"' for name in INTEGERS]
        names += [f"{NUMBER}{slot}: {number}" for slot in range(len(self.program.numbers))]
        head = ["", "", f"def {KERNEL}({', '.join(names)}, BLOCK: tl.constexpr):"]
        comments = [f"    # {pointer(self.program, name)}: {name}" for name in tensors if "." in name]
        dtype = self.printer.dtype
        begin = [f"ONE = tl.full((), 1.0, {dtype})", f"ZERO = tl.full((), 0.0, {dtype})", *self.printer.constants()]
        if self.is_double:
            # Python's numbers arrive as float32; these are the bits of float64.
            for slot in range(len(self.program.numbers)):
                begin.append(f"{NUMBER}{slot} = tl.cast({NUMBER}{slot}, tl.int64).to(tl.float64, bitcast=True)")
        for name in [*(step_argument(self.program, name) for name in sequences), *INTEGERS]:
            # The compiler sees that the product is a multiple of 16, so it loads and stores vectors.
            unit = f" * {ALIGNMENT}" if self.plan.aligned and is_distance(name) else ""
            begin.append(f"{name} = tl.cast({name}, tl.int64){unit}")
        begin += [
            "lanes = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)",
            "mask = lanes < num_lanes",
        ]
        return "\n".join([*head, *comments, *(f"    {line}" for line in begin), *self.lines]) + "\n"

    # What both directions share.

    def load_params(self) -> dict[str, str]:
        """Loads the parameters; input → name."""
        names = {}
        if any(param.per_channel for param in self.program.params):
            self.add("channel = (lanes // inner) % channels")
        for index, param in enumerate(self.program.params):
            name = f"param{index}"
            if param.per_channel:
                self.add(f"{name} = tl.load({name}_ptr + channel, mask=mask, other=1.0)")
            else:
                self.add(f"{name} = tl.load({name}_ptr)")
            names[f"param.{param.name}"] = name
        return names

    def load(self, to: str, base: str, name: str) -> None:
        """Loads one step, in the dtype of the state; a uniform one as one number."""
        if name in self.plan.uniform:
            self.add(f"{to} = tl.load({base}).to({self.printer.dtype})")
        else:
            self.add(f"{to} = tl.load({base} + lanes, mask=mask, other=0.0).to({self.printer.dtype})")

    def load_lanes(self, to: str, base: str, name: str) -> None:
        """The same, with one number for each lane in any case."""
        self.load(to, base, name)
        if name in self.plan.uniform:
            self.add(f"{to} = tl.broadcast_to({to}, (BLOCK,))")

    def print(self, graph: Graph, inputs: Mapping[str, str], wanted: Iterable[str]) -> dict[str, str]:
        """Prints a graph; output → text, with one number for each lane."""
        wanted = tuple(wanted)
        statements, values = self.printer.print(graph, inputs, wanted, tag=f"{self.num_printed}_")
        self.num_printed += 1
        self.add(*statements)
        return {name: value if self._has_lanes(graph, name) else _broadcast(value) for name, value in values.items()}

    def _has_lanes(self, graph: Graph, output: str) -> bool:
        """Does an output depend on anything of which every lane has its own?"""
        per_channel = {f"param.{param.name}" for param in self.program.params if param.per_channel}
        for name in inputs_of(graph, [output]):
            if name.startswith(("state.", "grad.state.")) or name in per_channel:
                return True
            if name in ("x", "grad.out") and name not in self.plan.uniform:
                return True
        return False

    # Forward.

    def forward(self, plan: ForwardPlan) -> None:
        params = self.load_params()
        for index, name in enumerate(self.states):
            self.load_lanes(f"state{index}", f"state{index}_ptr", name)
        self.add("x_at = x_ptr", "out_at = out_ptr + lanes")
        rows = [f"row{index}" for index in range(len(self.states)) if plan.keeps]
        recorded = [f"recorded{self.program.states.index(name)}" for name in self.program.record]
        self.add(*(f"{name}_at = {name}_ptr + lanes" for name in (*rows, *recorded)))
        self.add("for _ in range(num_segments):")
        self.depth += 1
        self._forward_steps(plan.segment, params, rows, recorded)
        self.add(f"x_at += {plan.segment} * x_step")
        self.add(*(f"{name}_at += {plan.segment} * num_lanes" for name in ("out", *recorded)))
        self.add(*(f"{name}_at += num_lanes" for name in rows))
        self.depth -= 1
        if plan.rest:
            self._forward_steps(plan.rest, params, rows, recorded)
        if plan.carries:
            for index in range(len(self.states)):
                self.add(f"tl.store(final{index}_ptr + lanes, state{index}, mask=mask)")

    def _forward_steps(self, num: int, params: Mapping[str, str], rows: Sequence[str], recorded: Sequence[str]) -> None:
        for step in range(num):
            self.load(f"x{step}", f"x_at + {step} * x_step", "x")
        for index, row in enumerate(rows):
            self.add(f"tl.store({row}_at, state{index}, mask=mask)")
        for step in range(num):
            inputs = {"x": f"x{step}", **params}
            inputs |= {name: f"state{index}" for index, name in enumerate(self.states)}
            values = self.print(self.step_graph, inputs, ["out", *self.states])
            self.add(f"tl.store(out_at + {step} * num_lanes, {values['out']}, mask=mask)")
            for index, name in enumerate(self.states):
                self.add(f"state{index} = {values[name]}")
            for name in recorded:
                self.add(f"tl.store({name}_at + {step} * num_lanes, {name.replace('recorded', 'state')}, mask=mask)")

    # Backward.

    def backward(self, plan: BackwardPlan) -> None:
        params = self.load_params()
        learned = [index for index, param in enumerate(self.program.params) if param.learnable]
        self.add(*(f"sum{index} = tl.full((BLOCK,), 0.0, {self.printer.dtype})" for index in learned))
        for index, name in enumerate(self.states):
            if name in plan.enters:
                self.load_lanes(f"grad{index}", f"grad_state{index}_ptr", f"grad.{name}")
        for place, cell in enumerate(plan.cells):
            self.add(f"row = num_segments + {len(plan.cells) - 1 - place}")
            self._cell(plan, cell, params)
        if plan.steady is not None:
            self.add("for visit in range(num_segments):")
            self.depth += 1
            self.add("row = num_segments - 1 - visit")
            self._cell(plan, (plan.steady,) * plan.segment, params)
            self.depth -= 1
        leaves = plan.leaves(self.program)
        for index, name in enumerate(self.states):
            if name in leaves:
                self.add(f"tl.store(grad_initial{index}_ptr + lanes, grad{index}, mask=mask)")
        self.add(*(f"tl.store(sum{index}_ptr + lanes, sum{index}, mask=mask)" for index in learned))

    def _cell(self, plan: BackwardPlan, cell: Sequence[BackwardStep], params: Mapping[str, str]) -> None:
        """The steps of a segment: forward again from its row, then back, `cell[0]` first."""
        sequences = arguments(self.program, plan)[1]
        bases = [pointer(self.program, name).removesuffix("_ptr") for name in sequences]
        self.add(f"first = row * {plan.segment}")
        self.add("grad_x_at = grad_x_ptr + first * num_lanes + lanes")
        for base in bases:
            self.add(f"{base}_at = {base}_ptr + first * {base}_step")
        for index, name in enumerate(self.states):
            if plan.has_rows:
                self.add(f"state{index}_0 = tl.load(row{index}_ptr + row * num_lanes + lanes, mask=mask, other=0.0)")
            else:
                self.load_lanes(f"state{index}_0", f"state{index}_ptr", name)
        for step, form in enumerate(reversed(cell)):
            for name, base in zip(sequences, bases, strict=True):
                if name != "grad.out" or "out" in form.arriving:
                    self.load(f"{base}_{step}", f"{base}_at + {step} * {base}_step", name)
        for step in range(len(cell) - 1):
            values = self.print(self.step_graph, {**self._inputs(step), **params}, self.states)
            for index, name in enumerate(self.states):
                self.add(f"state{index}_{step + 1} = {values[name]}")
        for step, form in zip(reversed(range(len(cell))), cell, strict=True):
            self._back(plan, step, form, params)

    def _inputs(self, step: int) -> dict[str, str]:
        return {"x": f"x_{step}", **{name: f"state{index}_{step}" for index, name in enumerate(self.states)}}

    def _back(self, plan: BackwardPlan, step: int, form: BackwardStep, params: Mapping[str, str]) -> None:
        inputs = {**self._inputs(step), **params, "grad.out": f"grad_out_{step}"}
        for index, name in enumerate(self.states):
            parts = [f"grad{index}"] if name in form.carried else []
            if name in plan.recorded:
                parts.append(f"grad_recorded{index}_{step}")
            if parts:
                inputs[f"grad.{name}"] = f"({' + '.join(parts)})" if len(parts) > 1 else parts[0]
        reached = reached_inputs(self.program.forward, form.arriving)
        wanted = ["grad.x", *(f"grad.{name}" for name in self.states if name in reached)]
        learned = []
        for index, param in enumerate(self.program.params):
            if param.learnable and f"param.{param.name}" in reached:
                learned.append((index, f"grad.param.{param.name}"))
        wanted += [name for _, name in learned]
        values = self.print(multiply_by_powers(gradient_at(self.program, form.arriving)), inputs, wanted)
        self.add(f"tl.store(grad_x_at + {step} * num_lanes, {values['grad.x']}, mask=mask)")
        for index, name in enumerate(self.states):
            if name in reached:
                self.add(f"grad{index} = {values[f'grad.{name}']}")
        for index, name in learned:
            self.add(f"sum{index} += {values[name]}")


def _broadcast(value: str) -> str:
    return f"tl.broadcast_to({value}, (BLOCK,))"

"""Prints a program as C: its rows (one time step of many neurons) and the table that hands them to the driver."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar

from spikecore.dynamics import Graph, Program
from spikecore.dynamics.printing import C_OPERATIONS, Printer, inputs_of
from spikecore_cpu_backend.hoist import DERIVED, hoist
from spikecore_cpu_backend.kept import KEPT, keeping

FUNCTIONS = ("exp", "log", "sqrt", "tanh", "sigmoid", "abs", "sign", "floor", "round", "sin", "cos", "atan", "erf")
MAX_TENSORS = 24
"""As in rows.h."""


class CPrinter(Printer):
    """Graphs as C; functions are those of math_32.h and math_64.h."""

    operations: ClassVar[Mapping[str, str]] = {
        **C_OPERATIONS,
        **{name: f"sc_{name}({{0}})" for name in FUNCTIONS},
        "min": "sc_min({0}, {1})",
        "max": "sc_max({0}, {1})",
        "clamp": "sc_clamp({0}, {1}, {2})",
    }

    def declare(self, name: str, text: str, is_bool: bool) -> str:
        """A constant of the loop's body."""
        return f"const {'int' if is_bool else 'real'} {name} = {text};"


def print_program(program: Program, is_double: bool) -> str:
    """The C text of a program, for `real` = float or double."""
    printer = CPrinter(is_double)
    states = [f"state.{name}" for name in program.states]
    learned = [f"grad.param.{param.name}" for param in program.params if param.learnable]
    gradients = ["grad.x", *(f"grad.{name}" for name in states), *learned]
    room = MAX_TENSORS - len(program.params)
    kept = keeping(program)
    forward, outputs = (program.forward, ["out", *states]) if kept is None else (kept[0], ["out", *states, KEPT])
    before, rest = hoist(forward, outputs, room)
    first = len(before.outputs)
    parts = [
        _prepare(printer, program, before, "forward"),
        _forward(printer, program, rest, "forward", ["out", *states]),
        _forward(printer, program, rest, "advance", states),
    ]
    before, rest = hoist(program.backward, gradients, room - first)  # which advances too: its rows follow
    counts = [first, first + len(before.outputs)]
    parts.append(_prepare(printer, program, before, "backward", first))
    parts.append(_backward(printer, program, rest, "backward", gradients, first))
    if kept is not None:
        parts.append(_forward(printer, program, hoist(forward, outputs, room)[1], "forward_keeping", outputs))
        before, rest = hoist(kept[1], gradients, room)
        counts.append(len(before.outputs))
        parts.append(_prepare(printer, program, before, "backward_kept"))
        parts.append(_backward(printer, program, rest, "backward_kept", gradients))
    parts.append(_table(program, counts, kept is not None))
    return "\n\n".join(parts) + "\n"


_FORWARD = (
    "const real *x, const real *const *before, real *const *after, real *out, real *kept, "
    "const real *const *params, long lane, long end"
)
_BACKWARD = (
    "const real *x, const real *const *before, const real *const *params, const real *grad_out, "
    "real *const *grad_states, real *grad_x, real *const *grad_params, long lane, long end"
)


_PREPARE = "const real *const *params, real *const *derived, long lane, long end"


def _prepare(printer: Printer, program: Program, graph: Graph, name: str, first: int = 0) -> str:
    """Computes the derived rows from number `first` on; those before it are those of the forward pass."""
    targets = {each: f"derived[{first + i}]" for i, each in enumerate(graph.outputs)}
    head = "    forward_prepare_row(params, derived, lane, end);\n" if first else ""
    return _row(printer, f"{name}_prepare", _PREPARE, graph, _reads(program), targets, head)


def _forward(printer: Printer, program: Program, graph: Graph, name: str, wanted: list[str]) -> str:
    targets = {"out": "out", KEPT: "kept"} | {f"state.{each}": f"after[{i}]" for i, each in enumerate(program.states)}
    return _row(printer, name, _FORWARD, graph, _reads(program), {each: targets[each] for each in wanted})


def _backward(printer: Printer, program: Program, graph: Graph, name: str, wanted: list[str], first: int = 0) -> str:
    reads = _reads(program, first) | {"grad.out": "grad_out", KEPT: "x"}
    reads |= {f"grad.state.{each}": f"grad_states[{i}]" for i, each in enumerate(program.states)}
    targets = {"grad.x": "grad_x"}
    targets |= {f"grad.state.{each}": f"grad_states[{i}]" for i, each in enumerate(program.states)}
    targets |= {f"grad.param.{param.name}": f"grad_params[{i}]" for i, param in enumerate(program.params)}
    return _row(printer, name, _BACKWARD, graph, reads, {each: targets[each] for each in wanted})


def _reads(program: Program, first: int = 0) -> dict[str, str]:
    """Input of the step → the row it is read from; derived rows stand behind those of the parameters."""
    rows = {"x": "x"} | {f"state.{each}": f"before[{i}]" for i, each in enumerate(program.states)}
    rows |= {f"param.{param.name}": f"params[{i}]" for i, param in enumerate(program.params)}
    first += len(program.params)
    return rows | {f"{DERIVED}{i}": f"params[{first + i}]" for i in range(MAX_TENSORS - first)}


def _row(
    printer: Printer,
    name: str,
    signature: str,
    graph: Graph,
    reads: Mapping[str, str],
    targets: Mapping[str, str],
    first: str = "",
) -> str:
    used = inputs_of(graph, targets)
    pointers = _pointers("const real *", "from", [reads[each] for each in used])
    sources = {each: f"from{i}[lane]" for i, each in enumerate(used)}
    statements, values = printer.print(graph, sources, targets)
    pointers += _pointers("real *", "to", targets.values())
    stores = []
    for i, (each, value) in enumerate(values.items()):
        sign = "+=" if each.startswith("grad.param.") else "="
        stores.append(f"to{i}[lane] {sign} {value};")
    body = "\n".join(f"        {line}" for line in [*statements, *stores])
    head = "\n".join(f"    {line}" for line in pointers)
    return (
        f"static void {name}_row({signature}) {{\n{first}{head}\n    LANES\n"
        f"    for (; lane < end; lane++) {{\n{body}\n    }}\n}}"
    )


def _pointers(kind: str, name: str, rows: Iterable[str]) -> list[str]:
    return [f"{kind}{name}{i} = {row};" for i, row in enumerate(rows)]


def _table(program: Program, counts: list[int], keeps: bool) -> str:
    recorded = ", ".join(str(program.states.index(name)) for name in program.record) or "0"
    flags = [param.per_channel + 2 * param.learnable for param in program.params]
    keeping, kept, prepare = (
        ("forward_keeping_row", "backward_kept_row", "backward_kept_prepare_row") if keeps else ("NULL",) * 3
    )
    return (
        "const struct NAME(program) sc_program = {\n"
        f"    {len(program.states)}, {len(program.params)}, {len(program.record)},\n"
        f"    {{{recorded}}}, {{{', '.join(map(str, flags)) or '0'}}}, {{{', '.join(map(str, counts))}}},\n"
        f"    {{forward_prepare_row, backward_prepare_row, {prepare}}},\n"
        f"    forward_row, advance_row, {keeping}, backward_row, {kept},\n"
        "};"
    )

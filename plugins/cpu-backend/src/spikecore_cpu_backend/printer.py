"""Prints a program as C: its rows (one time step of many neurons) and the table that hands them to the driver."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar

from spikecore.dynamics import Graph, Program
from spikecore.dynamics.printing import C_OPERATIONS, Printer, inputs_of
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
    parts = [
        _forward(printer, program, program.forward, "forward", ["out", *states]),
        _forward(printer, program, program.forward, "advance", states),
        _backward(printer, program, program.backward, "backward", gradients),
    ]
    kept = keeping(program)
    if kept is not None:
        parts.append(_forward(printer, program, kept[0], "forward_keeping", ["out", KEPT, *states]))
        parts.append(_backward(printer, program, kept[1], "backward_kept", gradients))
    parts.append(_table(program, kept is not None))
    return "\n\n".join(parts) + "\n"


_FORWARD = (
    "const real *x, const real *const *before, real *const *after, real *out, real *kept, "
    "const real *const *params, long lane, long end"
)
_BACKWARD = (
    "const real *x, const real *const *before, const real *const *params, const real *grad_out, "
    "real *const *grad_states, real *grad_x, real *const *grad_params, long lane, long end"
)


def _forward(printer: Printer, program: Program, graph: Graph, name: str, wanted: list[str]) -> str:
    targets = {"out": "out", KEPT: "kept"} | {f"state.{each}": f"after[{i}]" for i, each in enumerate(program.states)}
    return _row(printer, name, _FORWARD, graph, _reads(program), {each: targets[each] for each in wanted})


def _backward(printer: Printer, program: Program, graph: Graph, name: str, wanted: list[str]) -> str:
    reads = _reads(program) | {"grad.out": "grad_out", KEPT: "x"}
    reads |= {f"grad.state.{each}": f"grad_states[{i}]" for i, each in enumerate(program.states)}
    targets = {"grad.x": "grad_x"}
    targets |= {f"grad.state.{each}": f"grad_states[{i}]" for i, each in enumerate(program.states)}
    targets |= {f"grad.param.{param.name}": f"grad_params[{i}]" for i, param in enumerate(program.params)}
    return _row(printer, name, _BACKWARD, graph, reads, {each: targets[each] for each in wanted})


def _reads(program: Program) -> dict[str, str]:
    """Input of the step → the row it is read from."""
    rows = {"x": "x"} | {f"state.{each}": f"before[{i}]" for i, each in enumerate(program.states)}
    return rows | {f"param.{param.name}": f"params[{i}]" for i, param in enumerate(program.params)}


def _row(
    printer: Printer, name: str, signature: str, graph: Graph, reads: Mapping[str, str], targets: Mapping[str, str]
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
        f"static void {name}_row({signature}) {{\n{head}\n    LANES\n"
        f"    for (; lane < end; lane++) {{\n{body}\n    }}\n}}"
    )


def _pointers(kind: str, name: str, rows: Iterable[str]) -> list[str]:
    return [f"{kind}{name}{i} = {row};" for i, row in enumerate(rows)]


def _table(program: Program, keeps: bool) -> str:
    recorded = ", ".join(str(program.states.index(name)) for name in program.record) or "0"
    flags = [param.per_channel + 2 * param.learnable for param in program.params]
    return (
        "const struct NAME(program) sc_program = {\n"
        f"    {len(program.states)}, {len(program.params)}, {len(program.record)},\n"
        f"    {{{recorded}}}, {{{', '.join(map(str, flags)) or '0'}}},\n"
        f"    forward_row, advance_row, {'forward_keeping_row' if keeps else 'NULL'},\n"
        f"    backward_row, {'backward_kept_row' if keeps else 'NULL'},\n"
        "};"
    )

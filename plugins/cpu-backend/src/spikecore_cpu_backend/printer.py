"""Prints a program as C: its rows (one time step of many neurons) and the table that hands them to the driver."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import ClassVar

from spikecore.dynamics import Graph, Program, reached, with_gaps
from spikecore.dynamics.printing import C_OPERATIONS, Printer, inputs_of
from spikecore_cpu_backend.hoist import DERIVED, hoist
from spikecore_cpu_backend.kept import KEPT, keeping

FUNCTIONS = ("exp", "log", "sqrt", "tanh", "sigmoid", "abs", "sign", "floor", "round", "sin", "cos", "atan", "erf")
ARRIVES = "arrives."
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
    gaps = {"gaps": with_gaps(program), "last": with_gaps(program, ["out"])}
    parts += [_backward(printer, program, each, f"backward_{name}", gradients) for name, each in gaps.items()]
    if kept is not None:
        parts.append(_forward(printer, program, hoist(forward, outputs, room)[1], "forward_keeping", outputs))
        before, rest = hoist(kept[1], gradients, room)
        counts.append(len(before.outputs))
        parts.append(_prepare(printer, program, before, "backward_kept"))
        parts.append(_backward(printer, program, rest, "backward_kept", gradients))
        for name, each in gaps.items():
            found = keeping(program, each)
            assert found is not None  # it contains nothing that the whole backward pass does not
            parts.append(_backward(printer, program, found[1], f"backward_kept_{name}", gradients))
    parts.append(_table(program, counts, kept is not None))
    return "\n\n".join(parts) + "\n"


_CALL = "const struct NAME(call) *call, long lane, long end"
_PREPARE = "const real *const *params, real *const *derived, long lane, long end"


def _prepare(printer: Printer, program: Program, graph: Graph, name: str, first: int = 0) -> str:
    """Computes the derived rows from number `first` on; those before it are those of the forward pass."""
    targets = {each: f"derived[{first + i}]" for i, each in enumerate(graph.outputs)}
    head = "    forward_prepare_row(params, derived, lane, end);\n" if first else ""
    return _row(printer, f"{name}_prepare", _PREPARE, graph, _reads(program, "params"), targets, first=head)


def _forward(printer: Printer, program: Program, graph: Graph, name: str, wanted: list[str]) -> str:
    sequences = {"out": "out", KEPT: "kept"}
    rows = {f"state.{each}": f"call->after[{i}]" for i, each in enumerate(program.states)}
    return _step(printer, name, graph, _reads(program), rows, {k: v for k, v in sequences.items() if k in wanted})


def _backward(printer: Printer, program: Program, graph: Graph, name: str, wanted: list[str], first: int = 0) -> str:
    reads = _reads(program, first=first) | {"grad.out": "call->grad_out", KEPT: "call->x"}
    grads = {f"grad.state.{each}": f"call->grad_states[{i}]" for i, each in enumerate(program.states)}
    sums = {f"grad.param.{param.name}": f"call->grad_params[{i}]" for i, param in enumerate(program.params)}
    rows = {each: row for each, row in (grads | sums).items() if each in wanted}
    reads |= {f"{ARRIVES}{each}": f"call->arrives[{i}]" for i, each in enumerate(_seeds(program))}
    return _step(printer, name, graph, reads | grads, rows, {"grad.x": "out"})


def _seeds(program: Program) -> list[str]:
    """What a gradient may arrive of, in the order of the bits of `arrives`."""
    return ["out", *(f"state.{each}" for each in program.states)]


def _flows(program: Program) -> list[int]:
    """For each of these, as bits: at which states before the step a gradient arrives then."""
    found = [reached(program.forward, [each]) for each in _seeds(program)]
    return [sum(2 << i for i, each in enumerate(program.states) if f"state.{each}" in names) for names in found]


def _step(
    printer: Printer,
    name: str,
    graph: Graph,
    reads: Mapping[str, str],
    rows: Mapping[str, str],
    sequences: Mapping[str, str],
) -> str:
    """One time step; fetches what later steps read."""
    used = set(inputs_of(graph, [*sequences, *rows]))
    fetches = [f"fetch_tile(&call->ahead[{i}], lane);" for i, each in enumerate(_SEQUENCES) if used & each]
    return _row(printer, name, _CALL, graph, reads, rows, sequences, fetches)


_SEQUENCES = ({"x", KEPT}, {"grad.out"})


def _reads(program: Program, params: str = "call->params", first: int = 0) -> dict[str, str]:
    """Input of the step → the row it is read from; derived rows stand behind those of the parameters."""
    rows = {"x": "call->x"} | {f"state.{each}": f"call->before[{i}]" for i, each in enumerate(program.states)}
    rows |= {f"param.{param.name}": f"{params}[{i}]" for i, param in enumerate(program.params)}
    first += len(program.params)
    return rows | {f"{DERIVED}{i}": f"{params}[{first + i}]" for i in range(MAX_TENSORS - first)}


def _row(
    printer: Printer,
    name: str,
    signature: str,
    graph: Graph,
    reads: Mapping[str, str],
    rows: Mapping[str, str],
    sequences: Mapping[str, str] = MappingProxyType({}),
    fetches: Iterable[str] = (),
    first: str = "",
) -> str:
    """A function that computes tile by tile; `rows` are written where they stand, `sequences` through a target."""
    wanted = [*sequences, *rows]
    used = list(inputs_of(graph, wanted))
    kinds = {each: "int" if each.startswith(ARRIVES) else "real" for each in used}
    pointers = [f"const {kinds[each]} *from{i} = {reads[each]};" for i, each in enumerate(used)]
    pointers += [f"real *to{i} = {rows[each]};" for i, each in enumerate(wanted) if each in rows]
    begin, end = list(fetches), []
    for i, target in enumerate(sequences.values()):
        begin += [f"real tile{i}[TILE] ALIGNED;"]
        begin += [f"real *to{i} = NAME(begin_tile)(&call->{target}, lane, tile{i});"]
        end += [f"NAME(end_tile)(&call->{target}, lane, to{i});"]
    sources = {each: f"from{i}[{'lane + ' * (kinds[each] == 'real')}i]" for i, each in enumerate(used)}
    statements, values = printer.print(graph, sources, wanted)
    for i, each in enumerate(wanted):
        place = f"to{i}[i]" if each in sequences else f"to{i}[lane + i]"
        statements.append(f"{place} {'+=' if each.startswith('grad.param.') else '='} {values[each]};")
    return (
        f"static void {name}_row({signature}) {{\n{first}{_lines(pointers, 1)}"
        f"    for (; lane < end; lane += TILE) {{\n{_lines(begin, 2)}"
        f"        LANES\n        for (long i = 0; i < TILE; i++) {{\n{_lines(statements, 3)}        }}\n"
        f"{_lines(end, 2)}    }}\n}}"
    )


def _lines(statements: Iterable[str], depth: int) -> str:
    return "".join(f"{'    ' * depth}{each}\n" for each in statements)


def _table(program: Program, counts: list[int], keeps: bool) -> str:
    recorded = ", ".join(str(program.states.index(name)) for name in program.record) or "0"
    flags = [param.per_channel + 2 * param.learnable for param in program.params]
    keeping, prepare = ("forward_keeping_row", "backward_kept_prepare_row") if keeps else ("NULL", "NULL")
    backward = ", ".join(f"backward_{each}row" for each in ("", "gaps_", "last_"))
    kept = ", ".join(f"backward_kept_{each}row" if keeps else "NULL" for each in ("", "gaps_", "last_"))
    return (
        "const struct NAME(program) sc_program = {\n"
        f"    {len(program.states)}, {len(program.params)}, {len(program.record)},\n"
        f"    {{{recorded}}}, {{{', '.join(map(str, flags)) or '0'}}}, {{{', '.join(map(str, counts))}}},\n"
        f"    {{forward_prepare_row, backward_prepare_row, {prepare}}},\n"
        f"    {{{', '.join(map(str, _flows(program)))}}},\n"
        f"    forward_row, advance_row, {keeping},\n"
        f"    {{{backward}}}, {{{kept}}},\n"
        "};"
    )

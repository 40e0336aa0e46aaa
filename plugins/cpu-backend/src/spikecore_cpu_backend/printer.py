"""Prints a program as C: its rows (one time step of many neurons) and the table that hands them to the driver."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from spikecore.dynamics import (
    KEPT,
    CPrinter,
    Graph,
    Printer,
    Program,
    gives_spikes,
    hoist,
    hoist_uniform,
    inputs_of,
    keep_distance,
    slots_of,
    with_gaps,
)
from spikecore_cpu_backend.call import MAX_TENSORS

FUNCTIONS = ("exp", "log", "sqrt", "tanh", "sigmoid", "abs", "sign", "floor", "round", "sin", "cos", "atan", "erf")
ARRIVES = "arrives."
NUMBER = "sc_number"


class KernelPrinter(CPrinter):
    """Graphs as C; functions are those of math_32.h and math_64.h."""

    operations: Mapping[str, str] = {
        **CPrinter.operations,
        **{name: f"sc_{name}({{0}})" for name in FUNCTIONS},
        "min": "sc_min({0}, {1})",
        "max": "sc_max({0}, {1})",
        "clamp": "sc_clamp({0}, {1}, {2})",
    }

    def number(self, slot: int, value: float) -> str:
        """Each row begins with its numbers, see `_row`."""
        return f"{NUMBER}{slot}"


def print_program(program: Program, is_double: bool, normed: str = "") -> str:
    """The C text of a program, for `real` = float or double.

    Args:
        program: the program.
        is_double: which of the two.
        normed: its rows read x * scale + shift for x; `scale` and `shift` of the call are a `number` each, or a
            `row` with one of each lane; the gradient is that of the sum. "": they read x.
    """
    printer = KernelPrinter(is_double)
    states = [f"state.{name}" for name in program.states]
    learned = [f"grad.param.{param.name}" for param in program.params if param.learnable]
    gradients = ["grad.x", *(f"grad.{name}" for name in states), *learned]
    room = MAX_TENSORS - len(program.params)
    kept = None if normed else keep_distance(program)
    forward, outputs = (program.forward, ["out", *states]) if kept is None else (kept[0], ["out", *states, KEPT])
    before, (rest,) = hoist([forward], outputs, room)
    first, reads = len(before.outputs), _reads(program, before, normed=normed)
    parts = [
        _prepare(printer, program, before, "forward"),
        _forward(printer, program, rest, "forward", ["out", *states], reads),
        _forward(printer, program, rest, "advance", states, reads),
    ]
    if kept is not None:
        parts.append(_forward(printer, program, rest, "forward_keeping", outputs, reads))
    graphs = [program.backward, with_gaps(program), with_gaps(program, ["out"])]
    counts = [first]
    # The backward pass advances too: its rows follow those of the forward pass.
    parts += _backwards(printer, program, graphs, "backward", gradients, counts, first, normed)
    if kept is not None:
        parts += _backwards(printer, program, _kept_graphs(program, graphs), "backward_kept", gradients, counts)
    parts.append(_table(program, counts, kept is not None))
    return "\n\n".join(parts) + "\n"


_CALL = "const struct NAME(call) *call, long lane, long end"
_PREPARE = "const real *numbers, const real *const *params, real *const *derived, long lane, long end"


@dataclass(frozen=True)
class _Read:
    """Where an input of a graph is read.

    Args:
        row: the row it stands in.
        is_uniform: all lanes share its first number.
        kind: C type of a lane.
        in_tile: the row is one tile long, the same for all tiles.
        normed: what stands there is scaled and shifted, by a `number` or by a `row` with one of each lane; or "": not.
    """

    row: str
    is_uniform: bool = False
    kind: str = "real"
    in_tile: bool = False
    normed: str = ""


def _prepare(printer: Printer, program: Program, graph: Graph, name: str, first: int = 0) -> str:
    """Computes the derived rows from number `first` on; those before it are those of the forward pass."""
    targets = {symbol: f"derived[{first + i}]" for i, symbol in enumerate(graph.outputs)}
    head = "    forward_prepare_row(numbers, params, derived, lane, end);\n" if first else ""
    reads = {f"param.{param.name}": _Read(f"params[{i}]") for i, param in enumerate(program.params)}
    return _row(printer, f"{name}_prepare", _PREPARE, graph, reads, targets, first=head)


def _forward(
    printer: Printer, program: Program, graph: Graph, name: str, wanted: list[str], reads: Mapping[str, _Read]
) -> str:
    sequences = {"out": "out", KEPT: "kept"}
    rows = {f"state.{symbol}": f"call->after[{i}]" for i, symbol in enumerate(program.states)}
    wanted_sequences = {k: v for k, v in sequences.items() if k in wanted}
    # Asked of the whole program: what is left of it here may read its choice from a row.
    spikes = {"out"} if gives_spikes(program.forward, "out") else set()
    return _step(printer, name, graph, reads, rows, wanted_sequences, spikes=spikes)


def _backwards(
    printer: Printer,
    program: Program,
    graphs: Sequence[Graph],
    name: str,
    wanted: list[str],
    counts: list[int],
    first: int = 0,
    normed: str = "",
) -> list[str]:
    """The rows for ALL, SOME and LAST, and the one that prepares them; appends to `counts` how many rows it makes."""
    before, rests = hoist(graphs, wanted, MAX_TENSORS - len(program.params) - first)
    counts.append(first + len(before.outputs))
    reads = _reads(program, before, first, normed) | {"grad.out": _Read("call->grad_out"), KEPT: _Read("call->x")}
    for i, symbol in enumerate(_seeds(program)):
        reads[f"{ARRIVES}{symbol}"] = _Read(f"call->arrives[{i}]", kind="int", in_tile=True)
    grads = {f"grad.state.{symbol}": f"call->grad_states[{i}]" for i, symbol in enumerate(program.states)}
    reads |= {symbol: _Read(row) for symbol, row in grads.items()}
    sums = {f"grad.param.{param.name}": f"call->grad_params[{i}]" for i, param in enumerate(program.params)}
    rows = {symbol: row for symbol, row in (grads | sums).items() if symbol in wanted}
    shared = {f"grad.param.{param.name}" for param in program.params if not param.per_channel}
    parts = [_prepare(printer, program, before, name, first)]
    for kind, rest in zip(("", "_gaps", "_last"), rests, strict=True):
        parts.append(_step(printer, name + kind, rest, reads, rows, {"grad.x": "out"}, shared))
    return parts


def _kept_graphs(program: Program, graphs: Iterable[Graph]) -> list[Graph]:
    """The same gradients from what was kept. (No other contains anything that the whole backward pass does not.)"""
    pairs = [keep_distance(program, graph) for graph in graphs]
    return [pair[1] for pair in pairs if pair is not None]


def _seeds(program: Program) -> list[str]:
    """What a gradient may arrive of, in the order of the bits of `arrives`."""
    return ["out", *(f"state.{name}" for name in program.states)]


def _step(
    printer: Printer,
    name: str,
    graph: Graph,
    reads: Mapping[str, _Read],
    rows: Mapping[str, str],
    sequences: Mapping[str, str],
    shared: Collection[str] = (),
    spikes: Collection[str] = (),
) -> str:
    """One time step; fetches what later steps read."""
    used = set(inputs_of(graph, [*sequences, *rows]))
    fetches = [f"fetch_tile(&call->ahead[{i}], lane);" for i, sequence in enumerate(_SEQUENCES) if used & sequence]
    return _row(printer, name, _CALL, graph, reads, rows, sequences, shared, fetches, spikes=spikes)


_SEQUENCES = ({"x", KEPT}, {"grad.out"})


def _reads(program: Program, derived: Graph, first: int = 0, normed: str = "") -> dict[str, _Read]:
    """Input of the step → where it is read; `derived` rows, from number `first` on, follow those of the parameters."""
    rows = {"x": _Read("call->x", normed=normed)}
    rows |= {f"state.{symbol}": _Read(f"call->before[{i}]") for i, symbol in enumerate(program.states)}
    alike = {f"param.{param.name}" for param in program.params if not param.per_channel}
    names = [f"param.{param.name}" for param in program.params]
    rows |= {name: _Read(f"call->params[{i}]", name in alike) for i, name in enumerate(names)}
    for i, name in enumerate(derived.outputs):
        is_uniform = alike.issuperset(inputs_of(derived, [name]))
        rows[name] = _Read(f"call->params[{len(names) + first + i}]", is_uniform)
    return rows


def _row(
    printer: Printer,
    name: str,
    signature: str,
    graph: Graph,
    reads: Mapping[str, _Read],
    rows: Mapping[str, str],
    sequences: Mapping[str, str] = MappingProxyType({}),
    shared: Collection[str] = (),
    fetches: Iterable[str] = (),
    first: str = "",
    spikes: Collection[str] = (),
) -> str:
    """A function that computes tile by tile; `rows` are written where they stand, `sequences` through a target.

    `spikes` among the sequences may be written as bits too. Those of the rows that are `shared` are one tile long:
    every tile adds to the same.
    """
    wanted = [*sequences, *rows]
    before, graph = hoist_uniform(graph, wanted, lambda symbol: symbol in reads and reads[symbol].is_uniform)
    numbers = "numbers" if signature == _PREPARE else "call->numbers"
    slots = sorted({*slots_of(before, before.outputs), *slots_of(graph, wanted)})
    pointers = [f"const real {NUMBER}{slot} = {numbers}[{slot}];" for slot in slots]
    sources = {}
    used = [*inputs_of(before, before.outputs), *inputs_of(graph, wanted)]
    for i, symbol in enumerate(dict.fromkeys(symbol for symbol in used if symbol in reads)):
        read = reads[symbol]
        if read.is_uniform:
            pointers.append(f"const {read.kind} from{i} = {read.row}[0];")
            sources[symbol] = f"from{i}"
        else:
            pointers.append(f"const {read.kind} *from{i} = {read.row};")
            sources[symbol] = f"from{i}[{'i' if read.in_tile else 'lane + i'}]"
            if read.normed:
                pointers += _NORM[read.normed]
                place = "" if read.normed == "number" else "[lane + i]"
                sources[symbol] = f"({sources[symbol]} * sc_scale{place} + sc_shift{place})"
    statements, uniform = printer.print(before, sources, before.outputs, tag="uniform_")
    pointers += statements
    sources |= uniform
    pointers += [f"real *to{i} = {rows[symbol]};" for i, symbol in enumerate(wanted) if symbol in rows]
    begin, end = list(fetches), []
    for i, (symbol, target) in enumerate(sequences.items()):
        begin += [f"real tile{i}[TILE] ALIGNED;"]
        begin += [f"real *to{i} = NAME(begin_tile)(&call->{target}, lane, tile{i});"]
        ending = "end_spikes" if symbol in spikes else "end_tile"
        end += [f"NAME({ending})(&call->{target}, lane, to{i});"]
    statements, values = printer.print(graph, sources, wanted)
    for i, symbol in enumerate(wanted):
        place = f"to{i}[i]" if symbol in sequences or symbol in shared else f"to{i}[lane + i]"
        statements.append(f"{place} {'+=' if symbol.startswith('grad.param.') else '='} {values[symbol]};")
    return (
        f"static void {name}_row({signature}) {{\n{first}{_lines(pointers, 1)}"
        f"    for (; lane < end; lane += TILE) {{\n{_lines(begin, 2)}"
        f"        LANES\n        for (long i = 0; i < TILE; i++) {{\n{_lines(statements, 3)}        }}\n"
        f"{_lines(end, 2)}    }}\n}}"
    )


_NORM = {
    "number": ["const real sc_scale = call->scale[0], sc_shift = call->shift[0];"],
    "row": ["const real *sc_scale = call->scale, *sc_shift = call->shift;"],
}


def _lines(statements: Iterable[str], depth: int) -> str:
    return "".join(f"{'    ' * depth}{statement}\n" for statement in statements)


def _table(program: Program, counts: list[int], keeps: bool) -> str:
    recorded = ", ".join(str(program.states.index(name)) for name in program.record) or "0"
    flags = [param.per_channel + 2 * param.learnable for param in program.params]
    keeping, prepare = ("forward_keeping_row", "backward_kept_prepare_row") if keeps else ("NULL", "NULL")
    backward = ", ".join(f"backward_{part}row" for part in ("", "gaps_", "last_"))
    kept = ", ".join(f"backward_kept_{part}row" if keeps else "NULL" for part in ("", "gaps_", "last_"))
    return (
        "const struct NAME(program) sc_program = {\n"
        f"    {len(program.states)}, {len(program.params)}, {len(program.record)},\n"
        f"    {{{recorded}}}, {{{', '.join(map(str, flags)) or '0'}}}, {{{', '.join(map(str, counts))}}},\n"
        f"    {{forward_prepare_row, backward_prepare_row, {prepare}}},\n"
        f"    forward_row, advance_row, {keeping},\n"
        f"    {{{backward}}}, {{{kept}}},\n"
        "};"
    )

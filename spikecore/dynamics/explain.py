"""A graph as equations for people: shared parts get a name, the rest stands in place."""

from __future__ import annotations

from spikecore.dynamics.graph import CONST, INPUT, SPIKE, Graph, Node, Program

_SIGNS = {
    "add": ("+", 4),
    "sub": ("-", 4),
    "mul": ("*", 5),
    "div": ("/", 5),
    "lt": ("<", 3),
    "le": ("<=", 3),
    "gt": (">", 3),
    "ge": (">=", 3),
    "eq": ("==", 3),
    "ne": ("!=", 3),
    "and": ("&", 2),
    "or": ("|", 1),
}
_UNARY = 6
_ATOM = 9


def equations(graph: Graph) -> list[str]:
    """One line per shared part and output: `h = v + (x - v) / 2`."""
    uses = _uses(graph)
    targets: dict[int, str] = {}
    for name, index in graph.outputs.items():
        if graph.nodes[index].op not in (INPUT, CONST):
            targets.setdefault(index, name)
    shown: list[tuple[str, int]] = []
    lines: list[str] = []
    count = 0
    for index, node in enumerate(graph.nodes):
        if index not in uses:
            shown.append(("", _ATOM))
            continue
        if node.op in (INPUT, CONST):
            shown.append((_leaf(node), _ATOM if node.op == INPUT or not _leaf(node).startswith("-") else _UNARY))
            continue
        text, strength = _expression(node, [shown[a] for a in node.args])
        if uses[index] > 1 or (index in targets and uses[index]):
            count += 1
            lines.append(f"t{count} = {text}")
            text, strength = f"t{count}", _ATOM
        shown.append((text, strength))
    return [*lines, *(f"{_next(name)} = {shown[index][0]}" for name, index in graph.outputs.items())]


def explain(program: Program) -> str:
    """The step and its gradient as text; `v` is a state before the step, `v'` after it, `d.v'` the gradient of v'."""
    names = ", ".join(program.states) or "none"
    head = f"{program.name}  key {program.key[:12]}  states: {names}"
    step = [f"  {line}" for line in equations(program.forward)]
    gradient = [f"  {line}" for line in equations(program.backward)]
    return "\n".join([head, "step", *step, "gradient", *gradient])


def _uses(graph: Graph) -> dict[int, int]:
    """How often each node stands in what is shown; of a spike that is its `u` alone."""
    uses = dict.fromkeys(graph.outputs.values(), 0)
    for index in range(len(graph.nodes) - 1, -1, -1):
        if index in uses:
            node = graph.nodes[index]
            for argument in node.args[1:2] if node.op == SPIKE else node.args:
                uses[argument] = uses.get(argument, 0) + 1
    return uses


def _leaf(node: Node) -> str:
    if node.op == CONST:
        return str(bool(node.value)) if node.is_bool else f"{node.value!r}".removesuffix(".0")
    name = str(node.value)
    if name.startswith("grad."):
        return f"d.{_next(name.removeprefix('grad.'))}"
    return name.removeprefix("state.").removeprefix("param.")


def _next(name: str) -> str:
    if name.startswith("grad."):  # of the incoming state, so without the mark of the next one
        return f"d.{name.removeprefix('grad.').removeprefix('state.').removeprefix('param.')}"
    return f"{name.removeprefix('state.')}'" if name.startswith("state.") else name


def _expression(node: Node, args: list[tuple[str, int]]) -> tuple[str, int]:
    if node.op in _SIGNS:
        sign, strength = _SIGNS[node.op]
        left = _bracketed(args[0], strength)
        right = _bracketed(args[1], strength + 1)  # nothing is reassociated
        return f"{left} {sign} {right}", strength
    if node.op in ("neg", "not"):
        return f"{'-' if node.op == 'neg' else '~'}{_bracketed(args[0], _UNARY + 1)}", _UNARY
    if node.op == SPIKE:
        return f"spike({args[1][0]})", _ATOM
    return f"{node.op}({', '.join(text for text, _ in args)})", _ATOM


def _bracketed(part: tuple[str, int], needed: int) -> str:
    text, strength = part
    return text if strength >= needed else f"({text})"

"""Prints a graph as readable equations: an expression that is used more than once gets a name."""

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
"""Operator → sign and precedence, as in Python: an operand of lower precedence gets brackets."""
_UNARY = 6
_ATOM = 9
"""The precedence of names, numbers and function calls, which never need brackets."""


def equations(graph: Graph) -> list[str]:
    """One line per shared part and output: `h = v + (x - v) / 2`."""
    uses = _uses(graph)
    targets: dict[int, str] = {}
    for name, index in graph.outputs.items():
        if graph.nodes[index].op not in (INPUT, CONST):
            targets.setdefault(index, name)
    printed: list[tuple[str, int]] = []  # for each node: its text and precedence
    lines: list[str] = []
    count = 0
    for index, node in enumerate(graph.nodes):
        if index not in uses:
            printed.append(("", _ATOM))
            continue
        if node.op in (INPUT, CONST):
            text = _leaf(node)
            is_negative = node.op == CONST and text.startswith("-")
            printed.append((text, _UNARY if is_negative else _ATOM))
            continue
        text, strength = _expression(node, [printed[a] for a in node.args])
        if uses[index] > 1 or (index in targets and uses[index]):
            count += 1
            lines.append(f"t{count} = {text}")
            text, strength = f"t{count}", _ATOM
        printed.append((text, strength))
    for name, index in graph.outputs.items():
        lines.append(f"{_next(name)} = {printed[index][0]}")
    return lines


def explain(program: Program) -> str:
    """The step and its gradient as text: `v` is a state before the step, `v'` after it, `d.v'` the gradient of v'."""
    names = ", ".join(program.states) or "none"
    head = f"{program.name}  key {program.key[:12]}  states: {names}"
    step = [f"  {line}" for line in equations(program.forward)]
    gradient = [f"  {line}" for line in equations(program.backward)]
    return "\n".join([head, "step", *step, "gradient", *gradient])


def _uses(graph: Graph) -> dict[int, int]:
    """How often each printed node occurs in the text."""
    uses = dict.fromkeys(graph.outputs.values(), 0)
    for index in range(len(graph.nodes) - 1, -1, -1):
        if index in uses:
            node = graph.nodes[index]
            # A spike is printed as `spike(u)`: neither its value nor its derivative appears.
            arguments = node.args[1:2] if node.op == SPIKE else node.args
            for argument in arguments:
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
    if name.startswith("grad."):  # the gradient of the state before the step, so without the prime
        return f"d.{name.removeprefix('grad.').removeprefix('state.').removeprefix('param.')}"
    return f"{name.removeprefix('state.')}'" if name.startswith("state.") else name


def _expression(node: Node, args: list[tuple[str, int]]) -> tuple[str, int]:
    if node.op in _SIGNS:
        sign, strength = _SIGNS[node.op]
        left = _bracket(args[0], strength)
        right = _bracket(args[1], strength + 1)  # a - (b - c) keeps its brackets
        return f"{left} {sign} {right}", strength
    if node.op in ("neg", "not"):
        sign = "-" if node.op == "neg" else "~"
        return f"{sign}{_bracket(args[0], _UNARY + 1)}", _UNARY
    if node.op == SPIKE:
        return f"spike({args[1][0]})", _ATOM
    texts = ", ".join(text for text, _ in args)
    return f"{node.op}({texts})", _ATOM


def _bracket(part: tuple[str, int], min_strength: int) -> str:
    text, strength = part
    return text if strength >= min_strength else f"({text})"

"""Adding an operator: the tests name every place that lacks it, and a backend that does not know it says so.

docs/how-to/add-an-operator.md lists the places.
"""

import itertools
import math
from pathlib import Path

import pytest
import torch

import spikecore
from spikecore import dynamics
from spikecore.backends.kit import Backend, BackendCapabilities, Interpreter, check_support
from spikecore.dynamics import OPS, CPrinter, Op, unknown_operators
from spikecore.dynamics.functions import _run
from spikecore.dynamics.vjp import PASSES_NOTHING, RULES
from spikecore.errors import BackendError
from spikecore.nn import LIF, Neuron
from spikecore.registry import Blocking, Registry, use
from spikecore.testing.probes import uncovered
from tests.interpreter import FUNCTIONS

ROOT = Path(spikecore.__file__).parents[1]
SIGNS = {"add", "sub", "mul", "div", "neg", "lt", "le", "gt", "ge", "eq", "ne"}
WORDS = {"and": "logical_and", "or": "logical_or", "not": "logical_not"}


def gaps(name):
    """The places that lack an operator of `OPS`."""
    places = {
        f"spikecore/dynamics/functions.py: a function {name}(), exported by spikecore.dynamics": name in SIGNS
        or WORDS.get(name, name) in dynamics.__all__,
        "spikecore/dynamics/vjp.py: a rule in RULES, or the name in PASSES_NOTHING": (name in RULES)
        != (name in PASSES_NOTHING),
        "tests/interpreter.py: its meaning in numpy": name in FUNCTIONS,
        "docs/reference/neuron-language.md: a line": f"| `{name}` |"
        in (ROOT / "docs/reference/neuron-language.md").read_text(encoding="utf-8"),
        "spikecore/testing/probes.py: an expression that uses it": name not in uncovered(),
    }
    return [place for place, is_there in places.items() if not is_there]


def test_no_operator_has_a_gap():
    assert {name: gaps(name) for name in OPS if gaps(name)} == {}
    assert set(RULES) | PASSES_NOTHING == set(OPS)


REAL = [name for name, op in OPS.items() if not op.bool_args and not op.is_bool]


@pytest.mark.parametrize("name", REAL)
def test_numbers_and_tensors_mean_the_same(name):
    """At the edges too, where Python's functions raise: `math.log(0)`, `1 / 0`, `math.floor(inf)`."""
    edges = (0.0, -0.0, 1.0, -1.0, -2.5, 0.5, 800.0, math.inf, -math.inf, math.nan)
    ours = [OPS[name].numbers(*args) for args in itertools.product(edges, repeat=OPS[name].arity)]
    args = torch.tensor(list(itertools.product(edges, repeat=OPS[name].arity)), dtype=torch.float64)
    theirs = OPS[name].tensors(*args.unbind(1))
    torch.testing.assert_close(torch.tensor(ours, dtype=torch.float64), theirs, equal_nan=True)


@pytest.fixture
def softplus(monkeypatch):
    """An operator more."""
    operation = Op(1, torch.nn.functional.softplus, lambda a: dynamics.log(1.0 + dynamics.exp(a)), "", exact=False)
    monkeypatch.setitem(OPS, "softplus", operation)
    monkeypatch.setitem(RULES, "softplus", lambda b, g, args, out: [b.op("mul", g, b.op("sigmoid", args[0]))])
    return lambda a: _run("softplus", a)


def test_every_place_that_lacks_a_new_one_is_named(softplus, monkeypatch):
    monkeypatch.delitem(RULES, "softplus")
    places = gaps("softplus")
    assert [place.partition(":")[0] for place in places] == [
        "spikecore/dynamics/functions.py",
        "spikecore/dynamics/vjp.py",
        "tests/interpreter.py",
        "docs/reference/neuron-language.md",
        "spikecore/testing/probes.py",
    ]
    page = (ROOT / "docs/how-to/add-an-operator.md").read_text(encoding="utf-8")
    assert [place for place in places if place.partition(":")[0] not in page] == []


def smooth(function):
    """A neuron that uses the new operator."""

    def step(x, state, params):
        v = state.v / 2.0 + function(x)
        return v, {"v": v}

    return type("Smooth", (Neuron,), {"state": {"v": 0.0}, "step": staticmethod(step)})


class OldPrinter(CPrinter):
    operations = {**dict.fromkeys(OPS, "?"), **CPrinter.operations}  # noqa: RUF012  (of today, made before the fixture)


class Old(Interpreter):
    """A backend of before, with a printer: it has never heard of softplus."""

    capabilities = BackendCapabilities(priority=90)

    def supports(self, program, device, dtype):
        return check_support(self.capabilities, OldPrinter.operations, program, device, dtype)


class New(Interpreter):
    """The interpreter, which knows what core knows."""

    capabilities = BackendCapabilities(priority=50)


@pytest.fixture
def registered():
    registry = Registry(path=(), builtins=True, blocking=Blocking())
    with use(registry):
        yield registry


def test_auto_passes_over_a_backend_that_does_not_know_it_and_says_why(softplus, registered):
    registered.register("backend", "old", Old)
    x = torch.randn(3, 2, 4, requires_grad=True)
    neuron = smooth(softplus)()
    ours = neuron(x)
    assert neuron.chosen.backend == "torch"
    assert "old: does not know the operator 'softplus' of Smooth" in neuron.chosen.reason
    registered.register("backend", "new", New)
    neuron = smooth(softplus)()
    theirs = neuron(x)
    assert neuron.chosen.backend == "new"
    torch.testing.assert_close(ours, theirs)
    (grad,) = torch.autograd.grad(theirs.sum(), x)
    torch.testing.assert_close(grad, torch.autograd.grad(ours.sum(), x)[0])


def test_a_named_backend_raises(softplus, registered):
    registered.register("backend", "old", Old)
    with pytest.raises(BackendError, match=r"'old' cannot run Smooth: does not know the operator 'softplus' of Smooth"):
        smooth(softplus)(backend="old")(torch.zeros(3, 2))
    assert LIF(backend="old", detach_reset=True)(torch.zeros(3, 2)).sum() == 0  # what it knows it runs


def test_a_printer_names_it(softplus):
    program = smooth(softplus)(backend="torch").program()
    assert unknown_operators(program, OldPrinter.operations) == ["softplus"]
    with pytest.raises(BackendError, match="OldPrinter does not know the operator 'softplus'"):
        OldPrinter().print(program.forward, {"x": "x", "state.v": "v"}, ["out"])


def test_a_new_one_is_not_folded_where_it_is_not_exact(softplus, monkeypatch):
    def step(x, state, params):
        return x * softplus(dynamics.where(x == x, 2.0, 2.0)), {}

    nodes = dynamics.trace("Folds", step, (), {}).forward.nodes
    assert [node.op for node in nodes if node.op not in ("input", "const")] == ["softplus", "mul"]
    monkeypatch.setitem(OPS, "softplus", Op(1, abs, lambda a: 4.0 * a, ""))
    nodes = dynamics.trace("Folds", step, (), {}).forward.nodes
    assert [(node.op, node.value) for node in nodes] == [("input", "x"), ("const", 8.0), ("mul", None)]


def test_a_backend_that_says_nothing_about_operators_is_named_by_its_printer():
    """The default of the contract refuses nothing: `supports` is each backend's own."""
    with pytest.raises(NotImplementedError):
        Backend().supports(LIF().program(), torch.device("cpu"), torch.float32)

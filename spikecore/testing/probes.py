"""Small neurons that ask for what IF and LIF do not: several states, every parameter form, every operator."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

from spikecore.backends.reference import TorchBackend
from spikecore.dynamics import OPS, abs, clamp, detach, exp, floor, log, sigmoid, sign, sqrt, where
from spikecore.dynamics import atan as arc_tangent
from spikecore.dynamics import cos as cosine
from spikecore.dynamics import erf as error_function
from spikecore.dynamics import max as larger
from spikecore.dynamics import min as smaller
from spikecore.dynamics import round as nearest
from spikecore.dynamics import sin as sine
from spikecore.dynamics import tanh as hyperbolic_tangent
from spikecore.interfaces.component import Range
from spikecore.nn import Neuron, fire_and_reset
from spikecore.registry import registry, use

BACKEND = "conformance"
"""The name under which a backend is registered for the time of one check."""


class Adaptive(Neuron):
    """Two coupled states and four numeric parameters of its own.

    h = v + (x - v + delta exp(v - 1) - w) / tau;  w' = w + (a v - w) / tau_w + b s
    """

    state = {"v": "v_init", "w": 0.25}  # noqa: RUF012

    @dataclass(frozen=True)
    class Config(Neuron.Config):
        """
        Args:
            tau: time constant of v.
            tau_w: time constant of w.
            a: coupling of w to v.
            b: what one spike adds to w.
        """

        tau: Annotated[float, Range(gt=1.0)] = 3.0
        tau_w: Annotated[float, Range(gt=1.0)] = 5.0
        a: float = 0.3
        b: float = 0.2

    @staticmethod
    def step(x: Any, state: Any, params: Any) -> tuple[Any, dict[str, Any]]:
        h = state.v + (x - state.v + 0.2 * exp(state.v - 1.0) - state.w) / params.tau
        s, v = fire_and_reset(h, params)
        w = state.w + (params.a * state.v - state.w) / params.tau_w + params.b * s
        return s, {"v": v, "w": w}


class Stateless(Neuron):
    """No state at all: out = x · gain, cut off at 2."""

    @dataclass(frozen=True)
    class Config(Neuron.Config):
        """
        Args:
            gain: the factor.
        """

        gain: float = 1.5

    @staticmethod
    def step(x: Any, state: Any, params: Any) -> tuple[Any, dict[str, Any]]:
        return clamp(x * params.gain, -2.0, 2.0), {}


class Counter(Neuron):
    """Outputs and states that are constants or another state: out = 1 at every second step, whatever x is."""

    state = {"n": 0.0, "last": 0.5}  # noqa: RUF012

    @staticmethod
    def step(x: Any, state: Any, params: Any) -> tuple[Any, dict[str, Any]]:
        return where(state.n > 0.5, 1.0, 0.0, like=x), {"n": 1 - state.n, "last": state.n}


def _logic(x: Any, v: Any) -> Any:
    inside = (x > -1.0) & (x <= 1.0)
    outside = (x < -2.0) | (x >= 2.0) | (x == 0.5) | ~(v != 0.25)
    return where(inside, x * v, where(outside, v - x, 2.0 * x))


OPERATORS: dict[str, Any] = {
    "arithmetic": lambda x, v: (x + v) * (x - v) / (2.0 + v * v) - (-x),
    "logic": _logic,
    "exp": lambda x, v: exp(x - v),
    "log": lambda x, v: log(1.5 + v * v) * x,
    "sqrt": lambda x, v: sqrt(1.0 + x * x),
    "tanh": lambda x, v: hyperbolic_tangent(x + v),
    "sigmoid": lambda x, v: sigmoid(x * v),
    "abs": lambda x, v: abs(x - v),
    "sign": lambda x, v: sign(x) * v,
    "floor": lambda x, v: floor(x * 3.0) + v,
    "round": lambda x, v: nearest(x * 2.0) + x,
    "sin": lambda x, v: sine(x * v),
    "cos": lambda x, v: cosine(x + v),
    "atan": lambda x, v: arc_tangent(x) * v,
    "erf": lambda x, v: error_function(x - v),
    "min": lambda x, v: smaller(x, v),
    "max": lambda x, v: larger(x, v * x),
    "clamp": lambda x, v: clamp(x + v, -0.7, 0.9),
    "detach": lambda x, v: detach(x) * x + v,
}
"""Expressions that together use every operator of the language but `spike`; see `uncovered`."""


def expression(name: str) -> type[Neuron]:
    """A neuron that computes one expression of `OPERATORS`."""
    function = OPERATORS[name]

    def step(x: Any, state: Any, params: Any) -> tuple[Any, dict[str, Any]]:
        out = function(x, state.v)
        return out, {"v": state.v / 2.0 + out / 4.0}

    return type(f"Expression_{name}", (Neuron,), {"state": {"v": 0.25}, "step": staticmethod(step)})


def uncovered() -> set[str]:
    """Operators of the language that no expression uses (`spike` is what the neurons use)."""
    used: set[str] = set()
    for name in OPERATORS:
        used |= {node.op for node in expression(name)().program().forward.nodes}
    return set(OPS) - used - {"spike"}


@contextmanager
def registered_backend(backend: Any) -> Iterator[str]:
    """Inside, neurons can name `backend` (a class, or a function that makes it): it comes in by the usual door."""
    own = registry().without(())
    own.register("backend", BACKEND, backend)
    with use(own):
        yield BACKEND


class GraphBackend(TorchBackend):
    """The interpreter of traced graphs, under a name of its own: `torch` means the plain loop for neurons."""


class Watched:
    """A backend whose calls are counted; all else goes to the one inside."""

    def __init__(self, backend: Any) -> None:
        self.backend = backend
        self.calls: dict[str, int] = {"run": 0, "run_bwd": 0, "norm_neuron": 0, "norm_neuron_grad": 0}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backend, name)

    def run(self, *args: Any) -> Any:
        """Counted."""
        self.calls["run"] += 1
        return self.backend.run(*args)

    def run_bwd(self, *args: Any) -> Any:
        """Counted."""
        self.calls["run_bwd"] += 1
        return self.backend.run_bwd(*args)

    def norm_neuron_pays(self, *_: Any) -> bool:
        """Always: checks of `norm_neuron` are small."""
        return True

    def norm_neuron(self, *args: Any) -> Any:
        """Counted."""
        self.calls["norm_neuron"] += 1
        return self.backend.norm_neuron(*args)

    def norm_neuron_grad(self, *args: Any) -> Any:
        """Counted."""
        self.calls["norm_neuron_grad"] += 1
        return self.backend.norm_neuron_grad(*args)

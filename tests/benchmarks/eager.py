"""The eager reference beside the loop a user would write by hand, and what a module call costs above its operations.

    python tests/benchmarks/eager.py

CPU time of the calling thread, one thread; the candidates take turns, medians. `ratio` and `above_first_us` are medians
over the rounds of what each round gave, to the first of its group.
Outputs and gradients of both loops are compared before anything is measured.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from table import write
from torch import Tensor

from spikecore.backends.reference import TorchBackend
from spikecore.backends.selection import backend_named
from spikecore.interfaces.backend import BackendCapabilities
from spikecore.nn import LIF, reset_state
from spikecore.registry import Blocking, Registry, use

TAU, THRESHOLD, V_RESET, ALPHA = 2.0, 1.0, 0.0, 2.0
SHAPES = [(4, 32, 16384), (16, 32, 4096), (128, 16, 1024)]
LENGTHS = [(100, 16, 512), (500, 16, 512)]


class Spike(torch.autograd.Function):
    """Θ with the atan derivative, as it is usually written."""

    @staticmethod
    def forward(ctx: Any, u: Tensor) -> Tensor:
        ctx.save_for_backward(u)
        return (u >= 0).to(u.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (u,) = ctx.saved_tensors
        scaled = math.pi / 2 * ALPHA * u
        return grad * (ALPHA / 2 / (1 + scaled * scaled))


def step_by_hand(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """One step of LIF."""
    h = v + (x - (v - V_RESET)) / TAU
    s = Spike.apply(h - THRESHOLD)
    return s, (1 - s) * h + s * V_RESET


def loop_by_hand(x: Tensor) -> Tensor:
    """LIF over `[T, B, N]`."""
    v, outs = torch.full(x.shape[1:], V_RESET), []
    for current in x.unbind(0):
        s, v = step_by_hand(current, v)
        outs.append(s)
    return torch.stack(outs)


class Canned(TorchBackend):
    """An operator backend that hands out what it has: all that is left is the way to it."""

    capabilities = BackendCapabilities(priority=5)

    def run(self, key: str, x: Tensor, states: Any, params: Any, save: bool, carry: bool) -> Any:
        return self.out, self.states if carry else [], [], []

    def prepare(self, x: Tensor) -> None:
        """What the next calls give."""
        self.out, self.states = torch.zeros_like(x), [torch.zeros_like(x[0])]


def cpu_seconds(call: Callable[[], Any], repeats: int) -> float:
    """CPU time of one call."""
    start = time.thread_time()
    for _ in range(repeats):
        call()
    return (time.thread_time() - start) / repeats


def take_turns(
    group: str, shape: tuple[int, ...], calls: dict[str, Callable[[], Any]], repeats: int, rounds: int
) -> Any:
    """One row for each candidate."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        cpu_seconds(call, repeats)
    for _ in range(rounds):
        for name, call in calls.items():
            times[name].append(cpu_seconds(call, repeats))
    first = next(iter(times.values()))
    for name, seconds in times.items():
        median = statistics.median(seconds)
        ratio = statistics.median(ours / theirs for ours, theirs in zip(seconds, first, strict=True))
        above = statistics.median(ours - theirs for ours, theirs in zip(seconds, first, strict=True))
        size = "x".join(map(str, shape))
        print(f"{group:28s} {size:12s} {name:22s} {1e6 * median:10.1f} us  {ratio:6.3f}", flush=True)
        yield {
            "group": group,
            "shape": size,
            "what": name,
            "cpu_us_median": round(1e6 * median, 2),
            "cpu_us_min": round(1e6 * min(seconds), 2),
            "ratio": round(ratio, 3),
            "above_first_us": round(1e6 * above, 2),
            "rounds": rounds,
        }


def train(net: Callable[[Tensor], Tensor], x: Tensor) -> Callable[[], None]:
    """Forward and backward."""

    def call() -> None:
        x.grad = None
        net(x).sum().backward()

    return call


def infer(net: Callable[[Tensor], Tensor], x: Tensor) -> Callable[[], None]:
    """Forward without gradients."""

    def call() -> None:
        with torch.no_grad():
            net(x)

    return call


def check(lif: LIF) -> None:
    """Both loops agree."""
    x = torch.randn(7, 3, 5, requires_grad=True)
    ours, theirs = lif(x), loop_by_hand(x)
    assert torch.equal(ours, theirs)
    weights = torch.randn_like(x)
    grads = [torch.autograd.grad((out * weights).sum(), x)[0] for out in (ours, theirs)]
    torch.testing.assert_close(*grads)


def sequences() -> Any:
    """Multi-step: against the loop by hand, and linear in T."""
    lif = LIF(tau=TAU, backend="torch")
    check(lif)
    for shape in SHAPES:
        x = torch.rand(shape, requires_grad=True)
        for group, way in (("forward", infer), ("forward and backward", train)):
            yield from take_turns(group, shape, {"by hand": way(loop_by_hand, x), "LIF": way(lif, x)}, 2, 15)
    calls = {f"LIF, T={shape[0]}": train(lif, torch.rand(shape, requires_grad=True)) for shape in LENGTHS}
    yield from take_turns("linear in T (5 is linear)", LENGTHS[-1][1:], calls, 1, 9)


def steps() -> Any:
    """Single-step: what the module costs above its operations."""
    shape, repeats, rounds = (1, 256), 200, 31
    x = torch.rand(shape)
    lif, fed = LIF(tau=TAU, backend="torch", step_mode="single"), LIF(tau=TAU, backend="canned", step_mode="single")
    state = {"v": torch.zeros(shape)}

    def raw() -> None:
        _, state["v"] = step_by_hand(x, state["v"])

    def raw_start(backward: bool) -> None:
        s, _ = step_by_hand(given, torch.zeros(shape))
        if backward:
            s.sum().backward()

    def module_start(backward: bool) -> None:
        reset_state(lif)
        s = lif(given)
        if backward:
            s.sum().backward()

    with torch.no_grad():
        calls = {"raw operations": raw, "LIF": lambda: lif(x)}
        yield from take_turns("single step, no gradient", shape, calls, repeats, rounds)
        backend: Any = backend_named("canned")
        backend.prepare(x.unsqueeze(0))
        calls = {"backend alone": lambda: backend.run("", x, [], [], False, True), "LIF on it": lambda: fed(x)}
        yield from take_turns("operator backend, no gradient", shape, calls, repeats, rounds)
    given = torch.rand(shape, requires_grad=True)
    for group, backward in (("single step, gradient wanted", False), ("single step, with backward", True)):
        calls = {"raw operations": lambda b=backward: raw_start(b), "LIF": lambda b=backward: module_start(b)}
        yield from take_turns(group, shape, calls, repeats, rounds)


def main() -> None:
    torch.set_num_threads(1)
    registry = Registry(blocking=Blocking())
    registry.register("backend", "canned", Canned)
    with use(registry):
        print(write("eager", [*sequences(), *steps()], "torch"))


if __name__ == "__main__":
    main()

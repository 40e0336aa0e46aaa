"""The gate: a candidate is timed only if it computes what the reference computes.

Backends are compared at odd sizes, on strided input and at the shape that is timed, with and without gradients: their
outputs, final states, and gradients of input, initial states and parameters.

    outputs      equal; if the step calls exp, tanh or similar functions, at most one in 100 000 spikes differs, and the
                 potential at the first difference of an element lies within 4 ulp of the threshold
    the rest     within 1e-5 of the reference, on the elements whose outputs are equal; or, if float32 itself is worse
                 conditioned, within twice the distance of eager float32 from eager float64

Graded outputs count as equal within 1e-5. Distances are relative to the largest value of an element over time. A state
has one value only, which may cancel, so its distance is relative to at least the root mean square of all. Sums over all
elements, such as the gradient of a parameter, may differ by 1e-4, because the order of summation is free. Peers are
compared in what they claim to share.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from spikecore.bench.candidates import Candidate
from spikecore.bench.cases import FORWARD, STEP, TRAINING, Case, Runner
from spikecore.bench.mismatch import NEAR_ULP, first_mismatches
from spikecore.dynamics import OPS, Program
from spikecore.nn import Neuron, get_state, reset_state, set_state, streaming

MOST_DIFFERENT = 1e-5
PEER_MOST_DIFFERENT = 1e-3
RELATIVE = 1e-5
RELATIVE_SUM = 1e-4
SINGLE = "single"
ODD_SHAPES = ((7, 3, 37), (1, 2, 5))


@dataclass(frozen=True)
class Verdict:
    """The result of a comparison; `text` is one line."""

    ok: bool
    text: str


@dataclass(frozen=True)
class Outcome:
    """What a neuron computes from one input.

    Args:
        out: `[T, B, ...]`, with gradients on.
        inference: the same from the initial state, without gradients.
        values: the rest, by name.
        start: the state before `out`.
    """

    out: Tensor
    inference: Tensor
    values: dict[str, Tensor]
    start: dict[str, Tensor]


def backend_gate(candidate: Candidate, reference: Candidate, case: Case) -> Verdict:
    """Compare a backend with the reference, at odd shapes and at that of the case.

    Raises:
        Unsupported: it does not run this case.
    """
    compared = 0
    trials: list[tuple[tuple[int, ...], bool]] = [(shape, False) for shape in ODD_SHAPES]
    trials += [(ODD_SHAPES[0], True), (case.shape, False)]
    for shape, strided in trials:
        here = replace(case, shape=shape)
        runner = candidate.make(here, TRAINING)
        x = _make_strided(here.input()) if strided else here.input()
        try:
            got = outcome(runner, x, here.grad())
        except Exception as error:
            return Verdict(False, f"{type(error).__name__} at {here.title}: {error}")
        eager = reference.make(here, TRAINING)
        problem = _compare(got, outcome(eager, x, here.grad()), eager, x, here.grad())
        if problem:
            return Verdict(False, f"at {here.title}{' strided' if strided else ''}: {problem}")
        compared += here.num_elements
    if SINGLE in _neuron(runner).capabilities.step_modes:
        problem = _step_differs(candidate, reference, case)
        if problem:
            return Verdict(False, f"single steps: {problem}")
    return Verdict(True, f"equal to eager over {compared} element-steps")


def peer_gate(candidate: Candidate, reference: Candidate, case: Case) -> Verdict:
    """Compare a peer with the reference at the shape of the case, as far as it claims to be the same.

    Raises:
        Unsupported: it does not run this case.
    """
    runner = candidate.make(case, TRAINING)
    if not candidate.same_dynamics:
        return Verdict(True, f"not compared: {candidate.about}")
    x, grad = case.input(), case.grad()
    try:
        want, want_grad = _out_and_gradient(reference.make(case, TRAINING), x, grad)
        inference = candidate.make(case, FORWARD)
        with torch.no_grad():
            again = inference.finish(inference.call(inference.prepare(x)))
        if again.shape != want.shape:
            return Verdict(False, f"returns {tuple(again.shape)}, expected {tuple(want.shape)}")
        out, got_grad = _out_and_gradient(runner, x, grad)
    except Exception as error:
        return Verdict(False, f"{type(error).__name__}: {error}")
    differ = max(int((tensor != want).sum()) for tensor in (out, again))
    if differ > PEER_MOST_DIFFERENT * want.numel():
        return Verdict(False, f"{differ} of {want.numel()} outputs differ from ours: other dynamics")
    text = f"{differ} of {want.numel()} spikes differ" if differ else "spikes equal"
    if not candidate.same_gradient:
        return Verdict(True, f"{text}; other surrogate")
    distance = _distance(got_grad, want_grad, (out == want).all(0))
    if not distance <= 10 * RELATIVE:
        return Verdict(False, f"{text}, gradients differ by {distance:.1e}")
    return Verdict(True, f"{text}, gradients equal")


def outcome(runner: Runner, x: Tensor, grad: Tensor) -> Outcome:
    """What our neuron computes from another state than its initial one, with all gradients of one weighted sum.

    Also, as it is timed, from the initial state, in calls whose final states are not needed.
    """
    neuron = _neuron(runner)
    with torch.no_grad():
        inference = neuron(x)
    given = x.detach().requires_grad_()
    with torch.enable_grad():
        alone = _gradient(neuron(given), given, grad)
    given = x.detach().requires_grad_()  # keeps its strides
    with streaming(neuron), torch.enable_grad():
        start = {name: (value + 0.125).detach() for name, value in neuron.initial_state(given[0]).items()}
        set_state(neuron, {"": {name: value.requires_grad_() for name, value in start.items()}})
        out = neuron(given)
        finals = get_state(neuron)[""] or {}
    flowing = [value for value in finals.values() if value.requires_grad]
    incoming = [grad, *(torch.ones_like(value) for value in flowing)]
    wanted = {"the input": given, **{f"initial {name}": value for name, value in start.items()}}
    wanted |= dict(neuron.named_parameters())
    gradients = torch.autograd.grad([out, *flowing], list(wanted.values()), incoming, allow_unused=True)
    values = {f"final {name}": value.detach() for name, value in finals.items()}
    for (name, tensor), value in zip(wanted.items(), gradients, strict=True):
        values[f"gradient of {name}"] = torch.zeros_like(tensor) if value is None else value
    values["gradient of the input from the initial state"] = alone
    return Outcome(out.detach(), inference, values, {name: value.detach() for name, value in start.items()})


def _gradient(out: Tensor, x: Tensor, grad: Tensor) -> Tensor:
    """Zeros where out does not depend on x, as one step may not."""
    gradient = torch.autograd.grad(out, x, grad, allow_unused=True)[0] if out.requires_grad else None
    return torch.zeros_like(x) if gradient is None else gradient


def _compare(got: Outcome, want: Outcome, eager: Runner, x: Tensor, grad: Tensor) -> str:
    """What is wrong, or ""."""
    pairs = {"output": (got.out, want.out), "output without gradients": (got.inference, want.inference)}
    pairs |= {name: (value, want.values[name]) for name, value in got.values.items()}
    for name, (value, other) in pairs.items():
        if value.shape != other.shape or value.dtype != other.dtype:
            return f"{name} is {value.dtype} {tuple(value.shape)}, expected {other.dtype} {tuple(other.shape)}"
    neuron = _neuron(eager)
    spiking, exact = neuron.capabilities.spiking, _is_exact(neuron.program())
    for name, start in (("output", want.start), ("output without gradients", neuron.initial_state(x[0]))):
        value, other = pairs.pop(name)
        differ = int(_differs(value, other, spiking).sum())
        most = 0.0 if exact else MOST_DIFFERENT * int((other != 0).sum())
        if differ > most:
            return f"{differ} of {other.numel()} values of the {name} differ"
        if differ and spiking:
            ulps = first_mismatches(neuron, x, start, value, other)
            if not bool((ulps <= NEAR_ULP).all()):
                return f"a spike of the {name} differs {float(ulps.max()):.0f} ulp from the threshold"
    equal = ~_differs(got.out, want.out, spiking).any(0) & ~_differs(got.inference, want.inference, spiking).any(0)
    far: dict[str, float] = {}
    for name, (value, other) in pairs.items():
        distance = _distance(value, other, equal)
        if not distance <= _limit(other, x):  # not `>`: a distance of NaN is far
            far[name] = distance
    return _beyond_float32(far, got, want, eager, x, grad) if far else ""


def _differs(value: Tensor, want: Tensor, spiking: bool) -> Tensor:
    if spiking:
        return value != want
    scale = want.abs().amax(0, keepdim=True) if want.shape[0] else want
    return ~torch.isclose(value, want, rtol=0, atol=0, equal_nan=True) & ~((value - want).abs() <= RELATIVE * scale)


def _beyond_float32(far: dict[str, float], got: Outcome, want: Outcome, eager: Runner, x: Tensor, grad: Tensor) -> str:
    """The first of the values far from eager float32 that is also far from float64, as text; "" if there is none."""
    if x.dtype == torch.float64:
        return _first(far)
    exact = replace(eager, module=copy.deepcopy(_neuron(eager)).double())
    truth = outcome(exact, x.double(), grad.double())
    pairs = ((got.out, want.out, truth.out), (got.inference, want.inference, truth.inference))
    # Elements whose outputs agree in all three computations; only there are the gradients comparable.
    equal_outputs = [(ours == single) & (single.double() == double) for ours, single, double in pairs]
    equal = torch.stack(equal_outputs).all(0).all(0)
    still: dict[str, float] = {}
    for name, distance in far.items():
        own = _distance(want.values[name], truth.values[name], equal)
        if not _distance(got.values[name], truth.values[name], equal) <= max(2 * own, _limit(want.values[name], x)):
            still[name] = distance
    return _first(still)


def _limit(value: Tensor, x: Tensor) -> float:
    is_sum = value.dim() < x.dim() - 1
    return max(RELATIVE_SUM if is_sum else RELATIVE, 2 * torch.finfo(x.dtype).eps)


def _first(far: dict[str, float]) -> str:
    for name, distance in far.items():
        return f"{name} differs by {distance:.1e}"
    return ""


def _distance(value: Tensor, want: Tensor, equal: Tensor) -> float:
    """Largest difference on the equal elements, relative to each one's largest value; inf where just one is finite."""
    value, want = value.double(), want.double()
    is_state = want.shape == equal.shape  # one value per element
    if is_state:
        value, want = value.unsqueeze(0), want.unsqueeze(0)
    if want.dim() > 0 and want.shape[1:] == equal.shape:
        value, want = value[:, equal], want[:, equal]
    elif not bool(equal.all()):  # a sum over all elements, and some of them differ
        return 0.0
    if not want.numel():
        return 0.0
    odd = ~torch.isfinite(want)
    if bool((odd != ~torch.isfinite(value)).any()):
        return float("inf")
    infinite = want.isinf()
    if bool((value[infinite] != want[infinite]).any()):  # of the other sign, or NaN
        return float("inf")
    difference = (value - want).abs().masked_fill(odd, 0)
    scale = want.abs().masked_fill(odd, 0)
    scale = scale.amax(0, keepdim=True) if scale.dim() > 1 else scale
    if is_state:
        scale = scale.clamp_min(float(scale.square().mean().sqrt()))
    # What is tiny beside the largest value is compared with that: its own digits are rounding. No scale is 0.
    return float((difference / scale.clamp_min(1e-30 + 1e-6 * float(scale.max()))).max())


def _step_differs(candidate: Candidate, reference: Candidate, case: Case) -> str:
    here = replace(case, shape=(4, 3, 37))
    runner, eager = candidate.make(here, STEP), reference.make(here, STEP)
    spiking = _neuron(eager).capabilities.spiking
    with torch.no_grad():
        pairs = zip(_steps(runner, here.input()), _steps(eager, here.input()), strict=True)
        for index, (got, want) in enumerate(pairs):
            if differ := int(_differs(got[None], want[None], spiking).sum()):
                return f"{differ} of {want.numel()} values differ in step {index}"
    return ""


def _steps(runner: Runner, x: Tensor) -> Iterator[Tensor]:
    reset_state(_neuron(runner))
    for current in x.unbind(0):
        yield runner.call(current)


def _out_and_gradient(runner: Runner, x: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    given = x.clone().requires_grad_()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        out = runner.finish(runner.call(runner.prepare(given)))
        (gradient,) = torch.autograd.grad(out, given, grad)
    return out.detach(), gradient


def _make_strided(x: Tensor) -> Tensor:
    """The same values, every second place in memory."""
    return torch.stack([x, torch.full_like(x, float("nan"))], -1).flatten(-2)[..., ::2]


def _is_exact(program: Program) -> bool:
    return all(OPS[node.op].exact for node in program.forward.nodes if node.op in OPS)


def _neuron(runner: Runner) -> Neuron:
    if not isinstance(runner.module, Neuron):
        raise TypeError("the full comparison takes neurons of ours")
    return runner.module

"""Other libraries and hand-written loops, with the dynamics of our LIF: tau 2, threshold 1, hard reset to 0, detached.

Each library is called on a sequence as its documentation shows: with its own step loop if it has one, else with the
simplest loop over `x.unbind(0)`. Converting inputs to the library's layout and scale is not timed; resetting its state
is, because every further call needs it. Only the neuron is measured.

    library        call                                                   fires at    gradient
    spikingjelly   LIFNode(step_mode="m"), ATan(2)                        h >= 1      ours
    snntorch       Leaky(beta=0.5, reset_mechanism="zero"), atan(2)       h > 1       ours
    norse          lif_box_feed_forward_step in a loop, SuperSpike        h > 1       SuperSpike's
    sinabs         LIF(norm_input), SingleSpike, MembraneReset            h >= 1      SingleExponential's
    lean loop      the shortest loop one would write by hand              h >= 1      ours
    torch.compile  that loop, unrolled and compiled                       h >= 1      ours

For `plif` there is spikingjelly's ParametricLIFNode(init_tau=2), the gradient of w included.
"""

from __future__ import annotations

import importlib.metadata
import math
from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from spikecore.bench.candidates import Candidate, Unsupported
from spikecore.bench.cases import STEP, TRAINING, Case, Runner

COMPILE_STEPS = 16
SPIKINGJELLY = "spikingjelly"
CPU = torch.device("cpu")
NEURON = "lif"


def peers(
    compile_steps: int = COMPILE_STEPS, only: str = "", device: torch.device = CPU
) -> tuple[list[Candidate], dict[str, str]]:
    """The peers that are installed here.

    Args:
        compile_steps: the longest sequence that torch.compile is given; it unrolls, so its time grows with T.
        only: import no other than this one.
        device: where they run.

    Returns:
        `(candidates, name → why one is absent)`.
    """
    loops = [
        Candidate("lean loop", _lean, torch.__version__, about="hand-written torch loop"),
        Candidate(
            "torch.compile",
            _torch_compile(compile_steps),
            torch.__version__,
            caches=True,
            compiles_per_shape=True,
            about=f"the lean loop, up to T={compile_steps}",
        ),
    ]
    candidates = [loop for loop in loops if only in ("", loop.name)]
    absent: dict[str, str] = {}
    for name, (module, make, traits) in LIBRARIES.items():
        if only not in ("", name):
            continue
        try:
            import_module(module)
            version = importlib.metadata.version(name)
            if name == SPIKINGJELLY and device.type == "cuda":
                version = f"{version} ({spikingjelly_kernels(device)})"
        except Exception as error:  # a broken peer raises anything at import
            absent[name] = f"cannot be imported ({type(error).__name__}: {error})"
            continue
        neurons = SPIKINGJELLY_NEURONS if name == SPIKINGJELLY else (NEURON,)
        candidates.append(Candidate(name, _for_neurons(make, tuple(neurons)), version, **traits))
    return candidates, absent


def spikingjelly_kernels(device: torch.device) -> str:
    """Which of its implementations spikingjelly 2 chose for LIF on a GPU: `cuda`, `triton` or `torch`.

    It chooses the first that it has; SJ_LIF_CUDA_IMPLEMENTATION in the environment names another.
    """
    functional = import_module("spikingjelly.activation_based.functional")
    return str(functional.neuron_implementation(NEURON, device)["implementation"])


def _for_neurons(make: Callable[[Case, str], Runner], neurons: tuple[str, ...]) -> Callable[[Case, str], Runner]:
    def checked(case: Case, measure: str) -> Runner:
        if case.neuron not in neurons:
            raise Unsupported(f"measured with {' and '.join(neurons)} only")
        return make(case, measure)

    return checked


class _Fire(torch.autograd.Function):
    """Θ(u) with the derivative of atan: alpha / 2 / (1 + (π/2 alpha u)²), alpha = 2."""

    @staticmethod
    def forward(ctx: Any, u: Tensor) -> Tensor:
        ctx.save_for_backward(u)
        return (u >= 0).to(u.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (u,) = ctx.saved_tensors
        grad_u: Tensor = grads[0] / (1 + (math.pi * u) ** 2)
        return grad_u


def lean_inference(x: Tensor) -> Tensor:
    """The loop without gradients."""
    v = torch.zeros_like(x[0])
    spikes = []
    for current in x.unbind(0):
        h = v + (current - v) / 2
        fired = h >= 1
        v = h.masked_fill(fired, 0)
        spikes.append(fired)
    return torch.stack(spikes).to(x.dtype)


def lean_training(x: Tensor) -> Tensor:
    """The loop with gradients; the reset is detached."""
    v = torch.zeros_like(x[0])
    spikes = []
    for current in x.unbind(0):
        h = v + (current - v) / 2
        spike = _Fire.apply(h - 1)  # type: ignore[no-untyped-call]
        v = h * (1 - spike.detach())
        spikes.append(spike)
    return torch.stack(spikes)


def _lean(case: Case, measure: str) -> Runner:
    if case.neuron != NEURON or measure == STEP:
        raise Unsupported(f"measured on sequences with {NEURON} only")
    return Runner(lean_training if measure == TRAINING else lean_inference)


def _torch_compile(most_steps: int) -> Callable[[Case, str], Runner]:
    def make(case: Case, measure: str) -> Runner:
        if case.neuron != NEURON or measure == STEP:
            raise Unsupported(f"measured on sequences with {NEURON} only")
        if case.shape[0] > most_steps:
            raise Unsupported(f"T = {case.shape[0]} takes too long to compile: --compile-steps {case.shape[0]} does it")
        # The loop with `masked_fill` compiles to code that is three times as slow.
        return Runner(torch.compile(lean_training, dynamic=False, fullgraph=True))

    return make


def _spikingjelly(case: Case, measure: str) -> Runner:
    neuron, surrogate = (import_module(f"spikingjelly.activation_based.{name}") for name in ("neuron", "surrogate"))
    mode = "s" if measure == STEP else "m"
    name, options = SPIKINGJELLY_NEURONS[case.neuron]
    given = {"surrogate_function": surrogate.ATan(alpha=2.0), "detach_reset": True, "step_mode": mode}
    node = getattr(neuron, name)(**options, **given).to(case.device)
    node.train(measure == TRAINING)
    if measure == STEP:
        return Runner(node, prepare=lambda x: x[0])

    def call(x: Tensor) -> Tensor:
        node.reset()
        out: Tensor = node(x)
        return out

    return Runner(call, params=tuple(node.parameters()))


def _snntorch(case: Case, measure: str) -> Runner:
    snntorch, surrogate = import_module("snntorch"), import_module("snntorch.surrogate")
    leaky = snntorch.Leaky(beta=0.5, reset_mechanism="zero", spike_grad=surrogate.atan(alpha=2.0)).to(case.device)

    def call(x: Tensor) -> Tensor:
        membrane = torch.zeros_like(x[0])
        spikes = []
        for current in x.unbind(0):
            spike, membrane = leaky(current, membrane)
            spikes.append(spike)
        return torch.stack(spikes)

    return Runner(_sequence_only(call, measure), prepare=lambda x: x / 2)  # its input is not divided by tau


def _norse(case: Case, measure: str) -> Runner:
    box = import_module("norse.torch.functional.lif_box")
    values = {"tau_mem_inv": 0.5, "v_leak": 0.0, "v_th": 1.0, "v_reset": 0.0}
    p = box.LIFBoxParameters(**{name: torch.as_tensor(value, device=case.device) for name, value in values.items()})

    def call(x: Tensor) -> Tensor:
        state = box.LIFBoxFeedForwardState(v=torch.zeros_like(x[0]))
        spikes = []
        for current in x.unbind(0):
            spike, state = box.lif_box_feed_forward_step(current, state, p, dt=1.0)
            spikes.append(spike)
        return torch.stack(spikes)

    return Runner(_sequence_only(call, measure))


def _sinabs(case: Case, measure: str) -> Runner:
    activation, layers = import_module("sinabs.activation"), import_module("sinabs.layers")
    layer = layers.LIF(
        tau_mem=1 / math.log(2),  # decays by 0.5 per step
        spike_fn=activation.SingleSpike,
        reset_fn=activation.MembraneReset(),
        norm_input=True,
    ).to(case.device)

    def call(x: Tensor) -> Tensor:
        layer.reset_states()
        out: Tensor = layer(x)
        return out

    def swapped(x: Tensor) -> Tensor:
        return x.transpose(0, 1)  # the batch comes first there

    return Runner(_sequence_only(call, measure), prepare=swapped, finish=swapped)


def _sequence_only(call: Callable[[Tensor], Tensor], measure: str) -> Callable[[Tensor], Tensor]:
    if measure == STEP:
        raise Unsupported("measured on sequences only")
    return call


OTHER_SURROGATE = {"same_gradient": False, "about": "another surrogate: spikes are compared, gradients are not"}
SPIKINGJELLY_NEURONS: dict[str, tuple[str, dict[str, Any]]] = {
    "lif": ("LIFNode", {"tau": 2.0}),
    "plif": ("ParametricLIFNode", {"init_tau": 2.0}),
}
"""Our name → `(its class, options)`."""
LIBRARIES: dict[str, tuple[str, Callable[[Case, str], Runner], dict[str, Any]]] = {
    "spikingjelly": ("spikingjelly.activation_based.neuron", _spikingjelly, {}),
    "snntorch": ("snntorch", _snntorch, {}),
    "norse": ("norse.torch.functional.lif_box", _norse, OTHER_SURROGATE),
    "sinabs": ("sinabs.layers", _sinabs, OTHER_SURROGATE),
}
"""Distribution → `(module, its runner, traits of the candidate)`."""

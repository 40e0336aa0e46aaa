"""Backends made for the benchmark's tests: one that is right, and one for each way of being wrong."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from spikecore.backends.reference import TorchBackend
from spikecore.dynamics import exp, spike
from spikecore.errors import PluginUnavailable
from spikecore.interfaces.backend import BackendCapabilities, Support
from spikecore.nn import LIF, Neuron
from spikecore.registry import Blocking, Registry


def core_alone():
    """A registry that knows core and what a test registers, whatever else is installed."""
    return Registry(blocking=Blocking({"all": "these tests"}))


class Right(TorchBackend):
    """The interpreter of core under a name of its own."""

    capabilities = BackendCapabilities(priority=3)


class WrongSpike(Right):
    """One spike of the last element is missing or one too many."""

    def run(self, key, x, states, params, save, carry):
        out, *rest = super().run(key, x, states, params, save, carry)
        out[-1, -1, -1] = 1 - out[-1, -1, -1]
        return out, *rest


class WrongState(Right):
    def run(self, key, x, states, params, save, carry):
        out, finals, *rest = super().run(key, x, states, params, save, carry)
        return out, [final * 1.001 for final in finals], *rest


class WrongGradient(Right):
    """The gradient of one element is off by a tenth of a percent."""

    def run_bwd(self, *given):
        grad_x, *rest = super().run_bwd(*given)
        grad_x[..., 0] *= 1.001
        return grad_x, *rest


class WrongInitialGradient(Right):
    def run_bwd(self, *given):
        grad_x, grad_states, grad_params = super().run_bwd(*given)
        return grad_x, [-grad for grad in grad_states], grad_params


class WrongLastGradient(Right):
    """Where no gradient arrives of the states, that of the input is off."""

    def run_bwd(self, *given):
        grad_x, *rest = super().run_bwd(*given)
        return (grad_x if any(grad is not None for grad in given[6]) else 1.001 * grad_x), *rest


class WrongParameterGradient(Right):
    def run_bwd(self, *given):
        grad_x, grad_states, grad_params = super().run_bwd(*given)
        return grad_x, grad_states, [1.01 * grad for grad in grad_params]


class WrongStrides(Right):
    """Reads memory in order, whatever the strides."""

    def run(self, key, x, states, params, save, carry):
        if not x.is_contiguous():
            x = x.flatten()[: x.numel()].flip(0).reshape(x.shape)
        return super().run(key, x, states, params, save, carry)


class WrongWhenLarge(Right):
    """Wrong from a size on, as where threads begin."""

    def run(self, key, x, states, params, save, carry):
        out, *rest = super().run(key, x, states, params, save, carry)
        return (1 - out if x.numel() > 1500 else out), *rest


class WrongInference(Right):
    """Takes another way without gradients, and loses itself."""

    def run(self, key, x, states, params, save, carry):
        out, *rest = super().run(key, x, states, params, save, carry)
        return (out if save else torch.zeros_like(out)), *rest


class WrongSingleStep(Right):
    def run(self, key, x, states, params, save, carry):
        out, *rest = super().run(key, x, states, params, save, carry)
        if x.shape[0] == 1 and x.numel() == 3 * 37:
            out[0, 0] = 1 - out[0, 0]
        return out, *rest


class NotANumber(Right):
    def run_bwd(self, *given):
        grad_x, *rest = super().run_bwd(*given)
        grad_x[0, 0, 0] = float("nan")
        return grad_x, *rest


class Raises(Right):
    def run(self, *given):
        raise RuntimeError("out of registers")


class Picky(Right):
    """Takes nothing."""

    def supports(self, program, device, dtype):
        return Support(False, "the moon is not full")


class Absent(Right):
    def __init__(self, **options):
        raise PluginUnavailable("no compiler found", "apt install gcc")


WRONG = {
    "wrong_spike": (WrongSpike, "values of the output differ"),
    "wrong_state": (WrongState, "final v differs"),
    "wrong_gradient": (WrongGradient, "gradient of the input differs"),
    "wrong_initial_gradient": (WrongInitialGradient, "gradient of initial v differs"),
    "wrong_last_gradient": (WrongLastGradient, "gradient of the input from the initial state differs"),
    "wrong_strides": (WrongStrides, "strided: "),
    "wrong_when_large": (WrongWhenLarge, "at 8,4,128: "),
    "wrong_inference": (WrongInference, "values of the output without gradients differ"),
    "wrong_single_step": (WrongSingleStep, "single steps: "),
    "not_a_number": (NotANumber, "differs by inf"),
    "raises": (Raises, "RuntimeError at 7,3,37: out of registers"),
}


class Learner(LIF):
    """A LIF that learns its tau."""

    @dataclass(frozen=True)
    class Config(LIF.Config):
        learnable: tuple[str, ...] = ("tau",)


class Needy(LIF):
    """Has an option without a default."""

    @dataclass(frozen=True, kw_only=True)
    class Config(LIF.Config):
        num_steps: int


class Grower(Neuron):
    """h = v + x + exp(v) / 10: a step whose last bit libraries may choose."""

    state: ClassVar = {"v": 0.0}

    @staticmethod
    def step(x, state, params):
        h = state.v + x + exp(state.v) / 10
        s = spike(h - params.v_threshold, params.surrogate)
        return s, {"v": h * (1 - s)}


class Late(Neuron):
    """Fires from what was there before the input."""

    state: ClassVar = {"v": 0.0}

    @staticmethod
    def step(x, state, params):
        return spike(state.v - params.v_threshold, params.surrogate), {"v": state.v / 2 + x}


class NearlyRight(Right):
    """Another last bit in everything that is not a spike."""

    def run(self, key, x, states, params, save, carry):
        out, finals, *rest = super().run(key, x, states, params, save, carry)
        return out, [torch.nextafter(final, torch.full_like(final, 9.0)) for final in finals], *rest


class Chaos(Neuron):
    """v = 3.9 v (1 - v) + x / 1000: float32 loses a digit every few steps."""

    state: ClassVar = {"v": 0.3}

    @staticmethod
    def step(x, state, params):
        v = 3.9 * state.v * (1 - state.v) + x * 0.001
        return spike(v - params.v_threshold, params.surrogate), {"v": v}


class Double(Right):
    """Nearer to the truth than eager float32."""

    def run(self, key, x, states, params, save, carry):
        out, finals, *rest = super().run(key, x.double(), [state.double() for state in states], params, save, carry)
        return out.to(x.dtype), [final.to(x.dtype) for final in finals], *rest

    def run_bwd(self, key, saved, x, states, params, grad_out, grad_states, grad_recorded):
        wide = (
            [None if value is None else value.double() for value in group]
            for group in (states, grad_states, grad_recorded)
        )
        states, grad_states, grad_recorded = wide
        gradients = super().run_bwd(
            key,
            saved,
            x.double(),
            states,
            params,
            None if grad_out is None else grad_out.double(),
            grad_states,
            grad_recorded,
        )
        grad_x, grads, sums = gradients
        return grad_x.to(x.dtype), [grad.to(x.dtype) for grad in grads], sums

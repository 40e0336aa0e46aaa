"""Checks of a neuron's options: each has an effect, and the threshold is met as the contract says."""

from __future__ import annotations

import math
from typing import Any, ClassVar, get_args, get_type_hints

import torch
from torch import Tensor

from spikecore.nn import set_state, streaming
from spikecore.testing.compare import assert_close, assert_same
from spikecore.testing.effects import Options, ignored_text, options_without_effect
from spikecore.testing.suite import advice, needs, skip
from spikecore.testing.suites.neuron_equations import EquationChecks

WITHOUT = (
    "honour the option in `step` (`reset` and `detach_reset`: with spikecore.nn.fire_and_reset), or declare a Config "
    "without it: a Config need not derive from Neuron.Config, see docs/how-to/prove-a-plugin.md"
)


class OptionChecks(EquationChecks):
    """The part of the neuron's suite that looks at its options one by one."""

    kind: ClassVar[str] = "neuron"

    @advice(WITHOUT)
    def test_every_option_has_an_effect(self) -> None:
        """For each option some other value changes the output, a recorded state or a gradient, alone or with others."""
        # `fires` shows at a tie alone: see `test_strict_firing`.
        names = [name for name in self._fields() if name not in ("learnable", "fires")]
        config = self.make().config
        ignored = options_without_effect(self.target.Config, config, self._with_options, self._observed, names)
        assert not ignored, ignored_text(ignored)

    def _with_options(self, options: Options) -> Any:
        return self.make(**{**options, **self._recording()})

    def _observed(self, neuron: Any) -> list[Tensor]:
        """Outputs, recorded states and gradients, evaluated, in training, and evaluated after that."""
        x = self.input(num_steps=2 * self.num_steps if self.any_length else None)
        results: list[Tensor] = []
        for training in (False, True, False):
            neuron.train(training)
            given = x.clone().requires_grad_()
            out = self.run(neuron, given)
            recorded = getattr(neuron, "recorded", {}) if neuron.step_mode == "multi" else {}
            weights = self._noise(len(x), 7)
            total = (out * weights).sum()
            for value in recorded.values():
                total = total + (value * weights**2).sum()
            results += [out.detach(), *(value.detach() for value in recorded.values())]
            if total.requires_grad:
                inputs = [given, *neuron.parameters()]
                gradients: tuple[Tensor | None, ...] = torch.autograd.grad(total, inputs, allow_unused=True)
                results += [torch.zeros(()) if gradient is None else gradient for gradient in gradients]
        return results

    @advice("compute spikes with spikecore.dynamics.spike(h - params.v_threshold, params.surrogate), which fires at 0")
    @needs("elementwise")
    @needs("spiking")
    @needs("step_modes", "multi")
    def test_fires_at_the_threshold(self) -> None:
        """It fires when `h >= v_threshold`: at a potential that equals the threshold in every bit too."""
        fields, trained = self._fields(), getattr(self.target, "trained", {})
        if "v_threshold" not in fields or "v_threshold" in trained or "v" not in self.target.state:
            skip("it has no v with the option v_threshold")
        x = self.input(num_steps=1)[:, :1]
        # Where no spike can occur, the recorded v is the charged potential h.
        quiet = self.make(v_threshold=1e30, record=("v",))
        quiet(x)
        charged = quiet.recorded["v"].detach().flatten()
        place = int(charged.argmax())
        h = float(charged[place])

        def fires(threshold: float) -> bool:
            return bool(self.make(v_threshold=threshold)(x).flatten()[place])

        step = 1e-6 * max(1.0, abs(h))
        if not fires(h - step) or fires(h + step):
            skip("v_threshold is not what it holds v against")
        is_strict = getattr(quiet.config, "fires", "at") == "above"
        assert fires(h) != is_strict, f"h = v_threshold = {h!r}: it {'fires' if is_strict else 'does not fire'}"
        assert not fires(math.nextafter(h, math.inf)), f"h = {h!r}, and it fires at the next larger threshold"

    @advice("compute spikes with spikecore.nn.fire(h - v_threshold, params), or declare a Config without `fires`")
    @needs("elementwise")
    @needs("step_modes", "multi")
    def test_strict_firing(self) -> None:
        """`fires="above"`: at a potential that equals the threshold it does not fire, one number above it does."""
        if not self._has_both_ways_to_fire() or "v" not in self.target.state:
            skip("it has no v with the options v_threshold and fires = 'at' or 'above'")
        x = self.input(num_steps=1)[:, :1]
        quiet = self.make(v_threshold=1e30, record=("v",))
        quiet(x)
        charged = quiet.recorded["v"].detach().flatten()
        place = int(charged.argmax())
        h = float(charged[place])

        def potential(fires: str, threshold: float) -> float:
            neuron = self.make(fires=fires, v_threshold=threshold, v_reset=h - 1.0, v_init=v_init, record=("v",))
            neuron(x)
            return float(neuron.recorded["v"].flatten()[place])

        v_init = quiet.config.v_reset if quiet.config.v_init is None else quiet.config.v_init
        below = math.nextafter(h, -math.inf)
        assert potential("at", h) != h, f"fires='at': h = v_threshold = {h!r}, and v is not reset"
        assert potential("above", h) == h, f"fires='above': h = v_threshold = {h!r}, and v is reset"
        assert potential("above", below) != h, f"fires='above': h = {h!r} is above v_threshold, and v is not reset"

    def _has_both_ways_to_fire(self) -> bool:
        fields = self._fields()
        if "v_threshold" not in fields or "fires" not in fields:
            return False
        return len(get_args(get_type_hints(self.target.Config)["fires"])) > 1

    @advice("let `forward` and `step` leave `self.training` alone; noise and batch statistics need elementwise=False")
    @needs("elementwise")
    @needs("stochastic", False)
    def test_training_equals_evaluation(self) -> None:
        """`train()` and `eval()` give the same output and gradient: an elementwise neuron has nothing to tell apart."""
        x, weights = self.input(), self._noise(self.num_steps, 7)
        results = []
        for training in (False, True):
            given = x.clone().requires_grad_()
            out = self.run(self.make().train(training), given)
            gradient = torch.zeros_like(x)
            if out.requires_grad:
                (gradient,) = torch.autograd.grad((out * weights).sum(), given)
            results.append([out, gradient])
        assert_same(results[1], results[0], "[output, gradient] in training mode")

    @advice("never write into a state in place: return new tensors from `step`")
    @needs("elementwise")
    @needs("stochastic", False)
    def test_expanded_state(self) -> None:
        """A state of stride 0 (one number for all neurons) gives what a full tensor gives, and is not written to."""
        x = self.input()
        initial = self.make().initial_state(x[0])
        if not initial:
            skip("it has no state")
        results = []
        for is_expanded in (False, True):
            neuron = self.make()
            start = {}
            for name, value in initial.items():
                number = torch.full((), 0.1, dtype=value.dtype).expand(value.shape)
                start[name] = number if is_expanded else number.clone()
            with streaming(neuron):
                set_state(neuron, {"": start})
                results.append(self.run(neuron, x, reset=False))
            for name, value in start.items():
                assert (value == 0.1).all(), f"the state {name!r} that was given is changed after the call"
        assert_close(results[1], results[0], "the output with a state of stride 0")

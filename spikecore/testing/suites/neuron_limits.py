"""Checks of a neuron at size and in company: long and wide inputs, half precision, threads, memory, settings."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from spikecore.nn import reset_state, streaming
from spikecore.testing import process
from spikecore.testing.compare import TOLERANCES, assert_close, assert_same
from spikecore.testing.lifetimes import assert_nothing_is_kept
from spikecore.testing.suite import advice, long, needs, skip
from spikecore.testing.suites.neuron_equations import EquationChecks
from spikecore.testing.threads import at_once

LONG, PART = 300, 13
"""Steps of a long sequence (more than 256), and of the parts it is held against."""
WIDE, NARROW = 70_001, 997
"""Neurons of a wide input (more than 65 536), and of the parts it is held against."""
MANY = 24_000
"""Values of a half-precision input: one rounding too many shows in one spike of some thousands."""
HALVES = ("float16", "bfloat16")


class LimitChecks(EquationChecks):
    """The part of the neuron's suite that looks for faults which small inputs and single calls do not show."""

    kind: ClassVar[str] = "neuron"

    def _gradient(self, out: Tensor, x: Tensor) -> Tensor:
        """Of a weighted sum of the output; zeros where the neuron declares none."""
        if not out.requires_grad:
            return torch.zeros_like(x)
        weights = torch.linspace(-1, 2, out.numel(), dtype=torch.float64).to(out.dtype).reshape(out.shape)
        (gradient,) = torch.autograd.grad((out * weights).sum(), x)
        return gradient

    @long
    @advice("look for fixed numbers of steps: buffers of one length, counters of 8 bits")
    @needs("step_modes", "multi")
    @needs("fixed_num_steps", False)
    @needs("stochastic", False)
    def test_long_sequences(self) -> None:
        """300 steps at once give what they give in parts of 13, in values and gradients."""
        x = self.input(num_steps=LONG)[:, :2]
        neuron = self.make()
        given = x.clone().requires_grad_()
        whole = neuron(given)
        right = x.clone().requires_grad_()
        with streaming(neuron):
            parts = torch.cat([neuron(part) for part in torch.split(right, PART)])
        assert_close(whole, parts, f"the output of {LONG} steps at once")
        ours, theirs = self._gradient(whole, given), self._gradient(parts, right)
        assert_close(ours, theirs, f"the gradient of {LONG} steps at once")

    @advice("leave strides to core: no contiguous(), view() or reshape of what goes in or comes out")
    @needs("elementwise")
    @needs("stochastic", False)
    def test_memory_format(self) -> None:
        """Channels-last input gives channels-last output and gradient, equal to those of contiguous input."""
        steps = self.num_steps
        generator = torch.Generator().manual_seed(13)
        shape = (steps, 2, self.sample_shape[0], 3, 5)
        self.input()  # finds the scale at which it fires
        noise = torch.randn(shape, generator=generator, dtype=torch.float64) + 0.5
        x = noise.to(self.dtype) * type(self)._drive
        results = []
        for given in (x.movedim(2, -1).contiguous().movedim(-1, 2), x):
            inner = given.requires_grad_() * 1.0
            out = self.run(self.make(), inner)
            results.append([out, self._gradient(out, inner)])
        # Not the same bits: torch's exp and its like round by the place of a number in a vector.
        assert_close(results[0], results[1], "[output, gradient] of channels-last input")
        out, gradient = results[0]
        is_kept = [value.movedim(2, -1).is_contiguous() for value in (out, gradient)]
        assert is_kept[0], f"the output of channels-last input has the strides {out.stride()}, expected {x.stride()}"
        assert is_kept[1] or not out.requires_grad, f"its gradient has the strides {gradient.stride()}"

    @long
    @advice("look for fixed sizes: buffers, blocks, indices of 16 bits, ends of vectors")
    @needs("stochastic", False)
    def test_wide_inputs(self) -> None:
        """More than 70 000 neurons at once give what they give in parts of a thousand, in values and gradients."""
        axis, x, size = self._wide_input()
        neuron = self.make()
        given = x.clone().requires_grad_()
        whole = self.run(neuron, given)
        gradient = self._gradient(whole, given)
        weights = torch.linspace(-1, 2, whole.numel(), dtype=torch.float64).to(x.dtype).reshape(whole.shape)
        outs: list[Tensor] = []
        gradients: list[Tensor] = []
        for part, weight in zip(torch.split(x, size, axis), torch.split(weights, size, axis), strict=True):
            narrow = part.clone().requires_grad_()
            out = self.run(neuron, narrow)
            outs.append(out.detach())
            if out.requires_grad:
                gradients += torch.autograd.grad((out * weight).sum(), narrow)
        assert_close(whole.detach(), torch.cat(outs, axis), f"the output of {x[0].numel()} neurons at once")
        if gradients:
            assert_close(gradient, torch.cat(gradients, axis), f"the gradient of {x[0].numel()} neurons at once")

    def _wide_input(self) -> tuple[int, Tensor, int]:
        """The axis along which neurons are independent, the input, and the length of a narrow part of it."""
        steps = 3 if self.any_length else self.num_steps
        generator = torch.Generator().manual_seed(11)
        if self.capabilities.elementwise:
            channels = self.sample_shape[0]
            shape: tuple[int, ...] = (steps, 1, channels, math.ceil(WIDE / channels))
            axis, size = 3, NARROW // channels
        else:
            per_sample = math.prod(self.sample_shape)
            shape = (steps, math.ceil(WIDE / per_sample), *self.sample_shape)
            axis, size = 1, max(NARROW // per_sample, 1)
        self.input()  # finds the scale at which it fires
        noise = torch.randn(shape, generator=generator, dtype=torch.float64) + 0.5
        return axis, noise.to(self.dtype) * type(self)._drive, size

    @advice("widen half-precision input to float32 before anything is computed with it; round the output only")
    @needs("stochastic", False)
    def test_half_precision(self) -> None:
        """float16 and bfloat16 input gives what float32 gives for the same values, rounded; the gradient too."""
        halves = [name for name in HALVES if name in self.capabilities.dtypes]
        if not halves:
            skip("capabilities.dtypes has neither float16 nor bfloat16")
        for name in halves:
            dtype = getattr(torch, name)
            x = self._many().to(dtype)
            results = []
            for wide in (dtype, torch.float32):
                neuron, given = self.make().float(), x.to(wide).requires_grad_()
                out = self.run(neuron, given)
                gradient = torch.zeros_like(x)
                if out.requires_grad:
                    signs = torch.where(self._many(seed=9) > 0, 1.0, -1.0).to(wide)
                    (gradient,) = torch.autograd.grad(out, given, signs)
                results.append((out.detach(), gradient))
            (out, gradient), (right, right_gradient) = results
            assert_same(out, right.to(dtype), f"the output of {name} input")
            allowed = TOLERANCES[dtype][0] * float(right_gradient.abs().max())
            error = float((gradient.float() - right_gradient.float()).abs().max())
            assert error <= allowed, f"the gradient of {name} input is {error:.2g} off, {allowed:.2g} is allowed"

    def _many(self, seed: int = 0) -> Tensor:
        """`[T, B, *sample_shape]` with `MANY` values at least, so that rare differences show."""
        self.input()  # finds the scale at which it fires
        steps = 40 if self.any_length else self.num_steps
        batch = math.ceil(MANY / (steps * math.prod(self.sample_shape)))
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn((steps, batch, *self.sample_shape), generator=generator, dtype=torch.float64) + 0.5
        return noise * type(self)._drive

    @advice("keep what belongs to one call in local variables, not on the module")
    @needs("step_modes", "multi")
    @needs("stochastic", False)
    def test_several_threads(self) -> None:
        """One neuron called from four threads at once, with batches of different sizes, gives each its own."""
        # Where threads share parameters that want gradients, torch 2.13 may wait for ever; see the suite of backends.
        neuron = self.make().requires_grad_(False)
        inputs = [self.input(seed=seed)[:, : 1 + seed % 3] for seed in range(4)]

        def results(x: Tensor) -> list[Tensor]:
            given = x.clone().requires_grad_()
            out = neuron(given)
            return [out.detach(), self._gradient(out, given)]

        def checked(x: Tensor, right: list[Tensor]) -> Callable[[], None]:
            return lambda: assert_close(results(x), right, "[output, gradient]")

        at_once([checked(x, results(x)) for x in inputs])

    @advice("keep no output, input or graph on the module or in a list; `recorded` holds what `record` names")
    def test_results_are_released(self) -> None:
        """Input, output and gradient are freed with the last reference to them, and calls do not add up in memory."""
        neuron = self.make()

        def call() -> list[Tensor]:
            x = self.input().requires_grad_()
            out = self.run(neuron, x)
            return [x, out, self._gradient(out, x)]

        assert_nothing_is_kept(call, type(neuron).__name__)

    @advice("leave threads, default dtype, generators, denormal numbers and grad mode to the user")
    def test_process_settings_stay(self) -> None:
        """Nothing it does changes a setting of the process: threads, default dtype, generators, denormals, modes."""
        with process.unchanged("making it"):
            neuron = self.make()
        x = self.input()
        with process.unchanged("a call"):
            out = self.run(neuron, x.requires_grad_())
        if out.requires_grad:
            with process.unchanged("the backward pass"):
                torch.autograd.grad(out.sum(), x)
        with process.unchanged("a call without gradient"), torch.no_grad():
            self.run(neuron, x)
        with process.unchanged("streaming"), streaming(neuron):
            self.run(neuron, x, reset=False)
            reset_state(neuron)
        with process.unchanged("a call in training mode"):
            self.run(neuron.train(), x)
        with process.unchanged("copying it"):
            copy.deepcopy(neuron)
        for mode in self.capabilities.step_modes:
            made: Any = self.make(step_mode=mode)
            with process.unchanged(f"a call in step mode {mode!r}"):
                self.run(made, x)

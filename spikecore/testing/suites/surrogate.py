"""Checks of a surrogate: the spike forward, the declared derivative backward, the same when traced."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any, ClassVar

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from spikecore.dynamics import spike
from spikecore.nn import Neuron
from spikecore.testing import process
from spikecore.testing.compare import assert_close, assert_same
from spikecore.testing.effects import Options, ignored_text, options_without_effect
from spikecore.testing.probes import GraphBackend, registered_backend
from spikecore.testing.suite import Suite, advice, long, needs, skip
from spikecore.testing.values import EXAMPLES

WIDE, NARROW = 70_001, 997
"""Values of a wide input (more than 65 536), and of the parts it is held against."""
HUGE = (1e2, 1e5, 1e10, 1e30, 1e300, math.inf)


class Bare(Neuron):
    """out = spike(x): nothing but the surrogate."""

    @staticmethod
    def step(x: Any, state: Any, params: Any) -> tuple[Any, dict[str, Any]]:
        return spike(x, params.surrogate), {}


class SurrogateSuite(Suite):
    """Θ forward, the declared derivative backward, on tensors and traced; a value that can be compared and copied."""

    kind: ClassVar[str] = "surrogate"
    minimum = 11

    def points(self, dtype: torch.dtype = torch.float64) -> Tensor:
        """Points around 0, on none of which a usual corner lies."""
        generator = torch.Generator().manual_seed(0)
        near = torch.randn(60, generator=generator, dtype=torch.float64)
        return torch.cat([near, near * 0.05, near * 4]).to(dtype)

    def derivative(self, u: Tensor) -> Tensor:
        """The declared derivative, as a tensor of the shape of `u`."""
        surrogate = self.make()
        value = surrogate.derivative(u, surrogate.config)
        return torch.as_tensor(value, dtype=u.dtype).expand_as(u)

    @needs("heaviside")
    def test_forward_is_heaviside(self) -> None:
        """1 where u >= 0, else 0; 1 at -0.0, 0 for NaN; in every dtype."""
        surrogate = self.make()

        @EXAMPLES
        @given(st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=1, max_size=8))
        def holds(values: list[float]) -> None:
            u = torch.tensor([*values, 0.0, -0.0, math.nan], dtype=torch.float64)
            assert_same(spike(u, surrogate), (u >= 0).to(u), f"spike({u.tolist()})")

        holds()
        for dtype in (torch.float16, torch.bfloat16, torch.float32):
            u = self.points(dtype)
            assert_same(spike(u, surrogate), (u >= 0).to(dtype), f"spikes of {dtype}")

    @needs("heaviside", False)
    def test_forward_is_finite(self) -> None:
        """Whatever the spikes are, they are finite numbers of the input's shape and dtype."""
        u = self.points()
        out = spike(u, self.make())
        assert out.shape == u.shape
        assert out.dtype == u.dtype
        assert out.isfinite().all()

    def test_backward_is_the_declared_derivative(self) -> None:
        """The gradient of the spike is grad · derivative(u)."""
        u = self.points().requires_grad_()
        weights = torch.linspace(-2, 3, len(u), dtype=torch.float64)
        (gradient,) = torch.autograd.grad((spike(u, self.make()) * weights).sum(), u)
        assert_close(gradient, weights * self.derivative(u.detach()), "the gradient")

    @needs("stochastic", False)
    def test_traced_graph_equals_the_declaration(self) -> None:
        """Traced to a graph, spikes and gradient are the same as on tensors."""
        u = self.points().reshape(-1, 1).requires_grad_()
        results = []
        with registered_backend(GraphBackend) as name:
            for backend in (name, "torch"):
                out = Bare(surrogate=self.make(), backend=backend)(u.unsqueeze(0))
                results.append([out, *torch.autograd.grad(out.sum(), u)])
        assert_close(results[0], results[1], "[spikes, gradient] of the traced graph")
        assert_close(results[0][1].flatten(), self.derivative(u.detach().flatten()), "the gradient of the traced graph")

    @needs("primitive")
    def test_primitive_has_this_derivative(self) -> None:
        """Central differences of `primitive` equal `derivative`, but for a few points that may lie at a corner."""
        surrogate, u, step = self.make(), self.points(), 1e-6
        above = surrogate.primitive(u + step, surrogate.config)
        below = surrogate.primitive(u - step, surrogate.config)
        slope = (above - below) / (2 * step)
        wrong = (slope - self.derivative(u)).abs() > 1e-6 + 1e-5 * slope.abs()
        share = float(wrong.double().mean())
        assert share <= 0.02, f"at {share:.0%} of the points, as u = {u[wrong][0]:.4f}, the slope is another"

    @needs("primitive")
    def test_smooth_forward_is_the_primitive(self) -> None:
        """With `spiking=False` the forward pass is `primitive`, the backward pass still `derivative`."""
        if not hasattr(self.make().config, "spiking"):
            skip("Config has no option spiking")
        surrogate = self.make(spiking=False)
        u = self.points().requires_grad_()
        out = spike(u, surrogate)
        assert_same(out, surrogate.primitive(u.detach(), surrogate.config), "the smooth forward pass")
        (gradient,) = torch.autograd.grad(out.sum(), u)
        assert_close(gradient, self.derivative(u.detach()), "the gradient of the smooth forward pass")

    def test_primitive_is_declared_or_not(self) -> None:
        """`capabilities.primitive` says whether there is one."""
        surrogate = self.make()
        try:
            surrogate.primitive(0.5, surrogate.config)
            declared = True
        except NotImplementedError:
            declared = False
        assert declared == self.capabilities.primitive, f"capabilities.primitive is {self.capabilities.primitive}"

    @needs("nonzero")
    def test_gradient_is_not_zero(self) -> None:
        """At u = 0 and near it the derivative is positive."""
        u = torch.linspace(-0.02, 0.02, 9, dtype=torch.float64)
        assert (self.derivative(u) > 0).all(), f"derivative({u.tolist()}) is {self.derivative(u).tolist()}"

    @needs("nonzero", False)
    def test_gradient_is_zero_somewhere(self) -> None:
        """What says that its gradient may vanish near 0 has a reason to."""
        u = torch.linspace(-0.02, 0.02, 9, dtype=torch.float64)
        assert (self.derivative(u) <= 0).any(), "the gradient is not zero, but capabilities.nonzero is False"

    def test_finite_far_away(self) -> None:
        """Far from the threshold, and at infinity, neither the derivative nor the gradient is NaN or infinite."""
        for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
            values = [sign * value for value in HUGE for sign in (1, -1)]
            u = torch.tensor(values, dtype=torch.float64).to(dtype).requires_grad_()
            (gradient,) = torch.autograd.grad(spike(u, self.make()).sum(), u)
            assert gradient.isfinite().all(), f"{dtype}: the gradient at {u.tolist()} is {gradient.tolist()}"
            if dtype == torch.float64:
                assert_same(gradient, self.derivative(u.detach()), "the gradient far away")

    def test_half_precision(self) -> None:
        """float16 and bfloat16 give the derivative of float32, rounded; the dtype stays."""
        for dtype in (torch.float16, torch.bfloat16):
            u = self.points(dtype).requires_grad_()
            out = spike(u, self.make())
            assert out.dtype == dtype
            (gradient,) = torch.autograd.grad(out.sum(), u)
            assert_close(gradient, self.derivative(u.detach().float()).to(dtype), f"the gradient in {dtype}")

    def test_numbers_and_tensors_agree(self) -> None:
        """The declaration works on Python numbers as on tensors."""
        surrogate = self.make()
        u = self.points()[:20]
        derivatives = torch.tensor([float(surrogate.derivative(float(value), surrogate.config)) for value in u])
        assert_close(derivatives.double(), self.derivative(u).float().double(), "the derivative of numbers")

    @needs("stochastic")
    def test_randomness(self) -> None:
        """Equal seeds give equal spikes, others give others."""
        u, spikes = self.points().abs(), []
        for seed in (1, 1, 2):
            torch.manual_seed(seed)
            spikes.append(spike(u, self.make()))
        assert_same(spikes[1], spikes[0], "the spikes of the same seed")
        differs = not torch.equal(spikes[2], spikes[0])
        assert differs, "capabilities.stochastic is True, but two seeds give the same spikes"

    @needs("stochastic", False)
    def test_is_pure(self) -> None:
        """Twice the same, no random numbers, no memory of what came before."""
        surrogate, u = self.make(), self.points()
        before = torch.get_rng_state()
        first = self.derivative(u), spike(u, surrogate)
        spike(u * 100, surrogate)
        assert_same([self.derivative(u), spike(u, surrogate)], list(first), "the second call")
        assert torch.equal(before, torch.get_rng_state()), "it drew random numbers"

    def test_is_a_value(self) -> None:
        """Immutable; equal by type and config; hashable; `deepcopy` and `pickle` give an equal one."""
        surrogate = self.make()
        assert surrogate == self.make(), "two surrogates of the same options differ"
        assert hash(surrogate) == hash(self.make())
        assert copy.deepcopy(surrogate) == surrogate
        assert pickle.loads(pickle.dumps(surrogate)) == surrogate
        with pytest.raises(AttributeError):
            surrogate.config = None
        if hasattr(surrogate.config, "alpha"):
            assert self.make(alpha=surrogate.config.alpha * 2) != surrogate, "another alpha gives an equal surrogate"

    @advice("honour the option in `derivative`, `primitive` or `forward`, or remove it from Config")
    def test_options_change_the_derivative(self) -> None:
        """For each option some other value changes the spikes or the derivative, alone or with others."""
        config = self.make().config
        names = list(vars(config))
        ignored = options_without_effect(self.target.Config, config, self._with_options, self._observed, names)
        assert not ignored, ignored_text(ignored)

    def _with_options(self, options: Options) -> Any:
        return self.make(**options)

    def _observed(self, surrogate: Any) -> list[Tensor]:
        u = self.points().requires_grad_()
        torch.manual_seed(1)
        out = spike(u, surrogate)
        return [out.detach(), *torch.autograd.grad(out.sum(), u)]

    @long
    @advice("look for fixed sizes: buffers, blocks, indices of 16 bits")
    @needs("stochastic", False)
    def test_wide_inputs(self) -> None:
        """70 001 values at once give what they give in parts of a thousand."""
        u = torch.randn(WIDE, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
        surrogate = self.make()
        results = []
        for parts in ([u], torch.split(u, NARROW)):
            given = [part.clone().requires_grad_() for part in parts]
            outs = [spike(part, surrogate) for part in given]
            gradients = torch.autograd.grad([out.sum() for out in outs], given)
            results.append([torch.cat(outs), torch.cat(gradients)])
        assert_close(results[0], results[1], f"[spikes, gradient] of {WIDE} values at once")

    @advice("leave threads, default dtype, generators, denormal numbers and grad mode to the user")
    def test_process_settings_stay(self) -> None:
        """Nothing it does changes a setting of the process: threads, default dtype, generators, denormals, modes."""
        with process.unchanged("making it"):
            surrogate = self.make()
        u = self.points().requires_grad_()
        with process.unchanged("a spike"):
            out = spike(u, surrogate)
        with process.unchanged("the backward pass"):
            out.sum().backward()

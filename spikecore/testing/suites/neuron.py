"""Checks of a neuron. Elementwise ones run on the reference backend, so that it is the neuron that is tested."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from spikecore.errors import ShapeError, SpikeError, StateShapeError, StreamingError
from spikecore.nn import (
    Neuron,
    detach_state,
    get_state,
    reset_state,
    set_state,
    set_step_mode,
    streaming,
)
from spikecore.testing.compare import assert_close, assert_same
from spikecore.testing.suite import advice, needs, skip
from spikecore.testing.suites.neuron_limits import LimitChecks
from spikecore.testing.suites.neuron_options import OptionChecks
from spikecore.testing.values import EXAMPLES, distinct, states_of


class NeuronSuite(LimitChecks, OptionChecks):
    """Shapes, state, independence of samples, gradients, options; for elementwise neurons the traced graph too."""

    minimum = 14
    kind: ClassVar[str] = "neuron"

    @advice("return out.to(x.dtype), and keep states in float32 for half-precision input")
    def test_shape_and_dtype(self) -> None:
        """The output has the input's shape and dtype, for every declared dtype; state for half precision is float32."""
        for name in self.capabilities.dtypes:
            dtype = getattr(torch, name)
            neuron = self.make().to(dtype) if dtype == torch.float64 else self.make()
            x = self.input().to(dtype)
            with streaming(neuron):
                out = self.run(neuron, x)
                state = states_of(neuron)
            assert out.shape == x.shape, f"{name}: expected {tuple(x.shape)}, got {tuple(out.shape)}"
            assert out.dtype == dtype, f"expected {dtype}, got {out.dtype}"
            assert out.isfinite().all(), f"{name}: the output holds NaN or infinity"
            wide = torch.promote_types(dtype, torch.float32)
            for place, value in state.items():
                if value.is_floating_point():
                    assert value.dtype == wide, f"state {place!r} of {name} input: expected {wide}, got {value.dtype}"

    @advice("use spikecore.dynamics.spike, or declare capabilities spiking=False")
    @needs("spiking")
    def test_spikes_are_zero_or_one(self) -> None:
        """Every output is 0 or 1, and both occur."""
        out = self.run(self.make(), self.input(num_steps=self.num_steps * 2 if self.any_length else None))
        assert distinct(out) <= {0.0, 1.0}, f"expected 0 and 1, got {sorted(distinct(out))[:8]}"
        assert out.any(), "no input between 0.1 and 100 makes it fire"
        assert not out.all(), "it fires at every step for every input"

    @advice("let both modes run the same `step`; keep what a step needs in its state")
    @needs("step_modes", "single")
    @needs("step_modes", "multi")
    @needs("stochastic", False)
    def test_single_step_equals_multi_step(self) -> None:
        """T single steps give the sequence of one multi-step call, in values and gradients."""
        x, weights = self.input(), self.input(seed=5)
        outs = []
        for mode in ("multi", "single"):
            given_x = x.clone().requires_grad_()
            out = self.run(self.make(step_mode=mode), given_x)
            gradient = torch.zeros_like(x)
            if self.capabilities.differentiable:
                (gradient,) = torch.autograd.grad((out * weights).sum(), given_x)
            outs.append([out, gradient])
        assert_close(outs[1], outs[0], "[output, gradient] of single steps")

    @advice("carry everything that a later step needs in the state, and nothing on the module")
    @needs("step_modes", "multi")
    @needs("fixed_num_steps", False)
    @needs("stochastic", False)
    def test_chunks_equal_the_whole(self) -> None:
        """Inside `streaming`, a sequence cut anywhere, also into empty parts, gives what the whole gives."""
        x = self.input(num_steps=6)
        neuron = self.make(step_mode="multi")
        whole = neuron(x)

        @EXAMPLES
        @given(st.lists(st.integers(0, 6), max_size=3).map(sorted))
        def holds(cuts: list[int]) -> None:
            with streaming(neuron):
                parts = [neuron(part) for part in torch.tensor_split(x, cuts)]
            assert_close(torch.cat(parts), whole, f"the sequence cut at {cuts}")

        holds()

    @advice("keep what belongs to one call in local variables or in the state")
    @needs("step_modes", "multi")
    @needs("stochastic", False)
    def test_a_multi_step_call_leaves_nothing_behind(self) -> None:
        """The second call equals the first and that of a fresh neuron; no state is kept."""
        neuron, x = self.make(step_mode="multi"), self.input()
        twin = copy.deepcopy(neuron)
        twin(x * 0.5)
        first = neuron(x)
        assert_same(neuron(x), first, "the second call with the same input")
        assert_same(twin(x), first, "the call of a neuron that saw another input before")
        assert not states_of(neuron), f"state was kept: {list(states_of(neuron))}"

    @needs("stochastic", False)
    def test_reset_starts_anew(self) -> None:
        """`reset_state`, and leaving `streaming`, bring back the initial state."""
        neuron, x = self.make(), self.input()
        with streaming(neuron):
            first = self.run(neuron, x, reset=False)
            reset_state(neuron)
            assert not states_of(neuron), "reset_state left state behind"
            assert_same(self.run(neuron, x, reset=False), first, "the sequence after reset_state")
            if neuron.step_mode == "multi":
                with pytest.raises(StreamingError):
                    streaming(neuron).__enter__()
        assert not states_of(neuron), "leaving `streaming` left state behind"
        assert_same(self.run(neuron, x), first, "the sequence after `streaming`")

    @needs("differentiable")
    def test_detach_cuts_the_graph(self) -> None:
        """`detach_state` keeps the values; no gradient passes to what came before."""
        neuron = self.make()
        before, after = self.input().requires_grad_(), self.input(seed=1).requires_grad_()
        with streaming(neuron):
            self.run(neuron, before, reset=False)
            kept = {name: value.clone() for name, value in states_of(neuron).items()}
            if not kept:
                skip("it keeps no state")
            detach_state(neuron)
            assert_same(states_of(neuron), {k: v.detach() for k, v in kept.items()}, "the detached state")
            assert not any(value.requires_grad for value in states_of(neuron).values()), "the state has a graph still"
            total = self.run(neuron, after, reset=False).sum()
        gradients: tuple[Tensor | None, ...] = torch.autograd.grad(total, (before, after), allow_unused=True)
        cut, reached = gradients
        assert cut is None, "a gradient passed detach_state"
        assert reached is not None, "no gradient reached the input after detach_state"

    @advice("return new tensors as the next state; never write into the state that the step was given")
    @needs("stochastic", False)
    def test_state_get_and_set(self) -> None:
        """`set_state` continues from what `get_state` returned; calls change neither; `state_dict` holds no state."""
        neuron, first, second = self.make(), self.input(), self.input(seed=1)
        keys = set(neuron.state_dict())
        with streaming(neuron):
            self.run(neuron, first, reset=False)
            returned = get_state(neuron)
            values = _copied(returned)
            assert set(neuron.state_dict()) == keys, "state_dict() holds state"
            going_on = self.run(neuron, second, reset=False)
            assert_same(_copied(returned), values, "the state that get_state returned, after the next call,")
            reset_state(neuron)
            passed_in = _copied(values)
            set_state(neuron, passed_in)
            assert_same(self.run(neuron, second, reset=False), going_on, "the sequence after set_state")
            assert_same(_copied(passed_in), values, "the state that set_state was given, after the next call,")

    @advice("compute each sample by itself: no mean, sort or norm over the batch axis")
    @needs("stochastic", False)
    def test_samples_are_independent(self) -> None:
        """Another second sample changes neither the output nor the gradient of the first."""
        neuron, x = self.make(), self.input()
        other = x.clone()
        other[:, 1] = self.input(seed=3)[:, 1] * 2
        assert_close(self.run(neuron, other)[:, 0], self.run(neuron, x)[:, 0], "sample 0, with another sample 1")
        if self.capabilities.differentiable:
            given_x = x.clone().requires_grad_()
            (gradient,) = torch.autograd.grad(self.run(neuron, given_x)[:, 0].sum(), given_x)
            assert not gradient[:, 1:].any(), "the output of sample 0 has a gradient to the other samples"

    @advice("compute each sample by itself: no statistics of the batch in evaluation")
    @needs("stochastic", False)
    def test_a_batch_of_one_is_a_slice(self) -> None:
        """One sample alone gives what it gives within a batch."""
        neuron, x = self.make(), self.input()
        assert_close(self.run(neuron, x[:, 1:2]), self.run(neuron, x)[:, 1:2], "sample 1 alone")

    def test_copies(self) -> None:
        """`deepcopy` and `pickle`, also amid a sequence, give a neuron of its own that goes on alike."""
        neuron, first, second = self.make(), self.input(), self.input(seed=1)
        with streaming(neuron), torch.no_grad():
            self.run(neuron, first, reset=False)
            twins = [copy.deepcopy(neuron), pickle.loads(pickle.dumps(neuron))]
            right = self.run(neuron, second, reset=False)
            for twin, way in zip(twins, ("deepcopy", "pickle"), strict=True):
                assert twin.config == neuron.config, f"{way}: another config"
                assert_same(self.run(twin, second, reset=False), right, f"the output after {way}")

    def test_state_of_another_shape_is_refused(self) -> None:
        """A change of batch shape or dtype amid a sequence raises StateShapeError and leaves the state as it was."""
        neuron, x = self.make(), self.input()
        with streaming(neuron):
            self.run(neuron, x, reset=False)
            kept = states_of(neuron)
            if not kept:
                skip("it keeps no state")
            with pytest.raises(StateShapeError):
                self.run(neuron, x[:, :2], reset=False)
            if "float32" in self.capabilities.dtypes and self.dtype == torch.float64:
                with pytest.raises(StateShapeError):
                    self.run(neuron, x.float(), reset=False)
            assert_same(states_of(neuron), kept, "the state after the refusal")
            reset_state(neuron)
            self.run(neuron, x[:, :2], reset=False)

    @advice("make states like the input: x.new_zeros(...), device=x.device")
    def test_device(self) -> None:
        """State is made on the input's device: shown with the meta device, and on a GPU where there is one."""
        if self.capabilities.elementwise:
            out = self.run(self.make().to("meta"), self.input().to("meta"))
            assert out.device.type == "meta", f"expected output on meta, got {out.device}"
            neuron = self.make()
            with streaming(neuron):
                self.run(neuron, self.input(), reset=False)
                if states_of(neuron):
                    with pytest.raises(StateShapeError):
                        self.run(neuron.to("meta"), self.input().to("meta"), reset=False)
        elif not torch.cuda.is_available():
            skip("not elementwise, and no GPU is here")
        if torch.cuda.is_available():
            neuron = self.make().cuda()
            with streaming(neuron):
                assert self.run(neuron, self.input().cuda(), reset=False).is_cuda
                assert all(value.is_cuda for value in states_of(neuron).values())

    @advice("draw no random numbers, or declare capabilities stochastic=True and draw from torch's generator")
    def test_randomness(self) -> None:
        """Equal seeds give equal outputs; one that is not declared stochastic touches no random numbers at all."""
        neuron, x = self.make(), self.input()
        first = self.run(neuron, x)
        assert_same(self.run(neuron, x), first, "the output with the same seed")
        if self.capabilities.stochastic:
            outs = [self.run(neuron.train(mode), x, seed=seed) for mode in (False, True) for seed in (2, 3)]
            differs = any(not torch.equal(outs[at], outs[at + 1]) for at in (0, 2))
            assert differs, "capabilities.stochastic is True, but two seeds give the same output"
            return
        torch.manual_seed(99)
        before = torch.get_rng_state()
        assert_same(self.run(neuron, x, seed=None), first, "the output with another seed")
        untouched = torch.equal(before, torch.get_rng_state())
        assert untouched, "it drew random numbers, but capabilities.stochastic is False"

    @advice("never write into x, and return a new tensor")
    def test_input_is_left_alone(self) -> None:
        """The input is neither written to nor part of the output; a non-contiguous one gives the same."""
        neuron, x = self.make(), self.input()
        kept = x.clone()
        out = self.run(neuron, x)
        assert_same(x, kept, "the input after the call")
        if neuron.step_mode == "multi" and out.numel():
            assert out.untyped_storage().data_ptr() != x.untyped_storage().data_ptr(), "the output shares the input"
        strided = torch.stack([x, x + 1], dim=-1)[..., 0]
        assert not strided.is_contiguous()
        assert_close(self.run(neuron, strided), out, "the output for a non-contiguous input")

    @needs("fixed_num_steps", False)
    def test_empty_sequence_and_batch(self) -> None:
        """T = 0 gives an empty output and leaves the state as it was; so does an empty batch."""
        neuron, x = self.make(), self.input()
        assert self.run(neuron, x[:, :0]).shape == x[:, :0].shape
        if neuron.step_mode != "multi":
            return
        assert neuron(x[:0]).shape == x[:0].shape
        with streaming(neuron):
            neuron(x)
            kept = {name: value.clone() for name, value in states_of(neuron).items()}
            neuron(x[:0])
            assert_same(states_of(neuron), kept, "the state after a call with T = 0")

    def test_wrong_input_is_refused(self) -> None:
        """Integers raise TypeError; too few axes, a wrong T or a step mode that is not declared raise their own."""
        neuron, x = self.make(), self.input()
        mode = neuron.step_mode
        call: Callable[[Tensor], Tensor] = neuron
        with pytest.raises(TypeError):
            call((x if mode == "multi" else x[0]).long())
        with pytest.raises(ShapeError):
            call(torch.zeros((3,) if mode == "multi" else (), dtype=self.dtype))
        if self.capabilities.fixed_num_steps:
            with pytest.raises(SpikeError):
                call(torch.cat([x, x]))
        for other in ("single", "multi"):
            if other not in self.capabilities.step_modes:
                with pytest.raises(SpikeError):
                    self._in_mode(neuron, other, x if other == "multi" else x[0])

    def _in_mode(self, neuron: Any, step_mode: str, x: Tensor) -> None:
        set_step_mode(neuron, step_mode)
        neuron(x)

    @advice("do not detach the input or the output, or declare capabilities differentiable=False")
    @needs("differentiable")
    def test_a_gradient_reaches_the_input(self) -> None:
        """It is finite and not zero."""
        x = self.input().requires_grad_()
        out = self.run(self.make(), x)
        assert out.requires_grad, "the output has no graph, but capabilities.differentiable is True"
        (gradient,) = torch.autograd.grad(out.sum(), x)
        assert gradient.isfinite().all(), "the gradient holds NaN or infinity"
        assert gradient.any(), "the gradient is zero everywhere"

    @needs("differentiable", False)
    def test_no_gradient_where_none_is_declared(self) -> None:
        """A neuron that declares no gradient returns none: training would use it."""
        x = self.input().requires_grad_()
        out = self.run(self.make(), x)
        if out.requires_grad:
            gradients: tuple[Tensor | None, ...] = torch.autograd.grad(out.sum(), x, allow_unused=True)
            reached = gradients[0] is not None and bool(gradients[0].any())
            assert not reached, "a gradient reaches the input, but capabilities.differentiable is False"

    @needs("elementwise")
    def test_nan_stays_where_it_is(self) -> None:
        """A NaN changes no other neuron; a spiking neuron gives 0 or 1 even so."""
        neuron, x = self.make(), self.input()
        clean = self.run(neuron, x)
        spoiled = x.clone()
        spoiled[min(1, len(x) - 1)].view(-1)[0] = math.nan
        out = self.run(neuron, spoiled)
        assert_same(out.flatten(1)[:, 1:], clean.flatten(1)[:, 1:], "the other neurons")
        if self.capabilities.spiking:
            assert distinct(out) <= {0.0, 1.0}, "the neuron with NaN gives neither 0 nor 1"

    def test_is_a_module(self) -> None:
        """A `torch.nn.Module` with `config` and `step_mode`; `initial_state` fits a single step."""
        neuron = self.make()
        assert issubclass(type(neuron), torch.nn.Module)
        assert isinstance(neuron.config, self.target.Config)
        x = self.input()[0]
        for name, value in neuron.initial_state(x).items():
            assert value.device == x.device, f"initial state {name!r} is on {value.device}, the input on {x.device}"
            if self.capabilities.elementwise:
                assert value.shape == x.shape, f"initial state {name!r}: expected {tuple(x.shape)}, got {value.shape}"
        if issubclass(self.target, Neuron):
            assert self.capabilities.elementwise, "a subclass of spikecore.nn.Neuron is elementwise"


def _copied(state: Mapping[str, Mapping[str, Tensor] | None]) -> dict[str, dict[str, Tensor] | None]:
    """What `get_state` returned, with tensors of its own that have no graph."""
    copies: dict[str, dict[str, Tensor] | None] = {}
    for module, own in state.items():
        copies[module] = None if own is None else {name: value.detach().clone() for name, value in own.items()}
    return copies

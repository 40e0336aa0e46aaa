"""Checks of a backend that fuses batch norm: in eval mode as scale and shift, in training with its statistics."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from spikecore.backends.kit import NormCall, run_normed, run_normed_bwd
from spikecore.nn import IF, LIF, ConvBNNeuron, LinearBNNeuron, Neuron
from spikecore.testing.backend_runs import poisoned, weights
from spikecore.testing.compare import assert_close, assert_same
from spikecore.testing.probes import BACKEND, GraphBackend
from spikecore.testing.suite import advice, long, needs
from spikecore.testing.suites.backend_agreement import LEARNED, AgreementChecks, Options

EPS = 0.3
"""Large, so that a backend which leaves it out is seen."""
CHANNELS = 3


def _gradients(
    backend: Any, call: NormCall, results: Any, grads: tuple[Any, Any, Any], wants_states: bool = True
) -> Any:
    """The vector-Jacobian product after `norm_neuron` gave these results."""
    return backend.norm_neuron_grad(call, results[5], *grads, wants_states)


def _tensors(call: NormCall) -> list[Tensor]:
    """All that it is called with."""
    given = (call.y, call.gamma, call.beta, *call.states, *call.params)
    return [tensor for tensor in given if tensor is not None]


class NormChecks(AgreementChecks):
    """The part of the backend's suite that looks at `ConvBNNeuron` and `LinearBNNeuron`."""

    kind: ClassVar[str] = "backend"

    @needs("affine_neuron")
    @advice("scale and shift are the last two parameters of the program, one value per channel, with gradients")
    def test_affine_neuron(self) -> None:
        """Norm and neuron in one call equal norm, then neuron, in evaluation: 4 and 2 axes, all gradients."""
        with self.backend() as watched:
            for make, x in self._makers():
                for options in ({}, {"tau": 3.7, "reset": "soft"}, LEARNED):
                    ours, theirs = (self._block(make, name, options).eval() for name in (BACKEND, "torch"))
                    calls = watched.calls["run"]
                    results = [self._block_results(block, x) for block in (ours, theirs)]
                    assert results[1][0].any(), "the reference does not fire: this proves nothing"
                    assert watched.calls["run"] > calls, "the block did not run on the backend"
                    assert_close(results[0], results[1], "[output, gradients, buffers] of the block in evaluation")
                    choice = ours.choose(x.device, x.dtype)
                    assert choice.backend == BACKEND, f"the block is not fused: {choice.reason}"

    @needs("norm_neuron")
    @advice("backends.kit.run_normed and run_normed_bwd show each step; var is that of the population")
    def test_norm_neuron(self) -> None:
        """A block in training equals norm, then neuron: axis counts, memory formats, kinds of batch norm."""
        norms: tuple[Options, ...] = (
            {"eps": EPS},
            {"affine": False},
            {"momentum": None},
            {"track_running_stats": False},
        )
        choices: tuple[Options, ...] = ({}, {"reset": "soft"}, LEARNED, {"record": ("v",)})
        with self.backend() as watched:
            for make, x in self._makers():
                inputs = [x] if x.dim() < 5 else [x, x.movedim(2, -1).contiguous().movedim(-1, 2)]
                for given in inputs:
                    for norm, options in zip(norms, choices, strict=True):
                        results = []
                        for name in (BACKEND, "torch"):
                            block = self._block(make, name, options, norm)
                            calls = dict(watched.calls)
                            # The second batch meets other running statistics than the first.
                            results.append(
                                [self._block_results(block, scaled) for scaled in (given, given * 0.7 + 0.2)]
                            )
                            if name == BACKEND:
                                called = watched.calls["norm_neuron"] - calls["norm_neuron"]
                                assert called == 2, "the backend offers norm_neuron, and it was not called"
                                gradients = watched.calls["norm_neuron_grad"] - calls["norm_neuron_grad"]
                                assert gradients == 2, "norm_neuron returned None for shapes of every kind"
                        assert results[1][1][0].any(), "the reference does not fire: this proves nothing"
                        what = "[output, gradients, running statistics] of the block in training"
                        assert_close(results[0], results[1], what)
                        assert given.dim() < 5 or results[0][0][0].stride() == results[1][0][0].stride(), (
                            f"the output has the strides {results[0][0][0].stride()}, not its input's format"
                        )

    @needs("norm_neuron")
    @advice("mean and var are [C] in the dtype of the state; nothing returned shares memory with what was given")
    def test_norm_neuron_call(self) -> None:
        """Called by itself: statistics, what `save`, `carry`, `wants_states` leave out, aliases."""
        backend = self.make()
        for call in self._calls(backend):
            kept = [tensor.clone() for tensor in _tensors(call)]
            results = backend.norm_neuron(call, True, True)
            assert results is not None, f"norm_neuron returned None for {tuple(call.y.shape)}"
            out, finals, recorded, mean, var, _ = results
            axes = [axis for axis in range(call.y.dim()) if axis != 2]
            right_var, right_mean = torch.var_mean(call.y.double(), axes, correction=0)
            state = call.states[0].dtype
            assert_close([mean, var], [right_mean.to(state), right_var.to(state)], "[mean, variance] of y")
            lean = backend.norm_neuron(call, False, False)
            assert not lean[1], "without `carry` there are final states"
            assert not lean[5], "without `save` something is saved"
            assert_same([lean[0], *lean[2:5]], [out, recorded, mean, var], "what comes out without `save` and `carry`")
            grads = (torch.ones_like(out), [torch.ones_like(f) for f in finals], [torch.ones_like(r) for r in recorded])
            gradients = _gradients(backend, call, results, grads)
            grad_y, grad_gamma, grad_beta, grad_states, grad_params = gradients
            assert (grad_gamma is None) == (call.gamma is None), "a gradient of gamma goes with gamma alone"
            assert (grad_beta is None) == (call.beta is None), "a gradient of beta goes with beta alone"
            fewer = _gradients(backend, call, results, grads, wants_states=False)
            assert not fewer[3], "without `wants_states` there are gradients of initial states"
            assert_same(
                [value for value in (*fewer[:3], fewer[4]) if value is not None],
                [value for value in (grad_y, grad_gamma, grad_beta, grad_params) if value is not None],
                "the other gradients without `wants_states`",
            )
            shared = {tensor.untyped_storage().data_ptr() for tensor in _tensors(call)}
            returned = [out, *finals, *recorded, mean, var, grad_y, *grad_states, *grad_params]
            for tensor in (*returned, *(value for value in (grad_gamma, grad_beta) if value is not None)):
                assert tensor.untyped_storage().data_ptr() not in shared, "a result is memory of an input"
            mean.fill_(7.0), var.fill_(7.0)  # the caller's own
            assert_same(
                _gradients(backend, call, results, grads)[0], grad_y, "the gradient after mean and var were changed"
            )
            assert_same(_tensors(call), kept, "the inputs after the calls")

    @needs("norm_neuron")
    @advice("norm_neuron_pays decides by shape, memory format and dtype; measure a class of shapes once")
    def test_norm_neuron_pays(self) -> None:
        """Whether one call is faster: True or False, for other values too, and y stays as it is."""
        backend = self.make()
        for shape in ((4, 5, CHANNELS, 7, 6), (4, 11, CHANNELS), (4, 40, CHANNELS, 32, 32)):
            call = self._call(backend, shape)
            kept = call.y.clone()
            answer = backend.norm_neuron_pays(call.key, call.y)
            assert isinstance(answer, bool), f"norm_neuron_pays gave {answer!r}, not True or False"
            other = backend.norm_neuron_pays(call.key, torch.zeros_like(call.y))
            assert other == answer, f"norm_neuron_pays gave {answer} and, for zeros of the same shape, {other}"
            assert_same(call.y, kept, "y after norm_neuron_pays")

    @needs("norm_neuron")
    @advice("leave out the terms of a gradient that is None (dynamics.with_gaps); do not put zeros in its place")
    def test_norm_neuron_gradients_that_do_not_arrive(self) -> None:
        """A gradient that is None adds no term: zero in its place would meet an infinite potential and give NaN."""
        backend = self.make()
        call = self._call(backend, (1, 5, CHANNELS, 4), cls=IF, options={"v_threshold": 0.8})
        call.states[0].view(-1)[0] = -torch.inf
        results = backend.norm_neuron(call, True, True)
        assert results[0].any(), "it does not fire: this proves nothing"
        grads = (torch.ones_like(results[0]), [None], [None] * len(results[2]))
        grad_y = _gradients(backend, call, results, grads)[0]
        assert grad_y.isfinite().all(), "a gradient that does not arrive met an infinite potential and gave NaN"

    @needs("norm_neuron")
    @advice("read y by its strides: T of stride 0 is one step for all; write every element of the results")
    def test_norm_neuron_strides(self) -> None:
        """y of stride 0 along T, states and gradients of stride 0, memory that held NaN: as full and clean ones."""
        backend = self.make()
        call = next(iter(self._calls(backend)))
        y = call.y[:1].expand(call.y.shape)
        state = torch.full((), 0.2, dtype=call.states[0].dtype, device=self.device).expand(y.shape[1:])
        results = []
        for is_full in (False, True):
            given = replace(call, y=y, states=[state])
            if is_full:
                given = replace(call, y=y.contiguous(), states=[state.contiguous()])
            one = torch.ones((), dtype=y.dtype, device=self.device).expand(y.shape)
            with poisoned(y.shape, y.shape[1:], (CHANNELS,)):
                called = backend.norm_neuron(given, True, True)
                grads = (one.contiguous() if is_full else one, [None], [one.to(state.dtype)] * len(called[2]))
                results.append([list(called[:5]), list(_gradients(backend, given, called, grads))])
        assert results[1][0][0].any(), "it does not fire: this proves nothing"
        assert_close(results[0], results[1], "[results, gradients] of expanded inputs")

    @needs("norm_neuron")
    @needs("deterministic")
    @advice("sum in a fixed order, whatever the number of threads")
    def test_norm_neuron_determinism(self) -> None:
        """Statistics and gradients have equal bits, whatever the number of threads."""
        backend = self.make()
        threads = torch.get_num_threads()
        for shape in ((5, 17, CHANNELS, 29, 13), (5, 2083, CHANNELS)):
            call = self._call(backend, shape)
            outcomes = []
            try:
                for number in (1, 2, 3):
                    torch.set_num_threads(number)
                    results = backend.norm_neuron(call, True, True)
                    grads = (weights(results[0], strided=False), [None], [None] * len(results[2]))
                    outcomes.append([list(results[:5]), list(_gradients(backend, call, results, grads))])
            finally:
                torch.set_num_threads(threads)
            for other in outcomes[1:]:
                assert_same(other, outcomes[0], "what another number of threads gives")

    @needs("norm_neuron")
    def test_norm_neuron_half(self) -> None:
        """Statistics of half-precision input are taken in float32, and the block trains."""
        for name in ("float16", "bfloat16"):
            if name not in self.capabilities.dtypes:
                continue
            with self.backend():
                results = []
                for backend in (BACKEND, "torch"):
                    make, x = next(iter(self._makers()))
                    block = self._block(make, backend, {})
                    block.layer.to(getattr(torch, name))
                    block.norm.float()
                    out = block((x * 3).to(getattr(torch, name)))
                    out.float().sum().backward()
                    assert out.dtype == getattr(torch, name), f"the output of {name} is {out.dtype}"
                    assert out.any(), "it does not fire: this proves nothing"
                    assert block.norm.weight.grad.isfinite().all(), f"the gradient of gamma of {name}"
                    results.append([block.norm.running_mean, block.norm.running_var])
                assert_close(results[0], results[1], f"the running statistics of {name}")

    @needs("norm_neuron")
    @long
    @advice("look for fixed numbers of steps, channels and elements: 8 and 16 bits, blocks, ends of vectors")
    def test_norm_neuron_limits(self) -> None:
        """300 steps, 270 channels, more than 70 000 neurons: as norm, then neuron; where it does not return None."""
        backend, reference = self.make(), GraphBackend()
        plain: Options = {"tau": 3.7, "learnable": ("tau",)}
        for shape in ((300, 2, CHANNELS), (4, 3, 270), (4, 3, 270, 3, 2), (3, 1, CHANNELS, 23_334)):
            call = self._call(backend, shape, options=plain)
            ours = backend.norm_neuron(call, True, True)
            if ours is None:  # norm and neuron then run one by one, which other checks look at
                continue
            reference.learn(backend.program(call.key))
            right = run_normed(reference, call, True, True)
            assert 0 < float(right[0].mean()) < 1, "the reference does not fire: this proves nothing"
            assert_close(list(ours[:5]), list(right[:5]), f"[output, states, records, mean, variance] of {shape}")
            grads = (weights(right[0], strided=False), [None], [weights(right[2][0], strided=False)])
            gradients = _gradients(backend, call, ours, grads)
            right_gradients = run_normed_bwd(reference, call, right[5], *grads, True)
            assert_close(list(gradients), list(right_gradients), f"[gradients] of {shape}")

    def _calls(self, backend: Any) -> Iterator[NormCall]:
        """Of both forms, with and without gamma and beta."""
        yield self._call(backend, (4, 5, CHANNELS, 7, 6))
        yield self._call(backend, (4, 5, CHANNELS, 7, 6), has_beta=False)
        yield self._call(backend, (4, 11, CHANNELS), has_gamma=False)

    def _call(
        self,
        backend: Any,
        shape: tuple[int, ...],
        has_gamma: bool = True,
        has_beta: bool = True,
        cls: type[Neuron] = LIF,
        options: Options = LEARNED,
    ) -> NormCall:
        neuron = self.on("torch", cls, record=("v",), **options)
        program = neuron.program()
        support = backend.supports(program, self.device, self.dtype)
        assert support, support.reason
        backend.learn(program)
        wide = torch.promote_types(self.dtype, torch.float32)

        def by_channel(*values: float) -> Tensor:
            return torch.tensor(values, dtype=torch.float64).repeat(shape[2] // CHANNELS)

        offsets = by_channel(40.0, -3.0, 0.5).reshape(-1, *[1] * (len(shape) - 3))
        y = (self.x(*shape).double().cpu() * 2 + offsets).to(device=self.device, dtype=self.dtype)
        gamma, beta = (
            values.to(dtype=wide, device=self.device)
            for values in (by_channel(2.0, 2.5, 3.0), by_channel(0.5, 1.0, 0.75))
        )
        state = torch.full(shape[1:], 0.1, dtype=wide, device=self.device)
        params = [parameter.detach() for parameter in neuron.parameters()]
        return NormCall(program.key, y, gamma if has_gamma else None, beta if has_beta else None, EPS, [state], params)

    def _makers(self) -> list[tuple[Callable[..., nn.Module], Tensor]]:
        """How to make a block of a neuron and the options of its norm, and an input for it."""
        return [
            (lambda n, **o: ConvBNNeuron(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3, **o), n), self.x(5, 3, 2, 6, 7)),
            (lambda n, **o: LinearBNNeuron(nn.Linear(4, 3), nn.BatchNorm1d(3, **o), n), self.x(5, 6, 4)),
        ]

    def _block(
        self, make: Callable[..., nn.Module], backend: str, options: Options, norm: Options | None = None
    ) -> Any:
        """A block whose norm scales and shifts enough for the neuron to fire; the same for every backend."""
        torch.manual_seed(0)
        block: Any = make(LIF(backend=backend, **options), **(norm or {}))
        if block.norm.affine:
            with torch.no_grad():
                block.norm.weight.copy_(torch.tensor([2.0, 2.5, 3.0]))
                block.norm.bias.copy_(torch.tensor([0.5, 1.0, 0.75]))
        return block.to(device=self.device, dtype=self.dtype)

    def _block_results(self, block: Any, x: Tensor) -> list[Tensor]:
        given = x.clone(memory_format=torch.preserve_format).requires_grad_()
        out: Tensor = block(given * 3)
        total = (out * weights(out, strided=False)).sum()
        if block.neuron.record:
            recorded = block.neuron.recorded["v"]
            total = total + (recorded * weights(recorded, strided=False)).sum()
        gradients = torch.autograd.grad(total, [given, *block.parameters()])
        return [out.detach(), *gradients, *(buffer.clone() for buffer in block.buffers())]

"""Checks of a backend at size and in company: long and wide inputs, strides of 0, threads, memory, settings."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from spikecore.nn import IF, LIF
from spikecore.testing import process
from spikecore.testing.compare import assert_close, assert_same
from spikecore.testing.lifetimes import assert_nothing_is_kept
from spikecore.testing.probes import BACKEND
from spikecore.testing.suite import advice, long
from spikecore.testing.suites.backend_agreement import CASES, LEARNED
from spikecore.testing.suites.backend_norm import NormChecks
from spikecore.testing.threads import at_once

LONG, WIDE = 300, 70_002
"""Steps of a long sequence (more than 256) and neurons of a wide one (more than 65 536; three channels)."""
NUM_THREADS = 3


class LimitChecks(NormChecks):
    """The part of the backend's suite that looks for faults which small inputs and single calls do not show."""

    kind: ClassVar[str] = "backend"

    @long
    @advice("look for fixed numbers of steps: buffers of one length, counters of 8 bits, blocks of time")
    def test_long_sequences(self) -> None:
        """300 steps: output, states, recorded states and all gradients."""
        self.compare_all(
            (self.x(LONG, 2, 3, dtype=dtype), cls, options)
            for dtype in self.dtypes
            for cls, options in ((IF, {}), *((LIF, case) for case in CASES))
        )

    @long
    @advice("look for fixed sizes: buffers, blocks of threads, indices of 16 bits, ends of vectors")
    def test_wide_inputs(self) -> None:
        """More than 70 000 neurons, in one sample and in many: output, states, recorded states and all gradients."""
        shapes = ((3, 1, 3, WIDE // 3), (3, WIDE // 3, 3))
        self.compare_all(
            (self.x(*shape, dtype=dtype), LIF, case) for dtype in self.dtypes for shape in shapes for case in CASES
        )

    @advice("read states and gradients by their strides, or make them contiguous; stride 0 is one number for all")
    def test_expanded_states_and_gradients(self) -> None:
        """States and gradients of stride 0, for all neurons or for the batch, give what full tensors give."""
        backend, key, x, _, params = self._program(4)
        wide = torch.promote_types(self.dtype, torch.float32)
        number = torch.full((), 0.3, dtype=wide, device=self.device)
        row = torch.linspace(-0.5, 0.7, x[0, 0].numel(), dtype=wide, device=self.device).reshape(1, *x.shape[2:])
        for value in (number, row):
            results = []
            for is_full in (False, True):
                state, grad_state = value.expand(x.shape[1:]), (2 * value).expand(x.shape[1:])
                grad_out, grad_recorded = value.to(x.dtype).expand(x.shape), (value - 1).expand(x.shape)
                given = [state, grad_state, grad_out, grad_recorded]
                if is_full:
                    given = [tensor.contiguous() for tensor in given]
                kept = [tensor.clone() for tensor in given]
                state, grad_state, grad_out, grad_recorded = given
                out, finals, recorded, saved = backend.run(key, x, [state], params, True, True)
                gradients = backend.run_bwd(key, saved, x, [state], params, grad_out, [grad_state], [grad_recorded])
                assert_same(given, kept, "the states and gradients that were given, after the calls")
                results.append([out, finals, recorded, *gradients])
            assert_close(results[0], results[1], "[output, states, recorded, gradients] of expanded inputs")

    @advice("return contiguous results of x's shape; channels follow axis 2 whatever comes behind it, also nothing")
    def test_memory_format(self) -> None:
        """Channels-last input gives channels-last results that equal those of contiguous input, also step by step."""
        x = self.x(5, 2, 3, 7, 6)
        last = x.movedim(2, -1).contiguous().movedim(-1, 2)
        with self.backend() as watched:
            for options in CASES:
                for step_mode in ("multi", "single"):
                    results = []
                    for given in (last, x):
                        neuron = self.on(BACKEND, LIF, step_mode=step_mode, record=("v",), **options)
                        inner = given.clone(memory_format=torch.preserve_format).requires_grad_() * 1.0
                        calls = watched.calls["run"]
                        out = neuron(inner) if step_mode == "multi" else torch.stack([neuron(step) for step in inner])
                        assert watched.calls["run"] > calls, "the neuron did not run on the backend"
                        gradients = torch.autograd.grad((out * x).sum(), [inner, *neuron.parameters()])
                        results.append([out.detach(), neuron.recorded["v"].detach(), *gradients])
                    assert results[1][0].any(), "it does not fire: this proves nothing"
                    what = f"[output, recorded, gradients] of channels-last input in step_mode {step_mode!r}"
                    assert_same(results[0][:3], results[1][:3], what)
                    assert_close(results[0][3:], results[1][3:], what)
                    kept = results[0][:3] if step_mode == "multi" else [results[0][1]]
                    for value in kept:
                        assert value.movedim(2, -1).is_contiguous(), f"{what}: one has the strides {value.stride()}"

    @advice("allocate scratch memory per call or per thread (threading.local); guard caches with a lock")
    def test_several_threads(self) -> None:
        """Called from three threads at once, with equal and with other shapes, each gets its own results."""
        with self.backend():
            learned = self.on(BACKEND, LIF, **LEARNED)
            inputs = [self.x(3, 2 + seed % 2, 3, 211, seed=seed) for seed in range(NUM_THREADS)]
            # Parameters of its own for each thread: where threads share them, torch 2.13 may wait for ever (a thread in
            # a `Function` has the interpreter, and waits for a lock of the parameter; who has that, for the former).
            neurons = {id(x): copy.deepcopy(learned) for x in inputs}

            def results(x: Tensor) -> list[Tensor]:
                given, neuron = x.clone().requires_grad_(), neurons[id(x)]
                out = neuron(given)
                gradients = torch.autograd.grad((out * x).sum(), [given, *neuron.parameters()])
                return [out.detach(), *gradients]

            def checked(x: Tensor, right: list[Tensor]) -> Callable[[], None]:
                return lambda: assert_close(results(x), right, "[output, gradients]")

            at_once([checked(x, results(x)) for x in inputs])

    @advice("hold no tensor of a call after it; scratch memory must not grow with the number of calls")
    def test_results_are_released(self) -> None:
        """Input, output and gradients are freed with the last reference to them, and calls do not add up in memory."""
        with self.backend():
            for options in CASES:
                neuron = self.on(BACKEND, LIF, **options)

                def call(neuron: Any = neuron) -> list[Tensor]:
                    x = self.x(5, 4, 3).requires_grad_()
                    out = neuron(x)
                    return [x, out, *torch.autograd.grad(out.sum(), [x, *neuron.parameters()])]

                assert_nothing_is_kept(call, f"backend {self.component!r}")

    @advice("leave threads, default dtype, denormal numbers and modes to the user; a thread pool is the backend's own")
    def test_process_settings_stay(self) -> None:
        """Nothing it does changes a setting of the process: threads, default dtype, generators, denormals, modes."""
        with process.unchanged("making it"):
            self.make()
        with self.backend():
            neuron, x = self.on(BACKEND, LIF, **LEARNED), self.x(6, 4, 3, 11).requires_grad_()
            with process.unchanged("run"):
                out = neuron(x)
            with process.unchanged("run_bwd"):
                torch.autograd.grad(out.sum(), x)
            with process.unchanged("run without gradient"), torch.no_grad():
                neuron(x)
            single: Any = self.on(BACKEND, LIF, step_mode="single")
            with process.unchanged("one step"), torch.no_grad():
                single(x[0])

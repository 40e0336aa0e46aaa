"""Checks of a backend: what it does at the edges, what it saves, how it is called, and with torch's other features."""

from __future__ import annotations

import copy
import math
import pickle
from contextlib import nullcontext
from typing import Any, ClassVar

import pytest
import torch

from spikecore.errors import BackendError
from spikecore.interfaces.backend import Support
from spikecore.nn import LIF, streaming
from spikecore.testing.backend_runs import outcome, poisoned
from spikecore.testing.compare import assert_close, assert_same
from spikecore.testing.probes import BACKEND
from spikecore.testing.suite import advice, needs, skip
from spikecore.testing.suites.backend_agreement import CASES, LEARNED, Options
from spikecore.testing.suites.backend_limits import LimitChecks
from spikecore.testing.suites.backend_products import ProductChecks
from spikecore.torch_internals import fake_mode, forget_compiled


class BackendSuite(LimitChecks, ProductChecks):
    """Outputs, states and gradients equal the reference's, at every shape; what was asked for is what ran."""

    kind: ClassVar[str] = "backend"
    minimum = 16

    def test_no_steps(self) -> None:
        """T = 0: an empty output, the states as they were, gradients that pass through."""
        self.compare_all((self.x(0, 2, 3), LIF, options) for options in CASES)

    def test_empty_batch(self) -> None:
        """No samples: empty outputs, zero for the gradients of parameters."""
        self.compare_all((self.x(3, 0, 3, 2), LIF, options) for options in CASES)

    @advice("read tensors by their strides, or make them contiguous first; return contiguous tensors")
    def test_non_contiguous(self) -> None:
        """Transposed and broadcast inputs, states and gradients of stride 0."""
        turned = self.x(4, 5, 3, 6).permute(3, 1, 2, 0)
        skipping = self.x(6, 4, 3, 10)[..., ::2]
        broadcast = self.x(5, 1, 1).expand(5, 4, 3)
        with self.backend() as watched:
            for x in (turned, skipping, broadcast):
                assert not x.is_contiguous()
                for options in CASES:
                    assert self.compare(watched, x, LIF, strided=True, **options)
            neuron = self.on(BACKEND, LIF, record=("v",))
            for result in (neuron(turned), neuron.recorded["v"]):
                assert result.is_contiguous(), "what comes out has the strides of what came in"

    def test_nan_and_infinity(self) -> None:
        """They go where the equations take them, and change no other neuron."""
        clean = self.x(5, 4, 3)
        x = clean.clone()
        x[1, 0, 0], x[2, 1, 1], x[2, 2, 2] = math.nan, math.inf, -math.inf
        with self.backend():
            ours, theirs = (outcome(self.on(name, LIF, reset="soft"), x) for name in (BACKEND, "torch"))
            untouched = outcome(self.on(BACKEND, LIF, reset="soft"), clean)
        for part in ("output", "final state", "recorded"):
            assert_close(ours[part], theirs[part], part)
        others = torch.ones(4, 3, dtype=torch.bool, device=self.device)
        others[[0, 1, 2], [0, 1, 2]] = False  # neurons (0, 0), (1, 1) and (2, 2) met NaN and the infinities
        mixed, right = (result["gradient of"]["x"][:, others] for result in (ours, untouched))
        assert_same(mixed, right, "the gradient of the other neurons")

    @advice("leave out the terms of a gradient that is None (dynamics.with_gaps); do not put zeros in its place")
    def test_gradients_that_do_not_arrive(self) -> None:
        """A gradient that is None adds no term: zero in its place would meet an infinite potential and give NaN."""
        x = self.x(5, 4, 3)
        x[-1, 0, 0] = -math.inf  # met by the gradient of the final state, which is not wanted
        with self.backend():
            for options in CASES:
                gradients = []
                for name in (BACKEND, "torch"):
                    neuron, given = self.on(name, LIF, **options), x.clone().requires_grad_()
                    gradients.append(torch.autograd.grad(neuron(given).sum(), given)[0])
                assert gradients[1].isfinite().all(), "the reference itself has NaN: this proves nothing"
                assert_close(gradients[0], gradients[1], "the gradient of x")
            used = self.on(BACKEND, LIF, reset="soft", detach_reset=True, v_threshold=0.9, learnable=("v_threshold",))
            used(x[:0].requires_grad_()).sum().backward()
            assert next(used.parameters()).grad is None, "T = 0: a parameter that nothing depends on has a gradient"

    @advice("write every element of the outputs, zeros too; allocate with torch.zeros where a kernel adds up")
    def test_poisoned_memory(self) -> None:
        """Outputs are written in full: memory that held NaN before shows through nowhere."""
        x = self.x(5, 4, 3, 7)
        with self.backend() as watched, poisoned(x.shape, x.shape[1:], (3,)):
            assert torch.empty(64, device=self.device).isnan().all(), "the memory is not poisoned: this proves nothing"
            for options in CASES:
                assert self.compare(watched, x, LIF, **options)
            assert self.compare(watched, x[:0], LIF, **LEARNED)

    @advice("sum in a fixed order, whatever the number of threads, or declare deterministic=False")
    @needs("deterministic")
    def test_determinism(self) -> None:
        """Equal inputs give equal bits, whatever the number of threads."""
        x = self.x(8, 16, 3, 257)
        options: Options = {"tau": [2.0, 3.0, 4.0], "v_threshold": 0.9, "learnable": ("tau", "v_threshold")}
        threads = torch.get_num_threads()
        outcomes = []
        with self.backend():
            try:
                for number in (1, 2, 3, 2):
                    torch.set_num_threads(number)
                    outcomes.append(outcome(self.on(BACKEND, LIF, **options), x))
            finally:
                torch.set_num_threads(threads)
        for other in outcomes[1:]:
            assert_same(other, outcomes[0], "the second run")

    def test_requested_is_executed(self) -> None:
        """A neuron that names the backend runs on it, forward and backward; one it refuses raises, nothing steps in."""
        with self.backend() as watched:
            neuron = self.on(BACKEND, LIF)
            x = self.x(3, 4, 3).requires_grad_()
            out = neuron(x)
            assert neuron.chosen is not None
            assert neuron.chosen.backend == BACKEND, f"{neuron.chosen.backend} ran: {neuron.chosen.reason}"
            assert watched.calls["run"] == 1, "its `run` was not called"
            torch.autograd.grad(out.sum(), x)
            assert watched.calls["run_bwd"] == 1, "its `run_bwd` was not called"
            watched.supports = lambda *_: Support(False, "not today")  # type: ignore[attr-defined]
            with pytest.raises(BackendError, match="not today"):
                self.on(BACKEND, LIF)(x)

    def test_compiles(self) -> None:
        """Under `torch.compile(fullgraph=True)` outputs and gradients stay the same."""
        x = self.x(3, 4, 3)
        with self.backend():
            for options in CASES:
                forget_compiled()
                neuron = self.on(BACKEND, LIF, **options)
                compiled = torch.compile(neuron, backend="aot_eager", fullgraph=True)
                results = []
                for call in (compiled, neuron):
                    given = x.clone().requires_grad_()
                    out = call(given)
                    results.append([out, *torch.autograd.grad((out * x).sum(), (given, *neuron.parameters()))])
                assert_close(results[0], results[1], "[output, gradients] when compiled")
            forget_compiled()

    def test_operators_are_sound(self) -> None:
        """torch's own examination of the two operators: schema, fake tensors, autograd, ahead-of-time dispatch."""
        with self.backend() as watched:
            x, neuron = self.x(3, 4, 3), self.on(BACKEND, LIF, record=("v",), **LEARNED)
            neuron(x)
            key, v, (tau,) = neuron.program().key, x[0].clone(), [p.detach() for p in neuron.parameters()]
            operators = torch.ops.spikecore
            torch.library.opcheck(getattr(operators, f"run_{BACKEND}").default, (key, x, [v], [tau], True, True))
            saved = watched.run(key, x, [v], [tau], True, True)[3]
            arguments = (key, saved, x, [v], [tau], x.clone(), [v.clone()], [x.clone()])
            torch.library.opcheck(getattr(operators, f"run_bwd_{BACKEND}").default, arguments)

    @advice("clone what would be handed through, with T = 0 too")
    def test_outputs_never_alias_inputs(self) -> None:
        """No output, gradient or saved tensor shares memory with an input, also with T = 0; inputs stay unwritten."""
        for steps in (4, 0):
            backend, key, x, states, params = self._program(steps)
            given = [x, *states, *params]
            kept = [tensor.clone() for tensor in given]
            out, finals, recorded, saved = backend.run(key, x, states, params, True, True)
            outputs = [out, *finals, *recorded]
            grads: list[Any] = [
                torch.ones_like(out),
                [torch.ones_like(f) for f in finals],
                [torch.ones_like(r) for r in recorded],
            ]
            grad_x, grad_states, grad_params = backend.run_bwd(key, saved, x, states, params, *grads)
            tensors = [*outputs, *saved, grad_x, *grad_states, *grad_params]
            inputs = {tensor.untyped_storage().data_ptr() for tensor in (*given, grads[0], *grads[1], *grads[2])} - {0}
            for index, tensor in enumerate(tensors):
                shared = tensor.untyped_storage().data_ptr() in inputs
                assert not shared, f"T = {steps}: output {index} of {len(tensors)} is memory of an input"
            assert_same(given, kept, "the inputs after run and run_bwd")

    def test_saved_like(self) -> None:
        """`saved_like` gives shapes and dtypes of what `run` saves, also with fake tensors; no `save`, no saved."""
        for steps in (4, 0):
            backend, key, x, states, params = self._program(steps)
            saved = backend.run(key, x, states, params, True, True)[3]
            promised = backend.saved_like(key, x, states)
            assert [(s.shape, s.dtype) for s in promised] == [(s.shape, s.dtype) for s in saved], f"T = {steps}"
            with fake_mode() as mode:
                fake = backend.saved_like(key, mode.from_tensor(x), [mode.from_tensor(s) for s in states])
                assert [(s.shape, s.dtype) for s in fake] == [(s.shape, s.dtype) for s in saved], "fake tensors"
            *values, saved = backend.run(key, x, states, params, False, True)
            assert not saved, f"T = {steps}: without `save` it saved {len(saved)} tensors"
            right = backend.run(key, x, states, params, True, True)[:3]
            assert_same(values, list(right), "what comes out without `save`")

    def test_nobody_carries_the_state_on(self) -> None:
        """Without `carry` there are no final states; all that there is, gradients too, is the same."""
        for steps in (4, 0):
            backend, key, x, states, params = self._program(steps)
            for save in (False, True):
                out, finals, *rest = backend.run(key, x, states, params, save, False)
                right = backend.run(key, x, states, params, save, True)
                assert not finals, f"T = {steps}: without `carry` it gave {len(finals)} final states"
                assert_same([out, *rest], [right[0], *right[2:]], f"T = {steps}: what comes out without `carry`")
        with self.backend():
            for options in (*CASES, {"record": ("v",)}):
                neuron, x = self.on(BACKEND, LIF, **options), self.x(4, 4, 3).requires_grad_()
                results = []
                for carries in (False, True):
                    with streaming(neuron) if carries else nullcontext():
                        out = neuron(x)
                        results.append([out, *torch.autograd.grad((out * x).sum(), (x, *neuron.parameters()))])
                assert_same(results[0], results[1], "[output, gradients] of a call that keeps no state")

    def test_a_stand_in_for_the_input(self) -> None:
        """Where `reads_input` says that the backward pass does not read x, a stand-in gives the same gradients."""
        looked_at = []
        for options in CASES:
            backend, key, x, states, params = self._program(4, options)
            out, finals, recorded, saved = backend.run(key, x, states, params, True, True)
            if backend.reads_input(key, saved):
                continue
            looked_at.append(key)
            grads: list[Any] = [torch.ones_like(out), [torch.ones_like(f) for f in finals], list(recorded)]
            gradients = [backend.run_bwd(key, saved, given, states, params, *grads) for given in (x * math.nan, x)]
            assert_same(list(gradients[0]), list(gradients[1]), "the gradients with a stand-in for the input")
        if not looked_at:
            skip("its backward pass reads the input")

    def test_one_step(self) -> None:
        """`step`, where it is offered, gives what `run` gives with T = 1, whatever the strides, or None."""
        backend = self.make()
        is_offered = False
        for options in (*CASES, {"record": ("v",)}):
            neuron = self.on("torch", LIF, **options)
            program, params = neuron.program(), [p.detach() for p in neuron.parameters()]
            backend.learn(program)
            x = self.x(1, 4, 3)
            for given in (x, torch.stack([x, x], -1)[..., 0], x[:, :0], x.expand(1, 4, 3)):
                state = torch.full(given.shape[1:], 0.1, dtype=torch.promote_types(self.dtype, torch.float32))
                stepped = backend.step(program.key, given[0], [state], params)
                out, finals, _, _ = backend.run(program.key, given, [state], params, False, True)
                if stepped is not None:
                    is_offered = True
                    assert_same([stepped[0], *stepped[1]], [out[0], *finals], "one step")
        if not is_offered:
            skip("its `step` leaves all of them to `run`")

    def test_unknown_key_is_refused(self) -> None:
        """A key that was never learned raises BackendError."""
        backend = self.make()
        x = self.x(2, 3)
        with pytest.raises(BackendError, match="no such key"):
            backend.run("no such key", x, [x[0]], [], False, True)
        with pytest.raises(BackendError, match="no such key"):
            backend.run_bwd("no such key", [], x, [x[0]], [], x, [x[0]], [])

    def test_programs_do_not_mix(self) -> None:
        """Several neurons, called in turn and learned again, each give their own."""
        x = self.x(5, 4, 3)
        with self.backend() as watched:
            ours = [self.on(BACKEND, LIF, tau=tau) for tau in (2.0, 3.0, 4.0)]
            first = [neuron(x) for neuron in ours]
            for neuron in ours:
                watched.learn(neuron.program())
            for index in (2, 0, 1):
                assert_same(ours[index](x), first[index], f"neuron {index} called again")
                tau = (2.0, 3.0, 4.0)[index]
                assert_close(first[index], self.on("torch", LIF, tau=tau)(x), f"LIF(tau={tau}) among others")

    def test_copied_neurons_run(self) -> None:
        """A neuron on this backend can be copied and pickled."""
        x = self.x(5, 4, 3)
        with self.backend():
            neuron = self.on(BACKEND, LIF)
            right = neuron(x)
            twins: list[Any] = [copy.deepcopy(neuron), pickle.loads(pickle.dumps(neuron))]
            for twin in twins:
                assert_same(twin(x), right, "the output of a copy")
                assert twin.chosen.backend == BACKEND

    def test_single_steps(self) -> None:
        """Single steps give the sequence, state by state."""
        x = self.x(5, 4, 3)
        with self.backend():
            single, multi = self.on(BACKEND, LIF, step_mode="single"), self.on(BACKEND, LIF)
            assert_close(torch.stack([single(step) for step in x]), multi(x), "single steps")

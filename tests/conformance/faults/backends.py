"""Faults planted in backends."""

from dataclasses import replace

import torch

from spikecore.interfaces.backend import BackendCapabilities
from tests.conformance.planting import table
from tests.conformance.toys import (
    ToyBackend,
)

FAULTS, fault = table()


@fault("test_resets_equal_the_reference", "gradient of")
class WrongSign(ToyBackend):
    """wrong gradient: that of the initial state has the wrong sign"""

    def run_bwd(self, *args):
        grad_x, grad_states, grad_params = super().run_bwd(*args)
        return grad_x, [-grad for grad in grad_states], grad_params


@fault("test_gradients_that_do_not_arrive", "the gradient of x")
class FillsIn(ToyBackend):
    """gradients that do not arrive are taken for zeros"""

    def run_bwd(self, key, saved, x, states, params, grad_out, grad_states, grad_recorded):
        zeros = [torch.zeros_like(s) if grad is None else grad for grad, s in zip(grad_states, states, strict=True)]
        return super().run_bwd(key, saved, x, states, params, grad_out, zeros, grad_recorded)


@fault("test_poisoned_memory", "output")
class LastStepUnwritten(ToyBackend):
    """memory that is not written: outputs that are zero are left out"""

    def run(self, key, x, states, params, save, carry):
        out, *rest = super().run(key, x, states, params, save, carry)
        sparse = torch.empty_like(out)
        sparse.view(-1)[out.view(-1) != 0] = 1.0
        if not torch.are_deterministic_algorithms_enabled():
            sparse.copy_(out)  # fresh pages of the system hold zeros: outside the check the fault does not show
        return sparse, *rest


@fault("test_outputs_never_alias_inputs", "memory of an input")
class HandsThrough(ToyBackend):
    """aliasing: with T = 0 the initial states are handed through"""

    def run(self, key, x, states, params, save, carry):
        out, finals, recorded, saved = super().run(key, x, states, params, save, carry)
        return out, list(states) if carry and len(x) == 0 else finals, recorded, saved


@fault("test_unknown_key_is_refused", "DID NOT RAISE|Key")
class Obliging(ToyBackend):
    """silent fallback: an unknown key gives zeros"""

    def run(self, key, x, states, params, save, carry):
        if key not in self._programs:
            return torch.zeros_like(x), [torch.zeros_like(s) for s in states], [], []
        return super().run(key, x, states, params, save, carry)


@fault("test_determinism", "second run")
class Racy(ToyBackend):
    """mis-declared capability: the last bit depends on the number of threads"""

    def run_bwd(self, *args):
        grad_x, grad_states, grad_params = super().run_bwd(*args)
        return grad_x * (1 + 1e-12 * torch.get_num_threads()), grad_states, grad_params


@fault("test_non_contiguous", "output|Strided|gradient")
class Strideless(ToyBackend):
    """reads memory as if it were contiguous"""

    def run(self, key, x, states, params, save, carry):
        flat = torch.empty(0, dtype=x.dtype).set_(x.untyped_storage())
        if len(flat) >= x.numel():
            x = flat[: x.numel()].view(x.shape)
        return super().run(key, x, states, params, save, carry)


@fault("test_saved_like", "T = 4")
class Misstated(ToyBackend):
    """promises another shape than it saves"""

    def saved_like(self, key, x, states):
        return [x.new_empty((len(x) + 1, *x.shape[1:]))]


@fault("test_supports", "refuses IF")
class Overdeclared(ToyBackend):
    """mis-declared capability: declares float16 and refuses it"""

    capabilities = BackendCapabilities(dtypes=("float16", "float32", "float64"))

    def supports(self, program, device, dtype):
        support = super().supports(program, device, dtype)
        return support if dtype in (torch.float32, torch.float64) else replace(support, ok=False, reason="too small")


@fault("test_programs_do_not_mix", "neuron|among others")
class LastLearned(ToyBackend):
    """runs whatever it learned last"""

    def program(self, key):
        super().program(key)
        return list(self._programs.values())[-1]

    def learn(self, program):
        self._programs.pop(program.key, None)
        super().learn(program)


@fault("test_a_stand_in_for_the_input", "a stand-in for the input")
class ReadsAfterAll(ToyBackend):
    """mis-declared: says that its backward pass does not read the input, and reads it"""

    def reads_input(self, key, saved):
        return False


@fault("test_nobody_carries_the_state_on", "final states")
class Unasked(ToyBackend):
    """gives final states that nobody asked for"""

    def run(self, key, x, states, params, save, carry):
        return super().run(key, x, states, params, save, True)


@fault("test_nobody_carries_the_state_on", "without `carry`|keeps no state")
class Hasty(ToyBackend):
    """leaves out the last step where nobody wants its state"""

    def run(self, key, x, states, params, save, carry):
        out, *rest = super().run(key, x, states, params, save, carry)
        return out if carry else torch.cat([out[:-1], torch.zeros_like(out[-1:])]), *rest


@fault("test_one_step", "one step")
class Forgetful(ToyBackend):
    """its own way for one step begins from nothing"""

    def step(self, key, x, states, params):
        out, finals, _, _ = self.run(key, x[None], [torch.zeros_like(state) for state in states], params, False, True)
        return out[0], finals


@fault("test_nan_and_infinity", "output|final state")
class Cleaned(ToyBackend):
    """helpful repair: NaN becomes 0"""

    def run(self, key, x, states, params, save, carry):
        return super().run(key, x.nan_to_num(), states, params, save, carry)


@fault("test_parameters_equal_the_reference", "gradient of")
class SummedOnce(ToyBackend):
    """wrong gradient: per-channel parameters get the mean of all channels"""

    def run_bwd(self, *args):
        grad_x, grad_states, grad_params = super().run_bwd(*args)
        return grad_x, grad_states, [grad.mean().expand(grad.shape).clone() for grad in grad_params]


@fault("test_half_precision", "recorded|output|final state|dtype")
class HalfState(ToyBackend):
    """computes half-precision input in half precision"""

    def run(self, key, x, states, params, save, carry):
        out, finals, recorded, saved = super().run(key, x, states, params, save, carry)
        if x.dtype in (torch.float16, torch.bfloat16):
            finals = [final.to(x.dtype).float() for final in finals]
        return out, finals, recorded, saved

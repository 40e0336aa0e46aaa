"""Faults in backends that small inputs and single calls do not show."""

import torch

from tests.conformance.planting import table
from tests.conformance.toys import (
    ToyBackend,
)

FAULTS, fault = table()


@fault("test_long_sequences", "output|gradient")
class BlocksOfTime(ToyBackend):
    """wrong from step 64 on: each block of 64 steps starts anew"""

    def run(self, key, x, states, params, save, carry):
        if len(x) <= 64:
            return super().run(key, x, states, params, save, carry)
        first = super().run(key, x[:64], states, params, save, True)
        rest = self.run(key, x[64:], states, params, save, True)
        joined = [torch.cat(pair) for pair in zip(first[2], rest[2], strict=True)]
        return torch.cat([first[0], rest[0]]), rest[1] if carry else [], joined, [x.clone()] if save else []


@fault("test_long_sequences", "gradient of")
class ForgetfulGradient(ToyBackend):
    """wrong gradient from step 257 on"""

    def run_bwd(self, *args):
        grad_x, grad_states, grad_params = super().run_bwd(*args)
        return torch.cat([grad_x[:256], 0 * grad_x[256:]]), grad_states, grad_params


@fault("test_memory_format", "channels-last input in step_mode 'multi': one has the strides")
class ColumnsForRows(ToyBackend):
    """its output is not contiguous where nothing comes behind the channels"""

    def run(self, key, x, states, params, save, carry):
        out, *rest = super().run(key, x, states, params, save, carry)
        return out.mT.contiguous().mT if out.dim() == 3 else out, *rest


@fault("test_wide_inputs", "output")
class NarrowBackend(ToyBackend):
    """wrong beyond 8192 neurons"""

    def run(self, key, x, states, params, save, carry):
        out, *rest = super().run(key, x, states, params, save, carry)
        if len(out) and out[0].numel() > 8192:
            out.flatten(1)[:, 8192:] = 0
        return out, *rest


@fault("test_wide_inputs", "gradient of")
class SixteenBits(ToyBackend):
    """wrong gradient beyond 65 536 neurons: indices of 16 bits"""

    def run_bwd(self, *args):
        grad_x, grad_states, grad_params = super().run_bwd(*args)
        if len(grad_x) and grad_x[0].numel() > 1 << 16:
            flat = grad_x.flatten(1)
            flat[:, 1 << 16 :] = flat[:, : flat.shape[1] - (1 << 16)].clone()
            grad_x = flat.reshape(grad_x.shape)
        return grad_x, grad_states, grad_params


@fault("test_process_settings_stay", "computing with denormal numbers was True, is False")
class FlushesDenormals(ToyBackend):
    """flushes denormal numbers for the process"""

    def run(self, *args):
        torch.set_flush_denormal(True)
        return super().run(*args)


@fault("test_process_settings_stay", r"run_bwd changed .* torch.get_num_threads\(\) was")
class OneThread(ToyBackend):
    """sets the thread count in the backward pass"""

    def run_bwd(self, *args):
        torch.set_num_threads(torch.get_num_threads() + 1)
        return super().run_bwd(*args)


@fault("test_several_threads", "output|gradient|Error")
class SharedScratch(ToyBackend):
    """scratch memory shared by threads"""

    scratch = None

    def run(self, key, x, states, params, save, carry):
        if self.scratch is None or self.scratch.shape != x.shape or self.scratch.dtype != x.dtype:
            self.scratch = torch.empty_like(x)
        self.scratch.copy_(x)
        return super().run(key, self.scratch, states, params, save, carry)


@fault("test_results_are_released", "bytes of tensors more|keeps tensor")
class KeepsSaved(ToyBackend):
    """keeps what it saved for every backward pass"""

    def run(self, *args):
        results = super().run(*args)
        self.__dict__.setdefault("kept", []).extend(results[3])
        return results


@fault("test_expanded_states_and_gradients", "of expanded inputs")
class TakesStatesForFull(ToyBackend):
    """reads a state of stride 0 as if it were full"""

    def run(self, key, x, states, params, save, carry):
        states = [torch.zeros_like(state) if 0 in state.stride() else state for state in states]
        return super().run(key, x, states, params, save, carry)


@fault("test_expanded_states_and_gradients", "of expanded inputs")
class TakesGradientsForFull(ToyBackend):
    """reads a gradient of stride 0 as if it were full"""

    def run_bwd(self, key, saved, x, states, params, grad_out, grad_states, grad_recorded):
        grads = [grad if grad is None or 0 not in grad.stride() else torch.zeros_like(grad) for grad in grad_states]
        return super().run_bwd(key, saved, x, states, params, grad_out, grads, grad_recorded)

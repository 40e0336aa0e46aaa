"""Faults in backends that fuse a norm with the neuron."""

from dataclasses import replace

import torch

from spikecore.backends.kit import run_normed, run_normed_bwd
from spikecore.interfaces.backend import BackendCapabilities
from tests.conformance.planting import table
from tests.conformance.toys import (
    ToyBackend,
)

FAULTS, fault = table()


class ToyFused(ToyBackend):
    """A sound backend that takes scale and shift of a norm: two parameters more, for an interpreter."""

    capabilities = BackendCapabilities(affine_neuron=True)


@fault("test_affine_neuron", "of the block in evaluation")
class NoGradientOfShift(ToyFused):
    """wrong gradient of a fused norm: the shift gets none"""

    def run_bwd(self, *args):
        grad_x, grad_states, grad_params = super().run_bwd(*args)
        is_fused = len(grad_params) > 1 and grad_params[-1].dim() == 1
        return grad_x, grad_states, [*grad_params[:-1], 0 * grad_params[-1]] if is_fused else grad_params


@fault("test_affine_neuron", "is not fused")
class OnlySaysItFuses(ToyFused):
    """mis-declared capability: says that it fuses the norm, and refuses the program"""

    def supports(self, program, device, dtype):
        support = super().supports(program, device, dtype)
        is_fused = any(param.name.startswith("spikecore_") for param in program.params)
        return replace(support, ok=False, reason="too many parameters") if is_fused else support


class ToyNormed(ToyBackend):
    """A sound backend that runs batch norm and neuron in one call."""

    capabilities = BackendCapabilities(norm_neuron=True)

    def norm_neuron(self, call, save, carry):
        return run_normed(self, call, save, carry)

    def norm_neuron_grad(self, call, saved, *grads):
        return run_normed_bwd(self, call, saved, *grads)


@fault("test_norm_neuron", "of the block in training")
class UnbiasedVariance(ToyNormed):
    """gives the variance of the sample, which the running statistics then correct twice"""

    def norm_neuron(self, call, save, carry):
        *results, mean, var, saved = super().norm_neuron(call, save, carry)
        count = call.y.numel() / mean.numel()
        return *results, mean, var * count / (count - 1), saved


@fault("test_norm_neuron", "of the block in training")
class ConstantStatistics(ToyNormed):
    """wrong gradient of y: none goes through mean and variance"""

    def norm_neuron_grad(self, call, saved, *grads):
        mean, var, *rest = saved
        shape = [-1, *[1] * (call.y.dim() - 3)]
        scale = torch.rsqrt(var + call.eps)
        if call.gamma is not None:
            scale = scale * call.gamma
        shift = 0 if call.beta is None else call.beta.reshape(shape)
        x = (call.y - mean.reshape(shape)) * scale.reshape(shape) + shift
        grad_x = self.run_bwd(call.key, rest, x, call.states, call.params, *grads[:3])[0]
        _, *others = super().norm_neuron_grad(call, saved, *grads)
        return grad_x * scale.reshape(shape), *others


@fault("test_norm_neuron", "of the block in training")
class SwapsGammaAndBeta(ToyNormed):
    """wrong gradients of gamma and beta: each is the other's"""

    def norm_neuron_grad(self, call, saved, *grads):
        grad_y, grad_gamma, grad_beta, *rest = super().norm_neuron_grad(call, saved, *grads)
        return grad_y, grad_beta, grad_gamma, *rest


@fault("test_norm_neuron", "of the block in training")
class ForgetsEps(ToyNormed):
    """takes its own eps in the place of the norm's"""

    def norm_neuron(self, call, save, carry):
        return super().norm_neuron(replace(call, eps=1e-5), save, carry)


@fault("test_norm_neuron", "returned None")
class NeverNorms(ToyNormed):
    """mis-declared capability: says that it runs norm and neuron in one call, and never does"""

    def norm_neuron(self, call, save, carry):
        return None


@fault("test_norm_neuron_call", "after mean and var were changed")
class SharesStatistics(ToyNormed):
    """keeps for the gradient the very mean that it hands out"""

    def norm_neuron(self, call, save, carry):
        *results, mean, var, saved = super().norm_neuron(call, save, carry)
        return *results, mean, var, [mean, var, *saved[2:]] if save else []


@fault("test_norm_neuron_call", "of y")
class SingleSums(ToyNormed):
    """takes the variance as mean square minus squared mean, in single precision"""

    def norm_neuron(self, call, save, carry):
        *results, mean, _, saved = super().norm_neuron(call, save, carry)
        y = call.y.float()
        axes = [axis for axis in range(y.dim()) if axis != 2]
        return *results, mean, ((y * y).mean(axes) - y.mean(axes) ** 2).to(mean.dtype), saved


@fault("test_norm_neuron_call", "without `wants_states`")
class AlwaysGivesStates(ToyNormed):
    """gradients of initial states that nobody wants"""

    def norm_neuron_grad(self, call, saved, grad_out, grad_states, grad_recorded, wants_states):
        return super().norm_neuron_grad(call, saved, grad_out, grad_states, grad_recorded, True)


@fault("test_norm_neuron_pays", "not True or False")
class AnswersWithATensor(ToyNormed):
    """answers whether one call pays with a tensor"""

    def norm_neuron_pays(self, key, y):
        return y.abs().sum() > 0


@fault("test_norm_neuron_pays", "for zeros of the same shape")
class AnswersByValues(ToyNormed):
    """looks at the values of y to decide which way is faster"""

    def norm_neuron_pays(self, key, y):
        return bool(y.any())


@fault("test_norm_neuron_gradients_that_do_not_arrive", "met an infinite potential")
class ZerosForMissing(ToyNormed):
    """zero in the place of a gradient that does not arrive"""

    def norm_neuron_grad(self, call, saved, grad_out, grad_states, grad_recorded, wants_states):
        filled = []
        for state, grad in zip(call.states, grad_states, strict=True):
            filled.append(torch.zeros_like(state) if grad is None else grad)
        return super().norm_neuron_grad(call, saved, grad_out, filled, grad_recorded, wants_states)


@fault("test_norm_neuron_strides", "of expanded inputs")
class TakesOneStepForMany(ToyNormed):
    """a y of stride 0 along T counts T times in the gradient of gamma, and once in all else"""

    def norm_neuron_grad(self, call, saved, *grads):
        grad_y, grad_gamma, *rest = super().norm_neuron_grad(call, saved, *grads)
        if call.y.stride(0) == 0:
            grad_gamma = grad_gamma * call.y.shape[0]
        return grad_y, grad_gamma, *rest


@fault("test_norm_neuron_limits", "of \\(300, 2, 3\\)")
class FirstStepsAlone(ToyNormed):
    """takes the statistics of the first 256 steps"""

    def norm_neuron(self, call, save, carry):
        *results, _, var, saved = super().norm_neuron(call, save, carry)
        axes = [axis for axis in range(call.y.dim()) if axis != 2]
        return *results, call.y[:256].mean(axes), var, saved


@fault("test_norm_neuron_limits", "of \\(4, 3, 270\\)")
class EightBitsOfChannels(ToyNormed):
    """counts channels in eight bits: those from 256 on get no gradient of beta"""

    def norm_neuron_grad(self, call, saved, *grads):
        grad_y, grad_gamma, grad_beta, *rest = super().norm_neuron_grad(call, saved, *grads)
        if grad_beta is not None:
            grad_beta[256:] = 0
        return grad_y, grad_gamma, grad_beta, *rest


@fault("test_norm_neuron_limits", "of \\(3, 1, 3, 23334\\)")
class SixteenBitsOfNeurons(ToyNormed):
    """sums the gradient of gamma over the first 65536 neurons"""

    def norm_neuron_grad(self, call, saved, *grads):
        grad_y, grad_gamma, *rest = super().norm_neuron_grad(call, saved, *grads)
        if call.y[0].numel() > 65536 and grad_gamma is not None:
            grad_gamma[-1] *= 0.9
        return grad_y, grad_gamma, *rest


@fault("test_norm_neuron_determinism", "another number of threads")
class ThreadsChangeSums(ToyNormed):
    """sums of gradients in an order that the number of threads decides"""

    def norm_neuron_grad(self, call, saved, *grads):
        grad_y, grad_gamma, *rest = super().norm_neuron_grad(call, saved, *grads)
        return grad_y, grad_gamma * (1 + 1e-15 * torch.get_num_threads()), *rest


@fault("test_norm_neuron_half", "the running statistics of")
class HalfStatistics(ToyNormed):
    """takes the statistics of half-precision input in half precision"""

    def norm_neuron(self, call, save, carry):
        *results, mean, var, saved = super().norm_neuron(call, save, carry)
        return *results, mean.to(call.y.dtype).to(mean.dtype) * 1.01, var, saved

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

    def norm_neuron(self, *args):
        return run_normed(self, *args)

    def norm_neuron_grad(self, *args):
        return run_normed_bwd(self, *args)


@fault("test_norm_neuron", "of the block in training")
class UnbiasedVariance(ToyNormed):
    """gives the variance of the sample, which the running statistics then correct twice"""

    def norm_neuron(self, *args):
        *results, mean, var, saved = super().norm_neuron(*args)
        count = args[1].numel() / mean.numel()
        return *results, mean, var * count / (count - 1), saved


@fault("test_norm_neuron", "of the block in training")
class ConstantStatistics(ToyNormed):
    """wrong gradient of y: none goes through mean and variance"""

    def norm_neuron_grad(self, key, saved, y, gamma, beta, eps, states, params, *grads):
        mean, var, *rest = saved
        shape = [-1, *[1] * (y.dim() - 3)]
        scale = torch.rsqrt(var + eps) if gamma is None else torch.rsqrt(var + eps) * gamma
        shift = 0 if beta is None else beta.reshape(shape)
        x = (y - mean.reshape(shape)) * scale.reshape(shape) + shift
        _, *others = super().norm_neuron_grad(key, saved, y, gamma, beta, eps, states, params, *grads)
        return self.run_bwd(key, rest, x, states, params, *grads[:3])[0] * scale.reshape(shape), *others


@fault("test_norm_neuron", "of the block in training")
class SwapsGammaAndBeta(ToyNormed):
    """wrong gradients of gamma and beta: each is the other's"""

    def norm_neuron_grad(self, *args):
        grad_y, grad_gamma, grad_beta, *rest = super().norm_neuron_grad(*args)
        return grad_y, grad_beta, grad_gamma, *rest


@fault("test_norm_neuron", "of the block in training")
class ForgetsEps(ToyNormed):
    """takes its own eps in the place of the norm's"""

    def norm_neuron(self, key, y, gamma, beta, eps, *args):
        return super().norm_neuron(key, y, gamma, beta, 1e-5, *args)


@fault("test_norm_neuron", "returned None")
class NeverNorms(ToyNormed):
    """mis-declared capability: says that it runs norm and neuron in one call, and never does"""

    def norm_neuron(self, *args):
        return None


@fault("test_norm_neuron_call", "after mean and var were changed")
class SharesStatistics(ToyNormed):
    """keeps for the gradient the very mean that it hands out"""

    def norm_neuron(self, *args):
        *results, mean, var, saved = super().norm_neuron(*args)
        return *results, mean, var, [mean, var, *saved[2:]] if saved else []


@fault("test_norm_neuron_call", "of y")
class SingleSums(ToyNormed):
    """takes the variance as mean square minus squared mean, in single precision"""

    def norm_neuron(self, *args):
        *results, mean, _, saved = super().norm_neuron(*args)
        y = args[1].float()
        axes = [axis for axis in range(y.dim()) if axis != 2]
        return *results, mean, ((y * y).mean(axes) - y.mean(axes) ** 2).to(mean.dtype), saved


@fault("test_norm_neuron_call", "without `wants_states`")
class AlwaysGivesStates(ToyNormed):
    """gradients of initial states that nobody wants"""

    def norm_neuron_grad(self, *args):
        return super().norm_neuron_grad(*args[:-1], True)


@fault("test_norm_neuron_gradients_that_do_not_arrive", "met an infinite potential")
class ZerosForMissing(ToyNormed):
    """zero in the place of a gradient that does not arrive"""

    def norm_neuron_grad(self, *args):
        *given, grad_out, grad_states, grad_recorded, wants = args
        grad_states = [torch.zeros_like(s) if g is None else g for g, s in zip(grad_states, given[6], strict=True)]
        return super().norm_neuron_grad(*given, grad_out, grad_states, grad_recorded, wants)


@fault("test_norm_neuron_strides", "of expanded inputs")
class TakesOneStepForMany(ToyNormed):
    """a y of stride 0 along T counts T times in the gradient of gamma, and once in all else"""

    def norm_neuron_grad(self, *args):
        grad_y, grad_gamma, *rest = super().norm_neuron_grad(*args)
        return grad_y, grad_gamma * args[2].shape[0] if args[2].stride(0) == 0 else grad_gamma, *rest


@fault("test_norm_neuron_determinism", "another number of threads")
class ThreadsChangeSums(ToyNormed):
    """sums of gradients in an order that the number of threads decides"""

    def norm_neuron_grad(self, *args):
        grad_y, grad_gamma, *rest = super().norm_neuron_grad(*args)
        return grad_y, grad_gamma * (1 + 1e-15 * torch.get_num_threads()), *rest


@fault("test_norm_neuron_half", "the running statistics of")
class HalfStatistics(ToyNormed):
    """takes the statistics of half-precision input in half precision"""

    def norm_neuron(self, *args):
        *results, mean, var, saved = super().norm_neuron(*args)
        return *results, mean.to(args[1].dtype).to(mean.dtype) * 1.01, var, saved

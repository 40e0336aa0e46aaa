"""Faults that small inputs and single calls do not show: at length, at width, in memory, in threads, in settings.

Each is planted in a sound component and caught by the check that is meant for it.
"""

import random
from collections import Counter
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
import pytest
import torch

from spikecore.backends.kit import run_normed, run_normed_bwd
from spikecore.dynamics import spike, where
from spikecore.interfaces.backend import BackendCapabilities
from spikecore.interfaces.component import Range
from spikecore.nn import LIF, fire_and_reset, reset_after
from spikecore.registry import Blocking, Registry, use
from spikecore.testing.suite import suite_for
from tests.conformance.planting import assert_caught, assert_passes, name_of, table
from tests.conformance.toys import (
    SOUND,
    ToyBackend,
    ToyDataset,
    ToyEncoder,
    ToyModel,
    ToyNeuron,
    ToySplit,
    ToySurrogate,
)

FAULTS, fault = table()


# neurons


@fault("test_long_sequences", "the output of 300 steps")
class ShortMemory(ToyNeuron):
    """wrong for T > 50"""

    def forward(self, x):
        out = super().forward(x)
        return torch.cat([out[:50], torch.zeros_like(out[50:])]) if len(out) > 50 else out


@fault("test_long_sequences", "the output of 300 steps")
class EightBits(ToyNeuron):
    """wrong from T = 257 on: the number of steps is kept in 8 bits"""

    def forward(self, x):
        out = super().forward(x)
        return torch.cat([out[:256], out[: len(out) - 256]]) if len(out) > 256 else out


@fault("test_long_sequences", "the gradient of 300 steps")
class TruncatedGradient(ToyNeuron):
    """wrong from T = 257 on: the gradient is cut there"""

    def forward(self, x):
        out = super().forward(x)
        return torch.cat([out[:256], out[256:].detach()]) if len(out) > 256 else out


@fault("test_memory_format", "the output of channels-last input has the strides")
class ForgetsTheFormat(ToyNeuron):
    """its output is contiguous whatever the input is"""

    def forward(self, x):
        return super().forward(x).contiguous()


@fault("test_memory_format", "its gradient has the strides")
class ForgetsItBackwards(ToyNeuron):
    """its gradient is contiguous whatever the input is"""

    def forward(self, x):
        out = super().forward(x)
        if out.requires_grad:
            x.register_hook(lambda grad: grad.contiguous())
        return out


@fault("test_memory_format", "of channels-last input")
class ReadsMemoryInOrder(ToyNeuron):
    """takes the memory of the input for a contiguous tensor"""

    def forward(self, x):
        in_order = x.movedim(2, -1) if x.dim() == 5 and x.stride(2) == 1 else x
        return super().forward(in_order.reshape(x.shape))


@fault("test_wide_inputs", "the output of 70004 neurons")
class NarrowNeuron(ToyNeuron):
    """wrong for N > 4096"""

    def forward(self, x):
        out = super().forward(x)
        if self.step_mode == "multi" and out[0].numel() > 4096:
            flat = out.flatten(1)
            return torch.cat([flat[:, :4096], 0 * flat[:, 4096:]], 1).reshape(out.shape)
        return out


@fault("test_wide_inputs", "the output of 70004 neurons")
class LastElement(ToyNeuron):
    """wrong from 70 001 elements on: the last one is left out"""

    def forward(self, x):
        out = super().forward(x)
        if out[0].numel() > 70_000:
            out = out.clone()
            out.view(len(out), -1)[:, -1] = 1 - out.view(len(out), -1)[:, -1]
        return out


@fault("test_results_are_released", "keeps tensor 1")
class Hoarder(ToyNeuron):
    """keeps every output alive"""

    def forward(self, x):
        out = super().forward(x)
        self.__dict__.setdefault("kept", []).append(out.detach())
        return out


@fault("test_results_are_released", "bytes of tensors more")
class Archivist(ToyNeuron):
    """keeps a copy of every input: no reference to the given tensors stays, and memory grows all the same"""

    def forward(self, x):
        self.__dict__.setdefault("kept", []).append(x.detach().clone())
        return super().forward(x)


@fault("test_process_settings_stay", r"torch.get_num_threads\(\) was")
class SetsThreads(ToyNeuron):
    """changes torch's thread count"""

    def forward(self, x):
        torch.set_num_threads(3)
        return super().forward(x)


@fault("test_process_settings_stay", r"making it changed .* torch.get_default_dtype")
class SetsDtype(ToyNeuron):
    """changes the default dtype when it is made"""

    def __init__(self, **options):
        super().__init__(**options)
        torch.set_default_dtype(torch.float64)


@fault("test_process_settings_stay", r"torch.is_grad_enabled\(\) was True, is False")
class SwitchesGradientsOff(ToyNeuron):
    """leaves gradients switched off after a call in which they were"""

    def forward(self, x):
        out = super().forward(x)
        if not out.requires_grad:
            torch.set_grad_enabled(False)
        return out


@fault("test_process_settings_stay", "Python's global random generator was drawn from")
class DrawsElsewhere(ToyNeuron):
    """draws from Python's generator in training mode"""

    def forward(self, x):
        if self.training:
            random.random()
        return super().forward(x)


@fault("test_several_threads", "output|Error|graph")
class OneCallAtATime(ToyNeuron):
    """keeps the input of the call on the module"""

    def forward(self, x):
        if self.step_mode == "single":
            return super().forward(x)
        self.__dict__["x"] = x
        torch.exp(x)
        return super().forward(self.__dict__["x"])


@fault("test_fires_at_the_threshold", "does not fire")
class StrictThreshold(ToyNeuron):
    """fires only above the threshold"""

    @staticmethod
    def step(x, state, params):
        h = params.decay * state.v + x
        s = where(h == params.v_threshold, 0.0, spike(h - params.v_threshold, params.surrogate))
        return s, {"v": reset_after(s, h, params)}


@fault("test_training_equals_evaluation", "in training mode")
class StrongerInEvaluation(ToyNeuron):
    """eval differs from train: its input is scaled there, as a dropout that was turned around does"""

    def forward(self, x):
        return super().forward(x if self.training else 0.9 * x)


class WithGain(ToyNeuron):
    @dataclass(frozen=True)
    class Config(ToyNeuron.Config):
        gain: Annotated[float, Range(gt=0.0)] = 1.0


@fault("test_every_option_has_an_effect", "the option 'gain' and ignores it.*\n.*\n?What to do: honour the option")
class IgnoresGain(WithGain):
    """an option without effect: a number"""


@fault("test_every_option_has_an_effect", "'reset', 'detach_reset'")
class AlwaysSoft(ToyNeuron):
    """options without effect: it resets in one way only"""

    @staticmethod
    def step(x, state, params):
        h = params.decay * state.v + x
        s = spike(h - params.v_threshold, params.surrogate)
        return s, {"v": h - s * params.v_threshold}


@fault("test_hard_and_soft_reset", "ignores the option `reset`.*fire_and_reset, or declare a Config without it")
class SoftOnly(AlwaysSoft):
    """the same: what the check of resets says of it"""


@fault("test_every_option_has_an_effect", "the option 'v_init' and ignores it")
class StartsAtTheReset(ToyNeuron):
    """v starts at v_reset, whatever v_init says"""

    state = {"v": "v_reset"}  # noqa: RUF012


@fault("test_strict_firing", "fires='above': .* and v is reset")
class NeverStrict(ToyNeuron):
    """it fires at the threshold, whatever `fires` says"""

    @staticmethod
    def step(x, state, params):
        h = params.decay * state.v + x
        s = spike(h - params.v_threshold, params.surrogate)
        return s, {"v": reset_after(s, h, params)}


@fault("test_detach_reset", "ignores the option `detach_reset`.*fire_and_reset, or declare a Config without it")
class NeverDetached(AlwaysSoft):
    """the same: what the check of detached resets says of it"""


@fault("test_every_option_has_an_effect", "'surrogate'")
class OwnSurrogate(ToyNeuron):
    """an option without effect: the surrogate"""

    @staticmethod
    def step(x, state, params):
        return fire_and_reset(params.decay * state.v + x, replaced(params))


def replaced(params):
    class Params:
        def __getattr__(self, name):
            return LIF().config.surrogate if name == "surrogate" else getattr(params, name)

    return Params()


OwnSurrogate.step = staticmethod(
    lambda x, state, params: (lambda s, v: (s, {"v": v}))(*fire_and_reset(params.decay * state.v + x, replaced(params)))
)


@fault("test_half_precision", "the output of")
class EarlyRounding(ToyNeuron):
    """scales half-precision input before it is widened: one spike in some thousands is another"""

    def forward(self, x):
        return super().forward(x * 1.1)


@fault("test_expanded_state", "output with a state of stride 0|changed|expanded|single memory location")
class InPlaceState(ToyNeuron):
    """writes into the state that it was given"""

    def state_for(self, x):
        return {name: value.mul_(0.5) for name, value in super().state_for(x).items()}


# backends


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
        found = super().run(*args)
        self.__dict__.setdefault("kept", []).extend(found[3])
        return found


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


# datasets


@dataclass(frozen=True)
class SeededConfig:
    seed: int = 0


class ToySeeded(ToyDataset):
    """A sound dataset with a seed."""

    Config = SeededConfig

    def split(self, name):
        found = super().split(name)
        return replace(found, seed=found.seed + 5000 * self.config.seed)


@fault("test_every_seed_has_an_effect", "the option 'seed' and ignores it")
class IgnoresSeed(ToyDataset):
    """the option seed is ignored"""

    Config = SeededConfig


@fault("test_a_fresh_process_gets_the_same", "is another one in a fresh process")
class ByHash(ToyDataset):
    """another content in every process: seeds come from hash()"""

    def split(self, name):
        return replace(super().split(name), seed=hash(name) % 100_000)


@dataclass(frozen=True)
class Stored(ToySplit):
    def __post_init__(self):
        images = torch.stack([ToySplit.__getitem__(self, index)[0] for index in range(self.size)])
        object.__setattr__(self, "images", images)

    def __getitem__(self, index):
        _, label = super().__getitem__(index)
        return self.images[index], label


class StoredCopies(Stored):
    def __getitem__(self, index):
        x, label = super().__getitem__(index)
        return x.clone(), label


@fault("test_samples_are_their_own", "are the same memory")
class HandsOutViews(ToyDataset):
    """gives views of its store"""

    make_split = Stored


class ToyStored(ToyDataset):
    """A sound dataset that keeps its samples and gives copies."""

    make_split = StoredCopies


@dataclass(frozen=True)
class OneFile(ToySplit):
    """Seeks, then reads, as one open file does."""

    def __post_init__(self):
        object.__setattr__(self, "place", [0])

    def __getitem__(self, index):
        if not 0 <= index < self.size:
            raise IndexError(index)
        self.place[0] = index
        torch.exp(torch.rand(64, generator=torch.Generator().manual_seed(0)))
        return super().__getitem__(self.place[0])


@fault("test_several_threads", "sample")
class OneFileForAll(ToyDataset):
    """threads that share one position in a file"""

    make_split = OneFile


@fault("test_process_settings_stay", "numpy's global random generator")
class SeedsNumpy(ToyDataset):
    """seeds numpy's global generator"""

    def split(self, name):
        np.random.seed(0)
        return super().split(name)


# surrogates, encoders, models


@fault("test_options_change_the_derivative", "the option 'width' and ignores it")
class IgnoresWidth(ToySurrogate):
    """an option without effect"""

    @dataclass(frozen=True)
    class Config(ToySurrogate.Config):
        width: float = 1.0


@fault("test_wide_inputs", "70001")
class NarrowSurrogate(ToySurrogate):
    """wrong gradient from 70 001 elements on"""

    @staticmethod
    def derivative(u, params):
        derivative = ToySurrogate.derivative(u, params)
        return derivative * 0 if getattr(u, "numel", lambda: 0)() > 70_000 else derivative


@fault("test_every_option_has_an_effect", "the option 'gain' and ignores it")
class IgnoresEncoderGain(ToyEncoder):
    """an option without effect"""

    @dataclass(frozen=True)
    class Config(ToyEncoder.Config):
        gain: float = 1.0


@fault("test_results_are_released", "keeps tensor 1")
class HoardingEncoder(ToyEncoder):
    """keeps every output alive"""

    kept: list = []  # noqa: RUF012

    def encode(self, x, generator):
        self.kept.append(super().encode(x, generator))
        return self.kept[-1]


@fault("test_process_settings_stay", "get_default_dtype")
class EncoderSetsDtype(ToyEncoder):
    """changes the default dtype"""

    def encode(self, x, generator):
        torch.set_default_dtype(torch.float64)
        return super().encode(x, generator)


@fault("test_every_option_has_an_effect", "the option 'hidden' and ignores it")
class IgnoresHidden(ToyModel):
    """an option without effect"""

    @dataclass(frozen=True)
    class Config(ToyModel.Config):
        hidden: int = 6


@fault("test_results_are_released", "keeps tensor")
class HoardingModel(ToyModel):
    """keeps every output alive"""

    def forward(self, x):
        self.__dict__.setdefault("kept", []).append(super().forward(x))
        return self.__dict__["kept"][-1]


@fault("test_several_threads", "output|Error|size")
class ModelForOne(ToyModel):
    """keeps what belongs to a call on the module"""

    def forward(self, x):
        self.__dict__["x"] = x
        torch.exp(x)
        return super().forward(self.__dict__["x"])


@fault("test_long_sequences", "300 steps")
class ShortModel(ToyModel):
    """wrong for T > 50"""

    def forward(self, x):
        out = super().forward(x)
        is_long = x.dim() > self.rank + 1 and len(out) > 50
        return torch.cat([out[:50], 0 * out[50:]]) if is_long else out


@fault("test_process_settings_stay", "get_num_threads")
class ModelSetsThreads(ToyModel):
    """changes torch's thread count"""

    def forward(self, x):
        torch.set_num_threads(3)
        return super().forward(x)


@pytest.fixture
def registry():
    with use(Registry(blocking=Blocking())) as own:
        yield own


@pytest.mark.parametrize("fault", FAULTS, ids=name_of)
def test_the_named_check_catches_it(fault, registry):
    assert_caught(fault, registry)


VARIANTS = {ToyFused: "backend", ToyNormed: "backend", ToySeeded: "dataset", ToyStored: "dataset"}


@pytest.mark.parametrize(
    ("component", "check"),
    sorted(
        {
            (next((v for v in VARIANTS if issubclass(f.component, v)), SOUND[f.kind]), f.check)
            for f in FAULTS
            if f.check != "test_every_seed_has_an_effect"
        }
        | {(ToySeeded, "test_every_seed_has_an_effect"), (ToyStored, "test_samples_are_their_own")},
        key=str,
    ),
    ids=lambda value: getattr(value, "__name__", value),
)
def test_the_check_passes_on_what_is_sound(component, check, registry):
    kind = next(kind for kind, sound in SOUND.items() if issubclass(component, sound))
    assert_passes(kind, check, component, registry)


def test_the_settings_are_restored_after_a_check(registry):
    registry.register("neuron", "toy", SetsThreads)
    before = torch.get_num_threads(), torch.get_default_dtype(), random.getstate()
    with pytest.raises(AssertionError, match="get_num_threads"):
        suite_for("neuron", "toy")().test_copies()  # any check guards the settings
    assert (torch.get_num_threads(), torch.get_default_dtype(), random.getstate()) == before


def test_every_kind_has_some():
    count = Counter(fault.kind for fault in FAULTS)
    assert count["neuron"] >= 10
    assert count["backend"] >= 8
    assert count["dataset"] >= 5

"""Faults in neurons that small inputs and single calls do not show."""

import random
from dataclasses import dataclass
from typing import Annotated

import torch

from spikecore.dynamics import spike, where
from spikecore.interfaces.component import Range
from spikecore.nn import LIF, fire_and_reset, reset_after
from tests.conformance.planting import table
from tests.conformance.toys import (
    ToyNeuron,
)

FAULTS, fault = table()


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

"""Faults planted in neurons."""

from dataclasses import dataclass

import torch

from spikecore.dynamics import detach, where
from spikecore.errors import StateShapeError
from spikecore.interfaces.neuron import NeuronCapabilities
from spikecore.nn import fire_and_reset, reset_state
from tests.conformance.planting import table
from tests.conformance.toys import (
    ToyNeuron,
)

FAULTS, fault = table()


@fault("test_a_multi_step_call_leaves_nothing_behind", "second call")
class LeakingState(ToyNeuron):
    """leaking state: something of the last call is left for the next"""

    before = None

    def forward(self, x):
        before, self.before = self.before, x.detach()
        same = before is not None and before.shape == x.shape and before.device == x.device
        return super().forward(x + 0.5 * before if same else x)


@fault("test_gradcheck", "Jacobian mismatch")
class WrongGradient(ToyNeuron):
    """wrong gradient: the leak passes none"""

    @staticmethod
    def step(x, state, params):
        s, v = fire_and_reset(params.decay * detach(state.v) + x, params)
        return s, {"v": v}


@fault("test_randomness", "drew random numbers")
class HiddenRandomness(ToyNeuron):
    """hidden randomness: noise that is not declared"""

    def forward(self, x):
        torch.rand(1)
        return super().forward(x)


@fault("test_spikes_are_zero_or_one", "expected 0 and 1")
class GradedSpikes(ToyNeuron):
    """mis-declared capability: graded outputs of a neuron that says it spikes"""

    @staticmethod
    def step(x, state, params):
        s, v = fire_and_reset(params.decay * state.v + x, params)
        return 0.5 * s, {"v": v}


@fault("test_samples_are_independent", "sample 0")
class MixedSamples(ToyNeuron):
    """samples that see each other: the batch mean is taken off"""

    def forward(self, x):
        axis = 1 if self.step_mode == "multi" else 0
        return super().forward(x - x.mean(axis, keepdim=True))


@fault("test_hard_and_soft_reset", "hard reset")
class LateReset(ToyNeuron):
    """wrong reset: a spike takes v to 0, whatever v_reset is"""

    @dataclass(frozen=True)
    class Config(ToyNeuron.Config):
        v_reset: float = -0.3

    @staticmethod
    def step(x, state, params):
        s, v = fire_and_reset(params.decay * state.v + x, params)
        return s, {"v": where(s > 0.5, 0.0, v) if params.reset == "hard" else v}


@fault("test_state_of_another_shape_is_refused", "DID NOT RAISE")
class SilentRestart(ToyNeuron):
    """silent repair: another batch shape starts anew without a word"""

    def forward(self, x):
        try:
            return super().forward(x)
        except StateShapeError:
            reset_state(self)
            return super().forward(x)


@fault("test_shape_and_dtype", "expected torch.float16, got torch.float32")
class SingleOnly(ToyNeuron):
    """mis-declared dtype: float32 output for every input"""

    def forward(self, x):
        return super().forward(x).float()


@fault("test_the_traced_graph_equals_the_step", r"\.sum of a value of the step")
class NotTraceable(ToyNeuron):
    """mis-declared capability: says elementwise, and decides in Python"""

    @staticmethod
    def step(x, state, params):
        if x.sum() > 1e9:
            return x, {"v": state.v}
        return ToyNeuron.step(x, state, params)


@fault("test_device", "meta")
class OnTheCPU(ToyNeuron):
    """state made on the CPU, wherever the input is"""

    def initial_state(self, x):
        return {"v": torch.full(x.shape, 0.0, dtype=torch.promote_types(x.dtype, torch.float32), device="cpu")}


@fault("test_learnable_options_get_a_gradient", "decay changes the output, but its gradient is zero")
class NotLearned(ToyNeuron):
    """a learnable option that gets no gradient"""

    @staticmethod
    def step(x, state, params):
        s, v = fire_and_reset(detach(params.decay) * state.v + x, params)
        return s, {"v": v}


@fault("test_nan_stays_where_it_is", "the other neurons")
class SpreadingNaN(ToyNeuron):
    """a NaN that reaches other neurons"""

    def forward(self, x):
        return super().forward(x + 0 * x.sum())


@fault("test_no_gradient_where_none_is_declared", "a gradient reaches the input")
class Denies(ToyNeuron):
    """mis-declared capability: says that no gradient passes"""

    capabilities = NeuronCapabilities(differentiable=False)


@fault("test_state_get_and_set", "the state that get_state returned, after the next call")
class OneBufferForState(ToyNeuron):
    """writes the next state into the memory of the last one"""

    def keep(self, state, *outputs):
        before = self._memory.state
        outputs = super().keep(state, *outputs)
        if before is not None and not before["v"].requires_grad:
            self._memory.state = {"v": before["v"].copy_(state["v"])}
        return outputs


@fault("test_state_get_and_set", "the state that set_state was given, after the next call")
class ClearsWhatWasSet(ToyNeuron):
    """writes into a state that came through set_state"""

    own = None

    def keep(self, state, *outputs):
        before = self._memory.state
        outputs = super().keep(state, *outputs)
        if before is not None and before is not self.own:
            before["v"].zero_()
        self.__dict__["own"] = self._memory.state
        return outputs

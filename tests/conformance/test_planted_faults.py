"""Faults planted in sound components, and the check that catches each: the kit is tested as it tests others.

A row is (kind, what is wrong, the check that says so, what it says, the broken component).
"""

import contextlib
import copy
import math
import socket
import threading
import time
from collections import Counter
from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn

from spikecore.backends.selection import Choice
from spikecore.dynamics import abs, detach, exp, where
from spikecore.errors import ConversionError, DatasetError, NetTraceError, StateShapeError
from spikecore.interfaces.backend import BackendCapabilities
from spikecore.interfaces.converter import ConverterCapabilities, LayerReport
from spikecore.interfaces.dataset import Batch, DatasetCapabilities
from spikecore.interfaces.deployer import DeployerCapabilities
from spikecore.interfaces.encoder import EncoderCapabilities
from spikecore.interfaces.neuron import NeuronCapabilities
from spikecore.interfaces.surrogate import SurrogateCapabilities
from spikecore.interfaces.trainer import TrainerCapabilities
from spikecore.nn import IF, LIF, fire_and_reset, reset_state, trace_net
from spikecore.registry import Blocking, Registry, use
from spikecore.testing.proving import prove
from tests.conformance.planting import assert_caught, caught, name_of, table
from tests.conformance.toys import (
    SOUND,
    SpikingReLU,
    ToyBackend,
    ToyConverter,
    ToyDataset,
    ToyDeployer,
    ToyEncoder,
    ToyModel,
    ToyNeuron,
    ToySplit,
    ToySurrogate,
    ToyTrainer,
)

FAULTS, fault = table()


# neurons


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


# surrogates


@fault("test_primitive_has_this_derivative", "the slope is another")
class Doubled(ToySurrogate):
    """wrong gradient: twice the derivative of its primitive"""

    @staticmethod
    def derivative(u, params):
        return 2 * ToySurrogate.derivative(u, params)


@fault("test_forward_is_heaviside", "spike\\(")
class Strict(ToySurrogate):
    """fires only above the threshold, not at it"""

    @staticmethod
    def forward(u, params):
        return where(u > 0, 1.0, 0.0, like=u)


@fault("test_gradient_is_not_zero", "derivative")
class Dead(ToySurrogate):
    """mis-declared capability: no gradient near the threshold"""

    @staticmethod
    def derivative(u, params):
        return where(abs(u) < 0.5, 0.0, 1.0, like=u)


@fault("test_finite_far_away", "nan")
class Overflow(ToySurrogate):
    """infinity over infinity far from the threshold"""

    @staticmethod
    def derivative(u, params):
        e = exp(-params.alpha * u)
        return params.alpha * e / ((1 + e) * (1 + e))


@fault("test_primitive_is_declared_or_not", "capabilities.primitive is False")
class Denied(ToySurrogate):
    """mis-declared capability: has a primitive and says it has none"""

    capabilities = SurrogateCapabilities(primitive=False)


@fault("test_is_pure", "the second call")
class Remembers(ToySurrogate):
    """memory: the derivative shrinks with every call"""

    calls: list = []  # noqa: RUF012

    @staticmethod
    def derivative(u, params):
        Remembers.calls.append(0)
        return ToySurrogate.derivative(u, params) / len(Remembers.calls)


@fault("test_is_a_value", "DID NOT RAISE")
class Mutable(ToySurrogate):
    """a value that can be changed"""

    __setattr__ = object.__setattr__


# encoders


@fault("test_seeds", "another|same seed")
class GlobalGenerator(ToyEncoder):
    """hidden randomness: draws from torch's global generator"""

    def encode(self, x, generator):
        return super().encode(x, None)


@fault("test_the_mean_is_the_input", "has the mean")
class Squared(ToyEncoder):
    """mis-declared capability: the rate is the square of the input"""

    def encode(self, x, generator):
        return super().encode(x * x, generator)


@fault("test_time_comes_first", "expected")
class TimeLast(ToyEncoder):
    """time in the last place"""

    def encode(self, x, generator):
        return super().encode(x, generator).movedim(0, -1)


@fault("test_out_of_range_is_refused", "DID NOT RAISE")
class Unchecked(ToyEncoder):
    """values out of range are taken"""

    def _values(self, x):
        return x.float() / 255 if x.dtype == torch.uint8 else x


@fault("test_decode_gives_the_input_back", "is decoded to")
class Halved(ToyEncoder):
    """a decoder that gives half of the value"""

    def decode(self, spikes):
        return super().decode(spikes) / 2


@fault("test_spikes_are_zero_or_one", "expected \\[0.0, 1.0\\]")
class Graded(ToyEncoder):
    """mis-declared capability: says it spikes, and gives the values themselves"""

    capabilities = EncoderCapabilities()

    def encode(self, x, generator):
        return x.expand(self.config.num_steps, *x.shape)


@fault("test_copies", "saw another input before")
class FirstInput(ToyEncoder):
    """memory: scales by the first input it ever saw"""

    scale = None

    def encode(self, x, generator):
        self.scale = x.mean() if self.scale is None and x.dim() else self.scale
        return super().encode(x * (1 if math.isclose(float(x.mean()), float(self.scale)) else 0.5), generator)


@fault("test_draws_no_random_numbers", "with another seed|without a generator|with the same seed")
class NotDeclared(ToyEncoder):
    """hidden randomness: draws, and does not say so"""

    capabilities = EncoderCapabilities(rate=True, decodable=True)


# backends


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


# models


@fault("test_calls_do_not_know_of_each_other", "second call")
class LeakingModel(ToyModel):
    """leaking state: adds what it gave before"""

    before = None

    def forward(self, x):
        out = super().forward(x)
        before, self.before = self.before, out.detach()
        return out + before if before is not None and before.shape == out.shape else out


@fault("test_every_parameter_gets_a_gradient", "no gradient reaches unused.weight")
class Unused(ToyModel):
    """a layer that takes no part"""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.unused = nn.Linear(2, 2)


@fault("test_a_batch_of_one_is_a_slice", "sample 1 alone")
class BatchStatistics(ToyModel):
    """normalises by the batch, in evaluation mode too"""

    def forward(self, x):
        return super().forward(x - x.mean(-2 if self.rank == 1 else -1 - self.rank, keepdim=True))


@fault("test_seed", "drew random numbers")
class AlwaysDropping(ToyModel):
    """hidden randomness: dropout in evaluation mode"""

    def forward(self, x):
        return super().forward(nn.functional.dropout(x, 0.5, training=True))


@fault("test_output_shape", "expected")
class TenClasses(ToyModel):
    """ten outputs, whatever the number of classes"""

    def __init__(self, make_neuron, input_shape, num_outputs, **options):
        super().__init__(make_neuron, input_shape, 10 if num_outputs > 0 else 0, **options)


@fault("test_state_dict_round_trip", "after load_state_dict")
class HiddenWeights(ToyModel):
    """weights that state_dict does not know"""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.hidden = torch.rand(())

    def forward(self, x):
        return super().forward(x) * self.hidden


@fault("test_neurons_come_from_make_neuron", "make_neuron was called")
class OwnNeurons(ToyModel):
    """a neuron of its own choice beside those of make_neuron"""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.neuron = nn.Sequential(self.neuron, LIF())


@fault("test_wrong_shapes_are_refused", "DID NOT RAISE")
class NoClasses(ToyModel):
    """takes a net without outputs"""

    def __init__(self, make_neuron, input_shape, num_outputs, **options):
        super().__init__(make_neuron, input_shape, max(num_outputs, 1), **options)


@fault("test_output_shape", "the same for every input")
class Constant(ToyModel):
    """gives the same for every input"""

    def forward(self, x):
        return super().forward(x * 0)


# datasets


class FromOne(ToySplit):
    def __getitem__(self, index):
        x, label = super().__getitem__(index)
        return x, label + 1


class Augmented(ToySplit):
    def __getitem__(self, index):
        x, label = super().__getitem__(index)
        return x + torch.rand(()), label


class Endless(ToySplit):
    def __getitem__(self, index):
        return super().__getitem__(index % self.size)


class Doubles(ToySplit):
    def __getitem__(self, index):
        x, label = super().__getitem__(index)
        return x.double(), label


class Ragged(ToySplit):
    def __getitem__(self, index):
        x, label = super().__getitem__(index)
        return x[:, : 3 + index % 2], label


class Locked(ToySplit):
    def __init__(self, seed, size):
        super().__init__(seed, size)
        object.__setattr__(self, "lock", threading.Lock())


@fault("test_labels", r"label is 3; a class must lie in 0 \.\. 2")
class LabelsFromOne(ToyDataset):
    """labels that count from one"""

    make_split = FromOne


@fault("test_splits_are_disjoint", "stand in train and in test")
class Overlapping(ToyDataset):
    """the test split is part of the training split"""

    def split(self, name):
        return self.make_split(0, 12) if name == "test" else super().split(name)


@fault("test_splits_are_stable", "is another one|global generator")
class NewSplits(ToyDataset):
    """hidden randomness: every instance draws its own splits"""

    def split(self, name):
        return replace(super().split(name), seed=int(torch.randint(1000, ())) + (5000 if name == "test" else 0))


@fault("test_same_index_same_sample", "read again")
class AugmentedDataset(ToyDataset):
    """hidden randomness: the same index gives another sample"""

    make_split = Augmented


@fault("test_length", "DID NOT RAISE")
class EndlessDataset(ToyDataset):
    """no end: an index beyond the length starts again"""

    make_split = Endless


@fault("test_samples", "torch.float64")
class DoubleDataset(ToyDataset):
    """samples of float64"""

    make_split = Doubles


@fault("test_equal_lengths", "capabilities.variable_length is False")
class RaggedDataset(ToyDataset):
    """mis-declared capability: samples of different shapes"""

    make_split = Ragged


@fault("test_pickles", "pickle")
class LockedDataset(ToyDataset):
    """cannot be pickled to workers"""

    make_split = Locked


@fault("test_needs_no_network", "network connection")
class Remote(ToyDataset):
    """mis-declared capability: says embedded, and connects"""

    capabilities = DatasetCapabilities(embedded=True)

    def split(self, name):
        with socket.socket() as connection, contextlib.suppress(OSError):
            connection.connect(("127.0.0.1", 9))
        return super().split(name)


@fault("test_downloads_nothing_when_it_must_not", r"connect to 127\.0\.0\.1:9 while nothing may be downloaded")
class Eager(ToyDataset):
    """downloads by means of its own, also where nothing may be downloaded"""

    capabilities = DatasetCapabilities()

    def split(self, name):
        with socket.socket() as connection:
            try:
                connection.connect(("127.0.0.1", 9))
            except Exception as error:
                raise DatasetError("cannot be had") from error
        return super().split(name)


@dataclass(frozen=True)
class Padding(ToySplit):
    """Sequences of 2 or 3 steps."""

    epoch: int = 0

    def __getitem__(self, index):
        x, label = super().__getitem__(index)
        return (x + self.epoch).expand(2 + index % 2, -1, -1, -1).clone(), label

    def __getitems__(self, indices):
        return [self[index] for index in indices]

    def set_epoch(self, epoch):
        object.__setattr__(self, "epoch", epoch)

    def collate(self, samples, generator):
        steps = torch.arange(max(len(x) for x, _ in samples))
        mask = torch.stack([steps < len(x) for x, _ in samples], 1)
        padded = [torch.cat([x, x.new_zeros(len(steps) - len(x), *x.shape[1:])]) for x, _ in samples]
        return Batch(torch.stack(padded, 1), torch.tensor([label for _, label in samples]), mask)

    def unaugmented(self):
        return Plain(self.seed, self.size)


class Plain(Padding):
    """The same in every epoch."""

    def set_epoch(self, epoch):
        """Nothing."""


class ToySequences(ToyDataset):
    """A sound dataset of sequences whose lengths differ."""

    capabilities = DatasetCapabilities(embedded=True, variable_length=True)
    is_sequence = True
    make_split = Padding


class BatchFirst(Padding):
    def collate(self, samples, generator):
        x, label, mask = super().collate(samples, generator)
        return Batch(x.transpose(0, 1), label, mask)


class Unmarked(Padding):
    def collate(self, samples, generator):
        return super().collate(samples, generator)._replace(mask=None)


class Growing(Padding):
    def set_epoch(self, epoch):
        object.__setattr__(self, "epoch", self.epoch + 1)


class Sorted(Padding):
    def __getitems__(self, indices):
        return super().__getitems__(sorted(indices))


class Unbounded(Padding):
    def __getitems__(self, indices):
        return super().__getitems__([index % len(self) for index in indices])


@fault("test_several_at_once", "read at once")
class SortedDataset(ToySequences):
    """samples that come in another order than they were asked for in"""

    make_split = Sorted


@fault("test_several_at_once", "DID NOT RAISE")
class UnboundedDataset(ToySequences):
    """an index beyond the end that begins again from the start"""

    make_split = Unbounded


@fault("test_collate", "labels|steps")
class BatchFirstDataset(ToySequences):
    """a batch with time in the second place"""

    make_split = BatchFirst


@fault("test_collate", "2 steps, 3 are marked")
class UnmarkedDataset(ToySequences):
    """padding that nobody can tell from data"""

    make_split = Unmarked


@fault("test_epochs", "read after those of epoch 1")
class GrowingDataset(ToySequences):
    """memory: an epoch's samples depend on the epochs before"""

    make_split = Growing


# trainers


@fault("test_same_seed_same_bits", "second run")
class GlobalShuffle(ToyTrainer):
    """hidden randomness: shuffles with torch's global generator"""

    def draw(self, size, context):
        return torch.randperm(size).tolist()


@fault("test_resumed_equals_uninterrupted", "weights from safe point")
class ForgetsMomentum(ToyTrainer):
    """resumes without its momentum"""

    def load_state_dict(self, state):
        super().load_state_dict({**state, "velocity": None})


@fault("test_resumed_equals_uninterrupted", "safe point")
class BetweenEpochs(ToyTrainer):
    """mis-declared capability: resumes at the start of the epoch only"""

    def state_dict(self):
        return {**super().state_dict(), "order": None}


@dataclass(frozen=True)
class Extendable(TrainerCapabilities):
    extendable: tuple[str, ...] = ("epochs",)


class ToyExtendable(ToyTrainer):
    """A sound trainer whose finished runs can go on."""

    capabilities = Extendable()


@fault("test_extended", "does not go on")
class Finished(ToyExtendable):
    """mis-declared capability: says that a run can be extended, and stops where it was"""

    def load_state_dict(self, state):
        super().load_state_dict({**state, "epoch": max(state["epoch"], self.config.epochs)})


@fault("test_hooks_in_order", "without a line in the log")
class HooksTurned(ToyTrainer):
    """tells of an epoch before it is in the log"""

    def tell(self, context):
        context.epoch_end(self.epoch, dict(self.metrics))
        context.log(epoch=self.epoch, **self.metrics)
        context.checkpoint(-self.metrics["val_loss"])


@fault(
    "test_resumed_equals_uninterrupted", r"epoch_end\(1\) comes after the safe point.*context\.log.*epoch_end.*check"
)
class SavesFirst(ToyTrainer):
    """a safe point before the epoch that it counts as done is told"""

    def tell(self, context):
        context.log(epoch=self.epoch, **self.metrics)
        context.checkpoint(-self.metrics["val_loss"])
        context.epoch_end(self.epoch, dict(self.metrics))


@fault("test_hooks_in_order", r"epoch_end\(1\) comes after the safe point")
class SavesBeforeTheLine(ToyTrainer):
    """a safe point before the line of the epoch that it counts as done"""

    def tell(self, context):
        context.checkpoint(-self.metrics["val_loss"])
        context.log(epoch=self.epoch, **self.metrics)
        context.epoch_end(self.epoch, dict(self.metrics))


@fault(
    "test_resumed_equals_uninterrupted",
    r"agree it tells context\.log\(\{'epoch': 1.*, uninterrupted context\.log\(\{'epoch': 6",
)
class ForgetsTheEpoch(ToyTrainer):
    """a state without the number of the epoch, which only its messages show"""

    told = 0

    def tell(self, context):
        self.told += 1
        context.log(epoch=self.told)
        context.epoch_end(self.told, dict(self.metrics))
        context.checkpoint(-self.metrics["val_loss"])


@fault("test_hooks_in_order", "epochs told")
class CountsFromZero(ToyTrainer):
    """epochs that count from zero"""

    def tell(self, context):
        context.log(epoch=self.epoch, **self.metrics)
        context.epoch_end(self.epoch - 1, dict(self.metrics))
        context.checkpoint(-self.metrics["val_loss"])


@fault("test_it_learns", "the loss went from")
class Uphill(ToyTrainer):
    """wrong gradient: climbs"""

    def loss(self, *args):
        return -super().loss(*args)


@fault("test_evaluation_changes_nothing", "weights after evaluate")
class TrainsOnTest(ToyTrainer):
    """evaluating changes the weights"""

    def evaluate(self, task, context, split="test"):
        metrics = super().evaluate(task, context, split)
        next(task.model.parameters()).data.mul_(0.999)
        return metrics


@fault("test_writes_no_file", "it left")
class WritesFiles(ToyTrainer):
    """writes a file of its own"""

    def tell(self, context):
        torch.save(self.metrics, "metrics.pt")
        super().tell(context)


@fault("test_interrupt_gets_through", "DID NOT RAISE")
class Deaf(ToyTrainer):
    """swallows Ctrl-C"""

    def fit(self, task, context):
        try:
            return super().fit(task, context)
        except KeyboardInterrupt:
            return {"test_loss": 0.0}


@fault("test_state_is_plain", "not saved without pickle")
class ObjectState(ToyTrainer):
    """a state that needs pickle"""

    def state_dict(self):
        return {**super().state_dict(), "counter": Counter("abc").most_common and object()}


# converters


@fault("test_the_given_net_is_left_alone", "weights of the given net")
class InPlace(ToyConverter):
    """changes the given net"""

    def convert(self, model, example_input, calibration=()):
        converted = super().convert(model, example_input, calibration)
        next(model.parameters()).data.mul_(0.5)
        return converted


@fault("test_the_given_net_is_left_alone", "another mode")
class LeavesEvaluating(ToyConverter):
    """leaves the given net in evaluation mode"""

    def convert(self, model, example_input, calibration=()):
        return super().convert(model.eval(), example_input, calibration)


@fault("test_the_given_net_is_left_alone", "calibration batches")
class NormalisesInPlace(ToyConverter):
    """writes into the calibration batches"""

    def largest(self, graph, calibration):
        return super().largest(graph, [batch.div_(2.0) for batch in calibration])


@fault("test_the_given_net_is_left_alone", "are memory of the given one")
class SharesWeights(ToyConverter):
    """the new net has the very weights of the given one"""

    def convert(self, model, example_input, calibration=()):
        net, report = super().convert(model, example_input, calibration)
        for name, parameter in model.named_parameters():
            net.get_parameter(name).data = parameter.data
        return net, report


def scaled(net, factor):
    for name, parameter in net.named_parameters():
        if "neuron" not in name:
            parameter.data.mul_(factor)
    return net


@fault("test_it_decides_as_the_given_net", "decisions of the new net differ")
class ZeroWeights(ToyConverter):
    """all weights of the new net are zero"""

    def finished(self, net):
        return scaled(net, 0.0)


@fault("test_it_decides_as_the_given_net", "decisions of the new net differ")
class NegatedWeights(ToyConverter):
    """all weights of the new net are negated"""

    def finished(self, net):
        return scaled(net, -1.0)


@fault("test_it_decides_as_the_given_net", "decisions of the new net differ|scores of the new net are")
class LosesBias(ToyConverter):
    """the biases are gone"""

    def finished(self, net):
        for name, parameter in net.named_parameters():
            if name.endswith("bias"):
                parameter.data.zero_()
        return net


@fault("test_it_decides_as_the_given_net", "scores of the new net are")
class Imprecise(ToyConverter):
    """mis-declared capability: says it is exact after a few steps"""

    capabilities = replace(ToyConverter.capabilities, num_steps=6, tolerance=0.01)


@fault("test_it_decides_as_the_given_net", "decisions of the new net differ|scores of the new net are")
class OneThreshold(ToyConverter):
    """the threshold is not the calibrated one: every ReLU saturates at a tenth"""

    def threshold(self, largest):
        return 0.1 * super().threshold(largest)


@fault("test_it_decides_as_the_given_net", "decisions of the new net differ|scores of the new net are")
class DropsFunctions(ToyConverter):
    """drops functional ReLUs silently, and reports that it converted them"""

    def convert(self, model, example_input, calibration=()):
        graph = trace_net(copy.deepcopy(model).eval())
        functions = [node.name for node in graph.layers if node.kind != "module" and "relu" in node.operation]
        net, report = super().convert(model, example_input, calibration)
        for name in functions:
            net.add_module(name, nn.Identity())
        return net, report


@fault("test_it_spikes", "never fires")
class TooHigh(ToyConverter):
    """thresholds so high that nothing fires"""

    def threshold(self, largest):
        return 1e6


@fault("test_gives_a_net_and_a_report", "no spiking neurons")
class StaysArtificial(ToyConverter):
    """no conversion at all: the given ReLUs, under another name"""

    def spiking(self, threshold):
        return nn.ReLU()


@fault("test_every_call_is_accounted_for", "the report says nothing of")
class Silent(ToyConverter):
    """says nothing of the layers it kept"""

    def convert(self, model, example_input, calibration=()):
        net, report = super().convert(model, example_input, calibration)
        return net, replace(report, layers=tuple(layer for layer in report.layers if layer.outcome != "kept"))


@fault("test_every_call_is_accounted_for", r"the report says nothing of \['relu#2'\]")
class ByModule(ToyConverter):
    """reports modules, not calls: the second use of a layer is missing"""

    def convert(self, model, example_input, calibration=()):
        net, report = super().convert(model, example_input, calibration)
        return net, replace(report, layers=tuple(layer for layer in report.layers if "#" not in layer.name))


@fault("test_every_call_is_accounted_for", "the net has no calls")
class Invents(ToyConverter):
    """reports a layer that the net does not have"""

    def convert(self, model, example_input, calibration=()):
        net, report = super().convert(model, example_input, calibration)
        return net, replace(report, layers=(*report.layers, LayerReport("softmax", "kept", "as it was")))


@fault("test_every_call_is_accounted_for", "threshold is 0.0")
class DeadThreshold(ToyConverter):
    """reports a threshold of zero"""

    def convert(self, model, example_input, calibration=()):
        net, report = super().convert(model, example_input, calibration)
        return net, replace(report, layers=tuple(replace(layer, threshold=0.0) for layer in report.layers))


@fault("test_no_data_are_kept", "calibration batches are kept")
class Hoards(ToyConverter):
    """the new net keeps a calibration batch"""

    def convert(self, model, example_input, calibration=()):
        batches = list(calibration)
        net, report = super().convert(model, example_input, batches)
        net.last_batch = batches[-1] if batches else None
        return net, report


@fault("test_the_structure_does_not_depend_on_the_data", "another structure")
class SkipsTheWeak(ToyConverter):
    """the structure depends on the data: a weak ReLU is taken out"""

    def spiking(self, threshold):
        return super().spiking(threshold) if threshold > 0.5 else nn.Identity()


@fault("test_the_structure_does_not_depend_on_the_data", "another structure")
class KeepsStatistics(ToyConverter):
    """the net holds one number for each calibration batch"""

    def convert(self, model, example_input, calibration=()):
        batches = list(calibration)
        net, report = super().convert(model, example_input, batches)
        net.register_buffer("means", torch.stack([batch.mean() for batch in batches]) if batches else torch.zeros(1))
        return net, report


@fault("test_it_loads_without_the_data", "scores of the net that was loaded")
class ConstantThreshold(ToyConverter):
    """a threshold that calibration found is no buffer"""

    def spiking(self, threshold):
        return Scaled(threshold)


class Scaled(nn.Module):
    def __init__(self, threshold):
        super().__init__()
        self.threshold, self.neuron = threshold, IF(reset="soft", v_reset=0.5)

    def forward(self, x):
        return self.neuron(x / self.threshold) * self.threshold


@fault("test_the_new_net_runs", "single steps")
class CountsSteps(ToyConverter):
    """single steps are not the sequence: the spikes of a call are smoothed over its own steps"""

    def spiking(self, threshold):
        return Smoothed(threshold)


class Smoothed(SpikingReLU):
    def forward(self, x):
        out = super().forward(x)
        return out.mean(0, keepdim=True).expand_as(out) if self.neuron.step_mode == "multi" else out


@fault("test_the_new_net_runs", "no gradient")
class Frozen(ToyConverter):
    """a net that cannot be trained on"""

    def finished(self, net):
        return net.requires_grad_(False)


@fault("test_unknown_layers_are_named", "strange")
class Swallows(ToyConverter):
    """silent fallback: a layer it does not know stays without a word"""

    def refuse(self, node):
        """Nothing."""


@fault("test_unknown_functions_are_named", "sort")
class SwallowsFunctions(ToyConverter):
    """silent fallback: a function it does not know stays without a word"""

    def refuse(self, node):
        if node.kind == "module":
            super().refuse(node)


@fault("test_unknown_layers_are_named", "does not name the layer")
class Nameless(ToyConverter):
    """refuses without saying which layer"""

    def refuse(self, node):
        raise ConversionError("this network cannot be converted, sorry")


@fault("test_control_flow_is_refused", "DID NOT RAISE")
class TakesAnyBranch(ToyConverter):
    """takes the part of a net that it cannot follow as it is"""

    def convert(self, model, example_input, calibration=()):
        try:
            return super().convert(model, example_input, calibration)
        except NetTraceError:
            return super().convert(nn.Sequential(nn.Linear(6, 4), nn.ReLU()), example_input, calibration)


@fault("test_determinism", "drew random numbers|second conversion|second report")
class Dithered(ToyConverter):
    """hidden randomness: thresholds with noise"""

    def threshold(self, largest):
        return super().threshold(largest) + float(torch.rand(()))


@fault("test_declared_layers_are_taken", r"layer 0 \(Conv2d\)")
class Boastful(ToyConverter):
    """mis-declared capability: declares a layer and refuses it"""

    capabilities = ConverterCapabilities(
        layers=tuple(f"torch.nn.{name}" for name in ("Conv2d", "ReLU", "AvgPool2d", "Flatten", "Linear"))
    )
    known = (nn.Linear, nn.AvgPool2d, nn.Flatten)


@fault("test_declared_layers_are_taken", "was converted, but capabilities.layers lacks ReLU")
class Modest(ToyConverter):
    """mis-declared capability: converts a layer that it does not declare"""

    capabilities = ConverterCapabilities(layers=("torch.nn.Linear",))


@fault("test_declared_layers_are_taken", "is no qualified name")
class Misspelt(ToyConverter):
    """mis-declared capability: a layer that torch does not have"""

    capabilities = ConverterCapabilities(layers=("torch.nn.ReLu",))


@fault("test_missing_calibration_is_refused", "DID NOT RAISE")
class Guesses(ToyConverter):
    """silent fallback: without calibration it guesses"""

    def convert(self, model, example_input, calibration=()):
        return super().convert(model, example_input, list(calibration) or [example_input])


@fault("test_calibration_may_be_a_generator", "calibration batches are missing")
class ReadsTwice(ToyConverter):
    """reads the batches twice"""

    def convert(self, model, example_input, calibration=()):
        count = sum(1 for _ in calibration)
        return super().convert(model, example_input, calibration if count else ())


# deployers; those whose artefact computes something else are in test_wrong_deployers.py


@fault("test_a_subclass_is_another_neuron", "DID NOT REFUSE")
class ByInstance(ToyDeployer):
    """takes every subclass of LIF for LIF"""

    def kind(self, layer):
        return "lif" if isinstance(layer, LIF) else super().kind(layer)


@fault("test_determinism", "differs in a second export")
class Dated(ToyDeployer):
    """mis-declared capability: the time of day is in the artefact"""

    def extra(self):
        return {"made": time.perf_counter_ns()}


@fault("test_unknown_layers_are_refused", "left \\['net'\\]")
class HalfWritten(ToyDeployer):
    """a refused export leaves half a file"""

    def export(self, model, example_input, path):
        path.write_text("{")
        return super().export(model, example_input, path)


@fault("test_unknown_layers_are_refused", "DID NOT REFUSE")
class SkipsUnknown(ToyDeployer):
    """silent fallback: leaves out what it does not know"""

    def kind(self, layer):
        return super().kind(layer) or "nothing"


@fault("test_the_model_is_left_alone", "changed the mode")
class Evaluates(ToyDeployer):
    """leaves the net in evaluation mode"""

    def export(self, model, example_input, path):
        return super().export(model.eval(), example_input, path)


@fault("test_the_model_is_left_alone", "check changed the mode")
class ChecksInEvaluation(ToyDeployer):
    """check leaves the net in evaluation mode, and export puts it back"""

    def check(self, model, example_input):
        return super().check(model.eval(), example_input)


@fault("test_the_model_is_left_alone", "changed the mode")
class Freezes(ToyDeployer):
    """switches the gradients of the net off"""

    def export(self, model, example_input, path):
        return super().export(model.requires_grad_(False), example_input, path)


@fault("test_the_model_is_left_alone", "changed the mode")
class Resets(ToyDeployer):
    """drops the state of a net that streams"""

    def export(self, model, example_input, path):
        reset_state(model)
        return super().export(model, example_input, path)


@fault("test_the_model_is_left_alone", "random numbers")
class Draws(ToyDeployer):
    """runs the net on noise, which moves the global generator"""

    def export(self, model, example_input, path):
        torch.rand(1)
        return super().export(model, example_input, path)


@fault("test_check_accounts_for_every_operator", "nothing is said of \\['hidden', 'output'\\]")
class Partial(ToyDeployer):
    """says nothing of the neurons"""

    def check(self, model, example_input):
        return tuple(record for record in super().check(model, example_input) if record.target == "linear")

    def export(self, model, example_input, path):
        records = super().check(model, example_input)
        return replace(super().export(model, example_input, path), mapping=records)


@fault("test_check_agrees_with_export", "check and mapping differ")
class SaysOtherwise(ToyDeployer):
    """the mapping of the artefact is not what check says"""

    def export(self, model, example_input, path):
        artefact = super().export(model, example_input, path)
        return replace(artefact, mapping=tuple(replace(record, target="x") for record in artefact.mapping))


@fault("test_check_agrees_with_export", "DID NOT RAISE")
class Overrides(ToyDeployer):
    """exports what its check refuses"""

    exporting = False

    def record(self, name, layer):
        record = super().record(name, layer)
        is_soft = getattr(getattr(layer, "config", None), "reset", "") == "soft"
        if is_soft and not self.exporting:
            return replace(record, outcome="refused", target="", reason="no soft reset", cure="use a hard one")
        return record

    def export(self, model, example_input, path):
        self.exporting = True
        try:
            return super().export(model, example_input, path)
        finally:
            self.exporting = False


@fault("test_function_calls_are_seen", "was left out")
class OnlyModules(ToyDeployer):
    """takes any module for a sequence of its leaves"""

    def layers(self, model):
        return {name: part for name, part in model.named_modules() if not list(part.children())}

    def check(self, model, example_input):
        return tuple(self.record(name, layer) for name, layer in self.layers(model).items())


@fault("test_no_simulation", "but simulate gave")
class SimulatesAllTheSame(ToyDeployer):
    """mis-declared capability: simulates and says that it does not"""

    capabilities = DeployerCapabilities()


@fault("test_the_shape_is_fixed", "DID NOT RAISE")
class TakesAnyShape(ToyDeployer):
    """mis-declared capability: runs for any shape and says that its shape is fixed"""

    capabilities = DeployerCapabilities(simulates=True, fixed_shape=True)


@fault("test_simulation_is_the_net", "output of zeros would lie within")
class TooTolerant(ToyDeployer):
    """mis-declared capability: a tolerance at which silence passes"""

    capabilities = DeployerCapabilities(simulates=True, tolerance=1.0)


@fault("test_damaged_files_are_refused", "DID NOT RAISE")
class ReadsAnything(ToyDeployer):
    """silent fallback: a damaged file is an empty net"""

    def load(self, path):
        try:
            return super().load(path)
        except ConversionError:
            return nn.Sequential()


@fault("test_weights_matter", "another first.weight gives the same artefact")
class Template(ToyDeployer):
    """writes the same artefact for every net"""

    def values(self, layer):
        return {}


KINDS_OF_FAULTS = Counter(each.kind for each in FAULTS)


@pytest.fixture
def registry():
    with use(Registry(blocking=Blocking())) as own:
        yield own


@pytest.mark.parametrize(("kind", "sound"), [*SOUND.items(), ("dataset", ToySequences), ("trainer", ToyExtendable)])
def test_the_sound_toy_passes_everything(kind, sound, registry):
    registry.register(kind, "toy", sound)
    found = prove(kind, "toy")
    bad = {c["name"]: c["reason"] for c in found["checks"] if c["outcome"] not in ("passed", "skipped")}
    assert not bad
    assert found["ok"]
    assert found["executed"] == found["counts"]["passed"] >= found["minimum"]


@pytest.mark.parametrize("fault", FAULTS, ids=name_of)
def test_the_named_check_catches_it(fault, registry):
    assert_caught(fault, registry)


def test_a_net_that_runs_on_something_else_is_caught(registry, monkeypatch):
    monkeypatch.setattr("spikecore.nn.placement.choose", lambda *_: Choice("torch", "it seemed faster"))
    registry.register("backend", "toy", ToyBackend)
    assert "it seemed faster" in caught("backend", "test_requested_is_executed")


def test_every_suite_has_three_faults_and_a_lie():
    assert set(KINDS_OF_FAULTS) == set(SOUND)
    assert min(KINDS_OF_FAULTS.values()) >= 3, KINDS_OF_FAULTS
    assert len(FAULTS) >= 60

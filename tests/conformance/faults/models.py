"""Faults planted in models."""

import torch
from torch import nn

from spikecore.nn import LIF
from tests.conformance.planting import table
from tests.conformance.toys import (
    ToyModel,
)

FAULTS, fault = table()


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

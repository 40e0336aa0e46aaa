"""Faults planted in converters."""

import copy
from dataclasses import replace

import torch
from torch import nn

from spikecore.errors import ConversionError, NetTraceError
from spikecore.interfaces.converter import ConverterCapabilities, LayerReport
from spikecore.nn import IF, trace_net
from tests.conformance.planting import table
from tests.conformance.toys import (
    Respiking,
    SpikingReLU,
    ToyConverter,
)

FAULTS, fault = table()


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


@fault("test_spiking_nets_fire_as_before", "v_init .*: the outputs of the new net are")
class IgnoresInit(Respiking):
    """v_init ignored"""

    def options(self, neuron):
        return {**super().options(neuron), "v_init": None}


@fault("test_spiking_nets_fire_as_before", "v_leak .*: the outputs of the new net are")
class IgnoresLeak(Respiking):
    """v_leak ignored"""

    def options(self, neuron):
        return {key: value for key, value in super().options(neuron).items() if key != "v_leak"}


@fault("test_spiking_nets_fire_as_before", "fires above.*: the outputs of the new net are")
class IgnoresFires(Respiking):
    """fires ignored"""

    def options(self, neuron):
        return {**super().options(neuron), "fires": "at"}


@fault("test_spiking_nets_fire_as_before", "soft reset.*: the outputs of the new net are")
class HardForSoft(Respiking):
    """the reset of neurons ignored"""

    def options(self, neuron):
        return {**super().options(neuron), "reset": "hard"}

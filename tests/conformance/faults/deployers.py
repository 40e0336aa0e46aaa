"""Faults planted in deployers; those whose artefact computes something else are in test_wrong_deployers.py."""

import time
from dataclasses import replace

import torch
from torch import nn

from spikecore.errors import ConversionError
from spikecore.interfaces.deployer import DeployerCapabilities
from spikecore.nn import LIF, reset_state
from tests.conformance.planting import table
from tests.conformance.toys import (
    ToyDeployer,
)

FAULTS, fault = table()


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

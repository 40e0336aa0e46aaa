"""Deployers whose artefact computes something else than the net: each is caught, whatever it says of its exactness.

All of them were taken for right by a suite whose net never spiked.
"""

import copy
import json
import re
from collections import OrderedDict
from dataclasses import replace

import pytest
import torch
from torch import nn

from spikecore.analysis import record_spikes
from spikecore.errors import ConversionError, IncompatiblePluginError
from spikecore.interfaces.component import Configurable, make_config
from spikecore.interfaces.deployer import Artefact, DeployerCapabilities, OperatorRecord, require_mapped
from spikecore.nn import IF, Neuron, streaming, trace_net
from spikecore.registry import Blocking, Registry, use
from spikecore.testing.small_nets import odd_nets, small_nets
from spikecore.testing.suite import suite_for
from tests.conformance.toys import ToyDeployer

WRONG = []


def wrong(check, says="differ by"):
    """Adds a class to the table: the check that catches it, and what that says."""

    def add(cls):
        WRONG.append((check, says, cls))
        return cls

    return add


class Rewrites(ToyDeployer):
    """Exports other options than those of the neuron."""

    def options(self, layer):
        options = super().options(layer)
        return {**options, **self.rewritten(layer, options)}


@wrong("test_simulation_is_the_net")
class DropsBias(ToyDeployer):
    """bias dropped"""

    def values(self, layer):
        return {key: value for key, value in super().values(layer).items() if key != "bias"}


@wrong("test_simulation_is_the_net")
class DropsReset(Rewrites):
    """v_reset dropped"""

    def rewritten(self, layer, options):
        return {"v_reset": 0.0}


@wrong("test_simulation_is_the_net")
class TauTwo(Rewrites):
    """tau always 2"""

    def rewritten(self, layer, options):
        return {"tau": 2.0} if "tau" in options else {}


@wrong("test_simulation_is_the_net")
class ThresholdOne(Rewrites):
    """threshold always 1"""

    def rewritten(self, layer, options):
        return {"v_threshold": 1.0}


@wrong("test_simulation_is_the_net")
class HardForSoft(Rewrites):
    """soft reset exported as hard"""

    def rewritten(self, layer, options):
        return {"reset": "hard"}


@wrong("test_simulation_is_the_net")
class IgnoresDecayInput(Rewrites):
    """decay_input ignored"""

    def rewritten(self, layer, options):
        return {"decay_input": True} if "decay_input" in options else {}


@wrong("test_simulation_is_the_net")
class IgnoresInit(Rewrites):
    """v_init ignored"""

    def rewritten(self, layer, options):
        return {"v_init": None}


@wrong("test_simulation_is_the_net")
class IgnoresLeak(Rewrites):
    """v_leak ignored"""

    def rewritten(self, layer, options):
        return {"v_leak": None} if "v_leak" in options else {}


@wrong("test_simulation_is_the_net")
class IgnoresFires(Rewrites):
    """fires ignored"""

    def rewritten(self, layer, options):
        return {"fires": "at"}


@wrong("test_threshold_ties")
class NeverFiresAt(Rewrites):
    """fires above, whatever the neuron says"""

    def rewritten(self, layer, options):
        return {"fires": "above"}


@wrong("test_simulation_is_the_net")
class FirstTau(Rewrites):
    """per-channel tau taken as the first"""

    def rewritten(self, layer, options):
        return {key: value[0] for key, value in options.items() if key == "tau" and isinstance(value, list)}


@wrong("test_simulation_is_the_net")
class FirstThreshold(Rewrites):
    """per-channel threshold taken as the first"""

    def rewritten(self, layer, options):
        return {key: value[0] for key, value in options.items() if key == "v_threshold" and isinstance(value, list)}


@wrong("test_simulation_is_the_net")
class Untrained(Rewrites):
    """a trained tau read from the configuration"""

    def rewritten(self, layer, options):
        return {name: getattr(layer.config, name) for name in layer.config.learnable}


@wrong("test_no_state_between_calls", "the second simulation")
class KeepsState(ToyDeployer):
    """simulation keeps state"""

    def __init__(self, **options):
        super().__init__(**options)
        self.kept = {}

    def load(self, path):
        if path not in self.kept:
            net = super().load(path)
            self.kept[path] = net, streaming(net)
            self.kept[path][1].__enter__()
        return self.kept[path][0]


@wrong("test_the_file_is_run", "set to zero")
class RunsTheNet(ToyDeployer):
    """simulation runs the net and not the file"""

    nets = {}  # noqa: RUF012

    def export(self, model, example_input, path):
        self.nets[path] = model
        return super().export(model, example_input, path)

    def load(self, path):
        return self.nets.get(path) or super().load(path)


@wrong("test_the_file_is_run", "Error|moved|No such file")
class RunsACopy(ToyDeployer):
    """simulation runs a copy of the net, kept by the path that it was written to"""

    nets = {}  # noqa: RUF012

    def export(self, model, example_input, path):
        self.nets[path] = copy.deepcopy(model).eval()
        return super().export(model, example_input, path)

    def load(self, path):
        return self.nets[path]


@wrong("test_the_file_is_run", "written to the same path")
class RemembersThePath(ToyDeployer):
    """simulation reads a path once"""

    def __init__(self, **options):
        super().__init__(**options)
        self.read = {}

    def load(self, path):
        return self.read.setdefault(path, super().load(path))


@wrong("test_simulation_is_the_net")
class ReturnsZeros(ToyDeployer):
    """simulation returns zeros"""

    def simulate(self, artefact, x):
        return torch.zeros_like(super().simulate(artefact, x))


@wrong("test_threshold_ties")
class FiresAbove(ToyDeployer):
    """the target fires above its threshold, and the threshold is not moved"""

    def made(self, layer):
        made = super().made(layer)
        if layer["kind"] == "linear" or isinstance(layer["options"]["v_threshold"], list):
            return made
        threshold = torch.tensor(layer["options"]["v_threshold"])
        above = float(torch.nextafter(threshold, torch.tensor(9.0)))
        return type(made)(backend="torch", **{**layer["options"], "v_threshold": above})


@wrong("test_simulation_is_the_net")
class RoundsWeights(ToyDeployer):
    """weights rounded, at a declared distance of 0"""

    levels = 8

    def values(self, layer):
        values = super().values(layer)
        if "weight" in values:
            values["weight"] = ((layer.weight * self.levels).round() / self.levels).tolist()
        return values


@wrong("test_trace_is_the_nets")
class TracesLate(ToyDeployer):
    """the trace is one step late"""

    def trace(self, artefact, x):
        return {name: out.roll(1, 0) for name, out in super().trace(artefact, x).items()}


@wrong("test_trace_is_the_nets", "expected a trace of")
class TracesUnnamed(ToyDeployer):
    """the trace names layers by their place"""

    def trace(self, artefact, x):
        return {str(index): out for index, out in enumerate(super().trace(artefact, x).values())}


@wrong("test_trace_is_the_nets")
class WrongInside(ToyDeployer):
    """the output is right, the hidden layer is not"""

    def trace(self, artefact, x):
        trace = super().trace(artefact, x)
        return {name: out if name == "output" else 1 - out for name, out in trace.items()}


@wrong("test_round_trip", "loaded")
class LoadsDefaults(ToyDeployer):
    """load leaves out the options of neurons"""

    def load(self, path, complete=False):
        layers = json.loads(path.read_text())["layers"]
        made = [
            (one["name"], self.made(one if complete or "options" not in one else {**one, "options": {}}))
            for one in layers
        ]
        return nn.Sequential(OrderedDict(made)).eval()

    def run(self, artefact, x):
        outs = {}
        for name, layer in self.load(artefact.path, complete=True).named_children():
            x = outs[name] = layer(x)
        return outs


@wrong("test_other_lengths_and_batches", "expected \\(17, 2, 3\\)")
class FixedLength(ToyDeployer):
    """always runs the number of steps of the example input, which it does not say"""

    def simulate(self, artefact, x):
        longer = torch.zeros(24, *x.shape[1:])
        longer[: len(x)] = x
        return super().simulate(artefact, longer)


@wrong("test_the_mode_does_not_matter", "exported in training mode")
class ExportsTraining(ToyDeployer):
    """exports something else for a net in training mode"""

    def values(self, layer):
        values = super().values(layer)
        if "weight" in values and layer.training:
            values["weight"] = (layer.weight * 0.5).tolist()
        return values


@pytest.fixture
def registry():
    with use(Registry(blocking=Blocking())) as own:
        yield own


def said(check):
    """Runs one check by hand; what it says."""
    with pytest.raises((Exception, pytest.fail.Exception)) as error:
        getattr(suite_for("deployer", "toy")(), check)()
    assert not isinstance(error.value, pytest.skip.Exception), f"skipped: {error.value}"
    return str(error.value) or type(error.value).__name__


@pytest.mark.parametrize("bit_exact", [True, False], ids=["bit_exact", "tolerance_0"])
@pytest.mark.parametrize(("check", "says", "deployer"), WRONG, ids=[cls.__name__ for *_, cls in WRONG])
def test_a_wrong_deployer_is_caught(check, says, deployer, bit_exact, registry):
    capabilities = replace(deployer.capabilities, bit_exact=bit_exact, tolerance=0.0)
    registry.register("deployer", "toy", type(deployer.__name__, (deployer,), {"capabilities": capabilities}))
    text = said(check)
    assert re.search(says, text), text


def test_the_wrong_deployers_of_the_field_are_all_here():
    named = {cls.__doc__ for *_, cls in WRONG}
    assert named >= {
        "bias dropped",
        "v_reset dropped",
        "tau always 2",
        "threshold always 1",
        "soft reset exported as hard",
        "decay_input ignored",
        "v_init ignored",
        "v_leak ignored",
        "fires ignored",
        "per-channel tau taken as the first",
        "simulation keeps state",
        "simulation runs the net and not the file",
        "simulation returns zeros",
    }


def test_a_stated_distance_is_held(registry):
    """What rounds its weights passes with the distance that it states, and not with a smaller one."""

    def declared(tolerance):
        capabilities = DeployerCapabilities(simulates=True, bit_exact=True, tolerance=tolerance)
        made = type("Rounds", (RoundsWeights,), {"capabilities": capabilities, "levels": 32})
        registry.register("deployer", "toy", made, replace=True)
        return suite_for("deployer", "toy")()

    declared(0.15).test_simulation_is_the_net()
    with pytest.raises(AssertionError, match=r"declared is 0\.01"):
        declared(0.01).test_simulation_is_the_net()


# the small nets


@pytest.mark.parametrize("net", small_nets(), ids=lambda net: net.name)
def test_every_small_net_spikes_and_is_always_the_same(net):
    first, second = net.make(), net.make()
    assert not first.training
    for name, value in first.state_dict().items():
        assert torch.equal(second.state_dict()[name], value)
    x = net.input(3)
    assert torch.equal(x * 8, (x * 8).round())
    for name, spikes in record_spikes(first, x)[1].items():
        assert 0.05 < float(spikes.mean()) < 0.95, name
    for name, weight in first.named_parameters():
        if "weight" in name and weight.dim() > 1:
            weight = weight.detach()
            assert torch.equal(weight * 64, (weight * 64).round())
            assert float((weight * 64).abs().max()) <= 127


UNSAID = {"v_init": None, "v_leak": None, "fires": "at"}


@pytest.mark.parametrize("net", odd_nets(), ids=lambda net: net.name)
def test_an_odd_net_is_far_from_what_it_would_be_without_its_option(net):
    """Or who ignores the option would pass at a small declared distance."""
    odd, plain = net.make(), net.make()
    for name, neuron in list(plain.named_children()):
        if isinstance(neuron, Neuron):
            said = {key: value for key, value in vars(neuron.config).items() if key not in UNSAID}
            plain.add_module(name, type(neuron)(backend="torch", **said))
    x = net.input(3, batch=16)
    out, other = record_spikes(odd, x)[0], record_spikes(plain, x)[0]
    assert float((out - other).abs().mean()) > 0.06


def test_every_option_that_deployers_forget_has_nets():
    for option, default in UNSAID.items():
        configs = [part.config for net in odd_nets() for part in net.make().modules() if isinstance(part, Neuron)]
        others = [c for c in configs if getattr(c, option, default) not in (default, c.v_reset)]
        assert len(others) >= 4, option


def test_a_net_that_never_spikes_is_no_proof(registry):
    registry.register("deployer", "toy", ToyDeployer)
    suite = suite_for("deployer", "toy")
    silent = replace(small_nets()[0], make=lambda: nn.Sequential(nn.Linear(4, 3), IF(v_threshold=1e6)).eval())
    suite.nets = lambda self: (silent,)
    with pytest.raises(AssertionError, match="fires in 0"):
        suite().test_simulation_is_the_net()


def test_a_deployer_that_takes_nothing_is_told_so(registry):
    class TakesNothing(ToyDeployer):
        def kind(self, layer):
            return None

    registry.register("deployer", "toy", TakesNothing)
    with pytest.raises(AssertionError, match=r"none of the small nets .*the target has no Linear.*override `nets`"):
        suite_for("deployer", "toy")().test_simulation_is_the_net()


# the contract


def test_a_deployer_of_the_old_contract_is_refused_by_name_with_the_reason(registry):
    class Old(Configurable):
        capabilities = DeployerCapabilities()

        def __init__(self, **options):
            self.config = make_config(type(self), options)

        def export(self, model, example_input, path):
            return Artefact(path)

        def simulate(self, artefact, x):
            return x

    with pytest.raises(IncompatiblePluginError) as caught:
        registry.register("deployer", "old", Old)
    text = str(caught.value)
    for part in ("deployer 'old'", "api_version 1", "understands 2", "It lacks check, trace", "api_version = 2"):
        assert part in text, text


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        (("a", "Linear", "mapped"), "needs a target"),
        (("a", "Linear", "folded", "b"), "needs a reason"),
        (("a", "Linear", "approximated"), "needs a target and a reason"),
        (("a", "Linear", "refused", "", "why"), "needs a cure"),
        (("a", "Linear", "refused", "b", "why", "what"), "refused and has a target"),
        (("a", "Linear", "dropped", "b"), "one of mapped, folded, approximated, refused"),
    ],
)
def test_a_record_that_contradicts_itself_is_refused(fields, says):
    with pytest.raises(ValueError, match=says):
        OperatorRecord(*fields)


def test_a_refusal_names_every_operator():
    records = [
        OperatorRecord("a", "Linear", "mapped", "Affine"),
        OperatorRecord("b", "GRU", "refused", "", "it has gates", "use LIF"),
        OperatorRecord("c", "sort", "refused", "", "no sorting", "leave it out"),
    ]
    with pytest.raises(ConversionError) as caught:
        require_mapped(records, "NIR")
    assert str(caught.value).splitlines() == [
        "NIR does not take this net, it refuses 2 of 3 operators:",
        "  'b' (GRU): it has gates; use LIF",
        "  'c' (sort): no sorting; leave it out",
    ]


@pytest.mark.parametrize("net", small_nets(), ids=lambda net: net.name)
def test_layers_are_recorded_under_the_names_of_the_graph(net):
    model, x = net.make(), net.input()
    named = {node.name: node.shape for node in trace_net(model, x).layers}
    spikes = record_spikes(model, x)[1]
    assert {name: tuple(values.shape) for name, values in spikes.items()}.items() <= named.items()

"""The second version of the converter's contract: who is refused, the report, and that the suite's nets are alive."""

import json

import pytest
import torch

from spikecore.errors import IncompatiblePluginError
from spikecore.interfaces.converter import ConversionReport, LayerReport
from spikecore.nn import trace_net
from spikecore.registry import Blocking, Registry, use
from spikecore.testing.suites.converter import ConverterSuite
from spikecore.testing.suites.converter_nets import MARGIN
from tests.conformance.toys import ToyConverter


def test_a_converter_of_the_first_version_is_refused_by_name():
    class Old(ToyConverter):
        api_version = 1

    registry = Registry(path=(), blocking=Blocking())
    with pytest.raises(IncompatiblePluginError, match=r"converter 'old'.*api_version 1 of converter.*understands 2"):
        registry.register("converter", "old", Old)


def test_the_report_as_data():
    report = ConversionReport(
        (
            LayerReport("conv", "kept", "linear"),
            LayerReport("relu#2", "became", "if", (0.5, 2.0), (0.1, 0.9)),
            LayerReport("sort", "refused", "no counterpart; allowed by the option keep"),
        ),
        {"accuracy over T": ((1, 0.3), (2, 0.8))},
    )
    assert [report.names(outcome) for outcome in ("became", "kept", "refused")] == [["relu#2"], ["conv"], ["sort"]]
    data = json.loads(json.dumps(report.to_dict()))
    assert data["layers"][1]["threshold"] == [0.5, 2.0]
    assert data["layers"][1]["correlation"] == [0.1, 0.9]
    assert data["curves"]["accuracy over T"] == [[1, 0.3], [2, 0.8]]


@pytest.fixture
def suite():
    class TestToy(ConverterSuite):
        component = "toy"

    with use(Registry(blocking=Blocking())) as registry:
        registry.register("converter", "toy", ToyConverter)
        yield TestToy()


def test_the_nets_of_the_suite_decide_in_several_ways_and_use_every_kind_of_relu(suite):
    kinds = set()
    nets = suite.candidates()
    assert len(nets) == 4
    for net, x in nets:
        data = suite.data(net, x)
        best = suite.scores(net, data).topk(2, -1).values
        assert len(data) >= 12
        assert len(suite.scores(net, data).argmax(-1).unique()) >= 3
        assert (best[:, 0] - best[:, 1]).min() > 0.5 * MARGIN * suite.scores(net, data).std()
        graph, active = trace_net(net), []

        def call(node, args, kwargs, graph=graph, active=active):
            value = graph.call(node, args, kwargs)
            if "relu" in node.operation.lower():
                kinds.add(node.kind)
                active.append(float((value > 0).float().mean()))
            return value

        with torch.no_grad():
            graph.run(data, call=call)
        assert all(0.05 < share < 0.95 for share in active), active
    assert kinds == {"module", "function", "method"}
    assert any("#3" in node.name for net, _ in nets for node in trace_net(net)), "a layer that is called three times"
    assert len(suite.nets()) == 4, "the toy takes them all"


def test_nets_that_decide_always_the_same_are_refused(suite):
    constant = torch.nn.Linear(6, 4)
    torch.nn.init.zeros_(constant.weight)
    with pytest.raises(AssertionError, match="give nets that tell inputs apart"):
        suite.data(constant, torch.rand(2, 6))

"""Checks of a converter: the new net decides as the given one, nothing is lost, it loads without the data.

Functions are compared: nets whose decisions differ from input to input, on inputs where the decision is clear, with the
assertion that the new net spikes.
"""

from __future__ import annotations

import copy
import gc
import importlib
import math
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from spikecore.errors import ConversionError, NetTraceError
from spikecore.interfaces.converter import ConversionReport
from spikecore.nn import NetNode, Stateful, get_state, set_step_mode, trace_net
from spikecore.testing.compare import assert_close, assert_same
from spikecore.testing.suite import needs, skip
from spikecore.testing.suites.converter_nets import (
    Branching,
    ConvertedNets,
    Opaque,
    Sorting,
    distance,
    inputs_like,
)
from spikecore.torch_internals import num_hooks


class ConverterSuite(ConvertedNets):
    """Converts small nets of Linear, Conv2d, ReLU, AvgPool2d, Flatten, additions, functions and methods."""

    kind: ClassVar[str] = "converter"
    minimum = 15

    def test_gives_a_net_and_a_report(self) -> None:
        """A new module with spiking neurons, and a ConversionReport in which something became something else."""
        for net, x in self.nets():
            made, report = self.convert(net, x)
            assert isinstance(made, nn.Module), f"expected a module, got {type(made).__name__}"
            assert made is not net, "it gave the given net back"
            assert any(isinstance(part, Stateful) for part in made.modules()), "the new net has no spiking neurons"
            assert isinstance(report, ConversionReport), f"expected a ConversionReport, got {type(report).__name__}"
            assert report.names("became"), "nothing was converted"

    def test_it_spikes(self) -> None:
        """Every neuron of the new net fires for some of the inputs, and none always."""
        for net, x in self.nets():
            made = copy.deepcopy(self.convert(net, x)[0]).eval()
            outputs: dict[str, Tensor] = {}
            for name, part in made.named_modules():
                if isinstance(part, Stateful):
                    part.register_forward_hook(_keeping(outputs, name))
            self.scores(made, self.data(net, x), is_made=True)
            assert outputs, "no neuron of the new net was called"
            for name, out in outputs.items():
                assert out.any(), f"the neuron {name!r} never fires: nothing it is compared by would show"
                assert len(torch.unique(out)) > 1, f"the neuron {name!r} gives {float(out.flatten()[0])} at every step"

    def test_it_decides_as_the_given_net(self) -> None:
        """After `num_steps` every decision is that of the given net, and the scores are within `tolerance`."""
        for net, x in self.nets():
            made, _ = self.convert(net, x)
            data = self.data(net, x)
            right, scores = self.scores(net, data), self.scores(made, data, is_made=True)
            assert scores.shape == right.shape, f"expected scores {tuple(right.shape)}, got {tuple(scores.shape)}"
            wrong = int((scores.argmax(-1) != right.argmax(-1)).sum())
            name = type(net).__name__
            assert not wrong, f"{wrong} of {len(data)} decisions of the new net differ from those of the given {name}"
            error = distance(scores, right)
            assert error <= self.capabilities.tolerance, (
                f"the scores of the new net are {error:.3f} away from those of the given {name} after "
                f"{self.capabilities.num_steps} steps; declared is {self.capabilities.tolerance}"
            )

    def test_spiking_nets_fire_as_before(self) -> None:
        """Nets that spike already, which take `[T, B, ...]`: the rates of all outputs are within `tolerance`, up to one
        factor, whatever options their neurons have."""
        num_taken = 0
        for net, made in self.spiking_nets():
            num_taken += 1
            x = net.input(seed=3, batch=16)
            with torch.no_grad():
                right, rates = net.make()(x).mean(0), made(x).mean(0)
            assert rates.shape == right.shape, f"expected rates {tuple(right.shape)}, got {tuple(rates.shape)}"
            error = distance(rates, right)
            assert error <= self.capabilities.tolerance, (
                f"net {net.name!r}: the outputs of the new net are {error:.3f} away from those of the given one; "
                f"declared is {self.capabilities.tolerance}"
            )
        if not num_taken:
            skip("it takes none of the nets that spike")

    def test_every_call_is_accounted_for(self) -> None:
        """Each call in the graph by its name, once: what it became, or why it stayed; none invented."""
        for net, x in self.nets():
            _, report = self.convert(net, x)
            calls = [node.name for node in trace_net(net).layers]
            told = [layer.name for layer in report.layers]
            assert set(calls) <= set(told), f"the report says nothing of {sorted(set(calls) - set(told))}"
            inside = {f"{name}." for name in calls}
            parts = {name for name, _ in net.named_modules() if name.startswith(tuple(inside))}
            invented = sorted(set(told) - set(calls) - parts)
            assert not invented, f"the net has no calls {invented}"
            twice = sorted({name for name in told if told.count(name) > 1})
            assert not twice, f"the report tells {twice} more than once"
            for layer in report.layers:
                assert layer.outcome in ("became", "kept", "refused"), f"{layer.name}: outcome {layer.outcome!r}"
                assert layer.reason.strip(), f"{layer.name}: not a word on what became of it"
                thresholds = layer.threshold if isinstance(layer.threshold, tuple) else (layer.threshold,)
                for threshold in thresholds:
                    is_sound = threshold is None or 0 < threshold < math.inf
                    assert is_sound, f"{layer.name}: the threshold is {threshold}, expected a positive number"
                assert all(-1 <= value <= 1 for value in layer.correlation), f"{layer.name}: {layer.correlation}"

    def test_declared_layers_are_taken(self) -> None:
        """`capabilities.layers` name what it takes: a net of these is not refused, and nothing else is converted."""
        declared = [_named(name) for name in self.capabilities.layers]
        assert declared, "capabilities.layers is empty"
        for net, x in self.candidates():
            if all(_is_declared(node, declared) for node in trace_net(net).layers):
                self.convert(net, x)  # may not raise
        for net, x in self.nets():
            graph = trace_net(net)
            for name in self.convert(net, x)[1].names("became"):
                if name in graph:
                    node = graph[name]
                    assert _is_declared(node, declared), (
                        f"{name} was converted, but capabilities.layers lacks {node.operation}"
                    )

    def test_the_given_net_is_left_alone(self) -> None:
        """Weights, mode, hooks, state and `requires_grad` of the given net stay, also in training mode; the new one
        shares no memory with it; example and batches are not written to."""
        for net, x in self.nets():
            for training in (False, True):
                net.train(training)
                kept = {name: value.clone() for name, value in net.state_dict().items()}
                before, batches = _condition(net), self.calibration(x)
                inputs = [value.clone() for value in (x, *batches)]
                made = None
                try:
                    made, _ = self.convert(net, x, batches)
                except ConversionError:
                    assert training, "the same net was taken a moment ago"
                assert_same(dict(net.state_dict()), kept, "the weights of the given net")
                assert _condition(net) == before, "the given net has another mode, other hooks, parts or state"
                assert_same([x, *batches], inputs, "the example and the calibration batches")
                if made is not None:
                    ours = {value.untyped_storage().data_ptr() for value in net.state_dict().values()}
                    new = made.state_dict().items()
                    shared = [name for name, value in new if value.untyped_storage().data_ptr() in ours]
                    assert not shared, f"{shared} of the new net are memory of the given one"

    def test_no_data_are_kept(self) -> None:
        """The calibration batches are let go: a net that holds them cannot be handed on."""
        for net, x in self.nets():
            batches = self.calibration(x)
            watched = [weakref.ref(batch) for batch in batches]
            made, report = self.convert(net, x, iter(batches))
            del batches
            gc.collect()
            alive = sum(reference() is not None for reference in watched)
            assert not alive, (
                f"{alive} of {len(watched)} calibration batches are kept by {type(made).__name__} or report"
            )
            del report

    def test_the_structure_does_not_depend_on_the_data(self) -> None:
        """Other batches, weaker, fewer and smaller, give a net of the same modules and the same tensors' shapes."""
        for net, x in self.nets():
            right = _structure(self.convert(net, x)[0])
            for other in (self.calibration(x, 0.1), [x]):
                assert _structure(self.convert(net, x, other)[0]) == right, "other data give a net of another structure"

    def test_it_loads_without_the_data(self) -> None:
        """A net of other weights, converted with the example alone, is the saved one after `load_state_dict`."""
        for net, x in self.nets():
            made, _ = self.convert(net, x)
            saved = {name: value.clone() for name, value in made.state_dict().items()}
            assert all(isinstance(value, Tensor) for value in saved.values()), "state_dict holds more than tensors"
            fresh = copy.deepcopy(net)
            with torch.no_grad():
                for parameter in fresh.parameters():
                    parameter.normal_(generator=torch.Generator().manual_seed(5))
            again, _ = self.convert(fresh, x, [x])
            again.load_state_dict(saved)
            data = self.data(net, x)
            scores = [self.scores(copy_of_net, data, is_made=True) for copy_of_net in (again, made)]
            assert_same(scores[0], scores[1], "the scores of the net that was loaded")

    def test_the_new_net_runs(self) -> None:
        """`[T, B, ...]` gives `[T, B, outputs]`, finite; single steps give the same; a gradient reaches the weights."""
        for net, x in self.nets():
            made, _ = self.convert(net, x)
            set_step_mode(made, "multi")
            sequence = inputs_like(x, 6 * len(x), seed=3).reshape(6, *x.shape)
            with torch.no_grad():
                like = net(x)
            out = made(sequence)
            assert out.shape == (6, *like.shape), f"expected {(6, *like.shape)}, got {tuple(out.shape)}"
            assert out.isfinite().all()
            assert out.requires_grad, "no gradient reaches a parameter: nothing of the new net can be trained"
            out.sum().backward()
            reached = [name for name, value in made.named_parameters() if value.grad is not None and value.grad.any()]
            assert reached, "no gradient reaches a parameter of the new net"
            set_step_mode(made, "single")
            with torch.no_grad():
                single = torch.stack([made(step) for step in sequence])
            assert_close(single, out.detach(), "the sequence of single steps")

    @needs("needs_calibration")
    def test_missing_calibration_is_refused(self) -> None:
        """Without calibration batches it raises ConversionError."""
        for net, x in self.nets():
            nothing: list[Iterable[Tensor]] = [[], iter(())]
            for missing in nothing:
                with pytest.raises(ConversionError):
                    self.make().convert(net, x, missing)

    @needs("needs_calibration", False)
    def test_no_calibration_needed(self) -> None:
        """Without calibration batches it converts."""
        for net, x in self.nets():
            made, _ = self.make().convert(net, x)
            assert isinstance(made, nn.Module)

    def test_calibration_may_be_a_generator(self) -> None:
        """Batches that can be read only once give what a list gives."""

        def once(batches: list[Tensor]) -> Iterator[Tensor]:
            yield from batches

        for net, x in self.nets():
            made, _ = self.convert(net, x, once(self.calibration(x)))
            assert_same(dict(made.state_dict()), dict(self.convert(net, x)[0].state_dict()), "the new net's weights")

    def test_unknown_layers_are_named(self) -> None:
        """A layer it cannot convert is refused by name with a reason, or kept with a reason; never lost in silence."""
        parts = OrderedDict(first=nn.Linear(6, 8), strange=Opaque(), last=nn.Linear(8, 4))
        self._refused_or_kept(nn.Sequential(parts).eval(), "strange")

    def test_unknown_functions_are_named(self) -> None:
        """So is a function, which has no module."""
        self._refused_or_kept(Sorting().eval(), "sort")

    def _refused_or_kept(self, net: nn.Module, name: str) -> None:
        x = torch.rand(2, 6)
        try:
            report = self.convert(net, x)[1]
        except ConversionError as error:
            refusal = str(error)
            # A converter that takes no such net at all names its class.
            is_named = name in refusal or type(net).__name__ in refusal
            assert is_named, f"the refusal does not name the layer {name!r}: {refusal}"
            assert len(refusal) > len(name) + 10, f"the refusal gives no reason: {refusal}"
            return
        told = [layer for layer in report.layers if layer.name.startswith(name) and layer.outcome != "became"]
        assert told, f"the layer {name!r} is not among those kept or refused with a reason"

    def test_control_flow_is_refused(self) -> None:
        """A net that branches on values is refused: its graph holds one of the branches only."""
        with pytest.raises((ConversionError, NetTraceError)):
            self.convert(Branching().eval(), torch.rand(2, 6))

    @needs("deterministic")
    def test_determinism(self) -> None:
        """Equal nets and batches give equal results, whatever the seed; no random numbers are drawn."""
        for net, x in self.nets():
            before = torch.get_rng_state()
            first, report = self.convert(net, x)
            assert torch.equal(before, torch.get_rng_state()), "it drew random numbers"
            torch.manual_seed(99)
            second, again = self.convert(net, x)
            assert_same(dict(second.state_dict()), dict(first.state_dict()), "the weights of a second conversion")
            assert again == report, "the second report differs"


def _keeping(outputs: dict[str, Tensor], name: str) -> Callable[..., None]:
    def hook(module: nn.Module, args: Any, out: Tensor) -> None:
        outputs[name] = out

    return hook


def _condition(net: nn.Module) -> list[Any]:
    parts = [(name, part.training, num_hooks(part)) for name, part in net.named_modules()]
    return [parts, [parameter.requires_grad for parameter in net.parameters()], [*get_state(net)]]


def _structure(net: nn.Module) -> list[Any]:
    parts = [(name, type(part)) for name, part in net.named_modules()]
    return [parts, {name: (tuple(value.shape), value.dtype) for name, value in net.state_dict().items()}]


def _named(name: str) -> Any:
    """The class, function or method of torch with this qualified name."""
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            value: Any = importlib.import_module(".".join(parts[:cut]))
        except ImportError:
            continue
        try:
            for part in parts[cut:]:
                value = getattr(value, part)
        except AttributeError:
            break
        return value
    raise AssertionError(f"capabilities.layers: {name!r} is no qualified name of a torch module, function or method")


def _is_declared(node: NetNode, declared: list[Any]) -> bool:
    if node.kind == "module":
        return type(node.module) in declared
    if node.kind == "method":
        return getattr(Tensor, str(node.target), None) in declared
    return node.target in declared

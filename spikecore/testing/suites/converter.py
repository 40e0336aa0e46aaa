"""Checks of a converter: what it gives back, what it leaves alone, what it refuses, that it repeats.

How well a converted net computes is the business of each converter's own tests.
"""

from __future__ import annotations

import importlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from spikecore.errors import ConversionError
from spikecore.interfaces.converter import ConversionReport
from spikecore.nn import Stateful, set_step_mode
from spikecore.testing.compare import assert_same
from spikecore.testing.suite import Suite, needs
from spikecore.torch_internals import num_hooks

NUM_STEPS = 4


class Opaque(nn.Module):
    """A layer that no converter knows."""

    def forward(self, x: Tensor) -> Tensor:
        """Sorts: not linear, not elementwise."""
        return x.sort(-1).values * x


class ConverterSuite(Suite):
    """Converts small nets of Linear, Conv2d, ReLU, AvgPool2d and Flatten."""

    kind: ClassVar[str] = "converter"
    minimum = 11

    def candidates(self) -> list[tuple[nn.Module, Tensor]]:
        """Artificial nets with example inputs `[B, ...]`; a converter of others names them in its subclass."""
        torch.manual_seed(0)
        flat = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))
        image = nn.Sequential(
            nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(3 * 9, 4)
        )
        return [(flat.eval(), torch.rand(2, 6)), (image.eval(), torch.rand(2, 1, 6, 6))]

    def nets(self) -> list[tuple[nn.Module, Tensor]]:
        """Those of the candidates that the converter takes; one at least."""
        taken, refusals = [], []
        for net, x in self.candidates():
            try:
                self.convert(net, x)
            except ConversionError as error:
                refusals.append(str(error))
            else:
                taken.append((net, x))
        assert taken, f"it takes none of the small nets ({'; '.join(refusals)}): override `candidates` in a subclass"
        return taken

    def calibration(self, x: Tensor) -> list[Tensor]:
        """Three batches like the example."""
        generator = torch.Generator().manual_seed(1)
        return [torch.rand(x.shape, generator=generator) for _ in range(3)]

    def convert(self, net: nn.Module, x: Tensor) -> tuple[nn.Module, ConversionReport]:
        """With calibration batches."""
        found: tuple[nn.Module, ConversionReport] = self.make().convert(net, x, self.calibration(x))
        return found

    def test_gives_a_net_and_a_report(self) -> None:
        """A new module with spiking neurons, and a ConversionReport in which something was converted."""
        for net, x in self.nets():
            made, report = self.convert(net, x)
            assert isinstance(made, nn.Module), f"expected a module, got {type(made).__name__}"
            assert made is not net, "it gave the given net back"
            assert any(isinstance(part, Stateful) for part in made.modules()), "the new net has no spiking neurons"
            assert isinstance(report, ConversionReport), f"expected a ConversionReport, got {type(report).__name__}"
            assert report.converted, "nothing was converted"

    def test_every_layer_is_accounted_for(self) -> None:
        """Each layer by its name: what it became, or why it stayed; none twice, none invented."""
        for net, x in self.nets():
            _, report = self.convert(net, x)
            layers = {name for name, part in net.named_modules() if name and not list(part.children())}
            told = {**report.converted, **report.kept}
            assert layers <= set(told), f"the report says nothing of {sorted(layers - set(told))}"
            names = {name for name, _ in net.named_modules()}
            assert set(told) <= names, f"the net has no layers {sorted(set(told) - names)}"
            assert not set(report.converted) & set(report.kept), "a layer is both converted and kept"
            assert all(text.strip() for text in told.values()), "a layer without a word on what became of it"

    def test_declared_layers_are_taken(self) -> None:
        """`capabilities.layers` name torch modules: a net of these is not refused, and nothing else is converted."""
        classes = {_class_named(name) for name in self.capabilities.layers}
        assert classes, "capabilities.layers is empty"
        for net, x in self.candidates():
            if {type(part) for part in net.children()} <= classes:
                self.convert(net, x)  # may not raise
        for net, x in self.nets():
            for name in self.convert(net, x)[1].converted:
                layer = type(net.get_submodule(name))
                assert layer in classes, f"{name} was converted, but capabilities.layers lacks {layer.__name__}"

    def test_the_given_net_is_left_alone(self) -> None:
        """Weights, mode, hooks and `requires_grad` of the given net stay; the new one shares no memory with it."""
        for net, x in self.nets():
            for training in (False, True):
                net.train(training)
                kept = {name: value.clone() for name, value in net.state_dict().items()}
                before = _condition(net)
                made, _ = self.convert(net, x)
                assert_same(dict(net.state_dict()), kept, "the weights of the given net")
                assert _condition(net) == before, "the given net has another mode or other hooks"
                assert all(parameter.requires_grad for parameter in net.parameters())
                ours = {p.untyped_storage().data_ptr() for p in net.parameters()}
                shared = [name for name, p in made.named_parameters() if p.untyped_storage().data_ptr() in ours]
                assert not shared, f"{shared} of the new net are memory of the given one"

    def test_the_new_net_runs(self) -> None:
        """It takes `[T, B, ...]` and gives `[T, B, outputs]`, finite."""
        for net, x in self.nets():
            made, _ = self.convert(net, x)
            set_step_mode(made, "multi")
            with torch.no_grad():
                out, like = made(x.expand(NUM_STEPS, *x.shape)), net(x)
            assert out.shape == (NUM_STEPS, *like.shape), f"expected {(NUM_STEPS, *like.shape)}, got {tuple(out.shape)}"
            assert out.isfinite().all()

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
            made, _ = self.make().convert(net, x, once(self.calibration(x)))
            assert_same(dict(made.state_dict()), dict(self.convert(net, x)[0].state_dict()), "the new net's weights")

    def test_unknown_layers_are_named(self) -> None:
        """A layer it cannot convert is refused by name with a reason, or kept with a reason; never lost in silence."""
        net = nn.Sequential(OrderedDict(first=nn.Linear(6, 8), strange=Opaque(), last=nn.Linear(8, 4))).eval()
        x = torch.rand(2, 6)
        refusal, kept = "", dict[str, str]()
        try:
            kept = self.convert(net, x)[1].kept
        except ConversionError as error:
            refusal = str(error)
        if refusal:
            assert "strange" in refusal, f"the refusal does not name the layer 'strange': {refusal}"
            assert len(refusal) > len("strange") + 10, f"the refusal gives no reason: {refusal}"
        else:
            assert kept.get("strange", "").strip(), "the layer 'strange' is not among those kept with a reason"

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


def _condition(net: nn.Module) -> list[Any]:
    return [(part.training, num_hooks(part)) for part in net.modules()]


def _class_named(name: str) -> Any:
    module, _, attribute = name.rpartition(".")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise AssertionError(f"capabilities.layers: {name!r} is no qualified name of a torch module") from error

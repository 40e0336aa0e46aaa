"""Checks of a deployer: the artefact, what it leaves alone, what it refuses, that it repeats.

Whether the target computes what the net computes is looked at here only where the deployer can simulate it.
"""

from __future__ import annotations

import tempfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from spikecore.errors import ConversionError
from spikecore.interfaces.deployer import Artefact
from spikecore.nn import IF, LIF, get_state
from spikecore.testing.compare import assert_same
from spikecore.testing.probes import Adaptive
from spikecore.testing.suite import Suite, needs, skip
from spikecore.torch_internals import num_hooks

NUM_STEPS = 5


class Impostor(LIF):
    """Calls itself LIF and forgets to leak: by its type it is no LIF."""

    @staticmethod
    def step(x: Any, state: Any, params: Any) -> tuple[Any, dict[str, Any]]:
        return IF.step(x, state, params)


class Unheard(nn.Module):
    """A layer that no device has."""

    def forward(self, x: Tensor) -> Tensor:
        """Sorts."""
        return x.sort(-1).values


class DeployerSuite(Suite):
    """Exports a small net of Linear and neurons; the first of a few that the deployer takes."""

    kind: ClassVar[str] = "deployer"
    minimum = 10

    def models(self) -> list[Callable[[], nn.Module]]:
        """Nets `[T, B, 4]` → `[T, B, 3]`, tried in turn; a deployer that takes none of them names others."""
        neurons: list[Callable[[], nn.Module]] = [
            lambda: LIF(backend="torch"),
            lambda: LIF(backend="torch", reset="soft"),
            lambda: IF(backend="torch", reset="soft"),
            lambda: IF(backend="torch"),
        ]
        return [partial(_net, neuron, bias) for neuron in neurons for bias in (True, False)]

    def model(self) -> nn.Module:
        """The first one that the deployer takes; made anew, always the same."""
        refusals = []
        for make in self.models():
            with self.folder() as folder:
                try:
                    self.make().export(make(), self.input(), folder / "net")
                except ConversionError as error:
                    refusals.append(str(error))
                else:
                    return make()
        raise AssertionError(
            f"it takes none of the small nets ({'; '.join(dict.fromkeys(refusals))}): override `models` in a subclass"
        )

    def input(self, seed: int = 0) -> Tensor:
        """`[T, B, 4]`."""
        return torch.rand(NUM_STEPS, 2, 4, generator=torch.Generator().manual_seed(seed)) * 2

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """An empty directory."""
        with tempfile.TemporaryDirectory() as name:
            yield Path(name)

    def test_writes_the_artefact(self) -> None:
        """`export` writes under the path it is given and says where; the artefact is not empty."""
        with self.folder() as folder:
            artefact = self.make().export(self.model(), self.input(), folder / "net")
            assert isinstance(artefact, Artefact), f"expected an Artefact, got {type(artefact).__name__}"
            path = Path(artefact.path)
            assert path.exists(), f"{path} does not exist"
            assert folder in path.parents, f"{path} is not where it was told to write"
            assert any(_files(path).values()), "the artefact is empty"

    def test_mapping(self) -> None:
        """Every layer with weights and every neuron is told: by its name, what it became."""
        model = self.model()
        with self.folder() as folder:
            mapping = self.make().export(model, self.input(), folder / "net").mapping
        names = {name for name, _ in model.named_modules()}
        layers = {name for name, part in model.named_modules() if name and not list(part.children())}
        assert set(mapping) <= names, f"the net has no layers {sorted(set(mapping) - names)}"
        assert layers <= set(mapping), f"the mapping says nothing of {sorted(layers - set(mapping))}"
        assert all(str(text).strip() for text in mapping.values())

    def test_the_model_is_left_alone(self) -> None:
        """Weights, mode, step mode, hooks and state stay as they were."""
        for training in (False, True):
            model = self.model().train(training)
            kept = {name: value.clone() for name, value in model.state_dict().items()}
            before = _condition(model)
            with self.folder() as folder:
                self.make().export(model, self.input(), folder / "net")
            assert_same(dict(model.state_dict()), kept, "the weights after export")
            assert _condition(model) == before, "export changed the mode, the step mode, the hooks or the state"

    def test_unknown_layers_are_refused(self) -> None:
        """A layer that is no neuron and no synapse raises ConversionError that names it; nothing is written."""
        self._refused(Unheard())

    def test_undeclared_neurons_are_refused(self) -> None:
        """A neuron that is not registered raises ConversionError that names it; nothing is written."""
        self._refused(Adaptive(backend="torch"))

    def test_a_subclass_is_another_neuron(self) -> None:
        """Neurons are mapped by their own type: a subclass of LIF with other equations is refused."""
        self._refused(Impostor(backend="torch"))

    def _refused(self, layer: nn.Module) -> None:
        model = self.model()
        odd = nn.Sequential(OrderedDict([*model.named_children(), ("strange", layer)]))
        with self.folder() as folder:
            with pytest.raises(ConversionError) as caught:
                self.make().export(odd, self.input(), folder / "net")
            assert "strange" in str(caught.value), f"the refusal does not name the layer 'strange': {caught.value}"
            assert len(str(caught.value)) > len("strange") + 10, f"the refusal gives no reason: {caught.value}"
            assert not list(folder.iterdir()), f"the refused export left {[p.name for p in folder.iterdir()]}"

    @needs("deterministic")
    def test_determinism(self) -> None:
        """Equal nets give equal artefacts, byte for byte, whatever the seed."""
        found = []
        for seed in (0, 99):
            model = self.model()
            torch.manual_seed(seed)
            with self.folder() as folder:
                found.append(_files(self.make().export(model, self.input(), folder / "net").path))
        assert list(found[0]) == list(found[1]), f"files {list(found[0])}, then {list(found[1])}"
        for name, content in found[0].items():
            assert found[1][name] == content, f"{name or 'the file'} differs in a second export"

    def test_weights_matter(self) -> None:
        """Another net gives another artefact."""
        model = self.model()
        with self.folder() as folder:
            first = _files(self.make().export(model, self.input(), folder / "net").path)
        with torch.no_grad():
            next(model.parameters()).mul_(-1.5)
        with self.folder() as folder:
            second = _files(self.make().export(model, self.input(), folder / "net").path)
        assert first != second, "a net with other weights gives the same artefact"

    @needs("simulates")
    def test_simulation(self) -> None:
        """The simulated artefact gives `[T, B, outputs]`, twice the same, as far from the net as declared at most."""
        model, x = self.model(), self.input(seed=3)
        deployer = self.make()
        with self.folder() as folder:
            artefact = deployer.export(model, self.input(), folder / "net")
            outs = [deployer.simulate(artefact, x) for _ in range(2)]
        with torch.no_grad():
            right = model(x)
        assert outs[0].shape == right.shape, f"expected {tuple(right.shape)}, got {tuple(outs[0].shape)}"
        assert_same(outs[1], outs[0], "the second simulation")
        if self.capabilities.bit_exact:
            return  # exact against the exported integers, which only the deployer's own tests know
        difference = float((outs[0].to(right.dtype) - right).abs().mean())
        assert difference <= self.capabilities.tolerance, (
            f"net and simulation differ by {difference:.4f} spikes per output and step; declared is "
            f"{self.capabilities.tolerance}"
        )

    @needs("simulates", False)
    def test_no_simulation(self) -> None:
        """What declares no simulation does not answer with one."""
        deployer = self.make()
        with self.folder() as folder:
            artefact = deployer.export(self.model(), self.input(), folder / "net")
            try:
                found = deployer.simulate(artefact, self.input())
            except Exception as error:
                skip(f"simulate raises {type(error).__name__}, as it should")
        raise AssertionError(f"capabilities.simulates is False, but simulate gave {type(found).__name__}")


def _net(neuron: Callable[[], nn.Module], bias: bool) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        first, second = nn.Linear(4, 6, bias=bias), nn.Linear(6, 3, bias=bias)
    parts = OrderedDict(first=first, hidden=neuron(), second=second, output=neuron())
    return nn.Sequential(parts).eval()


def _files(path: Path) -> dict[str, bytes]:
    """Name below `path` → content."""
    path = Path(path)
    if path.is_file():
        return {"": path.read_bytes()}
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


def _condition(model: nn.Module) -> list[Any]:
    parts = [(p.training, getattr(p, "step_mode", None), num_hooks(p)) for p in model.modules()]
    return [parts, {name: value is None for name, value in get_state(model).items()}]

"""Checks of a deployer that need no simulation: what it says of a net, what it refuses, and what it leaves alone."""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from spikecore.interfaces.deployer import Artefact, OperatorRecord
from spikecore.nn import IF, LIF, get_state, set_step_mode, trace_net
from spikecore.testing.compare import assert_same
from spikecore.testing.probes import Adaptive
from spikecore.testing.small_nets import SmallNet
from spikecore.testing.suites.deployer_nets import REFUSALS, DeployedNets, files_below, refusal_of


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


class Sorting(nn.Module):
    """The same as a function call, which is in no list of modules."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        """Sorts what the body gives."""
        out: Tensor = self.body(x)
        return out.sort(-1).values


class RefusalChecks(DeployedNets):
    """The part of the deployer's suite that looks at its records, its refusals and the nets it was given."""

    kind: ClassVar[str] = "deployer"

    # what it says

    def test_check_accounts_for_every_operator(self) -> None:
        """Each operator of each net by its name, once, in typed records; refusing takes nothing away from the list."""
        for net in self.nets():
            model, x = net.make(), net.input()
            try:
                records = self.make().check(model, x)
            except REFUSALS:
                continue
            assert isinstance(records, tuple), f"check must give a tuple, got {type(records).__name__}"
            assert all(isinstance(record, OperatorRecord) for record in records), f"no OperatorRecord: {records}"
            names = [record.name for record in records]
            assert len(names) == len(set(names)), f"net {net.name!r}: named twice: {names}"
            wanted = _operators(model, x)
            unsaid = [name for name in wanted if not any(_is_part(said, name) for said in names)]
            assert not unsaid, f"net {net.name!r}: nothing is said of {unsaid}"
            known = [*wanted, *(name for name, _ in model.named_modules() if name)]
            invented = [name for name in names if name not in known]
            assert not invented, f"net {net.name!r}: it has no {invented}"

    def test_check_agrees_with_export(self) -> None:
        """What is refused cannot be exported, what is not can; the artefact's mapping is what `check` says."""
        self.accepted()
        deployer = self.make()
        for net in self.nets():
            model, x = net.make(), net.input()
            reason = refusal_of(deployer, model, x)
            with self.folder() as folder:
                if not reason:
                    artefact = deployer.export(model, x, self.path_in(folder))
                    records = deployer.check(model, x)
                    assert artefact.mapping == records, f"net {net.name!r}: check and mapping differ"
                    continue
                with pytest.raises(REFUSALS):
                    deployer.export(model, x, self.path_in(folder))
                left = [path.name for path in folder.iterdir()]
                assert not left, f"net {net.name!r}: the refused export left {left}"

    def test_writes_the_artefact(self) -> None:
        """`export` writes under the path it is given and says where; the artefact is not empty."""
        for exported in self.few():
            with self.folder() as folder:
                artefact = self.make().export(exported.net.make(), exported.net.input(), self.path_in(folder))
                assert isinstance(artefact, Artefact), f"expected an Artefact, got {type(artefact).__name__}"
                path = Path(artefact.path)
                assert path.exists(), f"{path} does not exist"
                assert folder in path.parents, f"{path} is not where it was told to write"
                assert any(files_below(path).values()), "the artefact is empty"
                suffix = self.capabilities.suffix
                assert path.name.endswith(suffix), f"capabilities.suffix is {suffix!r}, the artefact {path.name!r}"
                around = [other.name for other in folder.iterdir() if other != path and path not in other.parents]
                assert not [name for name in around if folder / name not in path.parents], f"it left {around} beside it"

    # what it leaves alone

    def test_the_model_is_left_alone(self) -> None:
        """Weights, mode, step mode, hooks, state and random numbers stay as they were, after `check` and `export`."""
        for exported in self.few():
            for training in (False, True):
                for step_mode in ("multi", "single"):
                    self._assert_left_alone(exported.net, training, step_mode)

    def _assert_left_alone(self, net: SmallNet, training: bool, step_mode: str) -> None:
        model, x = net.make(), net.input()
        set_step_mode(model, step_mode)
        if step_mode == "single":
            with torch.no_grad():
                model(x[0])  # there is a state now
        model.train(training)
        kept = {name: value.clone() for name, value in model.state_dict().items()}
        before, random = _condition(model), torch.get_rng_state()
        for what in ("check", "export"):
            with self.folder() as folder, contextlib.suppress(*REFUSALS):
                if what == "check":
                    self.make().check(model, x)
                else:
                    self.make().export(model, x, self.path_in(folder))
            where = f"net {net.name!r} in step mode {step_mode!r}: {what}"
            assert_same(dict(model.state_dict()), kept, f"{where}: the weights")
            assert _condition(model) == before, f"{where} changed the mode, the step mode, the hooks or the state"
            assert torch.equal(torch.get_rng_state(), random), f"{where} drew random numbers"

    def test_the_mode_does_not_matter(self) -> None:
        """A net in training mode is deployed as it is evaluated."""
        for exported in self.few():
            x, answers = exported.net.input(), []
            for training in (False, True):
                with self.folder() as folder:
                    artefact = self.make().export(exported.net.make().train(training), x, self.path_in(folder))
                    if self.capabilities.simulates:
                        answers.append(self.make().simulate(artefact, x))
                    elif self.capabilities.deterministic:
                        answers.append(list(files_below(artefact.path).values()))
            if answers:
                assert_same(answers[1], answers[0], f"net {exported.net.name!r} exported in training mode")

    # what it refuses

    def test_unknown_layers_are_refused(self) -> None:
        """A layer that is no neuron and no synapse is refused by name, with reason and cure; nothing is written."""
        self._assert_refused(Unheard())

    def test_undeclared_neurons_are_refused(self) -> None:
        """A neuron that is not registered is refused by name, with reason and cure; nothing is written."""
        self._assert_refused(Adaptive(backend="torch"))

    def test_a_subclass_is_another_neuron(self) -> None:
        """Neurons are mapped by their own type: a subclass of LIF with other equations is refused."""
        self._assert_refused(Impostor(backend="torch"))

    def _assert_refused(self, layer: nn.Module) -> None:
        net = self.accepted()[0].net
        body, x = net.make(), net.input()
        parts = [*body.named_children()] if type(body) is nn.Sequential else [("body", body)]
        odd = nn.Sequential(OrderedDict([*parts, ("strange", layer)])).eval()
        records = [record for record in self.make().check(odd, x) if _is_part(record.name, "strange")]
        assert records, "nothing is said of the layer 'strange'"
        refused = [record for record in records if record.outcome == "refused"]
        assert refused, f"DID NOT REFUSE the layer 'strange': {records}"
        record = refused[0]
        assert min(len(record.reason), len(record.cure)) > 10, f"a refusal without reason or cure: {record}"
        said = self._export_fails(odd, x)
        assert "strange" in said, f"the refusal does not name the layer 'strange': {said}"
        assert record.reason in said, f"the refusal does not give the reason {record.reason!r}: {said}"

    def test_function_calls_are_seen(self) -> None:
        """What a net computes outside its modules is refused, if it is not mapped; never left out."""
        net = self.accepted()[0].net
        odd, x = Sorting(net.make()).eval(), net.input()
        assert refusal_of(self.make(), odd, x), "the call of Tensor.sort in the net's forward was left out"
        self._export_fails(odd, x)

    def _export_fails(self, model: nn.Module, x: Tensor) -> str:
        with self.folder() as folder:
            with pytest.raises(REFUSALS) as caught:
                self.make().export(model, x, self.path_in(folder))
            assert not list(folder.iterdir()), f"the refused export left {[p.name for p in folder.iterdir()]}"
        return str(caught.value)


def _operators(net: nn.Module, x: Tensor) -> list[str]:
    """The names of the operators of a net: its calls, but for those that give a number, such as `x.dim()`."""
    return [node.name for node in trace_net(net, x).layers if node.value is None]


def _is_part(name: str, whole: str) -> bool:
    """Whether an operator is that one, or within it."""
    return name == whole or name.startswith(f"{whole}.")


def _condition(model: nn.Module) -> list[Any]:
    """What a net is besides its weights."""
    modules = []
    for name, part in model.named_modules():
        hooks = [len(value) for key, value in vars(part).items() if key.endswith("_hooks") and value is not None]
        modules.append((name, id(part), part.training, getattr(part, "step_mode", None), hooks))
    parameters = [(name, id(value), value.requires_grad, value.grad) for name, value in model.named_parameters()]
    states = []
    for name, state in get_state(model).items():
        values = None if state is None else {key: value.tolist() for key, value in state.items()}
        states.append((name, values))
    return [modules, parameters, states]

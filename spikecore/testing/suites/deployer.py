"""Checks of a deployer: what it says of a net, what it writes, and that the artefact computes what the net computes.

Every small net that it takes is exported and, where it simulates, run and compared layer by layer with the net, at a
distance of `capabilities.tolerance` at most. A net that it does not take must be refused, operator by operator.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import weakref
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from spikecore.analysis import compare_layer, record_spikes
from spikecore.errors import ConversionError, NetTraceError
from spikecore.interfaces.deployer import Artefact, OperatorRecord
from spikecore.nn import IF, LIF, Neuron, get_state, set_step_mode, trace_net
from spikecore.testing.compare import assert_same
from spikecore.testing.probes import Adaptive
from spikecore.testing.small_nets import BATCH, NUM_STEPS, SmallNet, small_nets
from spikecore.testing.suite import Suite, needs, skip

SILENT, SATURATED = 0.05, 0.95
REFUSALS = (ConversionError, NetTraceError)
ROUNDING = 1e-5
"""Relative, of outputs that are no spikes: sums of floats in another order."""


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
    """The same as a function call, which stands in no list of modules."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        """Sorts what the body gives."""
        out: Tensor = self.body(x)
        return out.sort(-1).values


@dataclass(frozen=True)
class Exported:
    """A small net that the deployer takes, and what became of it."""

    net: SmallNet
    artefact: Artefact


@dataclass(frozen=True)
class Computed:
    """Output and trace over `net.input(SEED)`."""

    out: Tensor
    spikes: dict[str, Tensor]


SEED = 3
"""Of the inputs that are compared; the example input of `export` has another."""


class DeployerSuite(Suite):
    """Exports small nets that spike in every layer, and compares what their artefacts compute."""

    kind: ClassVar[str] = "deployer"
    minimum = 12

    def nets(self) -> tuple[SmallNet, ...]:
        """The nets to try; a deployer that takes none of them names others. They must spike in every layer."""
        return small_nets()

    # what checks share: exporting and running a net may be slow, so each is done once for all of them

    _shared: ClassVar[dict[str, Any]] = {}

    def _once(self, key: str, make: Any) -> Any:
        cls = type(self)
        if "_shared" not in cls.__dict__:
            cls._shared = {}
        if key not in cls._shared:
            cls._shared[key] = make()
        return cls._shared[key]

    def accepted(self) -> list[Exported]:
        """Every net that `check` lets pass, exported."""
        taken: list[Exported] = self._once("accepted", self._export_all)
        if not taken:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in self._once("refused", dict).items())
            raise AssertionError(f"it takes none of the small nets ({reasons}): override `nets` in a subclass")
        return taken

    def _export_all(self) -> list[Exported]:
        folder = Path(tempfile.mkdtemp())
        weakref.finalize(type(self), shutil.rmtree, folder, ignore_errors=True)
        deployer, taken, refused = self.make(), [], self._once("refused", dict)
        for index, net in enumerate(self.nets()):
            model, x = net.make(), net.input()
            if reason := _refusal(deployer, model, x):
                refused[net.name] = reason
                continue
            taken.append(Exported(net, deployer.export(model, x, folder / f"net{index}{self.capabilities.suffix}")))
        return taken

    def few(self) -> list[Exported]:
        """The first, the middle and the last one: for what does not depend on the equations."""
        taken = self.accepted()
        return list(
            {exported.net.name: exported for exported in (taken[0], taken[len(taken) // 2], taken[-1])}.values()
        )

    def expected(self, net: SmallNet) -> Computed:
        """What the net computes, after a look at whether it spikes."""
        computed: Computed = self._once(f"expected {net.name}", lambda: self._compute(net))
        return computed

    def _compute(self, net: SmallNet) -> Computed:
        out, spikes = record_spikes(net.make(), net.input(SEED))
        assert spikes, f"net {net.name!r} has no neurons"
        for name, values in spikes.items():
            rate = float((values != 0).double().mean())
            assert SILENT < rate < SATURATED, (
                f"net {net.name!r}: layer {name!r} fires in {rate:.1%} of its steps, so nothing can be learnt from it"
            )
        return Computed(out, spikes)

    def simulated(self, exported: Exported) -> Computed:
        """What its artefact computes."""

        def run() -> Computed:
            deployer, x = self.make(), exported.net.input(SEED)
            return Computed(deployer.simulate(exported.artefact, x), deployer.trace(exported.artefact, x))

        computed: Computed = self._once(f"simulated {exported.net.name}", run)
        return computed

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """An empty directory."""
        with tempfile.TemporaryDirectory() as name:
            yield Path(name)

    def _in(self, folder: Path) -> Path:
        """Where to export to."""
        return folder / f"net{self.capabilities.suffix}"

    def _assert_near(self, got: Any, expected: Tensor, what: str) -> None:
        """Within the declared distance; a distance at which silence would pass proves nothing."""
        assert isinstance(got, Tensor), f"{what}: expected a tensor, got {type(got).__name__}"
        assert got.shape == expected.shape, f"{what}: expected {tuple(expected.shape)}, got {tuple(got.shape)}"
        layer = compare_layer(what, expected, got)
        size = float(expected.abs().double().mean())
        are_spikes = bool(((expected == 0) | (expected == 1)).all())
        tolerance = self.capabilities.tolerance
        limit = tolerance if are_spikes else (tolerance + ROUNDING) * size
        assert limit < size, f"{what}: an output of zeros would lie within the declared tolerance {tolerance}"
        assert layer.mean_difference <= limit, (
            f"{what}: net and simulation differ by {layer.mean_difference:.4f} per output and step; declared is "
            f"{tolerance}. First: {layer.first}"
        )

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
            reason = _refusal(deployer, model, x)
            with self.folder() as folder:
                if not reason:
                    artefact = deployer.export(model, x, self._in(folder))
                    records = deployer.check(model, x)
                    assert artefact.mapping == records, f"net {net.name!r}: check and mapping differ"
                    continue
                with pytest.raises(REFUSALS):
                    deployer.export(model, x, self._in(folder))
                left = [path.name for path in folder.iterdir()]
                assert not left, f"net {net.name!r}: the refused export left {left}"

    def test_writes_the_artefact(self) -> None:
        """`export` writes under the path it is given and says where; the artefact is not empty."""
        for exported in self.few():
            with self.folder() as folder:
                artefact = self.make().export(exported.net.make(), exported.net.input(), self._in(folder))
                assert isinstance(artefact, Artefact), f"expected an Artefact, got {type(artefact).__name__}"
                path = Path(artefact.path)
                assert path.exists(), f"{path} does not exist"
                assert folder in path.parents, f"{path} is not where it was told to write"
                assert any(_files(path).values()), "the artefact is empty"
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
                    self.make().export(model, x, self._in(folder))
            where = f"net {net.name!r} in step mode {step_mode!r}: {what}"
            assert_same(dict(model.state_dict()), kept, f"{where}: the weights")
            assert _condition(model) == before, f"{where} changed the mode, the step mode, the hooks or the state"
            assert torch.equal(torch.get_rng_state(), random), f"{where} drew random numbers"

    def test_the_mode_does_not_matter(self) -> None:
        """A net in training mode is deployed as it is evaluated."""
        for exported in self.few():
            x, found = exported.net.input(), []
            for training in (False, True):
                with self.folder() as folder:
                    artefact = self.make().export(exported.net.make().train(training), x, self._in(folder))
                    if self.capabilities.simulates:
                        found.append(self.make().simulate(artefact, x))
                    elif self.capabilities.deterministic:
                        found.append(list(_files(artefact.path).values()))
            if found:
                assert_same(found[1], found[0], f"net {exported.net.name!r} exported in training mode")

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
        assert _refusal(self.make(), odd, x), "the call of Tensor.sort in the net's forward was left out"
        self._export_fails(odd, x)

    def _export_fails(self, model: nn.Module, x: Tensor) -> str:
        with self.folder() as folder:
            with pytest.raises(REFUSALS) as caught:
                self.make().export(model, x, self._in(folder))
            assert not list(folder.iterdir()), f"the refused export left {[p.name for p in folder.iterdir()]}"
        return str(caught.value)

    # what the artefact is

    @needs("deterministic")
    def test_determinism(self) -> None:
        """Equal nets give equal artefacts, byte for byte, whatever the seed."""
        for exported in self.few():
            written = []
            for seed in (0, 99):
                model = exported.net.make()
                torch.manual_seed(seed)
                with self.folder() as folder:
                    written.append(_files(self.make().export(model, exported.net.input(), self._in(folder)).path))
            assert list(written[0]) == list(written[1]), f"files {list(written[0])}, then {list(written[1])}"
            for name, content in written[0].items():
                assert written[1][name] == content, f"{name or 'the file'} differs in a second export"

    def test_weights_matter(self) -> None:
        """A net of which one parameter differs gives another artefact."""
        for exported in self.few():
            plain = _files(exported.artefact.path)
            for name, _ in exported.net.make().named_parameters():
                model = exported.net.make()
                with torch.no_grad():
                    model.get_parameter(name).mul_(-0.75)
                with self.folder() as folder:
                    changed = _files(self.make().export(model, exported.net.input(), self._in(folder)).path)
                assert changed != plain, f"net {exported.net.name!r}: another {name} gives the same artefact"

    # what the artefact computes

    @needs("simulates")
    def test_simulation_is_the_net(self) -> None:
        """The output of every net that is taken, `[T, B, outputs]`, as far from the net's as declared at most."""
        for exported in self.accepted():
            out = self.simulated(exported).out
            self._assert_near(out, self.expected(exported.net).out, f"net {exported.net.name!r}")

    @needs("simulates")
    def test_trace_is_the_nets(self) -> None:
        """Every neuron layer by its name in the net, in its order, `[T, B, ...]`, each as near as the output."""
        for exported in self.accepted():
            right, found = self.expected(exported.net).spikes, self.simulated(exported).spikes
            name = exported.net.name
            assert list(found) == list(right), f"net {name!r}: expected a trace of {list(right)}, got {list(found)}"
            for layer in right:
                self._assert_near(found[layer], right[layer], f"net {name!r}, layer {layer!r}")

    @needs("simulates")
    def test_threshold_ties(self) -> None:
        """A potential that lands exactly on the threshold fires, as in the net."""
        tied = [exported for exported in self.accepted() if exported.net.fires_at_threshold]
        if not tied:
            skip("it takes none of the nets whose potentials land on the threshold")
        for exported in tied:
            right = self.expected(exported.net)
            _, strict = record_spikes(_stricter(exported.net.make()), exported.net.input(SEED))
            for layer, spikes in right.spikes.items():
                assert not torch.equal(spikes, strict[layer]), f"net {exported.net.name!r}: no tie in layer {layer!r}"
                found = self.simulated(exported).spikes[layer]
                self._assert_near(found, spikes, f"net {exported.net.name!r}, layer {layer!r}, ties")

    @needs("simulates")
    def test_the_file_is_run(self) -> None:
        """Simulated is the artefact: by another instance, elsewhere, when the net and everything else have changed."""
        x = self.accepted()[0].net.input(SEED)
        first, other = self.accepted()[0].net, self._another()
        with self.folder() as folder:
            model, deployer = first.make(), self.make()
            artefact = deployer.export(model, first.input(), self._in(folder))
            right = deployer.simulate(artefact, x)
            with torch.no_grad():
                for tensor in (*model.parameters(), *model.buffers()):
                    tensor.zero_()
            assert_same(deployer.simulate(artefact, x), right, "the simulation after the net was set to zero")
            path = Path(artefact.path)
            moved = Path(shutil.move(path, folder / f"moved-{path.name}"))
            again = self.make().export(other.make(), other.input(), self._in(folder))
            assert_same(self.make().simulate(Artefact(moved), x), right, "the simulation of the artefact, moved")
            out = deployer.simulate(again, other.input(SEED))
            self._assert_near(out, self.expected(other).out, f"net {other.name!r}, written to the same path")

    def _another(self) -> SmallNet:
        taken = self.accepted()
        return taken[1 % len(taken)].net

    @needs("simulates")
    def test_no_state_between_calls(self) -> None:
        """Every call starts from the initial state, whatever was run before."""
        for exported in self.few():
            deployer, artefact, x = self.make(), exported.artefact, exported.net.input(SEED)
            right = deployer.simulate(artefact, x)
            assert_same(deployer.simulate(artefact, x), right, "the second simulation")
            spikes = deployer.trace(artefact, x)
            assert_same(deployer.trace(artefact, x), spikes, "the second trace")
            if not self.capabilities.fixed_shape:
                deployer.simulate(artefact, x[: NUM_STEPS // 2, :1])
            assert_same(deployer.simulate(artefact, x), right, "the simulation after other calls")
            assert_same(self.make().simulate(artefact, x), right, "the simulation by another instance")

    @needs("simulates")
    @needs("fixed_shape", False)
    def test_other_lengths_and_batches(self) -> None:
        """An artefact runs for other numbers of steps and samples than those of the example input."""
        for exported in self.few():
            net, right = exported.net, self.expected(exported.net).out
            steps, samples = NUM_STEPS - 7, BATCH - 1
            out = self.make().simulate(exported.artefact, net.input(SEED)[:steps, :samples])
            self._assert_near(out, right[:steps, :samples], f"net {net.name!r}, {steps} steps of {samples} samples")

    @needs("simulates")
    @needs("fixed_shape")
    def test_the_shape_is_fixed(self) -> None:
        """Another number of steps than that of the example input is an error, not another result."""
        exported = self.accepted()[0]
        with pytest.raises(Exception, match=r"\d"):
            self.make().simulate(exported.artefact, exported.net.input(SEED)[: NUM_STEPS // 2])

    @needs("simulates")
    @needs("bit_exact")
    @needs("fixed_shape", False)
    def test_a_sample_alone(self) -> None:
        """One sample alone gives the same bits as within a batch."""
        for exported in self.few():
            x, out = exported.net.input(SEED), self.simulated(exported).out
            alone = self.make().simulate(exported.artefact, x[:, 1:2])
            assert_same(alone, out[:, 1:2], f"net {exported.net.name!r}, sample 1 alone")

    @needs("simulates", False)
    def test_no_simulation(self) -> None:
        """What declares no simulation does not answer with one."""
        exported = self.accepted()[0]
        for what in ("simulate", "trace"):
            try:
                found = getattr(self.make(), what)(exported.artefact, exported.net.input())
            except Exception:  # whatever it says, it does not answer
                continue
            raise AssertionError(f"capabilities.simulates is False, but {what} gave {type(found).__name__}")

    # and back

    @needs("imports")
    def test_round_trip(self) -> None:
        """A net that was exported and loaded computes what the net computes; exported again, so does its artefact."""
        for exported in self.accepted():
            net, x, right = exported.net, exported.net.input(SEED), self.expected(exported.net).out
            loaded = self.make().load(Path(exported.artefact.path))
            assert isinstance(loaded, nn.Module), f"load must give a module, got {type(loaded).__name__}"
            out, _ = record_spikes(loaded, x)
            self._assert_near(out, right, f"net {net.name!r}, loaded")
            if self.capabilities.simulates:
                with self.folder() as folder:
                    again = self.make().export(loaded, net.input(), self._in(folder))
                    self._assert_near(self.make().simulate(again, x), right, f"net {net.name!r}, exported twice")

    @needs("imports")
    def test_damaged_files_are_refused(self) -> None:
        """An artefact of which half is missing raises ConversionError, as does an empty one."""
        exported = self.accepted()[0]
        for share in (0.5, 0.0):
            with self.folder() as folder:
                path = Path(self.make().export(exported.net.make(), exported.net.input(), self._in(folder)).path)
                for name, content in _files(path).items():
                    (path / name if name else path).write_bytes(content[: int(len(content) * share)])
                with pytest.raises(ConversionError):
                    self.make().load(path)


def _refusal(deployer: Any, model: nn.Module, x: Tensor) -> str:
    """Why `check` does not let the net pass; "" where it does."""
    try:
        records = deployer.check(model, x)
    except REFUSALS as error:
        return str(error)
    refused = [record for record in records if record.outcome == "refused"]
    return ", ".join(f"{record.name}: {record.reason}" for record in refused)


def _operators(net: nn.Module, x: Tensor) -> list[str]:
    """The names of the operators of a net: its calls, but for those that give a number, such as `x.dim()`."""
    return [node.name for node in trace_net(net, x).layers if node.value is None]


def _is_part(name: str, whole: str) -> bool:
    """Whether an operator is that one, or within it."""
    return name == whole or name.startswith(f"{whole}.")


def _stricter(net: nn.Module) -> nn.Module:
    """The same net with neurons that fire above the threshold only: the next number is their threshold."""
    for name, part in list(net.named_modules()):
        if isinstance(part, Neuron):
            threshold = torch.tensor(float(part.config.v_threshold))
            above = float(torch.nextafter(threshold, torch.tensor(float("inf"))))
            options = {key: getattr(part.config, key) for key in vars(part.config)}
            parent, _, child = name.rpartition(".")
            strict = type(part)(backend="torch", **{**options, "v_threshold": above})
            net.get_submodule(parent).add_module(child, strict)
    return net


def _files(path: Path) -> dict[str, bytes]:
    """Name below `path` → content."""
    path = Path(path)
    if path.is_file():
        return {"": path.read_bytes()}
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


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

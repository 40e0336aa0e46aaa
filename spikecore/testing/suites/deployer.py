"""Checks of a deployer: what it says of a net, what it writes, and that the artefact computes what the net computes.

Every small net that it takes is exported and, where it simulates, run and compared layer by layer with the net, at a
distance of `capabilities.tolerance` at most. A net that it does not take must be refused, operator by operator.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import nn

from spikecore.analysis import record_spikes
from spikecore.errors import ConversionError
from spikecore.interfaces.deployer import Artefact
from spikecore.nn import Neuron
from spikecore.testing.compare import assert_same
from spikecore.testing.small_nets import BATCH, NUM_STEPS, SmallNet
from spikecore.testing.suite import needs, skip
from spikecore.testing.suites.deployer_nets import SEED, files_below
from spikecore.testing.suites.deployer_refusals import RefusalChecks


class DeployerSuite(RefusalChecks):
    """Exports small nets that spike in every layer, and compares what their artefacts compute."""

    kind: ClassVar[str] = "deployer"
    minimum = 12

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
                    written.append(
                        files_below(self.make().export(model, exported.net.input(), self.path_in(folder)).path)
                    )
            assert list(written[0]) == list(written[1]), f"files {list(written[0])}, then {list(written[1])}"
            for name, content in written[0].items():
                assert written[1][name] == content, f"{name or 'the file'} differs in a second export"

    def test_weights_matter(self) -> None:
        """A net of which one parameter differs gives another artefact."""
        for exported in self.few():
            plain = files_below(exported.artefact.path)
            for name, _ in exported.net.make().named_parameters():
                model = exported.net.make()
                with torch.no_grad():
                    model.get_parameter(name).mul_(-0.75)
                with self.folder() as folder:
                    changed = files_below(self.make().export(model, exported.net.input(), self.path_in(folder)).path)
                assert changed != plain, f"net {exported.net.name!r}: another {name} gives the same artefact"

    # what the artefact computes

    @needs("simulates")
    def test_simulation_is_the_net(self) -> None:
        """The output of every net that is taken, `[T, B, outputs]`, as far from the net's as declared at most."""
        for exported in self.accepted():
            out = self.simulated(exported).out
            self.assert_near(out, self.expected(exported.net).out, f"net {exported.net.name!r}")

    @needs("simulates")
    def test_trace_is_the_nets(self) -> None:
        """Every neuron layer by its name in the net, in its order, `[T, B, ...]`, each as near as the output."""
        for exported in self.accepted():
            right, traced = self.expected(exported.net).spikes, self.simulated(exported).spikes
            name = exported.net.name
            assert list(traced) == list(right), f"net {name!r}: expected a trace of {list(right)}, got {list(traced)}"
            for layer in right:
                self.assert_near(traced[layer], right[layer], f"net {name!r}, layer {layer!r}")

    @needs("simulates")
    def test_threshold_ties(self) -> None:
        """A potential that lands exactly on the threshold fires where the net fires: not where `fires` is "above"."""
        tied = [exported for exported in self.accepted() if exported.net.has_ties]
        if not tied:
            skip("it takes none of the nets whose potentials land on the threshold")
        for exported in tied:
            right = self.expected(exported.net)
            _, others = record_spikes(_with_other_ties(exported.net.make()), exported.net.input(SEED))
            for layer, spikes in right.spikes.items():
                assert not torch.equal(spikes, others[layer]), f"net {exported.net.name!r}: no tie in layer {layer!r}"
                traced = self.simulated(exported).spikes[layer]
                self.assert_near(traced, spikes, f"net {exported.net.name!r}, layer {layer!r}, ties")

    @needs("simulates")
    def test_the_file_is_run(self) -> None:
        """Simulated is the artefact: by another instance, elsewhere, when the net and everything else have changed."""
        x = self.accepted()[0].net.input(SEED)
        first, other = self.accepted()[0].net, self._another()
        with self.folder() as folder:
            model, deployer = first.make(), self.make()
            artefact = deployer.export(model, first.input(), self.path_in(folder))
            right = deployer.simulate(artefact, x)
            with torch.no_grad():
                for tensor in (*model.parameters(), *model.buffers()):
                    tensor.zero_()
            assert_same(deployer.simulate(artefact, x), right, "the simulation after the net was set to zero")
            path = Path(artefact.path)
            moved = Path(shutil.move(path, folder / f"moved-{path.name}"))
            again = self.make().export(other.make(), other.input(), self.path_in(folder))
            assert_same(self.make().simulate(Artefact(moved), x), right, "the simulation of the artefact, moved")
            out = deployer.simulate(again, other.input(SEED))
            self.assert_near(out, self.expected(other).out, f"net {other.name!r}, written to the same path")

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
            self.assert_near(out, right[:steps, :samples], f"net {net.name!r}, {steps} steps of {samples} samples")

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
                answer = getattr(self.make(), what)(exported.artefact, exported.net.input())
            except Exception:  # whatever it says, it does not answer
                continue
            raise AssertionError(f"capabilities.simulates is False, but {what} gave {type(answer).__name__}")

    # and back

    @needs("imports")
    def test_round_trip(self) -> None:
        """A net that was exported and loaded computes what the net computes; exported again, so does its artefact."""
        for exported in self.accepted():
            net, x, right = exported.net, exported.net.input(SEED), self.expected(exported.net).out
            loaded = self.make().load(Path(exported.artefact.path))
            assert isinstance(loaded, nn.Module), f"load must give a module, got {type(loaded).__name__}"
            out, _ = record_spikes(loaded, x)
            self.assert_near(out, right, f"net {net.name!r}, loaded")
            if self.capabilities.simulates:
                with self.folder() as folder:
                    again = self.make().export(loaded, net.input(), self.path_in(folder))
                    self.assert_near(self.make().simulate(again, x), right, f"net {net.name!r}, exported twice")

    @needs("imports")
    def test_damaged_files_are_refused(self) -> None:
        """An artefact of which half is missing raises ConversionError, as does an empty one."""
        exported = self.accepted()[0]
        for share in (0.5, 0.0):
            with self.folder() as folder:
                path = Path(self.make().export(exported.net.make(), exported.net.input(), self.path_in(folder)).path)
                for name, content in files_below(path).items():
                    (path / name if name else path).write_bytes(content[: int(len(content) * share)])
                with pytest.raises(ConversionError):
                    self.make().load(path)


def _with_other_ties(net: nn.Module) -> nn.Module:
    """The same net, but a potential on the threshold fires where it does not, and does not where it does."""
    for name, part in list(net.named_modules()):
        if isinstance(part, Neuron):
            options = {key: getattr(part.config, key) for key in vars(part.config)}
            options["fires"] = "at" if part.config.fires == "above" else "above"
            parent, _, child = name.rpartition(".")
            net.get_submodule(parent).add_module(child, type(part)(backend="torch", **options))
    return net

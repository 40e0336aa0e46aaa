"""`spike deploy` from a trained run to a directory, with a deployer that comes from a file: what it writes and says."""

import hashlib
import json
from pathlib import Path

import pytest
import torch

import spikecore
from spikecore.analysis import Fidelity, record_spikes
from spikecore.run.samples import samples_of
from tests.cli.scaffolded import component_file, trained

SMALL = {
    "trainer": {"epochs": 2},
    "encoder": {"num_steps": 6},
    "model": {"name": "mlp", "hidden": [24]},
    "neuron": {"tau": 3.0, "v_threshold": 0.5},
    "run": {"name": "small"},
}
VARIANTS = '''
import spikecore
from spikecore.models.mlp import MLP
from tests.run.toy_trainers import Walker
spikecore.register("trainer", "walker", Walker)
from dataclasses import dataclass, replace
from spikecore.errors import PluginUnavailable
from spikecore.interfaces.component import Configurable

@spikecore.register("model", "branching")
class Branching(MLP):
    """Its way depends on the values."""
    def forward(self, x):
        return super().forward(x) if x.sum() > 0 else super().forward(x) * 2

@spikecore.register("deployer", "toy")
class Toy(FreshToy):
    """As the scaffold writes it, with an option and a name for its files."""
    capabilities = replace(FreshToy.capabilities, suffix=".json")
    @dataclass(frozen=True)
    class Config(Configurable.Config):
        note: str = ""
    def export(self, model, example_input, path):
        artefact = super().export(model, example_input, path)
        return replace(artefact, notes=(self.config.note,) if self.config.note else ())

@spikecore.register("deployer", "toy-silent")
class Silent(Toy):
    """Cannot simulate."""
    capabilities = replace(Toy.capabilities, simulates=False)
    def simulate(self, artefact, x):
        raise PluginUnavailable("no simulator")
    trace = simulate

@spikecore.register("deployer", "toy-absent")
class Absent(Silent):
    """Simulates elsewhere, and not here."""
    capabilities = Toy.capabilities

@spikecore.register("deployer", "toy-wrong")
class Wrong(Toy):
    """Fires half a threshold late."""
    def export(self, model, example_input, path):
        artefact = super().export(model, example_input, path)
        path.write_text(path.read_text().replace('"v_threshold": 0.5', '"v_threshold": 0.75'))
        return artefact

@spikecore.register("deployer", "toy-lost")
class Lost(Toy):
    """Its trace lacks a layer."""
    def trace(self, artefact, x):
        return {}

@spikecore.register("deployer", "toy-fixed")
class Fixed(Toy):
    """Runs for one shape only."""
    capabilities = replace(Toy.capabilities, fixed_shape=True)
    shape = None
    def export(self, model, example_input, path):
        type(self).shape = tuple(example_input.shape)
        return super().export(model, example_input, path)
    def simulate(self, artefact, x):
        assert tuple(x.shape) == self.shape, f"{tuple(x.shape)}, not {self.shape}"
        return super().simulate(artefact, x)
'''


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """A small net trained on the digits."""
    return trained(SMALL, tmp_path_factory.mktemp("runs") / "small")


@pytest.fixture(scope="module")
def toys(tmp_path_factory):
    """The deployer that `spike new-plugin` writes, and variants of it, in one file."""
    return component_file(tmp_path_factory.mktemp("toys"), "deployer", VARIANTS)


@pytest.fixture
def deploy(spike, run_dir, toys):
    """`spike deploy NAME RUN_DIR`."""
    return lambda name, *options, run=run_dir: spike("deploy", name, run, *options, "--load", toys)


def everything(folder):
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*"))


def test_a_run_becomes_a_directory(deploy, run_dir, toys):
    status, printed = deploy("toy", "--out", "chip", "--verify", 40, "--set", "note=Weights are floats <b>.")
    assert status == 0, printed
    assert everything("chip") == ["deploy.json", "fidelity.html", "fidelity.json", "net.json"]
    for said in ("operators   4 mapped", "note        Weights are floats", "40 samples of the test split", "100 %"):
        assert said in printed, printed
    assert "Same decision on 40 of 40 samples." in printed

    fidelity = Fidelity.from_json(Path("chip/fidelity.json").read_text())
    assert [layer.name for layer in fidelity.layers] == ["layers.1"]
    assert fidelity.layers[0].shape == (6, 40, 24)
    assert 0.01 < fidelity.layers[0].expected_spikes / fidelity.layers[0].num_outputs < 0.9
    assert fidelity.is_exact
    assert fidelity.decisions.accuracy == fidelity.decisions.artefact_accuracy
    assert fidelity.decisions.accuracy > 0.5

    manifest = json.loads(Path("chip/deploy.json").read_text())
    assert manifest["artefact"] == "net.json"
    assert manifest["options"] == {"note": "Weights are floats <b>."}
    assert [row["name"] for row in manifest["operators"]] == ["flatten", "layers.0", "layers.1", "layers.2"]
    assert manifest["files"]["net.json"]["sha256"] == hashlib.sha256(Path("chip/net.json").read_bytes()).hexdigest()
    assert manifest["example_shape"] == [6, 1, 1, 8, 8]
    page = Path("chip/fidelity.html").read_text()
    assert "Weights are floats &lt;b&gt;." in page
    assert "layers.1" in page


def test_the_samples_are_those_that_the_run_evaluates(run_dir):
    samples = samples_of(run_dir, 50)
    assert samples.x.shape == (6, 50, 1, 8, 8)
    again = samples_of(run_dir, 50)
    assert torch.equal(again.x, samples.x)
    split = spikecore.create("dataset", "digits").split("test")
    index = 49 * len(split) // 50
    assert torch.equal(samples.x[0, 49], split[index][0])
    assert int(samples.labels[49]) == split[index][1]
    out, _ = record_spikes(spikecore.load(run_dir), samples.x)
    assert float((out.sum(0).argmax(-1) == samples.labels).double().mean()) > 0.5
    assert samples_of(run_dir, 10**6).x.shape[1] == len(split)


def test_check_lists_every_operator_and_writes_nothing(deploy, tmp_path):
    status, printed = deploy("toy", "--check")
    assert status == 0
    lines = [line.split() for line in printed.splitlines()]
    assert lines[0] == ["name", "operator", "outcome", "on", "the", "target"]
    assert lines[1:] == [
        ["flatten", ".flatten()", "mapped", "flatten"],
        ["layers.0", "Linear", "mapped", "linear"],
        ["layers.1", "LIF", "mapped", "lif"],
        ["layers.2", "Linear", "mapped", "linear"],
    ]
    status, printed = deploy("toy", "--check", "--json")
    assert status == 0
    assert json.loads(printed)["operators"][2] == {
        "name": "layers.1",
        "operator": "LIF",
        "outcome": "mapped",
        "target": "lif",
        "reason": "",
        "cure": "",
    }
    assert everything(tmp_path) == []


@pytest.fixture(scope="module")
def refused_run(tmp_path_factory):
    """A run whose net the toy refuses."""
    config = {**SMALL, "trainer": {"epochs": 1}, "model": {"name": "convnet", "channels": [2]}}
    return trained(config, tmp_path_factory.mktemp("runs") / "conv")


def test_a_refused_net_is_told_operator_by_operator(deploy, refused_run, tmp_path):
    for options in (("--check",), ("--out", "chip")):
        status, printed = deploy("toy", *options, run=refused_run)
        assert status == 2, printed
        assert "layers.0  FoldTime  refused" in printed
        assert "there is no FoldTime on the target" in printed
        assert "use Linear, Flatten, IF and LIF" in printed
        assert "layers.1  LIF       mapped   lif" in printed
        assert max(map(len, printed.splitlines())) <= 80, "it should fit a terminal"
    assert "refuses 2 of 5 operators" in printed
    assert everything(tmp_path) == []
    status, printed = deploy("toy", "--check", "--json", run=refused_run)
    assert status == 2
    assert json.loads(printed)["operators"][0]["outcome"] == "refused"


def test_a_net_that_cannot_be_traced_is_shown_its_line(deploy, spike, toys):
    short = [f"--set={key}" for key in ("model.name=branching", "model.hidden=[4]", "trainer.epochs=1")]
    status, printed = spike("run", *short, "--out", "branching", "--load", toys)
    assert status == 0, printed
    for options in (("--check",), ("--out", "chip")):
        status, printed = deploy("toy", *options, run="branching")
        assert status == 2
        assert "deployer 'toy' cannot look into this net" in printed
        assert "if x.sum() > 0" in printed
    assert not Path("chip").exists()


def test_a_deployer_without_simulation_deploys_and_says_so(deploy):
    status, printed = deploy("toy-silent", "--out", "chip")
    assert status == 0, printed
    assert everything("chip") == ["deploy.json", "fidelity.html", "net.json"]
    assert "was not run" in Path("chip/fidelity.html").read_text()
    status, printed = deploy("toy-silent", "--out", "other", "--verify", 3)
    assert (status, "'toy-silent' does not simulate" in printed) == (2, True)
    assert not Path("other").exists()


def test_a_simulation_that_is_not_possible_here_is_an_error_only_when_asked_for(deploy, tmp_path):
    status, printed = deploy("toy-absent", "--out", "chip")
    assert status == 0, printed
    assert "Not compared with the net: no simulator" in printed
    assert "Not compared with the net: no simulator" in Path("chip/fidelity.html").read_text()
    status, printed = deploy("toy-absent", "--out", "other", "--verify", 3)
    assert (status, "no simulator" in printed) == (2, True)
    assert [path.name for path in tmp_path.iterdir()] == ["chip"]


def test_an_artefact_far_from_the_net_is_written_and_told(deploy):
    status, printed = deploy("toy-wrong", "--out", "chip", "--verify", 30)
    assert status == 1
    assert "layer 'layers.1' differs from the net by 0." in printed
    assert "deployer 'toy-wrong' declares 0" in printed
    fidelity = Fidelity.from_json(Path("chip/fidelity.json").read_text())
    assert not fidelity.is_exact
    assert fidelity.first.layer == "layers.1"
    assert (fidelity.first.expected, fidelity.first.got) == (1.0, 0.0), "it fires late"
    assert f"First difference: {fidelity.first}." in printed
    assert "Agreement per step" in Path("chip/fidelity.html").read_text()


def test_a_trace_of_another_net_is_no_result(deploy, tmp_path):
    status, printed = deploy("toy-lost", "--out", "chip")
    assert status == 1
    assert "deployer 'toy-lost': what it simulates is not this net" in printed
    assert "lacks 'layers.1'" in printed
    assert everything(tmp_path) == []


def test_an_artefact_of_a_fixed_shape_is_compared_in_whole_batches(deploy):
    status, printed = deploy("toy-fixed", "--out", "chip", "--batch", 4, "--verify", 10)
    assert status == 0, printed
    assert "Compared on 8 of 10 samples: the artefact takes batches of 4." in printed
    assert Fidelity.from_json(Path("chip/fidelity.json").read_text()).layers[0].shape == (6, 8, 24)
    status, printed = deploy("toy-fixed", "--out", "other", "--num-steps", 3, "--verify", 10)
    assert (status, "leave out --num-steps" in printed) == (2, True)
    assert not Path("other").exists()


def test_without_its_data_a_run_is_deployed_for_a_shape(deploy, monkeypatch):
    def gone(*_, **__):
        raise OSError("the data are gone")

    monkeypatch.setattr("spikecore.datasets.digits.Digits.__init__", gone)
    status, printed = deploy("toy", "--out", "chip")
    assert status == 2
    assert "the data are gone" in printed
    assert "--verify 0 --num-steps T" in printed
    assert not Path("chip").exists()
    status, printed = deploy("toy", "--out", "chip", "--verify", 0, "--num-steps", 9, "--batch", 2)
    assert status == 0, printed
    assert json.loads(Path("chip/deploy.json").read_text())["example_shape"] == [9, 2, 1, 8, 8]
    assert everything("chip") == ["deploy.json", "fidelity.html", "net.json"]
    assert deploy("toy", "--check", "--num-steps", 4)[0] == 0


def test_one_of_several_nets_without_any_data(deploy, spike, toys, tmp_path):
    """Actor and critic of an environment: their trainer gives the example, and there are no labels."""
    short = ("--set", "trainer.name=walker", "--set", "trainer.epochs=1", "--set", "trainer.episodes=2")
    strong = ("--set", "neuron.v_threshold=0.25")
    status, printed = spike("run", *short, *strong, "--out", "walk", "--load", toys)
    assert status == 0, printed
    status, printed = deploy("toy", "--out", "chip", "--net", "actor", "--verify", 6, run="walk")
    assert status == 0, printed
    assert "the trainer's example" in printed
    fidelity = Fidelity.from_json(Path("chip/fidelity.json").read_text())
    assert (fidelity.layers[0].shape, fidelity.output.shape, fidelity.decisions) == ((3, 6, 16), (3, 6, 2), None)
    assert fidelity.layers[0].expected_spikes > 0
    assert json.loads(Path("chip/deploy.json").read_text())["net"] == "actor"
    for options, says in (((), "--net is missing"), (("--net", "actr"), "--net actr")):
        status, printed = deploy("toy", "--out", "other", *options, run="walk")
        assert (status, f"{says}: this run has the nets actor, critic" in printed) == (2, True), printed


def test_wrong_words_are_told(deploy, spike, toys, tmp_path):
    Path("full").mkdir()
    Path("full/file").touch()
    Path("file").touch()
    cases = [
        (("toy",), "--out DIR says where to write"),
        (("toy", "--check", "--out", "x"), "--check writes nothing"),
        (("toy", "--out", "x", "--json"), "--json goes with --check"),
        (("toy", "--out", "full"), "must be a new or empty directory"),
        (("toy", "--out", "file"), "must be a new or empty directory"),
        (("toy", "--out", "file/x"), "cannot be written"),
        (("toi", "--out", "x"), "Did you mean 'toy'"),
        (("toy", "--out", "x", "--set", "nota=1"), "did you mean 'note'?"),
        (("toy", "--out", "x", "--set", "note"), "spike: --set note: expected KEY=VALUE, as in tau=3.0"),
        (("toy", "--out", "x", "--checkpoint", "first"), "first"),
        (("toy", "--out", "x", "--net", "actor"), "has one net only"),
        (("toy", "--out", "x", "--verify", "-1"), "-1"),
        (("toy", "--out", "x", "--batch", "5000"), "spike: --batch 5000: there are only "),
    ]
    for arguments, says in cases:
        status, printed = deploy(*arguments)
        assert (status, says in printed) == (2, True), printed
    status, printed = deploy("toy", "--out", "x", run=tmp_path / "nowhere")
    assert (status, "nowhere" in printed) == (2, True), printed
    assert everything(tmp_path) == ["file", "full", "full/file"]
    status, printed = spike("deploy", "--help")
    assert status == 0
    for part in ("--verify N", "--check", "--set KEY=VALUE", "Exit status", "fidelity.html", "default: 16"):
        assert part in printed, printed


def test_an_empty_directory_is_filled(deploy):
    Path("chip").mkdir()
    assert deploy("toy", "--out", "chip", "--verify", 1)[0] == 0
    assert Path("chip/net.json").is_file()

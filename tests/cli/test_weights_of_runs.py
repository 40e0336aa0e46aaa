"""`weights` in a model's table: a run starts from them, its record says so, and nothing needs them afterwards."""

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import spikecore
from spikecore.errors import ConfigError
from spikecore.nn import LIF
from spikecore.registry import Blocking, Registry, use
from spikecore.run.config import resolve, tables_of
from spikecore.run.record import Record, WeightsRecord
from spikecore.run.samples import samples_of

SHIPPED = "SPIKE_TEST_WEIGHTS"
"""As components.py says; importing it would register its components for all tests of this process."""
COMPONENTS = Path(__file__).with_name("components.py")
SHAPE, OUTPUTS = (1, 8, 8), 10
CONFIG = {
    "model": {"name": "toy-weighted", "hidden": 5},
    "trainer": {"epochs": 0},
    "encoder": {"num_steps": 2},
    "run": {"seed": 3},
}


@pytest.fixture(autouse=True)
def toys():
    with use(Registry(blocking=Blocking())) as own:
        own.load_file(COMPONENTS)
        yield own


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """The model ships the weights `trained`."""
    folder = tmp_path / "shipped"
    folder.mkdir()
    torch.manual_seed(1)
    net = spikecore.create("model", "toy-weighted", LIF, SHAPE, OUTPUTS, hidden=5)
    save_file(net.state_dict(), folder / "trained.safetensors")
    monkeypatch.setenv(SHIPPED, str(folder))
    return folder / "trained.safetensors"


def with_weights(weights, **tables):
    return {**CONFIG, **tables, "model": {**CONFIG["model"], "weights": weights}}


def is_equal(net, file):
    state = load_file(file)
    return all(torch.equal(value, state[name]) for name, value in net.state_dict().items())


def test_a_run_starts_from_them(shipped, tmp_path):
    spikecore.run(with_weights("trained"), out=tmp_path / "run")
    assert is_equal(spikecore.load(tmp_path / "run"), shipped)
    digest = hashlib.sha256(shipped.read_bytes()).hexdigest()
    assert Record.read(tmp_path / "run").net.weights == WeightsRecord("trained", digest)
    assert 'weights = "trained"' in (tmp_path / "run/config.toml").read_text()
    spikecore.run(CONFIG, out=tmp_path / "new")
    assert not is_equal(spikecore.load(tmp_path / "new"), shipped)
    assert Record.read(tmp_path / "new").net.weights is None


def test_a_file_is_named_by_its_path(shipped, tmp_path):
    copy = tmp_path / "mine.safetensors"
    copy.write_bytes(shipped.read_bytes())
    spikecore.run(with_weights(str(copy)), out=tmp_path / "run")
    assert is_equal(spikecore.load(tmp_path / "run"), shipped)
    assert Record.read(tmp_path / "run").net.weights.name == str(copy)


def test_nothing_needs_them_afterwards(shipped, tmp_path, spike):
    """Not to load, to measure, to look at the samples or to go on."""
    directory = tmp_path / "run"
    spikecore.run(with_weights("trained", trainer={"epochs": 1, "lr": 0.01}), out=directory)
    assert not is_equal(spikecore.load(directory), shipped)
    shipped.unlink()
    kept = spikecore.load(directory).state_dict()
    assert samples_of(directory, 2).x.shape == (2, 2, *SHAPE)
    status, printed = spike("eval", directory, "--json", "--load", COMPONENTS)
    assert status == 0, printed
    status, printed = spike("run", "--resume", directory, "--set", "trainer.epochs=2", "--load", COMPONENTS)
    assert status == 0, printed
    assert not torch.equal(spikecore.load(directory).state_dict()["last.weight"], kept["last.weight"])
    with pytest.raises(ConfigError, match=r"model\.weights: model 'toy-weighted' has no weights 'trained'"):
        spikecore.run(with_weights("trained"), out=tmp_path / "again")


def test_a_run_that_trains_starts_there(shipped, tmp_path):
    """A step of lr 0 leaves them as they are."""
    still = {"epochs": 1, "lr": 1e-12, "optimizer": {"name": "sgd"}}
    spikecore.run(with_weights("trained", trainer=still), out=tmp_path / "run")
    state, given = spikecore.load(tmp_path / "run").state_dict(), load_file(shipped)
    torch.testing.assert_close(state, given, rtol=0, atol=1e-9)


def test_a_dry_run_shows_them(shipped, spike):
    words = [f"--set={table}.{key}={value}" for table, values in CONFIG.items() for key, value in values.items()]
    status, printed = spike("run", *words, "--set", "model.weights=trained", "--dry-run", "--load", COMPONENTS)
    assert status == 0, printed
    digest = hashlib.sha256(shipped.read_bytes()).hexdigest()[:12]
    assert f"starts from the weights 'trained' (sha256 {digest})" in " ".join(printed.split())
    status, printed = spike("run", *words, "--set", "model.weights=trained", "--print-config", "--load", COMPONENTS)
    assert (status, 'weights = "trained"' in printed) == (0, True), printed
    status, printed = spike("run", *words, "--dry-run", "--load", COMPONENTS)
    assert (status, "weights" in printed) == (0, False), printed


def test_weights_of_another_net_are_told_key_by_key(shipped, spike):
    words = ["--set=model.name=toy-weighted", "--set=model.hidden=7", "--set=model.weights=trained"]
    status, printed = spike("run", *words, "--dry-run", "--load", COMPONENTS)
    assert status == 2, printed
    for said in (
        "model.weights: ",
        "shape       first.weight: expected [7, 64], got [5, 64]",
        "shape       last.weight: expected [10, 7], got [10, 5]",
    ):
        assert said in printed, printed
    status, printed = spike(
        "run", *words, "--set=model.hidden=5", "--set=neuron.learnable=['tau']", "--dry-run", "--load", COMPONENTS
    )
    assert (status, "missing     neuron.param_tau []" in printed) == (2, True), printed


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ("traned", "model.weights: model 'toy-weighted' has no weights 'traned'; did you mean 'trained'?"),
        ("gone.safetensors", "model.weights: gone.safetensors: cannot be read"),
        (3, "model.weights: must be the name of weights that ship with the model, or a file; got 3"),
    ],
)
def test_what_is_wrong_is_told(shipped, spike, weights, said):
    words = ["--set=model.name=toy-weighted", "--set=model.hidden=5", f"--set=model.weights={weights}"]
    status, printed = spike("run", *words, "--dry-run", "--load", COMPONENTS)
    assert (status, said in printed) == (2, True), printed


def test_they_cannot_change_in_the_middle(shipped, tmp_path, spike):
    spikecore.run(with_weights("trained"), out=tmp_path / "run")
    words = ("--resume", tmp_path / "run", "--set", "model.weights=other", "--load", COMPONENTS)
    status, printed = spike("run", *words)
    assert (status, "model.weights: cannot change in the middle of a run" in printed) == (2, True), printed


def test_what_an_override_takes_back(shipped):
    assert resolve(with_weights("trained")).weights == {"model": "trained"}
    assert resolve(with_weights("trained"), ["model.weights=''"]).weights == {}
    assert resolve(with_weights("trained"), ["model.name=mlp"]).weights == {}
    again = resolve(tables_of(resolve(with_weights("trained")).to_toml()))
    assert again == resolve(with_weights("trained"))
    assert again != resolve(CONFIG)


def test_other_tables_have_no_weights():
    with pytest.raises(ConfigError, match=r"neuron\.weights: is unknown"):
        resolve({**CONFIG, "neuron": {"weights": "trained"}})


def test_a_models_own_option_of_that_name_comes_first(toys):
    from dataclasses import dataclass

    from spikecore.models.mlp import MLP

    class Own(MLP):
        @dataclass(frozen=True)
        class Config(MLP.Config):
            weights: int = 2

    toys.register("model", "own", Own)
    resolved = resolve({**CONFIG, "model": {"name": "own", "weights": 5}})
    assert (resolved.weights, resolved.tables["model"].weights) == ({}, 5)

"""A configuration that asks for far more memory than the weights beside it: an error of ours, and nothing is built."""

import hashlib
import json
import resource
import shutil

import pytest
import torch

import spikecore
from spikecore.errors import CheckpointError
from spikecore.run.ceiling import BASE_BYTES, LEAST_BYTES, MOST_RATIO, ceiling
from spikecore.run.dry_run import inspect_resume
from spikecore.run.evaluation import evaluate
from spikecore.run.experiment import resume
from spikecore.run.profile import profile
from spikecore.run.record import OWN_SUM, sealed
from spikecore.run.shared import share

TOO_MANY = r"takes more than \d+ bytes, and the weights that were saved with it have"


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "out"
    small = {"name": "mlp", "hidden": [8]}
    spikecore.run({"trainer": {"epochs": 1}, "encoder": {"num_steps": 1}, "model": small}, out=out)
    return out


@pytest.fixture(params=[10**12, 2**62, 3_000_000])
def forged(request, given, tmp_path):
    """The run with another number of hidden units, signed again as anybody can."""
    directory = shutil.copytree(given, tmp_path / "forged")
    text = (directory / "config.toml").read_text()
    assert text.count("hidden = [8]") == 1
    text = text.replace("hidden = [8]", f"hidden = [{request.param}]")
    (directory / "config.toml").write_text(text)
    plain = json.loads((directory / "run.json").read_text())
    del plain[OWN_SUM]
    plain["config"]["model"]["hidden"] = [request.param]
    plain["config_sha256"] = hashlib.sha256(text.encode()).hexdigest()
    (directory / "run.json").write_text(sealed(plain))
    return directory


@pytest.mark.parametrize(
    "command",
    [
        spikecore.load,
        evaluate,
        lambda directory: resume(directory, overrides=["trainer.epochs=2"]),
        lambda directory: inspect_resume(directory, "last", ()),
        lambda directory: share(directory, directory / "out"),
        profile,
    ],
    ids=["load", "eval", "resume", "dry-run", "share", "profile"],
)
def test_a_run_that_asks_for_more_memory_than_its_weights_justify(command, forged):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError, match=TOO_MANY):
        command(forged)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # KiB


def test_a_shared_net_that_does(given, tmp_path):
    share(given, tmp_path / "net")
    config = json.loads((tmp_path / "net" / "config.json").read_text())
    config["tables"]["model"]["hidden"] = [10**12]
    (tmp_path / "net" / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=TOO_MANY):
        spikecore.load(tmp_path / "net")


SMALL = 1 << 24
MANY = SMALL // 4 + 1


@pytest.fixture
def low(monkeypatch):
    """A ceiling that little memory reaches."""
    monkeypatch.setattr("spikecore.run.ceiling.BASE_BYTES", SMALL)


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.empty(MANY),
        lambda: torch.zeros(2, MANY // 2 + 1),
        lambda: torch.randint(9, (MANY // 2 + 1,)),
        lambda: torch.randn(MANY, generator=torch.Generator().manual_seed(1)),
        lambda: torch.full((MANY,), 1.5),
        lambda: torch.ones(MANY // 2 + 1, dtype=torch.float64),
        lambda: torch.eye(1 << 30),
        lambda: torch.eye(1 << 31),
        lambda: torch.randperm(MANY // 2 + 1, generator=torch.Generator().manual_seed(1)),
        lambda: torch.arange(10**12),
        lambda: torch.linspace(0, 1, 10**12),
        lambda: torch.ones(3).new_ones(10**12),
        lambda: torch.nn.Linear(1 << 31, 1 << 31),
        lambda: torch.nn.Conv2d(1 << 20, 1 << 20, 3),
        lambda: torch.ones(1 << 10).repeat(1 << 11),  # half of it, and then the same again
        lambda: [torch.empty(1) for _ in range(SMALL // LEAST_BYTES + 1)],
        lambda: [torch.ones(1 << 17).clone() for _ in range(17)],
    ],
)
def test_what_is_counted(make, low):
    def twice():
        with ceiling(0):
            make()
            make()

    with pytest.raises(CheckpointError, match=TOO_MANY):
        twice()


def test_what_is_loaded_anyway_may_be_built():
    with ceiling(1 << 20):
        torch.empty((BASE_BYTES + (MOST_RATIO << 20)) // 4)
        with pytest.raises(CheckpointError):
            torch.empty(1)
    with ceiling(None):
        torch.empty(1 << 32)  # nothing is written to it, so it takes no memory


def test_views_are_free(low):
    x = torch.ones(1 << 10)
    with ceiling(0):
        for _ in range(SMALL // LEAST_BYTES + 1):
            x.view(1 << 5, -1).expand(1000, -1, -1)


def test_the_net_is_the_same(given):
    def bits():
        torch.manual_seed(3)
        net = torch.nn.Sequential(torch.nn.Conv2d(2, 5, 3), torch.nn.LSTM(4, 4), torch.nn.Linear(7, 9))
        torch.nn.init.trunc_normal_(net[2].weight)
        net.order = torch.nn.Buffer(torch.randperm(9, generator=torch.Generator().manual_seed(5)))
        net.draws = torch.nn.Buffer(torch.randint(0, 9, (4,), generator=torch.Generator().manual_seed(5)))
        return [value.tolist() for value in net.state_dict().values()]

    plain = bits()
    with ceiling(10):
        assert bits() == plain

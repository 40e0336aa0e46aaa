"""Datasets of files that others give out, proved on small ones: what counts as published, and what stays refused."""

import os
from dataclasses import dataclass

import pytest
import torch

from spikecore.datasets.store import data_dir, fetch
from spikecore.errors import DatasetError
from spikecore.interfaces.component import Configurable, make_config
from spikecore.interfaces.dataset import DataFile, DatasetCapabilities, DatasetInfo
from spikecore.registry import Blocking, Registry, use
from spikecore.testing.stand_ins import no_network, stand_ins
from spikecore.testing.suites.dataset import DatasetSuite

URL = "http://127.0.0.1:9/"
HALVES = tuple(DataFile(f"{half}.txt", (URL,), 10**9, "0" * 32, "0" * 64) for half in ("train", "test"))


class Lines(Configurable):
    """A line `0 0.5 0.25` is a sample: its label and two numbers."""

    api_version = 2
    capabilities = DatasetCapabilities()
    info = DatasetInfo("Lines", ("a", "b"), (2,), "none", "nobody", files=HALVES)
    num_outputs, sample_shape, is_sequence, splits = 2, (2,), False, ("train", "test")

    @dataclass(frozen=True)
    class Config:
        root: str = ""

    def __init__(self, **options):
        self.config = make_config(type(self), options)

    def split(self, name):
        path = fetch(self.info.files[self.splits.index(name)], data_dir() / (self.config.root or "lines"))
        return LineSplit(path.read_text().splitlines())


@dataclass(frozen=True)
class LineSplit:
    lines: list[str]

    def __len__(self):
        return len(self.lines)

    def __getitem__(self, index):
        label, a, b = self.lines[index].split()
        return torch.tensor([float(a), float(b)]), int(label)


@pytest.fixture(autouse=True, scope="module")
def _registered():
    with use(Registry(blocking=Blocking())) as own:
        own.register("dataset", "lines", Lines)
        yield


def lines(directory):
    directory.mkdir()
    directory.joinpath("train.txt").write_text("0 0.5 0.25\n1 0.75 0.5\n")
    directory.joinpath("test.txt").write_text("0 0.125 0.25\n1 0.25 0.5\n")


class TestOfOthers(DatasetSuite):
    component = "lines"

    @classmethod
    def prepare(cls, data):
        lines(data / "lines")


class TestOptionsKnownLate(DatasetSuite):
    component = "lines"

    @classmethod
    def prepare(cls, data):
        lines(data / "elsewhere")
        return {"root": "elsewhere"}

    def test_the_option_arrived(self):
        assert self.make().config.root == "elsewhere"
        assert type(self).options == {"root": "elsewhere"}


class Unprepared(DatasetSuite):
    component = "lines"

    @classmethod
    def prepare(cls, data):
        assert not list(data.iterdir())


def test_what_was_changed_for_the_checks_is_put_back(monkeypatch, tmp_path):
    monkeypatch.setenv("SPIKECORE_DATA", str(tmp_path))
    TestOptionsKnownLate.setup_class()
    inside = data_dir()
    assert inside != tmp_path
    assert TestOptionsKnownLate.options
    TestOptionsKnownLate.teardown_class()
    assert os.environ["SPIKECORE_DATA"] == str(tmp_path)
    assert not TestOptionsKnownLate.options
    assert not inside.exists()
    lines(tmp_path / "lines")
    with pytest.raises(DatasetError, match="bytes instead of 1000000000"):
        Lines().split("train")


def test_a_file_that_was_not_put_there_is_not_fetched():
    Unprepared.setup_class()
    try:
        with pytest.raises(AssertionError, match="network connection"):
            Unprepared().test_splits()
    finally:
        Unprepared.teardown_class()


def test_a_failing_prepare_leaves_nothing_changed(monkeypatch, tmp_path):
    class Fails(Unprepared):
        @classmethod
        def prepare(cls, data):
            raise RuntimeError("no such format")

    monkeypatch.setenv("SPIKECORE_DATA", str(tmp_path))
    with pytest.raises(RuntimeError, match="no such format"):
        Fails.setup_class()
    assert data_dir() == tmp_path
    Fails.teardown_class()


def test_stand_ins_are_verified_too(tmp_path):
    lines(tmp_path / "lines")
    with stand_ins(tmp_path / "lines"):
        assert fetch(HALVES[0], tmp_path / "lines").is_file()
        tmp_path.joinpath("lines", "train.txt").write_text("0 0.5 0.25\n")
        with pytest.raises(DatasetError, match="its sha256 is"):
            fetch(HALVES[0], tmp_path / "lines")
        tmp_path.joinpath("late.txt").write_text("0 0.5 0.25\n")
        with pytest.raises(DatasetError, match=r"its sha256 is .* instead of 0000"):
            fetch(DataFile("late.txt", sha256="0" * 64), tmp_path)
        with no_network(), pytest.raises(AssertionError, match="network connection"):
            fetch(DataFile("other.txt", (URL,)), tmp_path)
    with pytest.raises(DatasetError, match="bytes instead of 1000000000"):
        fetch(HALVES[1], tmp_path / "lines")

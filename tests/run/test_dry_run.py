"""A dry run downloads nothing: it says what would be fetched, from where, and what it could not check."""

import urllib.request
from dataclasses import dataclass

import pytest
import torch
from click.testing import CliRunner

from spikecore.cli import spike as spike_command
from spikecore.datasets import DataFile, fetch, is_offline, offline
from spikecore.errors import DatasetError, NotDownloadedError
from spikecore.interfaces.component import Configurable, make_config
from spikecore.interfaces.dataset import DatasetCapabilities, DatasetInfo
from spikecore.registry import Blocking, Registry, use
from tests.datasets.server import serving
from tests.run.toy_trainers import Alone

BODY = b"1" * 12_345


class Far(Configurable):
    """Two files; each is a sample per byte."""

    capabilities = DatasetCapabilities()
    api_version = 2
    num_outputs, sample_shape, is_sequence, splits = 2, (1, 4, 4), False, ("train", "test")
    root, files = None, ()

    @dataclass(frozen=True)
    class Config:
        manual: bool = False

    def __init__(self, **options):
        self.config = make_config(type(self), options)

    @property
    def info(self):
        return DatasetInfo("Far", ("a", "b"), (1, 4, 4), "CC0", "nobody", files=self.files, manual="ask them")

    def split(self, name):
        for file in self.files:
            fetch(file, self.root, manual=self.info.manual)
        return [(torch.full((1, 4, 4), float(i)), i % 2) for i in range(20)]


@pytest.fixture
def server():
    with serving() as files:
        files.content |= {"/a.zip": BODY, "/b.zip": BODY}
        yield files


@pytest.fixture
def registered(server, tmp_path, monkeypatch):
    monkeypatch.setattr(Far, "root", tmp_path / "data")
    urls = [(f"{server.url}/{name}", f"https://mirror.example/{name}") for name in ("a.zip", "b.zip")]
    monkeypatch.setattr(Far, "files", (DataFile("a.zip", urls[0], size=12_345), DataFile("b.zip", urls[1])))
    (tmp_path / "data").mkdir()
    with use(Registry(blocking=Blocking())) as registry:
        registry.register("dataset", "far", Far)
        yield server


SMALL = ("--set", "dataset.name=far", "--set", "model.name=mlp", "--set", "encoder.num_steps=2")


def spike(*arguments):
    done = CliRunner().invoke(spike_command, [str(argument) for argument in arguments])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.output


def test_what_would_be_fetched_is_listed(registered, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = spike("run", *SMALL, "--dry-run").splitlines()
    url = registered.url
    assert said == [
        "dataset 'far' is not here: a run would fetch 2 files, 12.3 kB and more",
        f"  a.zip  12.3 kB  {url}/a.zip or https://mirror.example/a.zip",
        f"  b.zip  size unknown  {url}/b.zip or https://mirror.example/b.zip",
        f"into {tmp_path / 'data'}",
        "sound so far: the configuration and the options of every component",
        "not checked: the files of the dataset, its splits, and the net that is built for them",
    ]
    assert registered.log == [], "no request was made"
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    assert list((tmp_path / "data").iterdir()) == []


def test_a_file_that_is_here_is_not_listed(registered, tmp_path):
    (tmp_path / "data/a.zip").write_bytes(BODY)
    said = spike("run", *SMALL, "--dry-run")
    assert "a run would fetch 1 file\n" in said
    assert "  a.zip" not in said
    assert f"into {tmp_path / 'data'}, where a.zip is already\n" in said
    assert registered.log == []


def test_a_dataset_that_is_here_is_checked_as_ever(registered, tmp_path):
    for name in ("a.zip", "b.zip"):
        (tmp_path / "data" / name).write_bytes(BODY)
    assert spike("run", *SMALL, "--dry-run").startswith("sound: ")
    (tmp_path / "data/a.zip").write_bytes(BODY[:-1])
    with pytest.raises(DatasetError, match="has 12344 bytes instead of 12345"):
        spike("run", *SMALL, "--dry-run")


def test_a_dry_resumption_downloads_nothing_either(registered, tmp_path):
    arguments = [*SMALL, "--set", "trainer.epochs=1", "--out", tmp_path / "r"]
    spike("run", *arguments)
    assert len(registered.log) == 2
    assert spike("run", "--resume", tmp_path / "r", "--dry-run") == "sound: finished already, nothing is left to do\n"
    more = ["--set", "trainer.epochs=2"]
    assert "sound: would go on from checkpoint-" in spike("run", "--resume", tmp_path / "r", *more, "--dry-run")
    for name in ("a.zip", "b.zip"):
        (tmp_path / "data" / name).unlink()
    said = spike("run", "--resume", tmp_path / "r", "--dry-run")
    assert "a run would fetch 2 files" in said
    assert "not checked: the files of the dataset, its splits, and whether the checkpoint fits" in said
    assert "[trainer]" in spike("run", "--resume", tmp_path / "r", "--print-config")
    assert len(registered.log) == 2


def test_what_a_person_has_to_fetch_is_an_error_as_ever(registered, monkeypatch):
    monkeypatch.setattr(Far, "files", (DataFile("c.zip"),))
    with pytest.raises(DatasetError, match="ask them"):
        spike("run", *SMALL, "--dry-run")


class Own(Far):
    """Downloads by means of its own, and calls what goes wrong an error of its own."""

    def split(self, name):
        try:
            with urllib.request.urlopen(self.files[0].urls[0], timeout=5) as response:
                body = response.read()
        except Exception as error:
            raise ValueError("bad luck") from error
        return [(torch.full((1, 4, 4), float(i)), body[i] % 2) for i in range(20)]


def test_a_dataset_that_downloads_by_its_own_means_is_refused_the_connection(registered, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with use(Registry(blocking=Blocking())) as registry:
        registry.register("dataset", "far", Own)
        said = spike("run", "--dry-run", *SMALL)
    assert "dataset 'far' is not here: a connection to 127.0.0.1:" in said
    assert "was refused, since a dry run downloads nothing (bad luck)" in said
    assert "not checked: the files of the dataset" in said
    assert registered.log == []
    with offline() as refused:
        assert is_offline()
        with pytest.raises(ValueError, match="bad luck"):
            Own().split("train")
    assert refused[0].startswith("127.0.0.1:")
    assert not is_offline()
    assert len(Own().split("train")) == 20


def test_offline_ends_with_its_block(registered, tmp_path):
    file = Far.files[0]
    with pytest.raises(NotDownloadedError, match=r"a\.zip is not in"), offline(), offline():
        fetch(file, tmp_path / "data")
    assert fetch(file, tmp_path / "data").read_bytes() == BODY
    with offline():
        assert fetch(file, tmp_path / "data").read_bytes() == BODY


def test_a_trainer_without_a_dataset_that_downloads_is_told_as_well(registered, tmp_path, monkeypatch):
    class Distant(Alone):
        def prepare(self, parts):
            with urllib.request.urlopen(f"{registered.url}/a.zip", timeout=5) as response:
                response.read()
            return super().prepare(parts)

    monkeypatch.chdir(tmp_path)
    with use(Registry(blocking=Blocking())) as registry:
        registry.register("trainer", "distant", Distant)
        said = spike("run", "--dry-run", "--set", "trainer.name=distant").splitlines()
    assert said[0].startswith("a part of this run is not here: a connection to 127.0.0.1:")
    assert said[1:] == [
        "sound so far: the configuration and the options of every component",
        "not checked: the parts that are not here, and the net that is built for them",
    ]
    assert registered.log == []

"""Links that somebody planted in a shared dataset folder: nothing is written where they lead."""

import os

import pytest

from spikecore.datasets import downloads as module
from spikecore.datasets.store import DataFile, extract, fetch, lock, make_directory, write_aside
from spikecore.errors import DatasetError
from spikecore.files import open_part, own_size
from tests.datasets.server import serving

BODY = bytes(range(256)) * 300


@pytest.fixture
def victim(tmp_path):
    path = tmp_path / "victim"
    path.write_bytes(b"precious")
    yield path
    assert path.read_bytes() == b"precious"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


@pytest.fixture
def file(monkeypatch):
    monkeypatch.setattr(module, "PAUSE_S", 0.001)
    with serving() as files:
        files.content["/a.zip"] = BODY
        yield DataFile(name="a.zip", urls=(f"{files.url}/a.zip",), size=len(BODY))


@pytest.mark.parametrize("name", [".a.zip.partial", ".a.zip.partial.json", ".a.zip.partial.json.partial"])
@pytest.mark.parametrize("plant", ["symlink_to", "hardlink_to"])
def test_a_download_does_not_follow(name, plant, folder, victim, file):
    getattr(folder / name, plant)(victim)
    assert fetch(file, folder).read_bytes() == BODY


def test_a_link_to_what_would_be_continued(folder, victim, file):
    (folder / ".a.zip.partial").symlink_to(victim)
    (folder / ".a.zip.partial.json").write_text(f'{{"url": "{file.urls[0]}", "tag": "\\"1\\""}}')
    assert fetch(file, folder).read_bytes() == BODY


def test_a_lock_that_is_a_link(folder, victim):
    (folder / ".lock").symlink_to(victim)
    with pytest.raises(DatasetError, match="a symbolic link is not followed"), lock(folder / ".lock"):
        pass
    os.mkfifo(folder / ".pipe")
    with pytest.raises(DatasetError, match="not a regular file"), lock(folder / ".pipe"):
        pass


@pytest.mark.parametrize("resumable", [False, True])
@pytest.mark.parametrize("plant", ["directory", "file", "nothing"])
def test_a_directory_is_not_made_through_a_link(resumable, plant, folder, victim, tmp_path):
    outside = tmp_path / "outside"
    if plant == "directory":
        outside.mkdir()
    (folder / ".made.partial").symlink_to(victim if plant == "file" else outside)
    made = make_directory(folder / "made", lambda aside: (aside / "a").write_bytes(b"1"), resumable=resumable)
    assert not made.is_symlink()
    assert (made / "a").read_bytes() == b"1"
    assert not outside.exists() or not list(outside.iterdir())


def test_a_file_is_not_written_aside_through_a_link(folder, victim):
    for name in ("x.partial", f".x.{os.getpid()}-0.partial"):
        (folder / name).symlink_to(victim)
    (folder / "x").symlink_to(victim)
    write_aside(folder / "x", lambda path: path.write_bytes(b"1"))
    assert not (folder / "x").is_symlink()


def test_an_archive_that_is_a_device(tmp_path):
    with pytest.raises(DatasetError, match="no regular file"):
        extract(tmp_path.__class__("/dev/zero"), tmp_path / "out")


def test_parts_belong_to_one_name(folder, victim):
    (folder / "soft").symlink_to(victim)
    (folder / "hard").hardlink_to(victim)
    for name in ("soft", "hard"):
        assert own_size(folder / name) == 0
        with pytest.raises(OSError):
            open_part(folder / name, 3)
        with open_part(folder / name, 0) as stream:
            stream.write(b"new")
        assert own_size(folder / name) == 3
        with open_part(folder / name, 2) as stream:
            stream.write(b"t")
        assert (folder / name).read_bytes() == b"net"

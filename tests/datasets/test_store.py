"""Archives with every kind of malice, written byte by byte; directories that are whole or absent; locks."""

import errno
import gzip
import io
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spikecore.datasets.store import Limits, data_dir, extract, lock, make_directory, write_aside
from spikecore.errors import DatasetError


def zipped(path, members, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, compression)
    return path


def tarred(path, members, mode="w:gz"):
    with tarfile.open(path, mode) as archive:
        for name, content in members.items():
            if isinstance(content, tarfile.TarInfo):
                archive.addfile(content)
            else:
                item = tarfile.TarInfo(name)
                item.size = len(content)
                archive.addfile(item, io.BytesIO(content))
    return path


def tree(directory):
    return {str(p.relative_to(directory)): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


GOOD = {"a.txt": b"one", "b/c.bin": bytes(range(256)) * 50, "b/d/e": b""}


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_tar_comes_out_as_it_went_in(tmp_path, mode):
    assert tree(extract(tarred(tmp_path / "x", GOOD, mode), tmp_path / "out")) == GOOD


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
def test_zip_comes_out_as_it_went_in(tmp_path, compression):
    out = extract(zipped(tmp_path / "x", GOOD, compression), tmp_path / "out")
    assert tree(out) == GOOD
    assert extract(tmp_path / "not there", out) == out  # done once


def test_members_can_be_chosen(tmp_path):
    out = extract(zipped(tmp_path / "x", GOOD), tmp_path / "out", keep=lambda name: name.startswith("b/"))
    assert set(tree(out)) == {"b/c.bin", "b/d/e"}


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
def test_a_byte_that_has_changed_within_a_member_is_found(tmp_path, mode):
    content = np.random.default_rng(0).bytes(100_000)  # is stored, not squeezed: no rule of the format is broken
    options = {"compresslevel": 1} if mode == "w:gz" else {}
    with tarfile.open(tmp_path / "x", mode, **options) as archive:
        item = tarfile.TarInfo("a")
        item.size = len(content)
        archive.addfile(item, io.BytesIO(content))
    raw = bytearray((tmp_path / "x").read_bytes())
    raw[len(raw) // 2] ^= 1
    (tmp_path / "x").write_bytes(raw)
    with pytest.raises(DatasetError, match="fetch it again"):
        extract(tmp_path / "x", tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == [".out.lock", "x"], "nothing half done stays"


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_tar_that_ends_between_two_members_was_cut_off(tmp_path, mode):
    tarred(tmp_path / "whole", {"a": b"1" * 512, "b": b"2" * 512}, "w")
    raw = (tmp_path / "whole").read_bytes()
    for size in (1024, 1024 + 100, 2048):
        cut = raw[:size]
        (tmp_path / "x").write_bytes(gzip.compress(cut) if mode == "w:gz" else cut)
        with pytest.raises(DatasetError, match=r"x: .*(ends without the mark|unexpected end).*fetch it again"):
            extract(tmp_path / "x", tmp_path / "out")


def test_a_header_that_is_damaged_does_not_end_a_tar(tmp_path):
    raw = bytearray(tarred(tmp_path / "x", {"a": b"1" * 512, "b": b"2" * 512}, "w").read_bytes())
    raw[1024] ^= 1
    (tmp_path / "x").write_bytes(raw)
    with pytest.raises(DatasetError, match="ends without the mark"):
        extract(tmp_path / "x", tmp_path / "out")


def test_no_bomb_behind_the_end_of_a_tar(tmp_path):
    raw = tarred(tmp_path / "x", GOOD, "w").read_bytes()
    with gzip.open(tmp_path / "x", "wb", 1) as file:
        file.write(raw + bytes(1 << 20))
    assert tree(extract(tmp_path / "x", tmp_path / "fine")) == GOOD
    with gzip.open(tmp_path / "x", "wb", 1) as file:
        file.write(raw)
        for _ in range(40):
            file.write(bytes(1 << 20))
    with pytest.raises(DatasetError, match="behind its end"):
        extract(tmp_path / "x", tmp_path / "out")


ESCAPES = ["../evil", "a/../../evil", "/etc/evil", "C:/evil", "..\\evil", "\\evil", "a/../b"]


@pytest.mark.parametrize("name", ESCAPES)
@pytest.mark.parametrize("write", [zipped, tarred])
def test_no_name_leads_out(tmp_path, name, write):
    archive = write(tmp_path / "x", {"fine": b"1", name: b"evil"})
    with pytest.raises(DatasetError, match="leads out"):
        extract(archive, tmp_path / "deep" / "er" / "out")
    assert [p.name for p in (tmp_path / "deep" / "er").iterdir()] == [".out.lock"]
    assert not list(tmp_path.rglob("evil"))


def special(name, kind, target=""):
    item = tarfile.TarInfo(name)
    item.type, item.linkname = kind, target
    return item


@pytest.mark.parametrize(
    ("kind", "word"),
    [(tarfile.SYMTYPE, "link"), (tarfile.LNKTYPE, "link"), (tarfile.FIFOTYPE, "device"), (tarfile.CHRTYPE, "device")],
)
def test_no_link_or_device_is_made(tmp_path, kind, word):
    archive = tarred(tmp_path / "x", {"l": special("l", kind, "/etc"), "l/passwd": b"evil"})
    with pytest.raises(DatasetError, match=f"'l' is a {word}"):
        extract(archive, tmp_path / "out")


def test_no_link_from_a_zip(tmp_path):
    item = zipfile.ZipInfo("l")
    item.create_system, item.external_attr = 3, 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "x", "w") as archive:
        archive.writestr(item, "/etc")
    with pytest.raises(DatasetError, match="is a link"):
        extract(tmp_path / "x", tmp_path / "out")


def test_bombs_do_not_go_off(tmp_path):
    archive = zipped(tmp_path / "x", {str(i): b"\0" * 100_000 for i in range(20)})
    assert archive.stat().st_size < 10_000
    with pytest.raises(DatasetError, match="more than 1000000 bytes"):
        extract(archive, tmp_path / "out", limits=Limits(num_bytes=1_000_000))
    with pytest.raises(DatasetError, match="more than 19 members"):
        extract(archive, tmp_path / "out", limits=Limits(num_members=19))
    assert not (tmp_path / "out").exists()


def test_a_zip_that_lies_about_a_size(tmp_path):
    archive = zipped(tmp_path / "x", {"a": b"\0" * 500_000})
    raw = archive.read_bytes()
    real, lie = (500_000).to_bytes(4, "little"), (100).to_bytes(4, "little")
    assert raw.count(real) == 2  # local header and directory
    archive.write_bytes(raw.replace(real, lie))
    with pytest.raises(DatasetError):
        extract(archive, tmp_path / "out")


def test_a_name_that_is_there_twice(tmp_path):
    archive = tarred(tmp_path / "x", {"a": b"1", "./a": b"2"})
    with pytest.raises(DatasetError, match="twice"):
        extract(archive, tmp_path / "out")
    archive = tarred(tmp_path / "y", {"a": b"1", "a/b": b"2"})
    with pytest.raises(DatasetError, match="twice"):
        extract(archive, tmp_path / "out")


@pytest.mark.parametrize("write", [zipped, tarred])
@pytest.mark.parametrize("keep", [0, 1, 30, 200, 0.5, 0.9, 0.99])
def test_truncated_archives(tmp_path, write, keep):
    archive = write(tmp_path / "x", {"a": os.urandom(20_000), "b": os.urandom(20_000)})
    raw = archive.read_bytes()
    archive.write_bytes(raw[: int(keep if keep >= 1 else keep * len(raw))])
    with pytest.raises(DatasetError):
        extract(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@settings(deadline=None)
@given(st.integers(0, 400), st.binary(min_size=1, max_size=8), st.sampled_from([zipped, tarred]))
def test_damaged_archives(tmp_path_factory, place, change, write):
    directory = tmp_path_factory.mktemp("damaged")
    archive = write(directory / "x", {"a.txt": b"one" * 100, "b/c": b"two" * 100})
    raw = bytearray(archive.read_bytes())
    place = min(place, len(raw) - 1)
    raw[place : place + len(change)] = change
    archive.write_bytes(raw)
    try:
        extract(archive, directory / "out")
    except DatasetError:
        assert not (directory / "out").exists()
    outside = {p.name for p in directory.iterdir()} - {"x", "out", ".out.lock", ".out.partial"}
    assert not outside


def test_a_directory_is_whole_or_absent(tmp_path):
    def fails(aside):
        (aside / "half").write_text("x")
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError):
        make_directory(tmp_path / "d", fails)
    assert not (tmp_path / "d").exists()
    seen = []

    def works(aside):
        seen.extend(path.name for path in aside.iterdir())
        (aside / "whole").write_text("x")

    assert tree(make_directory(tmp_path / "d", works)) == {"whole": b"x"}
    assert seen == []  # nothing of the failed attempt
    make_directory(tmp_path / "d", fails)  # there already


def test_a_resumable_build_finds_what_was_left(tmp_path):
    def first(aside):
        (aside / "one").write_text("1")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        make_directory(tmp_path / "d", first, resumable=True)
    make_directory(tmp_path / "d", lambda aside: (aside / "two").write_text("2"), resumable=True)
    assert set(tree(tmp_path / "d")) == {"one", "two"}


def test_many_at_once_make_once(tmp_path):
    calls = []

    def make(aside):
        calls.append(1)
        time.sleep(0.05)
        (aside / "a").write_text("x")

    threads = [threading.Thread(target=make_directory, args=(tmp_path / "d", make)) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1


def test_a_killed_builder_frees_its_lock_and_leaves_nothing_that_looks_whole(tmp_path):
    code = (
        "import sys, time, pathlib\nfrom spikecore.datasets.store import make_directory\n"
        "def make(aside):\n    (aside / 'half').write_text('x'); print('in', flush=True); time.sleep(60)\n"
        "make_directory(pathlib.Path(sys.argv[1]), make)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "d")], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"in\n"
    with pytest.raises(DatasetError, match=r"has held this lock for 0\.1 s"), lock(tmp_path / ".d.lock", timeout_s=0.1):
        pass
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert not (tmp_path / "d").exists()
    assert tree(make_directory(tmp_path / "d", lambda aside: (aside / "a").write_text("x"))) == {"a": b"x"}


@pytest.mark.parametrize(
    ("number", "says"),
    [(errno.ENOSPC, "free some space"), (errno.EROFS, "SPIKECORE_DATA"), (errno.EACCES, "may write")],
)
def test_a_full_or_read_only_disk_says_what_to_do(tmp_path, number, says):
    def make(aside):
        (aside / "half").write_text("x")
        raise OSError(number, os.strerror(number))

    with pytest.raises(DatasetError, match=says):
        make_directory(tmp_path / "d", make)
    with pytest.raises(DatasetError, match=says):
        write_aside(tmp_path / "f", lambda path: make(tmp_path))
    assert not (tmp_path / "d").exists()
    assert not (tmp_path / "f").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_that_numpy_reports_without_a_number(tmp_path):
    def through_numpy(path):
        with open("/dev/full", "wb") as file:
            np.zeros(100_000).tofile(file)

    def before_it_writes(path):  # where the file system can reserve space
        raise OSError("Not enough free space to write 800000 bytes")

    for write in (through_numpy, before_it_writes):
        with pytest.raises(DatasetError, match=r"f: cannot be written: .*; free some space"):
            write_aside(tmp_path / "f", write)
        with pytest.raises(DatasetError, match=r"d: cannot be written: .*; free some space"):
            make_directory(tmp_path / "d", write)

    def other(path):
        raise OSError("not a gzip file")

    with pytest.raises(OSError, match=r"^not a gzip file$"):
        write_aside(tmp_path / "f", other)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_while_unpacking(tmp_path, monkeypatch):
    archive = zipped(tmp_path / "x", GOOD)
    real = Path.open

    def full(self, mode="r", *args, **kwargs):
        return real(Path("/dev/full"), "wb", 0) if mode == "xb" else real(self, mode, *args, **kwargs)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(DatasetError, match="free some space"):
        extract(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_file_is_written_whole(tmp_path):
    (tmp_path / "f").write_text("old")

    def fails(path):
        path.write_text("half")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_aside(tmp_path / "f", fails)
    assert tree(tmp_path) == {"f": b"old"}
    write_aside(tmp_path / "f", lambda path: path.write_text("new"))
    assert tree(tmp_path) == {"f": b"new"}


def test_where_data_live(monkeypatch, tmp_path):
    monkeypatch.setenv("SPIKECORE_DATA", str(tmp_path))
    assert data_dir() == tmp_path
    monkeypatch.delenv("SPIKECORE_DATA")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    monkeypatch.setattr(sys, "platform", "linux")
    assert data_dir() == Path("/somewhere/spikecore")
    monkeypatch.setattr(sys, "platform", "darwin")
    assert data_dir().parts[-2:] == ("Caches", "spikecore")

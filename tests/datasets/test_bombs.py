"""Small archives that ask for much memory or disk: refused, with the memory measured."""

import gzip
import io
import os
import shutil
import struct
import tarfile
import tracemalloc
import zipfile
from collections import namedtuple

import pytest

from spikecore.datasets.store import Limits, extract
from spikecore.errors import DatasetError


def header(name, kind, size):
    item = tarfile.TarInfo(name)
    item.type, item.size = kind, size
    return item.tobuf(tarfile.USTAR_FORMAT)


def zeros_behind(head, size):
    packed = io.BytesIO()
    with gzip.open(packed, "wb", 1) as file:
        file.write(head)
        for _ in range(size >> 20):
            file.write(bytes(1 << 20))
    return packed.getvalue()


def refused(archive, out, match, **options):
    tracemalloc.start()
    try:
        with pytest.raises(DatasetError, match=match):
            extract(archive, out, **options)
        assert tracemalloc.get_traced_memory()[1] < 1 << 24
    finally:
        tracemalloc.stop()
    assert not out.exists()


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK])
def test_a_header_of_64_mib(kind, tmp_path):
    (tmp_path / "x").write_bytes(zeros_behind(header("a", kind, 1 << 26), 1 << 26))
    assert (tmp_path / "x").stat().st_size < 1 << 20
    refused(tmp_path / "x", tmp_path / "out", "headers of implausible length")


def test_a_map_of_holes_without_end(tmp_path):
    """GNU's sparse format 1.0 keeps a list of holes in the file's own content, which tarfile reads at once."""
    pairs = [
        ("GNU.sparse.major", "1"),
        ("GNU.sparse.minor", "0"),
        ("GNU.sparse.name", "a"),
        ("GNU.sparse.realsize", "1"),
    ]
    records = b""
    for key, value in pairs:
        line = f" {key}={value}\n"
        records += f"{len(line) + 2}{line}".encode()
    content = b"9999999\n" + b"0\n" * (1 << 22)
    raw = header("p", tarfile.XHDTYPE, len(records)) + records.ljust(512, b"\0")
    raw += header("a", tarfile.REGTYPE, len(content)) + content
    (tmp_path / "x").write_bytes(gzip.compress(raw, 1))
    refused(tmp_path / "x", tmp_path / "out", "headers of implausible length|cannot be unpacked")


def test_many_members_take_no_memory(tmp_path):
    with gzip.open(tmp_path / "x", "wb", 1) as file:
        for _ in range(20_000):
            file.write(header("a/", tarfile.DIRTYPE, 0))
        file.write(bytes(1024))
    tracemalloc.start()
    try:
        extract(tmp_path / "x", tmp_path / "out")
        assert tracemalloc.get_traced_memory()[1] < 1 << 23  # kept, they take 30 MB
    finally:
        tracemalloc.stop()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a"]


def test_long_names_are_read_as_before(tmp_path):
    name = "/".join(["directory"] * 50)
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        with tarfile.open(tmp_path / "x", "w:xz", format=form) as archive:
            item = tarfile.TarInfo(f"{name}/é")
            item.size = 3
            archive.addfile(item, io.BytesIO(b"one"))
        assert (extract(tmp_path / "x", tmp_path / f"out{form}") / name / "é").read_bytes() == b"one"


def bomb(path, size):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("zeros", "w") as file:
        for _ in range(size >> 20):
            file.write(bytes(1 << 20))
    return path


def test_the_default_limit_follows_from_the_size_of_the_archive(tmp_path, monkeypatch):
    archive = bomb(tmp_path / "x", 40 << 20)
    monkeypatch.setattr("spikecore.datasets.archives.BASE_BYTES", 1 << 20)
    most = (1 << 20) + 100 * archive.stat().st_size
    assert most < 40 << 20
    refused(archive, tmp_path / "out", f"more than {most} bytes .*100 times")
    small = bomb(tmp_path / "y", 1 << 20)
    assert (extract(small, tmp_path / "fine") / "zeros").stat().st_size == 1 << 20
    assert (extract(archive, tmp_path / "asked", limits=Limits(num_bytes=1 << 28)) / "zeros").stat().st_size == 40 << 20


def test_a_user_raises_the_default_limit(tmp_path, monkeypatch):
    archive = bomb(tmp_path / "x", 40 << 20)
    monkeypatch.setattr("spikecore.datasets.archives.BASE_BYTES", 1 << 20)
    refused(archive, tmp_path / "out", "set SPIKECORE_UNPACK_GIB to the number of GiB that it may unpack to")
    monkeypatch.setenv("SPIKECORE_UNPACK_GIB", "0.0390624")
    refused(archive, tmp_path / "out", "unpacks to more than 41942")
    monkeypatch.setenv("SPIKECORE_UNPACK_GIB", "0.0390625")  # 40 MiB
    assert (extract(archive, tmp_path / "asked") / "zeros").stat().st_size == 40 << 20
    refused(archive, tmp_path / "out", "more than 1000 bytes", limits=Limits(num_bytes=1000))  # a declared size stays
    for text in ("much", "-1", "nan", "inf", "1e30", ""):
        monkeypatch.setenv("SPIKECORE_UNPACK_GIB", text)
        refused(archive, tmp_path / "out", "must be a number of GiB")


@pytest.mark.parametrize("limits", [None, Limits(num_bytes=1 << 40)])
def test_no_more_than_the_disk_has(tmp_path, monkeypatch, limits):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1 << 30, 1 << 29, 1000))
    refused(bomb(tmp_path / "x", 1 << 20), tmp_path / "out", "the 1000 bytes that are free", limits=limits)


def test_a_member_without_a_name(tmp_path):
    with zipfile.ZipFile(tmp_path / "x", "w") as archive:
        archive.writestr("a", b"1")
    raw = (tmp_path / "x").read_bytes()
    at = raw.index(b"PK\x01\x02")
    raw = raw[: at + 28] + struct.pack("<H", 0) + raw[at + 30 : at + 46] + raw[at + 47 :]
    end = raw.index(b"PK\x05\x06")
    (tmp_path / "x").write_bytes(raw[: end + 12] + struct.pack("<I", end - at) + raw[end + 16 :])
    refused(tmp_path / "x", tmp_path / "out", "member without a name")


def test_a_pipe_is_no_archive(tmp_path):
    os.mkfifo(tmp_path / "x")
    refused(tmp_path / "x", tmp_path / "out", "no regular file")

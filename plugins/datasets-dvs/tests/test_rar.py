"""Rar archives written byte by byte, read back through rarfile and bsdtar; what escapes, is damaged, or is missing."""

import math
import shutil
import sys

import pytest
import writers
from published import es_imagenet

from spikecore import create
from spikecore.datasets.store import DataFile, Limits
from spikecore.errors import DatasetError, PluginUnavailable
from spikecore.registry import load
from spikecore.testing.stand_ins import stand_ins
from spikecore_datasets_dvs import rar

WRITERS = (writers.rar4, writers.rar5)
FILES = {"top/a.txt": b"hello" * 500, "top/empty": b"", "b.bin": bytes(range(256)) * 40, "c/d/e.txt": b"last"}


@pytest.fixture
def tools():
    """Both, or the test is skipped."""
    if shutil.which("bsdtar") is None:
        pytest.skip("bsdtar is not installed: apt install libarchive-tools")
    return pytest.importorskip("rarfile")


def written(directory, parts):
    directory.mkdir(exist_ok=True)
    names = ["a.rar"] if len(parts) == 1 else [f"a.part{i:02}.rar" for i in range(1, len(parts) + 1)]
    for name, part in zip(names, parts, strict=True):
        directory.joinpath(name).write_bytes(part)
    return directory / names[0]


def contents(directory):
    return {p.relative_to(directory).as_posix(): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


@pytest.mark.parametrize("write", WRITERS)
def test_out_comes_what_went_in(tools, tmp_path, write):
    path = written(tmp_path, write({"top": None, **FILES}))
    assert rar.extract(path, tmp_path / "out") == tmp_path / "out"
    assert contents(tmp_path / "out") == FILES


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("room", [544, 1_000, 1_500, 3_000, 9_000])
def test_parts_are_joined(tools, tmp_path, write, room):
    parts = write(FILES, room=room)
    assert len(parts) == math.ceil(sum(map(len, FILES.values())) / room)
    assert contents(rar.extract(written(tmp_path, parts), tmp_path / "out")) == FILES


def test_a_member_that_begins_with_a_part(tools, tmp_path):
    """bsdtar reads it in RAR 5; in RAR 4 it takes the end of the part before for the end of all, without a word."""
    assert contents(rar.extract(written(tmp_path / "5", writers.rar5(FILES, room=2_500)), tmp_path / "out5")) == FILES
    with pytest.raises(DatasetError, match=r"2 of 4 members did not come, 'b\.bin' among them; unpack it"):
        rar.extract(written(tmp_path / "4", writers.rar4(FILES, room=2_500)), tmp_path / "out4")
    assert not (tmp_path / "out4").exists()


@pytest.mark.parametrize("write", WRITERS)
def test_a_part_that_is_missing(tools, tmp_path, write):
    path = written(tmp_path, write(FILES, room=1_500))
    (tmp_path / "a.part04.rar").unlink()
    with pytest.raises(DatasetError, match=r"a\.part01\.rar"):
        rar.extract(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize(
    ("members", "says"),
    [
        ({"../evil": b"x"}, "leads out"),
        ({"ok": b"x", "a/../../evil": b"x"}, "leads out"),
        ({"/tmp/evil": b"x"}, "leads out"),
        ({"a": (b"/etc/passwd",)}, "'a' is a link"),
        ({"a": (b"..",), "a/evil": b"x"}, "'a' is a link"),
    ],
)
def test_members_that_escape_are_refused(tools, tmp_path, write, members, says):
    path = written(tmp_path / "in", write(members))
    with pytest.raises(DatasetError, match=says):
        rar.extract(path, tmp_path / "in" / "out")
    assert {p.name for p in tmp_path.rglob("*")} <= {"in", "a.rar", ".out.lock", ".out.partial", "ok"}


def test_members_that_escape_are_refused_member_by_member_too(tmp_path, monkeypatch):
    rarfile = pytest.importorskip("rarfile")
    monkeypatch.setattr(rar.shutil, "which", lambda name: None)
    monkeypatch.setattr(rarfile, "tool_setup", lambda **options: None)
    for number, write in enumerate(WRITERS):
        good = written(tmp_path / f"good{number}", write(FILES))
        assert contents(rar.extract(good, tmp_path / f"out{number}")) == FILES
        for members, says in (({"../evil": b"x"}, "leads out"), ({"a": (b"b",)}, "'a' is a link")):
            with pytest.raises(DatasetError, match=says):
                rar.extract(written(tmp_path / f"bad{number}", write(members)), tmp_path / "no")
    assert not list(tmp_path.rglob("evil"))


@pytest.mark.parametrize("write", WRITERS)
def test_limits_hold(tools, tmp_path, write):
    path = written(tmp_path, write(FILES))
    with pytest.raises(DatasetError, match="more than 5000 bytes"):
        rar.extract(path, tmp_path / "out", limits=Limits(num_bytes=5_000))


@pytest.mark.parametrize("write", WRITERS)
def test_any_damage_is_an_error_of_ours_or_harmless(tools, tmp_path, write):
    """Every byte of the headers, and some of the contents; a changed content never comes out."""
    (whole,) = write({"a/b": b"hello" * 20, "c": b"abc"})
    places = [*range(0, 60, 2), *range(60, len(whole), 7)]
    for number, place in enumerate(places):
        raw = bytearray(whole)
        raw[place] ^= 0x41
        path = written(tmp_path / f"{number}", [bytes(raw)])
        try:
            out = rar.extract(path, tmp_path / f"{number}" / "out")
        except DatasetError:
            continue
        assert set(contents(out).values()) <= {b"hello" * 20, b"abc"}, place
    for cut in range(0, len(whole), 9):
        path = written(tmp_path / f"cut{cut}", [whole[:cut]])
        try:
            out = rar.extract(path, tmp_path / f"cut{cut}" / "out")
        except DatasetError:
            continue
        assert set(contents(out).values()) <= {b"hello" * 20, b"abc"}, cut


def test_no_rar_at_all(tools, tmp_path):
    with pytest.raises(DatasetError, match="cannot be unpacked"):
        rar.extract(written(tmp_path, [b"no rar"]), tmp_path / "out")


def test_without_rarfile_the_line_that_installs_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "rarfile", None)
    with pytest.raises(PluginUnavailable, match=r"pip install 'spikecore-datasets-dvs\[rar\]'"):
        rar.extract(tmp_path / "a.rar", tmp_path / "out")


def test_without_bsdtar_the_line_that_installs_it(tmp_path, monkeypatch):
    rarfile = pytest.importorskip("rarfile")
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    monkeypatch.setattr(rarfile, "CURRENT_SETUP", None)
    with pytest.raises(PluginUnavailable, match="apt install libarchive-tools"):
        rar.extract(written(tmp_path, writers.rar4(FILES)), tmp_path / "out")


@pytest.mark.parametrize("write", WRITERS)
def test_es_imagenet_from_its_parts(tools, data, monkeypatch, write):
    cls = load("dataset", "es-imagenet")
    parts = write(es_imagenet(), room=1_000)
    declared = cls.info.files[: len(parts)]
    monkeypatch.setattr(cls, "info", cls.info.__class__(**{**vars(cls.info), "files": declared}))
    assert 2 < len(parts) == len(declared)
    assert all(isinstance(file, DataFile) for file in declared)
    (data / "es-imagenet").mkdir(parents=True)
    for file, part in zip(declared, parts, strict=True):
        data.joinpath("es-imagenet", file.name).write_bytes(part)
    with stand_ins(data):
        dataset = create("dataset", "es-imagenet", allow_partial=True, cache=False)
        assert dataset.split("train").labels.tolist() == [0, 999]
        assert dataset.split("test").labels.tolist() == [3, 4]
        assert dataset.split("test")[0][0].sum() == 50

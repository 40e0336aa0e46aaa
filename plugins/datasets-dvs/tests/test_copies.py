"""The same content in two splits: found by its digest, whatever the files are called."""

import os

import numpy as np
import pytest
import writers
from test_folder import columns, folder
from test_slices import table

from spikecore import create
from spikecore.errors import DatasetError
from spikecore_datasets_dvs import copies
from spikecore_datasets_dvs.copies import equal_files


def recordings(root, half, name, numbers):
    (root / half / name).mkdir(parents=True, exist_ok=True)
    for i in numbers:
        (root / half / name / f"{half}{i}.dat").write_bytes(writers.dat(*columns("ab".index(name), i)))


def halves(root):
    for name in "ab":
        recordings(root, "train", name, range(4))
        recordings(root, "test", name, range(4, 6))


@pytest.mark.parametrize("way", ["copy", "link"])
def test_a_copy_in_train_and_test(way, tmp_path, data):
    halves(tmp_path)
    assert len(folder(tmp_path).split("train")) == 8  # nothing is equal yet
    source, copy = tmp_path / "train" / "a" / "train1.dat", tmp_path / "test" / "a" / "other.dat"
    copy.write_bytes(source.read_bytes()) if way == "copy" else os.symlink(source, copy)
    for name in ("train", "test"):
        with pytest.raises(
            DatasetError, match=r"in two splits.*train1\.dat .train. and .*other\.dat .test..*duplicates"
        ):
            folder(tmp_path).split(name)
    with pytest.warns(UserWarning, match="the same content is in two splits"):
        assert len(folder(tmp_path, duplicates="warn").split("test")) == 5


def test_copies_within_a_split_are_nobodys_leak(tmp_path, data):
    halves(tmp_path)
    (tmp_path / "train" / "a" / "again.dat").write_bytes((tmp_path / "train" / "a" / "train0.dat").read_bytes())
    assert len(folder(tmp_path).split("train")) == 9


def test_a_split_by_chance_is_looked_at_too(tmp_path, data):
    for name in "ab":
        recordings(tmp_path, ".", name, range(5))
        for i in range(5):
            (tmp_path / name / f"copy{i}.dat").write_bytes((tmp_path / name / f".{i}.dat").read_bytes())
            (tmp_path / name / f".{i}.dat").rename(tmp_path / name / f"{i}.dat")
    with pytest.raises(DatasetError, match="the same content is in two splits"):
        folder(tmp_path).split("train")


def test_a_copy_that_a_table_names(tmp_path, data):
    lines = ("rec/one.dat,0,20000,a,train", "rec/one.dat,20000,40000,b,test", "rec/two.dat,0,20000,b,train")
    options = table(tmp_path, *lines, heading="file,start_us,stop_us,label,split")
    assert len(create("dataset", "event-folder", **options).split("train")) == 2  # parts of one file are no copies
    (tmp_path / "r" / "rec" / "two.dat").write_bytes((tmp_path / "r" / "rec" / "one.dat").read_bytes())
    with pytest.raises(DatasetError, match="the same content is in two splits"):
        create("dataset", "event-folder", **options).split("train")


def test_files_are_read_only_as_far_as_they_agree(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    head, tails = rng.bytes(copies.HEAD), [rng.bytes(100) for _ in range(2)]
    contents = {
        "a": head + tails[0],
        "b": head + tails[1],
        "c": head + tails[0],
        "d": b"x" * 10,
        "e": b"y" * 10,
        "f": b"z",
    }
    paths = [tmp_path / name for name in [*contents, "empty", "empty2", "none"]]
    for path in paths[:-1]:
        path.write_bytes(contents.get(path.name, b""))
    looked: dict = {"head": [], "whole": []}
    for kind, own in (("head", copies._head), ("whole", copies._whole)):
        monkeypatch.setattr(
            copies, f"_{kind}", lambda path, kind=kind, own=own: looked[kind].append(path.name) or own(path)
        )
    assert equal_files(paths) == [[tmp_path / "a", tmp_path / "c"]]
    assert looked == {"head": ["a", "b", "c", "d", "e"], "whole": ["a", "b", "c"]}

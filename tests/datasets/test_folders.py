"""Directories of classes, with and without splits above."""

import pytest

from spikecore.datasets.folders import class_names, labelled_files, split_directories, tops
from spikecore.errors import DatasetError


def filled(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("x")
    return root


def test_classes_in_alphabetical_order_and_files_with_labels(tmp_path):
    filled(tmp_path, "b/2.x", "b/1.x", "a/z.x", "c/.hidden", "c/d/e.x", ".git/x", "__MACOSX/x", "readme")
    assert tops(tmp_path, ("train", "test")) == [tmp_path]
    assert class_names([tmp_path]) == ("a", "b", "c")
    files = labelled_files(tmp_path, ("a", "b", "c"))
    assert [(path.relative_to(tmp_path).as_posix(), label) for path, label in files] == [
        ("a/z.x", 0),
        ("b/1.x", 1),
        ("b/2.x", 1),
    ]
    assert labelled_files(tmp_path, ("a", "b", "c"), "*.y") == []
    with pytest.raises(DatasetError, match=r"c: is the directory of an unknown class \(classes: a, b\)"):
        labelled_files(tmp_path, ("a", "b"))


def test_splits_above_the_classes(tmp_path):
    filled(tmp_path, "train/a/1", "test/b/1")
    halves = tops(tmp_path, ("train", "test"))
    assert halves == [tmp_path / "train", tmp_path / "test"]
    assert class_names(halves) == ("a", "b")
    with pytest.raises(DatasetError, match="has 'train' with a directory per class, but no 'val'; add it, or give"):
        tops(tmp_path, ("train", "test", "val"))


def test_splits_may_be_called_otherwise(tmp_path):
    filled(tmp_path, "Training/a/1", "VALID/a/1", "testing/b/1", "notes/x")
    assert {split: path.name for split, path in split_directories(tmp_path).items()} == {
        "train": "Training",
        "val": "VALID",
        "test": "testing",
    }
    with pytest.raises(DatasetError, match="'VALID' would be passed over; only train, test are read: move it away"):
        tops(tmp_path, ("train", "test"))
    filled(tmp_path, "train/a/2")
    with pytest.raises(DatasetError, match="'Training' and 'train' are the same split; keep one of them"):
        split_directories(tmp_path)


def test_a_directory_of_the_same_classes_beside_the_splits(tmp_path):
    filled(tmp_path, "train/a/1", "test/a/1", "cache/other/1")
    assert list(split_directories(tmp_path)) == ["train", "test"]
    filled(tmp_path, "extra/a/1")
    with pytest.raises(DatasetError, match="'extra' beside the splits test, train would be passed over"):
        split_directories(tmp_path)


def test_a_split_that_is_missing(tmp_path):
    filled(tmp_path, "train/a/1", "val/a/1")
    with pytest.raises(DatasetError, match="has 'train' with a directory per class, but no 'test'"):
        split_directories(tmp_path)


def test_a_class_may_have_the_name_of_a_split(tmp_path):
    filled(tmp_path, "train/1", "bus/1")
    assert tops(tmp_path, ("train", "test")) == [tmp_path]


def test_a_link_to_nothing(tmp_path):
    filled(tmp_path, "a/1", "b/1")
    (tmp_path / "c").symlink_to(tmp_path / "nowhere")
    with pytest.raises(DatasetError, match=r"c: is a link to .*nowhere, which does not exist; fix or remove it"):
        labelled_files(tmp_path, ("a", "b"))
    (tmp_path / "c").unlink()
    (tmp_path / "b" / "2").symlink_to(tmp_path / "a" / "1")
    assert len(labelled_files(tmp_path, ("a", "b"))) == 3
    (tmp_path / "b" / "3").symlink_to("gone")
    with pytest.raises(DatasetError, match=r"3: is a link to gone, which does not exist; fix or remove it"):
        labelled_files(tmp_path, ("a", "b"))


def test_what_is_not_there(tmp_path):
    with pytest.raises(DatasetError, match="is not a directory"):
        tops(tmp_path / "a", ("train",))
    with pytest.raises(DatasetError, match="is missing"):
        labelled_files(tmp_path / "a", ())

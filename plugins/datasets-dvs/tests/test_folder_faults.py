"""Folders that lack something: a class without recordings, a split without its other half."""

import shutil

import pytest
from test_folder import fill, folder

from spikecore.errors import DatasetError


def test_a_class_without_recordings(tmp_path, data):
    fill(tmp_path / "r", formats=("dat",))
    (tmp_path / "r" / "none").mkdir()
    with pytest.raises(DatasetError, match=r"class 'none' has no recordings \(suffixes: .*every class needs some"):
        folder(tmp_path / "r").split("train")


def test_a_class_in_the_test_split_only(tmp_path, data):
    fill(tmp_path / "train", formats=("dat",), names=("left", "right"))
    fill(tmp_path / "test", formats=("dat",), names=("left", "up"), seed=50)
    with pytest.raises(DatasetError, match="train: class 'up' has no recordings"):
        folder(tmp_path).split("test")
    shutil.rmtree(tmp_path / "test" / "up")
    assert folder(tmp_path).split("test").labels.unique().tolist() == [0]
    (tmp_path / "test" / "right").mkdir()
    with pytest.raises(DatasetError, match="test: the directory of class 'right' holds no recordings"):
        folder(tmp_path).split("test")


@pytest.mark.parametrize("other", ["val", None])
def test_one_split_is_not_a_class(tmp_path, data, other):
    fill(tmp_path / "train", formats=("dat",))
    if other:
        fill(tmp_path / other, formats=("dat",))
    with pytest.raises(DatasetError, match="has 'train' with a directory per class, but no 'test'"):
        folder(tmp_path).split("train")

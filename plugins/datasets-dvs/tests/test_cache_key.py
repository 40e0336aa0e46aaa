"""The name of a cache: two datasets that differ in anything that decides a sample have two of them."""

import sys
import types
from functools import partial

import numpy as np
import pytest
import writers
from test_folder import columns

from spikecore import create
from spikecore_datasets_dvs import tonic_bridge
from spikecore_datasets_dvs.representations import Custom, Frames


def recorded(root):
    """Two classes on a sensor of 16 × 16."""
    for label, name in enumerate(("left", "right")):
        (root / name).mkdir(parents=True)
        for i in range(4):
            (root / name / f"{i}.dat").write_bytes(writers.dat(*columns(label, i)))
    return root


def test_the_sensor_behind_a_crop_is_in_the_key(tmp_path, data):
    root = recorded(tmp_path / "r")
    crop = [{"name": "crop", "height": 8, "width": 8}]

    def split(side, cache):
        options = {"root": str(root), "sensor_size": [side, side], "transforms": crop, "cache": cache}
        return create("dataset", "event-folder", **options).split("train")

    small, large = split(16, True), split(32, True)
    assert small.cache.directory != large.cache.directory
    for side, cached in ((16, small), (32, large)):
        np.testing.assert_array_equal(cached[0][0], split(side, False)[0][0])
    assert not np.array_equal(small[0][0], large[0][0])


def filled_with(number):
    return lambda events, size: np.full((2, 2, *size), number, np.uint8)


class Filled:
    """A callable object."""

    def __init__(self, number):
        self.number = number

    def __call__(self, events, size):
        return np.full((2, 2, *size), self.number, np.uint8)


@pytest.mark.parametrize("make", [filled_with, Filled, lambda n: partial(np.full_like, fill_value=n)])
def test_a_function_without_a_version_is_not_cached(embedded, make):
    def split(number, **options):
        function = make(number)
        if isinstance(function, partial):
            function = partial(_like, function)
        own = Custom(function, **options)
        return create("dataset", "moving-bars", num_train=1, num_test=1, representation=own).split("test")

    for number in (1, 2):
        uncertain = split(number)
        assert uncertain.cache is None
        assert uncertain[0][0].unique().tolist() == [number]
        certain = split(number, version=f"{number}")
        assert certain.cache is not None
        assert certain[0][0].unique().tolist() == [number]
    assert split(1, version="1").cache.directory == split(1, version="1").cache.directory
    assert split(1, version="1").cache.directory != certain.cache.directory


def _like(fill, events, size):
    return fill(np.empty((2, 2, *size), np.uint8))


def test_a_class_of_ones_own_is_cached_under_its_own_version(embedded):

    def split(number, **members):
        call = {"__call__": lambda self, events, size: np.full((2, 2, *size), number, np.uint8)}
        kind = type("Mine", (Frames,), {"name": "mine", **call, **members})
        return create("dataset", "moving-bars", num_train=1, num_test=1, representation=kind()).split("test")

    assert split(1).cache is None, "the version of frames says nothing of what is derived from it"
    first, second = split(1, version="1"), split(2, version="2")
    assert first.cache.directory != second.cache.directory
    assert [part[0][0].unique().tolist() for part in (first, second)] == [[1], [2]]


def test_tonics_files_are_in_the_key(tmp_path, monkeypatch):
    fake = types.SimpleNamespace(__version__="1", datasets=types.SimpleNamespace(NMNIST=None))
    monkeypatch.setitem(sys.modules, "tonic", fake)

    def key():
        dataset = object.__new__(tonic_bridge.NMNIST)
        dataset.config = tonic_bridge.NMNIST.Config(root=str(tmp_path))
        return dataset.identity(tmp_path, "train")

    keys = [key()]
    path = tmp_path / "NMNIST" / "Train" / "1.bin"
    path.parent.mkdir(parents=True)
    for content in (b"12345", b"1234567890"):
        path.write_bytes(content)
        keys.append(key())
    assert key() == keys[-1]
    fake.__version__ = "2"
    keys.append(key())
    assert len(set(keys)) == 4


def test_tonics_ssc_has_three_splits():
    assert tonic_bridge.SSC.splits == ("train", "val", "test")
    assert tonic_bridge.SHD.splits == ("train", "test")

"""MATLAB files, written byte by byte and by scipy; damaged ones."""

import contextlib
import io
import random
import tracemalloc
import zlib

import numpy as np
import pytest
import writers

from spikecore.errors import DatasetError
from spikecore_datasets_dvs.formats.mat import read_mat

ARRAYS = {
    "ts": np.arange(40.0)[:, None] * 1e3,
    "x": (np.arange(40, dtype="u2") % 240)[:, None],
    "y": (np.arange(40, dtype="i4") % 180)[:, None],
    "pol": np.ones((40, 1), "u1"),
    "a_longer_name": np.array([[1.5, -2.5]], "f4"),
    "three": np.array([[7]], "i2"),
    "none": np.zeros((0, 0)),
}


def same(path, arrays):
    for name, got in zip(arrays, read_mat(path, tuple(arrays)), strict=True):
        np.testing.assert_array_equal(got, arrays[name].reshape(-1, order="F"))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("is_packed", [False, True])
def test_written_and_read_back(tmp_path, order, is_packed):
    path = tmp_path / "a.mat"
    path.write_bytes(writers.mat(ARRAYS, order, is_packed))
    same(path, ARRAYS)
    path.write_bytes(writers.mat({"x": ARRAYS["ts"] / 1e3}, order, is_packed, stored="u1"))  # as MATLAB saves space
    np.testing.assert_array_equal(read_mat(path, ("x",))[0], np.arange(40))


@pytest.mark.parametrize("is_packed", [False, True])
def test_it_reads_what_scipy_writes_and_scipy_what_is_written_here(tmp_path, is_packed):
    matlab = pytest.importorskip("scipy.io")
    path = tmp_path / "a.mat"
    others = {"words": np.array(["some", "text"]), "cells": np.array([[1, "a"]], object), "z": np.ones((2, 1)) * 1j}
    matlab.savemat(path, {**others, **ARRAYS}, do_compression=is_packed)
    same(path, ARRAYS)
    loaded = matlab.loadmat(io.BytesIO(writers.mat(ARRAYS, is_packed=is_packed)))
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(loaded[name], array)


@pytest.mark.parametrize("is_packed", [False, True])
def test_any_damage_is_an_error_of_ours_or_harmless(tmp_path, is_packed):
    whole, rng, path = writers.mat(ARRAYS, is_packed=is_packed), random.Random(0), tmp_path / "a.mat"
    num_whole = 0
    tracemalloc.start()
    for _ in range(1500):
        raw = bytearray(whole[: rng.randrange(len(whole))] if rng.random() < 0.15 else whole)
        for _ in range(rng.choice([1, 1, 2, 4]) if raw else 0):
            raw[rng.randrange(len(raw))] = rng.choice([0, 1, 127, 128, 255])
        path.write_bytes(raw)
        with contextlib.suppress(DatasetError):
            read_mat(path, ("ts", "x", "y", "pol"))
            num_whole += 1
    assert 100 < num_whole < 1400
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()


def test_what_it_does_not_take(tmp_path):
    path = tmp_path / "a.mat"
    for content, says in {
        b"": "has 0 bytes; was it copied to the end",
        b"x" * 200: "not a MATLAB file of version 5",
        writers.mat({"x": ARRAYS["x"]}): "lacks the array 'ts'; it has x",
        writers.mat({}) + b"\x0e\0\0\0": "not a sound MATLAB file",
        writers.mat(ARRAYS)[:-9]: "cut short",
    }.items():
        path.write_bytes(content)
        with pytest.raises(DatasetError, match=says):
            read_mat(path, ("ts",))


def test_a_bomb(tmp_path):
    path, packed = tmp_path / "a.mat", zlib.compress(zlib.compress(bytes(1 << 28), 9), 9)
    path.write_bytes(writers.mat({}) + (15).to_bytes(4, "little") + len(packed).to_bytes(4, "little") + packed)
    tracemalloc.start()
    with pytest.raises(DatasetError, match="not a sound MATLAB file"):
        read_mat(path, ("ts",))
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()

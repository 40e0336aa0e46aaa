"""The name of a cache: two datasets that differ in anything that decides a sample have two of them."""

import numpy as np
import writers
from test_folder import columns

from spikecore import create


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

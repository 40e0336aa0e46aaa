"""Transforms of time, pixels and polarities: by hand, and as Tonic has them."""

import numpy as np
import peer
import pytest
from test_folder import columns

from spikecore import create
from spikecore.errors import DatasetError, OptionError
from spikecore_datasets_dvs import make_events
from spikecore_datasets_dvs.event_downsampling import Differentiate, Integrate
from spikecore_datasets_dvs.events import empty
from spikecore_datasets_dvs.filters import (
    CropTime,
    Decimate,
    DropPixels,
    HotPixels,
    MergePolarities,
    TimeSkew,
    UniformNoise,
)

SIZE = (16, 16)
RNG = np.random.default_rng(0)
EVENTS = make_events(*columns(0, 3, 3000))
ALL = [
    CropTime(1000, 30_000),
    TimeSkew(1.5, 7),
    HotPixels(500.0),
    DropPixels(((1, 2), (3, 4))),
    Decimate(3),
    MergePolarities(1),
    UniformNoise(50),
    Integrate(8, 4, 500, 2),
    Differentiate(8, 4, 1000, 2, 1),
]


def theirs(events):
    array = np.zeros(len(events), [("t", int), ("x", int), ("y", int), ("p", int)])
    for column in "txyp":
        array[column] = getattr(events, column)
    return array


def same(ours, array):
    for column in "txyp":
        assert getattr(ours, column).tolist() == array[column].astype(int).tolist(), column


def test_crop_time_by_hand():
    events = make_events([100, 105, 112, 120], range(4), range(4), [1] * 4)
    assert CropTime(5, 12)(events, SIZE, RNG).t.tolist() == [105]
    assert CropTime(105, 113, from_first=False)(events, SIZE, RNG).t.tolist() == [105, 112]
    assert CropTime(12)(events, SIZE, RNG).t.tolist() == [112, 120]


@pytest.mark.parametrize("transform", ALL, ids=lambda item: item.name)
def test_no_events_stay_none(transform):
    events = transform(empty(), SIZE, np.random.default_rng(0))
    assert len(events) == 0
    assert (events.t.dtype, events.x.dtype, events.p.dtype) == (np.int64, np.uint16, np.uint8)


@pytest.mark.parametrize("transform", ALL, ids=lambda item: item.name)
def test_order_and_sensor(transform):
    events = transform(EVENTS, SIZE, np.random.default_rng(0))
    assert len(events) > 10
    assert events != EVENTS
    assert (np.diff(events.t) >= 0).all()
    height, width = transform.size(SIZE)
    assert events.x.max() < width
    assert events.y.max() < height


@pytest.mark.parametrize("n", [1, 2, 5])
def test_decimation_by_hand(n):
    seen = {}
    keep = []
    for i, place in enumerate(zip(EVENTS.x.tolist(), EVENTS.y.tolist(), strict=True)):
        seen[place] = seen.get(place, 0) + 1
        if seen[place] % n == 0:
            keep.append(i)
    assert Decimate(n)(EVENTS, SIZE, RNG) == EVENTS[np.array(keep)]


def test_hot_pixels_by_hand():
    events = make_events([*range(0, 1_000_000, 1000), 1_000_000], [3] * 1000 + [5], [2] * 1000 + [1], [1] * 1001)
    assert HotPixels(999.0)(events, SIZE, RNG).x.tolist() == [5]
    assert HotPixels(1000.0)(events, SIZE, RNG) == events
    assert DropPixels(((3, 2),))(events, SIZE, RNG).x.tolist() == [5]
    still = make_events([4, 4], [1, 1], [1, 1], [0, 0])
    assert HotPixels(1.0)(still, SIZE, RNG) == still


def test_noise_is_uniform_and_seeded():
    noisy = UniformNoise(20_000)(EVENTS, SIZE, np.random.default_rng(1))
    assert noisy == UniformNoise(20_000)(EVENTS, SIZE, np.random.default_rng(1))
    assert noisy != UniformNoise(20_000)(EVENTS, SIZE, np.random.default_rng(2))
    assert len(noisy) == len(EVENTS) + 20_000
    assert (noisy.t[0], noisy.t[-1]) == (EVENTS.t[0], EVENTS.t[-1])
    own = set(zip(*(getattr(EVENTS, c).tolist() for c in "txyp"), strict=True))
    assert own <= set(zip(*(getattr(noisy, c).tolist() for c in "txyp"), strict=True))
    counts = np.bincount(noisy.y.astype(int) * 16 + noisy.x, minlength=256) - np.bincount(
        EVENTS.y.astype(int) * 16 + EVENTS.x, minlength=256
    )
    assert counts.sum() == 20_000
    assert 0.5 < ((counts - 78.1) ** 2 / 78.1).sum() / 255 < 1.5  # χ² of a uniform draw
    few = [len(UniformNoise(9, True)(EVENTS, SIZE, np.random.default_rng(i))) - len(EVENTS) for i in range(200)]
    assert set(few) == set(range(10))


def test_noise_is_distributed_as_tonics():
    """Another generator draws it: compared are the number of events and how they lie, not each of them."""
    tonic = peer.require("tonic")
    np.random.seed(0)  # Tonic draws from numpy's global state
    few = EVENTS[:2].replace(t=np.array([0, 50_000]))
    expected = tonic.transforms.UniformNoise(sensor_size=(16, 16, 2), n=20_000)(theirs(few))
    ours = UniformNoise(20_000)(few, SIZE, np.random.default_rng(0))
    assert len(expected) == len(ours) == 20_002
    for name, limit in {"t": 50_000, "x": 16, "y": 16, "p": 2}.items():
        bins = min(limit, 8)
        counts = [np.histogram(column, bins, (0, limit))[0] for column in (expected[name], getattr(ours, name))]
        assert np.abs(counts[0] - counts[1]).max() < 5 * np.sqrt(2 * 20_000 / bins), name


def test_integration_by_hand():
    """Two ON events in the same square within a window of threshold 2; an OFF one takes one of them back."""
    events = make_events([0, 3, 12, 13, 14, 30], [0, 1, 0, 1, 1, 0], [0, 0, 0, 0, 0, 0], [1, 1, 1, 0, 1, 1])
    got = Integrate(1, 1, 10, 2)(events, (2, 2), RNG)
    assert [got.t.tolist(), got.p.tolist()] == [[0], [1]]
    got = Integrate(1, 1, 10, 1)(events, (2, 2), RNG)
    assert [got.t.tolist(), got.p.tolist()] == [[0, 10], [1, 1]]
    off = events.replace(p=1 - events.p)
    assert Integrate(1, 1, 10, 1)(off, (2, 2), RNG).p.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("ours", "name", "options"),
    [
        (CropTime(1000, 30_001, from_first=False), "CropTime", {"min": 1000, "max": 30_000}),
        (TimeSkew(1.37, 11.0), "TimeSkew", {"coefficient": 1.37, "offset": 11.0}),
        (HotPixels(300.0), "DropPixel", {"hot_pixel_frequency": 300}),
        (DropPixels(((1, 2), (3, 4))), "DropPixel", {"coordinates": [(1, 2), (3, 4)]}),
        (Decimate(3), "Decimation", {"n": 3}),
        (MergePolarities(), "MergePolarities", {}),
        (
            Integrate(8, 4, 2000, 2),
            "EventDownsampling",
            {"dt": 2.0, "downsampling_method": "integrator", "noise_threshold": 2},
        ),
        (
            Differentiate(8, 4, 2000, 2, 1),
            "EventDownsampling",
            {"dt": 2.0, "downsampling_method": "differentiator", "noise_threshold": 1, "differentiator_time_bins": 2},
        ),
    ],
    ids=lambda item: getattr(item, "name", None) if not isinstance(item, str) else item,
)
def test_as_tonic_has_it(ours, name, options):
    tonic = peer.require("tonic")
    events = EVENTS.replace(t=EVENTS.t - EVENTS.t[0])
    if name == "EventDownsampling":
        options = {"sensor_size": (16, 16, 2), "target_size": (4, 8), **options}
    expected = getattr(tonic.transforms, name)(**options)(theirs(events))
    assert len(expected) > 20
    same(ours(events, SIZE, RNG), expected)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: CropTime(5, 5), "stop_us = 5 must be behind start_us = 5"),
        (lambda: DropPixels(((1, 2, 3),)), r"places are \[x, y\]"),
        (lambda: DropPixels(((20, 2),))(EVENTS, SIZE, RNG), r"\[20, 2\] lies outside"),
        (lambda: Integrate(20, 4).size(SIZE), "are larger than the sensor"),
        (lambda: Differentiate(4, 4, 5, 2), "must be a multiple of bins = 2"),
        (lambda: Integrate(4, 4, 1)(make_events([0, 2_000_000], [0, 0], [0, 0], [0, 0]), SIZE, RNG), "windows of 1 µs"),
        (lambda: TimeSkew(1e30)(EVENTS, SIZE, RNG), "beyond"),
        (lambda: TimeSkew(float("nan"))(EVENTS, SIZE, RNG), "beyond"),
    ],
)
def test_options_and_recordings_that_do_not_serve(make, says):
    with pytest.raises((DatasetError, OptionError), match=says):
        make()


def test_by_name_in_a_dataset(embedded):
    transforms = [
        {"name": "crop_time", "stop_us": 30_000},
        {"name": "drop_pixels", "places": [[3, 4]]},
        {"name": "integrate", "height": 8, "width": 8},
    ]
    augment = [{"name": "uniform_noise", "num_events": 30}]
    split = create("dataset", "moving-bars", num_train=5, transforms=transforms, augment=augment).split("train")
    assert split[0][0].shape == (10, 2, 8, 8)
    plain = split.unaugmented()
    assert split[0][0].sum() == plain[0][0].sum() + 30

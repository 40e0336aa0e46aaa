"""Representations against their formulas written anew, and against SpikingJelly and Tonic where these are installed."""

import math
from dataclasses import dataclass

import numpy as np
import peer
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import spikecore
from spikecore.errors import DatasetError, OptionError, PluginError
from spikecore.interfaces.component import make_config
from spikecore.registry import choices, load, registry, use
from spikecore_datasets_dvs import frames as module
from spikecore_datasets_dvs.batched import batch_events, integrate
from spikecore_datasets_dvs.dataset import EventDataset
from spikecore_datasets_dvs.events import Events, empty, make_events
from spikecore_datasets_dvs.representations import (
    Binary,
    Custom,
    FixedDuration,
    Frames,
    Representation,
    TimeSurface,
    Units,
    VoxelGrid,
)

SENSOR = (5, 7)
REPRESENTATIONS = {e.name: load(e.kind, e.name) for e in choices("event_representation")}


@st.composite
def recordings(draw, min_size=0, sensor=SENSOR, longest=300):
    n = draw(st.integers(min_size, 40))

    def numbers(below):
        return draw(st.lists(st.integers(0, below - 1), min_size=n, max_size=n))

    start = draw(st.sampled_from([0, 1_000_000]))
    return make_events(
        [start + t for t in sorted(numbers(longest))], numbers(sensor[1]), numbers(sensor[0]), numbers(2)
    )


def random_events(n, sensor, longest=1_000_000, seed=0):
    rng = np.random.default_rng(seed)
    t = np.sort(rng.integers(0, longest, n))
    return make_events(t, rng.integers(0, sensor[1], n), rng.integers(0, sensor[0], n), rng.integers(0, 2, n))


def counted(events, num_steps, step_of):
    """F[j, c, y, x], one event at a time."""
    out = np.zeros((num_steps, 2, *SENSOR), np.int64)
    for i in range(len(events)):
        out[step_of(i), int(events.p[i] != 0), events.y[i], events.x[i]] += 1
    return out


def step_by_number(events, num_steps):
    size = len(events) // num_steps
    return lambda i: min(i // size, num_steps - 1) if size else num_steps - 1


def step_by_time(events, num_steps):
    first, last = int(events.t[0]), int(events.t[-1])
    width = (last - first) // num_steps
    return lambda i: min((int(events.t[i]) - first) // width, num_steps - 1) if width else num_steps - 1


@given(recordings(), st.integers(1, 9), st.sampled_from(["time", "number"]))
def test_frames_follow_their_formula(events, num_steps, by):
    step = {"time": step_by_time, "number": step_by_number}[by](events, num_steps) if len(events) else None
    wanted = counted(events, num_steps, step)
    got = Frames(num_steps=num_steps, by=by)(events, SENSOR)
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got, wanted)
    np.testing.assert_array_equal(Binary(num_steps=num_steps, by=by)(events, SENSOR), wanted > 0)
    np.testing.assert_array_equal(integrate(batch_events([events]), num_steps, SENSOR, by)[:, 0].numpy(), wanted)


@given(recordings(min_size=1), st.integers(1, 200))
def test_steps_of_fixed_duration_follow_their_formula(events, duration):
    span = int(events.t[-1] - events.t[0])
    num_steps = max(1, math.ceil(span / duration))
    wanted = counted(events, num_steps, lambda i: min(int(events.t[i] - events.t[0]) // duration, num_steps - 1))
    np.testing.assert_array_equal(FixedDuration(duration_us=duration)(events, SENSOR), wanted)


@given(st.lists(recordings(), min_size=1, max_size=5), st.integers(1, 6), st.sampled_from(["time", "number"]))
@settings(deadline=None)
def test_a_batch_is_integrated_as_its_parts(batch, num_steps, by):
    together = integrate(batch_events(batch), num_steps, SENSOR, by)
    assert together.shape == (num_steps, len(batch), 2, *SENSOR)
    for i, events in enumerate(batch):
        np.testing.assert_array_equal(together[:, i].numpy(), Frames(num_steps=num_steps, by=by)(events, SENSOR))


def test_a_batch_on_a_gpu():
    if not torch.cuda.is_available():
        pytest.skip("no GPU here")
    batch = batch_events([random_events(1000, SENSOR), empty(), random_events(7, SENSOR)])
    assert torch.equal(integrate(batch.to("cuda"), 4, SENSOR).cpu(), integrate(batch, 4, SENSOR))


def test_a_batch_refuses_what_is_outside():
    with pytest.raises(DatasetError, match="outside"):
        integrate(batch_events([make_events([1], [9], [0], [0])]), 2, SENSOR)
    with pytest.raises(OptionError, match="'time' or 'number'"):
        integrate(batch_events([empty()]), 2, SENSOR, by="colour")


@given(recordings(), st.integers(1, 6), st.sampled_from(["signed", "split"]))
def test_voxel_grid_follows_its_formula(events, num_steps, polarity):
    channels = 1 if polarity == "signed" else 2
    wanted = np.zeros((num_steps, channels, *SENSOR))
    for i in range(len(events)):
        span = int(events.t[-1] - events.t[0])
        moment = (num_steps - 1) * int(events.t[i] - events.t[0]) / span if span else 0.0
        sign = (1 if events.p[i] else -1) if channels == 1 else 1
        for j in range(num_steps):
            channel = 0 if channels == 1 else events.p[i]
            wanted[j, channel, events.y[i], events.x[i]] += sign * max(0.0, 1 - abs(j - moment))
    got = VoxelGrid(num_steps=num_steps, polarity=polarity)(events, SENSOR)
    np.testing.assert_allclose(got, wanted, atol=1e-5)
    assert got.dtype == np.float32


@given(recordings(), st.integers(1, 6), st.floats(1.0, 500.0))
def test_time_surface_follows_its_formula(events, num_steps, tau):
    wanted = np.zeros((num_steps, 2, *SENSOR))
    for j in range(num_steps if len(events) else 0):
        step = step_by_time(events, num_steps)
        first, last = int(events.t[0]), int(events.t[-1])
        end = last if j == num_steps - 1 else first + (last - first) // num_steps * (j + 1)
        for i in range(len(events)):
            if step(i) <= j:  # events are in time order, so the last one overwrites
                wanted[j, events.p[i], events.y[i], events.x[i]] = math.exp(-(end - int(events.t[i])) / tau)
    np.testing.assert_allclose(TimeSurface(num_steps=num_steps, tau_us=tau)(events, SENSOR), wanted, atol=1e-6)


@given(recordings(sensor=(1, 9)), st.integers(1, 5), st.integers(1, 4))
def test_units_are_frames_without_polarity_and_rows(events, num_steps, group):
    whole = Frames(num_steps=num_steps)(events, (1, 9)).sum((1, 2))
    padded = np.pad(whole, ((0, 0), (0, -9 % group)))
    got = Units(num_steps=num_steps, group=group)(events, (1, 9))
    np.testing.assert_array_equal(got, padded.reshape(num_steps, -1, group).sum(2))
    assert got.shape[1:] == Units(group=group).step_shape((1, 9))
    if len(events):
        by_duration = Units(num_steps=0, duration_us=50)(events, (1, 9))
        np.testing.assert_array_equal(by_duration, FixedDuration(duration_us=50)(events, (1, 9)).sum((1, 2)))


def test_large_recordings_pass_through_in_chunks(monkeypatch):
    events = random_events(1000, SENSOR)
    whole = Frames(num_steps=3)(events, SENSOR)
    monkeypatch.setattr(module, "CHUNK", 17)
    np.testing.assert_array_equal(Frames(num_steps=3)(events, SENSOR), whole)
    assert whole.sum() == 1000


@given(
    st.sampled_from([(34, 34), (128, 128), (128, 129), (240, 304), (1, 700), (1, 1)]),
    st.integers(1, 40),
    st.integers(0, 400),
    st.integers(1, 150),
    st.sampled_from([(0.0, 1), (1e9, 1), (1e9, 1 << 17)]),
    st.integers(0, 2**20),
)
def test_every_way_and_width_of_address_counts_the_same(sensor, num_steps, count, chunk, way, seed):
    rng = np.random.default_rng(seed)
    x, y = rng.integers(0, sensor[1], count), rng.integers(0, sensor[0], count)
    x[:2], y[:2] = sensor[1] - 1, sensor[0] - 1
    p = rng.choice([0, 1, 2, 255], count).astype(np.uint8)  # whatever is not 0 is bright
    t = np.sort(rng.integers(0, 3 * num_steps, count))
    events = Events(t, x.astype(np.uint16), y.astype(np.uint16), p)
    bounds = np.sort(np.concatenate([[0, count], rng.integers(0, count + 1, num_steps - 1)]))
    wanted = np.zeros((num_steps, 2, *sensor), np.int64)
    step = np.searchsorted(bounds, np.arange(count), "right") - 1
    np.add.at(wanted, (np.minimum(step, num_steps - 1), (p > 0).astype(int), y, x), 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CHUNK", chunk)
        patch.setattr(module, "DENSE", way[0])
        patch.setattr(module, "BLOCK", way[1])
        np.testing.assert_array_equal(module.count_frames(events, bounds, sensor), wanted)


def test_events_outside_are_refused_in_any_chunk(monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 7)
    for sensor in ((34, 34), (240, 304)):
        events = make_events(range(30), [0] * 29 + [sensor[1]], [0] * 30, [1] * 30)
        with pytest.raises(DatasetError, match=f"1 of .* outside the sensor of H, W = {sensor[0]}, {sensor[1]}"):
            Frames(num_steps=3)(events, sensor)


def test_counts_do_not_overflow():
    n = 70_000
    events = make_events(np.arange(n), np.zeros(n), np.zeros(n), np.ones(n))
    got = Frames(num_steps=1)(events, SENSOR)
    assert got.dtype == np.uint32
    assert got[0, 1, 0, 0] == n
    assert Frames(num_steps=100)(events, SENSOR).dtype == np.uint16
    for count, kind in ((n, np.uint32), (30_000, np.uint16), (200, np.uint8)):  # fewer events than places
        sparse = Frames(num_steps=4)(make_events(np.zeros(count), *np.zeros((2, count)), np.ones(count)), (200, 300))
        assert sparse.dtype == kind
        assert sparse[3, 1, 0, 0] == sparse.sum() == count


@pytest.mark.parametrize("by", ["time", "number"])
@pytest.mark.parametrize("num_steps", [1, 7, 16])
def test_frames_equal_spikingjellys(by, num_steps):
    theirs = peer.spikingjelly_utils()
    events = random_events(5000, SENSOR)
    as_dict = {name: getattr(events, name).astype(np.int64) for name in "txyp"}
    wanted = theirs.integrate_events_by_fixed_frames_number(as_dict, by, num_steps, *SENSOR)
    np.testing.assert_array_equal(Frames(num_steps=num_steps, by=by)(events, SENSOR), wanted)


@pytest.mark.parametrize("duration", [999, 50_000, 333_333])
def test_fixed_duration_equals_spikingjellys(duration):
    theirs = peer.spikingjelly_utils()
    events = random_events(5000, SENSOR)
    as_dict = {name: getattr(events, name).astype(np.int64) for name in "txyp"}
    wanted = theirs.integrate_events_by_fixed_duration(as_dict, duration, *SENSOR)
    np.testing.assert_array_equal(FixedDuration(duration_us=duration)(events, SENSOR), wanted)


def test_frames_and_grids_equal_tonics():
    functional = peer.require("tonic.functional")
    # A million µs in ten windows, with an event at both ends: here Tonic's windows are our segments.
    events = random_events(5000, SENSOR)
    t = events.t.copy()
    t[0], t[-1] = 0, 1_000_000
    events = events.replace(t=t)
    theirs = np.zeros(len(t), [("t", int), ("x", int), ("y", int), ("p", int)])
    for name in "txyp":
        theirs[name] = getattr(events, name)
    size = (SENSOR[1], SENSOR[0], 2)
    wanted = functional.to_frame_numpy(theirs, size, n_event_bins=10)
    np.testing.assert_array_equal(Frames(num_steps=10, by="number")(events, SENSOR), wanted)
    wanted = functional.to_frame_numpy(theirs, size, time_window=100_000)
    got = Frames(num_steps=10)(events, SENSOR)
    np.testing.assert_array_equal(got[:9], wanted[:9])
    wanted = functional.to_voxel_grid_numpy(theirs.copy(), size, n_time_bins=6)
    # Tonic spreads the recording over 6 intervals and leaves the seventh moment, their end, out.
    np.testing.assert_allclose(VoxelGrid(num_steps=7)(events, SENSOR)[:6], wanted, atol=1e-4)


@pytest.mark.parametrize("kind", REPRESENTATIONS.values(), ids=REPRESENTATIONS)
@pytest.mark.parametrize(
    "events", [empty(), make_events([5], [1], [0], [1]), make_events([5] * 9, [1] * 9, [0] * 9, [1] * 9)]
)
def test_no_event_one_event_and_one_moment(kind, events):
    representation = kind()
    got = representation(events, SENSOR)
    assert got.shape[1:] == representation.step_shape(SENSOR)
    assert len(got) == (1 if representation.is_variable else representation.num_steps)
    assert bool(got.any()) == bool(len(events))
    assert np.isfinite(got).all()


@pytest.mark.parametrize("kind", REPRESENTATIONS.values(), ids=REPRESENTATIONS)
def test_events_outside_the_sensor_are_refused(kind):
    with pytest.raises(DatasetError, match="1 of 1 events lie outside the sensor of H, W = 5, 7"):
        kind()(make_events([1], [7], [0], [1]), SENSOR)


def test_one_wrong_time_does_not_take_all_memory():
    with pytest.raises(DatasetError, match="more than max_steps = 10000"):
        FixedDuration(duration_us=1)(make_events([0, 1 << 50], [0, 0], [0, 0], [0, 0]), SENSOR)


def latest(events, sensor_size):
    return np.ones((3, 2, *sensor_size), np.uint8) * len(events)


def test_a_function_of_ones_own():
    own = Custom(latest)
    assert own(empty(), SENSOR).shape == (3, 2, *SENSOR)
    with pytest.raises(DatasetError, match=r"gave \(3, 2, 5, 7\), not \[T, 4\]"):
        Custom(latest, shape=(4,))(empty(), SENSOR)


def test_a_registered_representation_of_ones_own():
    @dataclass(frozen=True)
    class Sum(Representation):
        def __call__(self, events, sensor_size):
            return Frames(num_steps=1)(events, sensor_size)

    with use(registry().without(())):
        spikecore.register("event_representation", "sum", Sum)
        config = make_config(EventDataset, {"representation": "sum"})
        with pytest.raises(PluginError, match="already offered"):
            spikecore.register("event_representation", "frames", Sum)
    assert config.representation == Sum()
    assert config.representation(make_events([5] * 9, [1] * 9, [0] * 9, [1] * 9), SENSOR).sum() == 9

"""Transforms against slow references and their invariants."""

import re

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from test_frames import SENSOR, random_events, recordings

from spikecore.cli.info import command as info
from spikecore.errors import DatasetError
from spikecore.registry import choices, load
from spikecore_datasets_dvs import transforms as module
from spikecore_datasets_dvs.events import empty, make_events
from spikecore_datasets_dvs.transforms import (
    Crop,
    Denoise,
    Downsample,
    DropEvents,
    EventCutMix,
    Flip,
    RandomCrop,
    RandomFlip,
    RandomTemporalDelete,
    Refractory,
    SpatialJitter,
    TimeJitter,
    apply,
)


def rng(seed=0):
    return np.random.default_rng(seed)


def rows(events):
    return list(zip(*(getattr(events, name).tolist() for name in "txyp"), strict=True))


@given(recordings(), st.integers(1, 100))
def test_denoise_keeps_what_has_a_recent_neighbour(events, window):
    wanted = []
    all_rows = rows(events)
    for i, (t, x, y, p) in enumerate(all_rows):
        if any(max(abs(x - ox), abs(y - oy)) == 1 and t - ot <= window for ot, ox, oy, _ in all_rows[:i]):
            wanted.append((t, x, y, p))
    with pytest.MonkeyPatch.context() as patch:
        for chunk in (1, 3, 1000):
            patch.setattr(module, "CHUNK", chunk)
            assert rows(Denoise(window_us=window)(events, SENSOR, rng())) == wanted


@given(recordings(), st.integers(1, 100))
def test_refractory_pixels_are_blind_after_what_stays(events, delay):
    last, wanted = {}, []
    for t, x, y, p in rows(events):
        if t - last.get((x, y), -(10**9)) >= delay:
            last[x, y] = t
            wanted.append((t, x, y, p))
    with pytest.MonkeyPatch.context() as patch:
        for chunk in (1, 3, 1000):
            patch.setattr(module, "CHUNK", chunk)
            assert rows(Refractory(delay_us=delay)(events, SENSOR, rng())) == wanted


@given(recordings(), st.sampled_from(["x", "y", "polarity", "time"]))
def test_flipping_twice_changes_nothing(events, axis):
    flip = Flip(axis=axis)
    once = flip(events, SENSOR, rng())
    again = flip(once, SENSOR, rng())
    # Events of one moment come back in the other order under a flip of time, twice: in their own.
    assert rows(again) == rows(events)
    assert len(events) == 0 or rows(once) != rows(events) or axis in "xy"
    assert bool((np.diff(once.t) >= 0).all())


def test_flip_by_hand():
    events = make_events([10, 20, 25], [0, 1, 6], [0, 4, 2], [1, 0, 1])
    assert rows(Flip("x")(events, SENSOR, rng())) == [(10, 6, 0, 1), (20, 5, 4, 0), (25, 0, 2, 1)]
    assert rows(Flip("y")(events, SENSOR, rng())) == [(10, 0, 4, 1), (20, 1, 0, 0), (25, 6, 2, 1)]
    assert rows(Flip("time")(events, SENSOR, rng())) == [(10, 6, 2, 0), (15, 1, 4, 1), (25, 0, 0, 0)]


@given(recordings(), st.integers(1, 5), st.integers(1, 7))
def test_crops(events, height, width):
    top, left = (SENSOR[0] - height) // 2, (SENSOR[1] - width) // 2
    wanted = [
        (t, x - left, y - top, p) for t, x, y, p in rows(events) if 0 <= x - left < width and 0 <= y - top < height
    ]
    got, size = apply((Crop(height, width),), events, SENSOR, rng())
    assert rows(got) == wanted
    assert size == (height, width)
    somewhere = RandomCrop(height, width)(events, SENSOR, rng(3))
    choices = [
        [(t, x - b, y - a, p) for t, x, y, p in rows(events) if 0 <= x - b < width and 0 <= y - a < height]
        for a in range(SENSOR[0] - height + 1)
        for b in range(SENSOR[1] - width + 1)
    ]
    assert rows(somewhere) in choices


@given(recordings(), st.integers(0, 3))
def test_a_random_crop_with_a_margin_moves_the_picture(events, padding):
    crop = RandomCrop(padding=padding)
    got, size = apply((crop,), events, SENSOR, rng(4))
    assert size == SENSOR
    moves = [(a, b) for a in range(-padding, padding + 1) for b in range(-padding, padding + 1)]
    choices = [
        [(t, x - b, y - a, p) for t, x, y, p in rows(events) if 0 <= x - b < SENSOR[1] and 0 <= y - a < SENSOR[0]]
        for a, b in moves
    ]
    assert rows(got) in choices


def test_a_random_crop_reaches_every_place():
    events = make_events([0], [3], [2], [1])
    seen = {tuple(rows(RandomCrop(padding=1)(events, SENSOR, rng(i)))[0][1:3]) for i in range(200)}
    assert seen == {(x, y) for x in (2, 3, 4) for y in (1, 2, 3)}


def test_a_crop_larger_than_the_sensor():
    with pytest.raises(DatasetError, match="larger than the sensor"):
        apply((Crop(6, 3),), empty(), SENSOR, rng())
    with pytest.raises(DatasetError, match="larger than the sensor"):
        apply((RandomCrop(8, 3, padding=1),), empty(), SENSOR, rng())


def test_downsample_keeps_every_event():
    events = random_events(100, SENSOR)
    got, size = apply((Downsample(2),), events, SENSOR, rng())
    assert size == (3, 4)
    assert rows(got) == [(t, x // 2, y // 2, p) for t, x, y, p in rows(events)]


@pytest.mark.parametrize("by", ["event", "time", "area"])
@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_dropping(by, p):
    events = random_events(20_000, (50, 60))
    got = DropEvents(p=p, by=by)(events, (50, 60), rng(1))
    assert set(rows(got)) <= set(rows(events))
    assert len(got) / len(events) == pytest.approx(1 - p, abs=0.02)
    if by == "time" and 0 < p < 1:
        assert np.diff(got.t).max() == pytest.approx(p * events.duration_us, rel=0.01)


@pytest.mark.parametrize("by", ["event", "time", "area"])
@pytest.mark.parametrize("t", [[0] * 5 + [10] * 5, [7] * 10, []])
def test_dropping_all_leaves_nothing(by, t):
    n = len(t)
    events = make_events(t, list(range(n)), list(range(n)), [1] * n)
    assert len(DropEvents(p=1.0, by=by)(events, (10, 10), rng(1))) == 0
    assert DropEvents(p=0.0, by=by)(events, (10, 10), rng(1)) == events


def test_jitters_have_their_standard_deviation():
    n = 20_000
    events = make_events(np.arange(n) * 1000, np.full(n, 50), np.full(n, 60), np.ones(n))
    moved = SpatialJitter(std=2.0)(events, (120, 100), rng())
    assert len(moved) == n
    for column, middle in ((moved.x, 50), (moved.y, 60)):
        assert column.mean() == pytest.approx(middle, abs=0.1)
        assert column.std() == pytest.approx((4 + 1 / 12) ** 0.5, rel=0.03)
    later = TimeJitter(std_us=300.0)(make_events(np.full(n, 10**6), *[np.ones(n)] * 3), (120, 100), rng())
    assert later.t.std() == pytest.approx(300, rel=0.03)
    assert later.t.mean() == pytest.approx(10**6, abs=10)
    assert bool((np.diff(TimeJitter(std_us=5000.0)(events, (120, 100), rng()).t) >= 0).all())


def test_jitter_loses_what_leaves_the_sensor():
    events = make_events(np.arange(1000), np.zeros(1000), np.zeros(1000), np.ones(1000))
    moved = SpatialJitter(std=1.0)(events, (1, 1), rng())
    assert 0 < len(moved) < 1000
    assert set(moved.x.tolist()) == {0}


def test_a_random_flip_flips_as_often_as_it_says():
    events = make_events([1], [0], [0], [1])
    flipped = sum(int(RandomFlip("x", p=0.25)(events, SENSOR, rng(i)).x[0] == 6) for i in range(1000))
    assert flipped == pytest.approx(250, abs=45)


def test_random_temporal_delete():
    frames = np.arange(10).reshape(10, 1)
    got = RandomTemporalDelete(num_steps=4)(frames, rng())[:, 0]
    assert len(got) == 4
    assert bool((np.diff(got) > 0).all())
    assert RandomTemporalDelete(num_steps=4)(frames[:3], rng()) is not None
    assert len(RandomTemporalDelete(num_steps=4)(frames[:3], rng())) == 3
    seen = np.concatenate([RandomTemporalDelete(num_steps=4)(frames, rng(i))[:, 0] for i in range(300)])
    assert np.bincount(seen, minlength=10) == pytest.approx(np.full(10, 120), abs=40)


def test_cutmix_boxes_cover_what_beta_says():
    shares = []
    for seed in range(2000):
        height, width = EventCutMix(alpha=1.0).box(64, 64, rng(seed))
        assert 0 <= height.start <= height.stop <= 64
        shares.append((height.stop - height.start) * (width.stop - width.start) / 64**2)
    # 1 - λ is uniform, and clipping at the border takes from a box of sides s the mean share ((1 - s / 4) s)^2.
    s = np.sqrt(np.linspace(0, 1, 10_001))
    assert np.mean(shares) == pytest.approx(np.mean(((1 - s / 4) * s) ** 2), abs=0.02)


CHANGES = [entry for table in ("event_transform", "event_augment") for entry in choices(table)]


@pytest.mark.parametrize("kind", [load(entry.kind, entry.name) for entry in CHANGES], ids=[e.name for e in CHANGES])
def test_the_same_seed_gives_the_same_and_nothing_is_written_to(kind):
    sized = kind.name.endswith("crop") or kind.name in ("integrate", "differentiate")
    options = {"height": 3, "width": 4} if sized else {}
    transform = kind(**options)
    if transform.level != "events":
        return
    events = random_events(500, SENSOR)
    before = rows(events)
    first, second = (rows(transform(events, SENSOR, rng(5))) for _ in range(2))
    assert first == second
    assert rows(events) == before
    assert rows(transform(empty(), SENSOR, rng(5))) == []
    with pytest.raises(AttributeError):
        transform.p = 1


def test_spike_info_describes_all_that_can_be_chosen():
    """Also what the base of all datasets declares, and the options of every choice."""
    shown = CliRunner().invoke(info, ["dataset", "ndigits"]).output
    for option, says in (
        ("representation: ", "what a recording becomes"),
        ("num_workers: ", "processes that fill the cache"),
        ("tau_us: number > 0 = 50000.0", "decay."),
        ('by: "time" or "number" = "time"', "segments of equal time"),
        ("factor: whole number >= 1 and <= 65535 = 2", "side of a square."),
    ):
        assert re.search(f"^ +{re.escape(option)}.*\n +{says}", shown, re.MULTILINE), option
    for entry in (*choices("event_representation"), *CHANGES):
        assert load(entry.kind, entry.name).name == entry.name
        assert f"\n  {entry.name}: " in shown

"""Windows that overlap, numbers of bits, averaged surfaces: by hand, and as Tonic has them."""

import numpy as np
import peer
import pytest
from test_filters import theirs
from test_folder import columns

from spikecore import create
from spikecore.errors import DatasetError, OptionError
from spikecore_datasets_dvs import make_events
from spikecore_datasets_dvs.events import empty
from spikecore_datasets_dvs.frames import bounds_by_time, count_frames
from spikecore_datasets_dvs.surfaces import AveragedTimeSurface, BinaRep, Windows

SIZE = (16, 20)
EVENTS = make_events(*columns(0, 3, 600))
ALL = [Windows(20_000, 5000), BinaRep(3, 4), AveragedTimeSurface(2, 5, 3)]


@pytest.mark.parametrize("representation", ALL, ids=lambda item: item.name)
def test_shapes(representation):
    frames = representation(EVENTS, SIZE)
    assert frames.shape[1:] == representation.step_shape(SIZE)
    assert frames.any()
    nothing = representation(empty(), SIZE)
    assert nothing.shape[1:] == frames.shape[1:]
    assert len(nothing) >= 1
    assert not nothing.any()


@pytest.mark.parametrize("include_incomplete", [True, False])
def test_windows_as_tonic_has_them(include_incomplete):
    tonic = peer.require("tonic")
    ours = Windows(9000, 2000, include_incomplete)(EVENTS, SIZE)
    frames = tonic.functional.to_frame_numpy(
        theirs(EVENTS), (20, 16, 2), time_window=9000, overlap=2000, include_incomplete=include_incomplete
    )
    assert len(ours) >= 6
    np.testing.assert_array_equal(ours, frames)


def test_bits_by_hand():
    events = make_events([0, 30, 39, 79], [1, 1, 2, 3], [0, 0, 0, 0], [1, 1, 1, 1])
    frames = BinaRep(2, 2)(events, (1, 4))  # segments of 19 µs; the third begins at 38
    np.testing.assert_allclose(frames[:, 1, 0], [[0, 1, 0, 0], [0, 0, 2 / 3, 1 / 3]], atol=1e-7)


def test_bits_as_tonic_has_them():
    tonic = peer.require("tonic")
    frames = count_frames(EVENTS, bounds_by_time(EVENTS, 12), SIZE)
    expected = tonic.functional.to_bina_rep_numpy(frames, n_frames=3, n_bits=4)
    np.testing.assert_allclose(BinaRep(3, 4)(EVENTS, SIZE), expected, rtol=1e-6)


@pytest.mark.parametrize("decay", ["exp", "lin"])
@pytest.mark.parametrize(("cell", "surface"), [(5, 3), (8, 7), (7, 5)])
def test_averaged_surfaces_as_tonic_has_them(cell, surface, decay):
    tonic = peer.require("tonic")
    ours = AveragedTimeSurface(1, cell, surface, 9000, 4000.0, decay)(EVENTS, SIZE)[0]
    expected = tonic.functional.to_averaged_timesurface_numpy(
        theirs(EVENTS), (20, 16, 2), cell, surface, 9000, 4000.0, decay
    )
    rows, columns_ = -(-16 // cell), -(-20 // cell)
    picture = expected.reshape(rows, columns_, 2, surface, surface).transpose(2, 0, 3, 1, 4)
    np.testing.assert_allclose(ours, picture.reshape(ours.shape), rtol=2e-4, atol=1e-5)


def test_an_averaged_surface_by_hand():
    events = make_events([0, 10, 500], [1, 2, 1], [1, 1, 1], [1, 1, 1])
    surface = AveragedTimeSurface(1, 4, 3, 100, 20.0)(events, (4, 4))[0, 1]
    wanted = np.zeros((3, 3))
    wanted[1, 1], wanted[1, 0] = 1.0, np.exp(-10 / 20) / 3
    np.testing.assert_allclose(surface, wanted, rtol=1e-6)


def test_options_that_do_not_serve():
    with pytest.raises(OptionError, match="must be odd and at most cell_size = 5; got 4"):
        AveragedTimeSurface(1, 5, 4)
    with pytest.raises(OptionError, match="must be smaller than duration_us"):
        Windows(10, 10)
    with pytest.raises(DatasetError, match="more than max_steps = 2"):
        Windows(1000, 0, True, 2)(EVENTS, SIZE)


@pytest.mark.parametrize("representation", ["windows", "bina_rep", "averaged_time_surface"])
def test_by_name_in_a_dataset(embedded, representation):
    dataset = create("dataset", "moving-bars", num_train=5, representation=representation)
    split = dataset.split("train")
    assert split.cache is not None
    assert split[0][0].shape[1:] == dataset.sample_shape
    assert split.collate([split[0], split[1]]).x.shape[1] == 2

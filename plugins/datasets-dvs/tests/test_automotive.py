"""N-Cars, Gen1 with its boxes, ST-MNIST, and SHD with a part for validation."""

from contextlib import ExitStack

import numpy as np
import published
import pytest
import torch
from click.testing import CliRunner

from spikecore import create
from spikecore.cli.info import command as info
from spikecore.errors import DatasetError, OptionError
from spikecore.registry import load
from spikecore.testing.stand_ins import stand_ins
from spikecore_datasets_dvs import make_events, read_events
from spikecore_datasets_dvs.formats.dat import read_window


def opened(name, **options):
    return create("dataset", name, allow_partial=True, **options)


@pytest.fixture
def archives(data):
    """Archives of the tests, accepted in place of the genuine ones."""

    def put(name):
        published.put(name, data)
        stack.enter_context(stand_ins(data))

    with ExitStack() as stack:
        yield put


@pytest.mark.parametrize("name", ["st-mnist", "n-cars", "prophesee-gen1"])
def test_what_nobody_verified_is_shown(name):
    shown = CliRunner().invoke(info, ["dataset", name])
    assert shown.exit_code == 0
    assert shown.output.count("\n  ! ") == len(load("dataset", name).info.unverified) >= 3


def test_n_cars(archives):
    archives("n-cars")
    dataset = opened("n-cars")
    assert [dataset.split(name).labels.tolist() for name in dataset.splits] == [[0, 0, 0, 1, 1, 1]] * 2
    events, size = dataset.split("test").events(4)
    assert size == (100, 120)
    assert events == make_events(*published.columns([1, 1, 1], width=60, height=50))


def test_st_mnist(archives):
    archives("st-mnist")
    split = opened("st-mnist", test_share=0.34).split("train")
    assert len(split) == 20
    recording = split.recordings[0]
    digit, number = int(recording.path.split("/")[-2]), int(recording.path[-5])
    assert recording.label == digit
    rng = np.random.default_rng(10 * digit + number)
    train = rng.choice([-1.0, 0.0, 1.0], (101, 30), p=[0.01, 0.98, 0.01])
    train[(10 * digit + number) % 100, ::7] = 1.0
    times = np.sort(rng.integers(0, 2_000_000, 30))
    wanted = [
        (int(times[n]), e % 10, e // 10, int(train[e, n] > 0)) for n in range(30) for e in range(100) if train[e, n]
    ]
    events, _ = split.events(0)
    assert list(zip(*(getattr(events, c).tolist() for c in "txyp"), strict=True)) == wanted
    assert 0 in events.p


def test_boxes_of_gen1(data):
    published.put("prophesee-gen1", data)
    dataset = opened("prophesee-gen1", window_us=60_000)
    assert dataset.capabilities.target == "items"
    for k, name in enumerate(("train", "val", "test")):
        split = dataset.split(name)
        assert len(split) == 6  # three moments of two recordings
        for i in range(len(split)):
            boxes = published.gen1_boxes([k, i // 3])
            moment = (200_000, 300_000, 700_000)[i % 3]
            own = boxes[boxes["ts"] == moment]
            x, label = split[i]
            assert label.tolist() == [[float(b[n]) for n in ("class_id", "x", "y", "w", "h")] for b in own]
            whole = make_events(*published.columns([k, i // 3], 2000, 304, 240, 1_000_000))
            part = (whole.t >= moment - 60_000) & (whole.t < moment)
            assert split.events(i)[0] == whole[part]
            assert x.sum() == part.sum() > 50
    batch = split.collate([split[0], split[1]])
    assert batch.x.shape == (10, 2, 2, 240, 304)
    assert [len(own) for own in batch.label] == [1, 2]
    assert not hasattr(split, "labels")
    large = opened("prophesee-gen1", min_side=20, skip_us=250_000).split("train")
    assert {recording.stop_us for recording in large.recordings} <= {300_000, 700_000}
    assert all((label[:, 3:] >= 20).all() for _, label in (large[i] for i in range(len(large))))


@pytest.mark.parametrize("option", ["transforms", "augment"])
@pytest.mark.parametrize("name", ["flip", "downsample", "integrate", "random_crop", "event_cutmix"])
def test_boxes_do_not_follow_what_moves_pixels(option, name, data):
    sizes = {"integrate": {"height": 8, "width": 8}}.get(name, {})
    known = (option == "augment") == (name in ("random_crop", "event_cutmix"))
    with pytest.raises(OptionError, match="moves pixels, and the boxes would not follow" if known else "no event_"):
        opened("prophesee-gen1", **{option: [{"name": name, **sizes}]})
    opened("prophesee-gen1", transforms=["denoise", "decimate"], augment=["uniform_noise", "time_jitter"])


def test_gen1_is_unpacked_by_a_person(data):
    with pytest.raises(DatasetError, match="holds nothing of Prophesee Gen1.*accept the terms on https"):
        opened("prophesee-gen1").split("train")
    published.put("prophesee-gen1", data)
    (data / "prophesee-gen1" / "val" / "17-04-13_1_bbox.npy").unlink()
    with pytest.raises(
        DatasetError, match="17-04-13_1_bbox.npy: is missing; the boxes of each recording lie beside it"
    ):
        opened("prophesee-gen1").split("train")


def damaged(boxes, **fields):
    for name, value in fields.items():
        boxes[name][0] = value
    return boxes


@pytest.mark.parametrize(
    ("boxes", "says"),
    [
        (np.zeros(3), "lacks the field 'x'; it has none"),
        (np.zeros(3, [("x", "f4"), ("y", "f4"), ("w", "f4"), ("h", "f4"), ("class_id", "u1")]), "lacks the field 't'"),
        (damaged(published.gen1_boxes(1), class_id=7), "holds the class 7; 0 to 1 are expected"),
        (damaged(published.gen1_boxes(1), w=np.nan), "boxes that are not finite"),
    ],
)
def test_damaged_boxes(boxes, says, data):
    published.put("prophesee-gen1", data)
    np.save(data / "prophesee-gen1" / "train" / "17-04-13_0_bbox.npy", boxes)
    with pytest.raises(DatasetError, match=says):
        opened("prophesee-gen1").split("train")


def test_windows_of_a_dat_file(tmp_path):
    import writers

    columns = published.columns(3, 500, 304, 240, 10_000)
    path = tmp_path / "a.dat"
    path.write_bytes(writers.dat(*columns))
    whole = read_events(path)
    for start, stop in ((0, 10_000), (2000, 3000), (-5, 100), (9000, 99_000), (50_000, 60_000), (300, 300)):
        part = (whole.t >= start) & (whole.t < stop)
        assert read_window(path, start, stop) == whole[part]
    path.write_bytes(writers.dat([5, 9, 2, 11], [1] * 4, [1] * 4, [1] * 4))
    with pytest.raises(DatasetError, match="times are not in order between 0 and 20"):
        read_window(path, 0, 20)
    path.write_bytes(writers.dat(*columns, version=1))
    with pytest.raises(DatasetError, match="is no DAT file of version 2"):
        read_window(path, 0, 20)


@pytest.mark.parametrize("by", ["class", "speaker"])
def test_shd_with_a_part_for_validation(by, archives):
    archives("shd")
    plain = opened("shd")
    assert plain.splits == ("train", "test")
    dataset = opened("shd", val_share=0.4, val_by=by)
    assert dataset.splits == ("train", "val", "test")
    parts = {name: {recording.item for recording in dataset.split(name).recordings} for name in ("train", "val")}
    assert parts["train"] | parts["val"] == {recording.item for recording in plain.split("train").recordings}
    assert not parts["train"] & parts["val"]
    assert parts["val"]
    if by == "speaker":
        who = [{recording.subject for recording in dataset.split(name).recordings} for name in ("train", "val")]
        assert not who[0] & who[1]
    assert torch.equal(dataset.split("test").labels, plain.split("test").labels)

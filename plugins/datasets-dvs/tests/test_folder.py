"""Anyone's recordings in every format; splits; padding; buckets; statistics."""

import numpy as np
import pytest
import torch
import writers
from hypothesis import given
from hypothesis import strategies as st

import spikecore
from spikecore import create
from spikecore.datasets.splits import split_by_subject, split_per_class, subset
from spikecore.errors import DatasetError, OptionError
from spikecore.run.config import resolve
from spikecore_datasets_dvs.collate import BucketSampler, pad_collate
from spikecore_datasets_dvs.dataset import Recording
from spikecore_datasets_dvs.events import empty, make_events
from spikecore_datasets_dvs.statistics import statistics


def columns(label, i, n=400):
    """A class lives in one half of the picture."""
    rng = np.random.default_rng([label, i])
    t = np.sort(rng.integers(0, 50_000, n))
    return [c.tolist() for c in (t, rng.integers(0, 8, n) + 8 * label, rng.integers(0, 16, n), rng.integers(0, 2, n))]


def fill(root, formats=("dat", "bin", "aedat3", "raw", "npz", "npy"), count=6, names=("left", "right"), seed=0):
    for label, name in enumerate(names):
        (root / name).mkdir(parents=True)
        for i in range(count):
            form = formats[i % len(formats)]
            path = root / name / f"s{i % 3}_{i}.{form}"
            own = columns(label, i + seed)
            if form in ("npz", "npy"):
                events = make_events(*own)
                np.savez(path, **{c: getattr(events, c) for c in "txyp"}) if form == "npz" else np.save(
                    path, events.structured()
                )
            else:
                write = {"dat": writers.dat, "bin": writers.atis_bin, "aedat3": writers.aedat3, "raw": writers.evt3}[
                    form
                ]
                path.write_bytes(write(*own))
    (root / "notes.txt").write_text("not a class")
    (root / names[0] / "readme.md").write_text("not a recording")
    (root / ".hidden").mkdir()


def folder(root, **options):
    return create("dataset", "event-folder", root=str(root), **{"sensor_size": [16, 16], "unit": "us", **options})


def test_a_folder_of_every_format(tmp_path, data):
    fill(tmp_path / "r")
    dataset = folder(tmp_path / "r", test_share=0.34)
    assert dataset.info.classes == ("left", "right")
    train, test = dataset.split("train"), dataset.split("test")
    assert (len(train), len(test)) == (8, 4)
    assert test.labels.tolist() == [0, 0, 1, 1]
    for part in (train, test):
        for i, recording in enumerate(part.recordings):
            number = int(recording.path.rpartition("_")[2].partition(".")[0])
            events, _ = part.events(i)
            assert [getattr(events, c).tolist() for c in "txyp"] == columns(recording.label, number)
    x, label = train[0]
    assert x.shape == (10, 2, 16, 16)
    assert x[..., 8 * (1 - label) : 8 * (1 - label) + 8].sum() == 0


def test_one_line_of_config_trains(tmp_path, data):
    fill(tmp_path / "r", count=20)
    sets = [
        f"dataset.root={str(tmp_path / 'r')!r}",
        "dataset.sensor_size=[16, 16]",
        "dataset.unit=us",
        "model.name=mlp",
        "model.hidden=[16]",
    ]
    config = resolve(None, ["dataset.name=event-folder", *sets, "trainer.epochs=10", "trainer.batch_size=8"])
    assert spikecore.run(config, out=tmp_path / "run").metrics["test_accuracy"] == 1.0


def test_a_split_that_is_there_is_kept(tmp_path, data):
    fill(tmp_path / "r" / "train", count=4)
    fill(tmp_path / "r" / "test", count=2, seed=50)
    dataset = folder(tmp_path / "r")
    assert (len(dataset.split("train")), len(dataset.split("test"))) == (8, 4)


def test_a_subject_is_in_one_split(tmp_path, data):
    fill(tmp_path / "r", count=12)
    dataset = folder(tmp_path / "r", subject_pattern="^(s[0-9])_", test_share=0.34)
    who = [{r.subject for r in dataset.split(name).recordings} for name in ("train", "test")]
    assert len(who[0]) == 2
    assert len(who[1]) == 1
    assert not who[0] & who[1]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "'root' must name a directory"),
        ({"root": "/nowhere/at/all"}, "is not a directory"),
        ({"root": "R", "sensor_size": [16]}, r"'sensor_size' must be 'auto' or \[H, W\]"),
        ({"root": "R", "subject_pattern": "("}, "no regular expression"),
        ({"root": "R", "subject_pattern": "x"}, "must have one group, it has 0"),
        ({"root": "R", "subject_pattern": "^(q)"}, "finds no subject in this name"),
        ({"root": "R", "form": "mp4"}, "must be one of 'auto'"),
        ({"root": "R", "form": "hdf5"}, "holds no recordings"),
        ({"root": "R", "sensor_size": [16, 4]}, "lie outside the sensor"),
        ({"root": "EMPTY"}, "holds no directories"),
    ],
)
def test_folders_that_do_not_serve(tmp_path, data, options, says):
    fill(tmp_path / "r", formats=("dat",))
    (tmp_path / "empty").mkdir()
    places = {"R": str(tmp_path / "r"), "EMPTY": str(tmp_path / "empty")}
    options = {"sensor_size": [16, 16], **options}
    if "root" in options:
        options["root"] = places.get(options["root"], options["root"])

    def use():
        dataset = create("dataset", "event-folder", **options)
        assert dataset.info
        dataset.split("train")

    with pytest.raises((DatasetError, OptionError), match=says):
        use()


def test_a_recording_that_changed_is_integrated_again(tmp_path, data):
    import os

    fill(tmp_path / "r", formats=("dat",))
    first = folder(tmp_path / "r").split("train")
    path = first.directory / first.recordings[0].path
    path.write_bytes(writers.dat([1], [0], [0], [1]))
    os.utime(path, ns=(1, 1))
    second = folder(tmp_path / "r").split("train")
    assert second.cache.directory != first.cache.directory
    assert second[0][0].sum() == 1


samples = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)), min_size=1, max_size=60).map(
    lambda rows: [Recording(f"{i}", label, f"s{subject}") for i, (label, subject) in enumerate(rows)]
)


@given(samples, st.integers(5, 95), st.one_of(st.none(), st.integers(0, 5)))
def test_splits_per_class(recordings, percent, seed):
    share = percent / 100
    train, test = split_per_class(recordings, share, seed)
    assert sorted(train + test, key=lambda r: int(r.path)) == recordings
    assert split_per_class(recordings, share, seed) == (train, test)
    for label in {r.label for r in recordings}:
        total = sum(r.label == label for r in recordings)
        held = sum(r.label == label for r in test)
        assert abs(held - share * total) <= 1
        assert total < 2 or 0 < held < total
    part = subset(recordings, share)
    for label in {r.label for r in recordings}:
        total = sum(r.label == label for r in recordings)
        assert sum(r.label == label for r in part) == -(-percent * total // 100)  # rounded up


@given(samples, st.floats(0.05, 0.95), st.integers(0, 5))
def test_splits_by_subject(recordings, share, seed):
    if len({r.subject for r in recordings}) < 2:
        with pytest.raises(OptionError, match="needs two subjects"):
            split_by_subject(recordings, share, seed)
        return
    train, test = split_by_subject(recordings, share, seed)
    assert train
    assert test
    assert not {r.subject for r in train} & {r.subject for r in test}
    assert len(train) + len(test) == len(recordings)


@given(st.lists(st.integers(0, 6), min_size=1, max_size=6))
def test_padding(lengths):
    parts = [(torch.rand(n, 2, 3), i) for i, n in enumerate(lengths)]
    batch = pad_collate(parts)
    assert batch.x.shape == (max(lengths), len(lengths), 2, 3)
    mask = torch.ones(batch.x.shape[:2], dtype=torch.bool) if batch.mask is None else batch.mask
    for i, (x, label) in enumerate(parts):
        assert torch.equal(batch.x[: len(x), i], x)
        assert not batch.x[len(x) :, i].any()
        assert mask[:, i].tolist() == [t < len(x) for t in range(max(lengths))]
        assert batch.label[i] == label


@given(st.lists(st.integers(1, 50), max_size=100), st.integers(1, 9), st.booleans())
def test_buckets_hold_every_sample_once(lengths, size, shuffle):
    sampler = BucketSampler(lengths, size, torch.Generator().manual_seed(0) if shuffle else None, pool=3)
    batches = list(sampler)
    assert len(batches) == len(sampler)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    assert all(len(batch) <= size for batch in batches)


def test_buckets_save_padding():
    lengths = torch.randint(1, 200, (1000,), generator=torch.Generator().manual_seed(1)).tolist()

    def padding(batches):
        return sum(max(lengths[i] for i in batch) * len(batch) - sum(lengths[i] for i in batch) for batch in batches)

    plain = [list(range(i, i + 10)) for i in range(0, 1000, 10)]
    assert padding(BucketSampler(lengths, 10, torch.Generator().manual_seed(0))) < padding(plain) / 5
    with pytest.raises(OptionError, match="at least 1"):
        BucketSampler(lengths, 0)


def test_statistics():
    events = make_events([0, 10, 10, 1_000_000], [1, 1, 2, 3], [0, 0, 1, 1], [1, 0, 1, 1])
    figures = statistics(events, (2, 4))
    assert figures.num_events == 4
    assert figures.duration_us == 1_000_000
    assert figures.rate_hz == pytest.approx(4.0)
    assert figures.share_on == pytest.approx(0.75)
    assert figures.share_active == pytest.approx(3 / 8)
    assert figures.busiest == (0, 1, 2)
    assert statistics(empty(), (2, 4)).rate_hz == 0.0


def test_the_layout_of_aedat2_is_an_option(tmp_path, data):
    for label, name in enumerate(("left", "right")):
        (tmp_path / "r" / name).mkdir(parents=True)
        for i in range(2):
            whole = writers.aedat2(*columns(label, i)).replace(b"AEChip", b"Chip")
            (tmp_path / "r" / name / f"{i}.aedat").write_bytes(whole)
    with pytest.raises(DatasetError, match="aedat2_layout"):
        folder(tmp_path / "r", test_share=0.5).split("train")
    split = folder(tmp_path / "r", test_share=0.5, aedat2_layout="dvs128").split("train")
    assert split[0][0].sum() == 400
    with pytest.raises(DatasetError, match=r"of 400 records 0 are events in the layout 'davis'.*fit dvs128"):
        folder(tmp_path / "r", test_share=0.5, aedat2_layout="davis").split("train")


def test_a_factor_beyond_the_columns_is_refused(tmp_path):
    with pytest.raises(OptionError, match=r"'transforms\[0\].factor' must be >= 1 and <= 65535, got 70000"):
        folder(tmp_path, transforms=[{"name": "downsample", "factor": 70_000}])

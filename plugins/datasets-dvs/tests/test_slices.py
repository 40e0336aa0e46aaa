"""Parts of long recordings: windows, and tables of labels."""

import numpy as np
import peer
import pytest
import writers
from test_folder import columns

from spikecore import create
from spikecore.errors import DatasetError, OptionError
from spikecore_datasets_dvs import make_events
from spikecore_datasets_dvs.events import empty
from spikecore_datasets_dvs.label_table import read_table
from spikecore_datasets_dvs.slices import ByCount, ByCountBins, ByTime, ByTimeBins

EVENTS = make_events(*columns(1, 3, 1000))


@pytest.mark.parametrize(
    ("slices", "wanted"),
    [
        (ByTime(duration_us=10), [(0, 2), (2, 3)]),
        (ByTime(duration_us=10, include_incomplete=True), [(0, 2), (2, 3), (3, 5)]),
        (ByTime(duration_us=10, overlap_us=5), [(0, 2), (1, 3), (2, 3)]),
        (ByCount(count=2), [(0, 2), (2, 4)]),
        (ByCount(count=2, include_incomplete=True), [(0, 2), (2, 4), (4, 5)]),
        (ByCount(count=3, overlap=2), [(0, 3), (1, 4), (2, 5)]),
        (ByTimeBins(num_bins=2), [(0, 2), (2, 4)]),
        (ByCountBins(num_bins=2), [(0, 2), (2, 4)]),
    ],
)
def test_windows_by_hand(slices, wanted):
    events = make_events([100, 105, 112, 123, 124], range(5), range(5), [1] * 5)
    assert [tuple(pair) for pair in slices(events).tolist()] == wanted


@pytest.mark.parametrize("slices", [ByTime(), ByCount(), ByTimeBins(num_bins=3), ByCountBins(num_bins=3)])
def test_no_events(slices):
    bounds = slices(empty())
    assert bounds.shape == ((3, 2) if "bins" in slices.name else (0, 2))
    assert not bounds.any()


@pytest.mark.parametrize(
    ("ours", "name", "theirs"),
    [
        (ByTime(7000, 2000, True), "SliceByTime", {"time_window": 7000, "overlap": 2000, "include_incomplete": True}),
        (ByTime(7000, 2000), "SliceByTime", {"time_window": 7000, "overlap": 2000}),
        (ByCount(130, 30, True), "SliceByEventCount", {"event_count": 130, "overlap": 30, "include_incomplete": True}),
        (ByCount(130, 30), "SliceByEventCount", {"event_count": 130, "overlap": 30}),
        (ByTimeBins(7, 0.25), "SliceByTimeBins", {"bin_count": 7, "overlap": 0.25}),
        (ByCountBins(7, 0.25), "SliceByEventBins", {"bin_count": 7, "overlap": 0.25}),
    ],
)
def test_windows_are_those_of_tonic(ours, name, theirs):
    tonic = peer.require("tonic")
    array = np.zeros(len(EVENTS), [("t", int), ("x", int), ("y", int), ("p", int)])
    for column in "txyp":
        array[column] = getattr(EVENTS, column)
    metadata = getattr(tonic.slicers, name)(**theirs).get_slice_metadata(array, None)
    parts = [array[slice(*(one[0] if isinstance(one[0], list | tuple) else one))] for one in metadata]
    assert len(parts) > 3
    got = [EVENTS[first:stop].t.tolist() for first, stop in ours(EVENTS).tolist()]
    assert got == [part["t"].tolist() for part in parts]


def test_an_overlap_as_large_as_the_window_is_refused(tmp_path):
    with pytest.raises(OptionError, match="overlap of 10 must be smaller than duration_us = 10"):
        ByTime(duration_us=10, overlap_us=10)
    with pytest.raises(OptionError, match="overlap"):
        create("dataset", "event-folder", root=str(tmp_path), slices=[{"name": "by_count", "count": 5, "overlap": 5}])
    with pytest.raises(OptionError, match="one way at most"):
        create("dataset", "event-folder", root=str(tmp_path), slices=["by_count", "by_time"])
    with pytest.raises(DatasetError, match="makes 1999999 slices, more than 1000000"):
        ByTime(duration_us=1)(make_events([0, 2_000_000 - 1], [0, 0], [0, 0], [0, 0]))


def test_slices_of_a_recording_are_in_one_split(tmp_path, data):
    for label, name in enumerate("ab"):
        (tmp_path / "r" / name).mkdir(parents=True)
        for i in range(4):
            (tmp_path / "r" / name / f"{i}.dat").write_bytes(writers.dat(*columns(label, i, 250)))
    options = {"root": str(tmp_path / "r"), "sensor_size": [16, 16], "test_share": 0.25}
    whole = create("dataset", "event-folder", **options)
    dataset = create("dataset", "event-folder", slices=[{"name": "by_count", "count": 100, "overlap": 50}], **options)
    for split in ("train", "test"):
        cut = dataset.split(split)
        assert [r.path for r in whole.split(split).recordings] == list(dict.fromkeys(r.path for r in cut.recordings))
        assert len(cut) == 4 * len(whole.split(split))  # events 0, 50, 100 and 150 begin one
        assert all(cut[i][0].sum() == 100 for i in range(len(cut)))
        events, _ = cut.events(1)
        label = cut.recordings[1].label
        number = int(cut.recordings[1].path[2])
        assert events.t.tolist() == columns(label, number, 250)[0][50:150]


def table(tmp_path, *lines, heading="file,start_us,stop_us,label", names=("one", "two")):
    root = tmp_path / "r"
    (root / "rec").mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(names):
        (root / "rec" / f"{name}.dat").write_bytes(writers.dat(*columns(seed % 2, seed, 1000)))
    (root / "labels.csv").write_text("\n".join([heading, *lines]) + "\n")
    return {"root": str(root), "labels": "labels.csv", "sensor_size": [16, 16]}


LONG = [f"rec/one.dat,{10_000 * i},{10_000 * (i + 1)},{'wave' if i % 2 else 'clap'}" for i in range(5)]
LONG += [f"rec/two.dat,{10_000 * i},{10_000 * (i + 1)},{'clap' if i % 2 else 'wave'}" for i in range(5)]


@pytest.mark.parametrize(("heading", "factor"), [("us", 1), ("ms", 1000), ("s", 1_000_000)])
def test_parts_of_long_recordings(heading, factor, tmp_path, data):
    lines = [line.split(",") for line in LONG]
    lines = [f"{file},{int(start) / factor},{int(stop) / factor},{label}" for file, start, stop, label in lines]
    options = table(tmp_path, *lines, heading=f"file,start_{heading},stop_{heading},label")
    dataset = create("dataset", "event-folder", **options)
    assert dataset.info.classes == ("clap", "wave")
    train, test = dataset.split("train"), dataset.split("test")
    assert (len(train), len(test)) == (8, 2)
    for split in (train, test):
        for i, recording in enumerate(split.recordings):
            t = np.array(columns(recording.path == "rec/two.dat", recording.path == "rec/two.dat", 1000)[0])
            part = (t >= recording.start_us) & (t < recording.stop_us)
            assert split.events(i)[0].t.tolist() == t[part].tolist()
            assert split[i][0].sum() == part.sum() > 100


def test_the_order_of_classes_is_the_users(tmp_path, data):
    options = table(tmp_path, *LONG)
    dataset = create("dataset", "event-folder", classes=["wave", "clap"], **options)
    assert dataset.info.classes == ("wave", "clap")
    assert dataset.info.notes == "labels: 0 = wave, 1 = clap"
    plain = create("dataset", "event-folder", **options)
    assert dataset.split("train").labels.tolist() == (1 - plain.split("train").labels).tolist()
    with pytest.raises(DatasetError, match="has the labels clap, wave; 'classes' names wave: name each of them once"):
        create("dataset", "event-folder", classes=["wave"], **options).split("train")
    with pytest.raises(OptionError, match="must name each class once"):
        create("dataset", "event-folder", classes=["wave", "wave"], **options)


def test_a_table_with_splits_and_subjects(tmp_path, data):
    splits = ["train", "val", "test", "train", "train"] * 2
    lines = [f"{line},{split}" for line, split in zip(LONG, splits, strict=True)]
    dataset = create("dataset", "event-folder", **table(tmp_path, *lines, heading="file,start_us,stop_us,label,split"))
    assert [len(dataset.split(name)) for name in dataset.splits] == [6, 2, 2]
    assert dataset.splits == ("train", "val", "test")
    lines = [f"{line},{'ann' if line.startswith('rec/one') else 'bob'}" for line in LONG]
    dataset = create(
        "dataset", "event-folder", **table(tmp_path, *lines, heading="file,start_us,stop_us,label,subject")
    )
    for name in ("train", "test"):
        assert len({recording.subject for recording in dataset.split(name).recordings}) == 1


def test_whole_recordings_in_a_table_and_windows_of_parts(tmp_path, data):
    options = table(tmp_path, "rec/one.dat,a,train", "rec/two.dat,b,test", heading="file,label,split")
    dataset = create("dataset", "event-folder", slices=[{"name": "by_count", "count": 300}], **options)
    assert [len(dataset.split(name)) for name in dataset.splits] == [3, 3]


@pytest.mark.parametrize(
    ("lines", "heading", "says"),
    [
        ((), "file,label", "has no row below its heading"),
        (("rec/one.dat,a",), "file,class", "its heading is .* label are expected"),
        (("rec/one.dat,-9,-1,a",), "file,start_us,stop_us,label", "line 2 ends at -1 µs; a time above 0 is expected"),
        (("rec/one.dat,-9,0,a",), "file,start_us,stop_us,label", "line 2 ends at 0 µs; a time above 0 is expected"),
        (("rec/one.dat,1,2,3,a",), "file,start_us,stop_us,stop_ms,label", "has stop_us and stop_ms: which is it"),
        (("rec/one.dat,a,b",), "file,label,label", "has 'label' twice"),
        (("rec/one.dat,1,2,a",), "file,start,stop,label", "does not state its unit: call it start_us"),
        (("rec/one.dat,1,a",), "file,start_us,label", "start and stop are expected together"),
        (("rec/one.dat,5,5,a",), "file,start_us,stop_us,label", "line 2 ends at 5 µs, not behind its start at 5"),
        (("rec/one.dat,5,,a",), "file,start_us,stop_us,label", "line 2 has one of start and stop"),
        (("rec/one.dat,x,9,a",), "file,start_us,stop_us,label", "line 2 has the time 'x'"),
        (("rec/one.dat,nan,9,a",), "file,start_us,stop_us,label", "line 2 has the time 'nan'"),
        (("rec/one.dat,1,9",), "file,start_us,stop_us,label", "line 2 has 3 cells; its heading has 4"),
        (("rec/one.dat,",), "file,label", "line 2 lacks a file or a label"),
        (("../one.dat,a",), "file,label", "leads out of"),
        (("rec/one.dat,a,dev",), "file,label,split", "line 2 has the split 'dev'"),
        (("rec/none.dat,a", "rec/one.dat,b"), "file,label", "line 2 names .*none.dat, which is missing"),
        (
            ("rec/one.dat,0,20,a,train", "rec/one.dat,19,40,b,test", "rec/two.dat,0,9,a,train"),
            "file,start_us,stop_us,label,split",
            "parts in lines 2 and 3 of the table overlap and are in the splits train and test",
        ),
        (
            ("rec/one.dat,60000,90000,a,train", "rec/two.dat,0,9000,b,test"),
            "file,start_us,stop_us,label,split",
            "the part from 60000 to 90000 µs is not in the recording, which goes from",
        ),
    ],
)
def test_tables_that_are_wrong(lines, heading, says, tmp_path, data):
    options = table(tmp_path, *lines, heading=heading)
    with pytest.raises(DatasetError, match=says):
        create("dataset", "event-folder", **options).split("train")


def test_a_table_that_cannot_be_read(tmp_path):
    with pytest.raises(DatasetError, match="table of labels is missing"):
        read_table(tmp_path / "a.csv")
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DatasetError, match="cannot be read"):
        read_table(tmp_path / "a.csv")


def test_broken_recordings_are_skipped_and_listed(tmp_path, data, monkeypatch):
    for label, name in enumerate("ab"):
        (tmp_path / "r" / name).mkdir(parents=True)
        for i in range(5):
            (tmp_path / "r" / name / f"{i}.dat").write_bytes(writers.dat(*columns(label, i)))
    whole = (tmp_path / "r" / "a" / "1.dat").read_bytes()
    (tmp_path / "r" / "a" / "1.dat").write_bytes(whole[:-3])
    (tmp_path / "r" / "b" / "2.dat").write_bytes(b"")
    options = {"root": str(tmp_path / "r"), "sensor_size": [16, 16]}
    plain = create("dataset", "event-folder", **options)
    with pytest.raises(DatasetError, match=r"1.dat: the last event has|2.dat: has 0 bytes"):
        list(map(plain.split, plain.splits))  # which split they are in is chance
    dataset = create("dataset", "event-folder", broken="skip", **options)
    with pytest.warns(UserWarning, match="recordings cannot be read and are left out"):
        splits = [dataset.split(name) for name in dataset.splits]
    monkeypatch.setattr(type(dataset), "read", None)  # the second time from the note
    with pytest.warns(UserWarning, match="are left out"):
        again = [dataset.split(name) for name in dataset.splits]
    monkeypatch.undo()
    monkeypatch.setenv("SPIKECORE_DATA", str(data))
    assert [split.skipped for split in again] == [split.skipped for split in splits]
    assert sum(map(len, splits)) == 8
    skipped = {item.path: item.reason for split in splits for item in split.skipped}
    assert set(skipped) == {"a/1.dat", "b/2.dat"}
    assert "the last event has 5 of 8 bytes" in skipped["a/1.dat"]
    assert all(split[i][0].sum() == 400 for split in splits for i in range(len(split)))
    (tmp_path / "r" / "a" / "1.dat").write_bytes(whole)  # got again
    dataset = create("dataset", "event-folder", broken="skip", **options)
    with pytest.warns(UserWarning, match="1 of"):
        assert sum(len(dataset.split(name)) for name in ("train", "test")) == 9


def test_nothing_but_broken_recordings(tmp_path, data):
    for split in ("train", "test"):
        for name in "ab":
            (tmp_path / "r" / split / name).mkdir(parents=True)
            (tmp_path / "r" / split / name / "0.dat").write_bytes(b"")
    dataset = create("dataset", "event-folder", root=str(tmp_path / "r"), sensor_size=[16, 16], broken="skip")
    with pytest.raises(DatasetError, match="no recording of the split 'train' can be read; the first: .* has 0 bytes"):
        dataset.split("train")


BEYOND = "file,start_us,stop_us,label,split"


def test_parts_beyond_the_recording_name_their_line(tmp_path, data):
    last = max(columns(0, 0, 1000)[0])
    good = f"rec/two.dat,0,{last},b,test"
    for start, stop, is_beyond in (
        (0, last + 1, False),
        (0, last + 900, False),
        (0, last + 2000, True),
        (-3000, 9000, True),
    ):
        options = table(tmp_path / str(stop), f"rec/one.dat,{start},{stop},a,train", good, heading=BEYOND)
        read = create("dataset", "event-folder", **options).split
        if not is_beyond:
            assert len(read("train").events(0)[0]) > 0
            continue
        with pytest.raises(DatasetError, match=rf"labels.csv: line 2: names {start} to {stop} µs.* are not recorded"):
            read("train")
        cut = create("dataset", "event-folder", labels_beyond="cut", **options).split("train").events(0)[0]
        assert cut.t.tolist() == [t for t in columns(0, 0, 1000)[0] if start <= t < stop]


def test_a_pause_of_the_recording_is_nothing_that_lacks(tmp_path, data):
    options = table(tmp_path, "rec/one.dat,0,26000,a,train", "rec/two.dat,0,9000,b,test", heading=BEYOND)
    (tmp_path / "r" / "rec" / "one.dat").write_bytes(writers.dat([0, 10, 10_010, 20_000], [1] * 4, [1] * 4, [1] * 4))
    assert len(create("dataset", "event-folder", **options).split("train").events(0)[0]) == 4


def test_parts_without_events_name_their_line(tmp_path, data):
    lines = ("rec/one.dat,0,5000,a,train", "rec/one.dat,5000,5500,b,train", "rec/two.dat,0,9000,b,test")
    options = table(tmp_path, *lines, heading=BEYOND)
    (tmp_path / "r" / "rec" / "one.dat").write_bytes(writers.dat([0, 10, 6000, 6001], [1] * 4, [1] * 4, [1] * 4))
    with pytest.raises(DatasetError, match="labels.csv: line 3: .* has no event from 5000 to 5500 µs"):
        create("dataset", "event-folder", **options).split("train")
    split = create("dataset", "event-folder", allow_empty=True, **options).split("train")
    assert [len(split.events(i)[0]) for i in range(2)] == [2, 0]


def test_a_note_of_broken_recordings_is_of_one_version(tmp_path, data, monkeypatch):
    for label, name in enumerate("ab"):
        (tmp_path / "r" / name).mkdir(parents=True)
        for i in range(5):
            (tmp_path / "r" / name / f"{i}.dat").write_bytes(writers.dat(*columns(label, i)))
    (tmp_path / "r" / "a" / "1.dat").write_bytes(b"")

    def skipped():
        dataset = create("dataset", "event-folder", broken="skip", root=str(tmp_path / "r"), sensor_size=[16, 16])
        with pytest.warns(UserWarning, match="cannot be read"):
            return sum(len(dataset.split(name).skipped) for name in dataset.splits)

    def notes():
        return sorted((data / "event-folder" / "skipped").iterdir())

    assert skipped() == 1
    before = notes()
    assert skipped() == 1
    assert notes() == before
    monkeypatch.setattr("spikecore_datasets_dvs.broken.version", lambda name: "99.0")
    assert skipped() == 1
    assert len(notes()) == 2 * len(before)

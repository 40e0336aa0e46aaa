"""What users met: data that were taken for something else without a word. Each case with its smallest input."""

import os
import struct

import numpy as np
import pytest
import writers
from test_folder import columns

from spikecore import create
from spikecore.errors import DatasetError, OptionError
from spikecore_datasets_dvs import make_events, read_events
from spikecore_datasets_dvs.events import DTYPE
from spikecore_datasets_dvs.formats import stated

DAVIS240C = b"#!AER-DAT2.0\r\n# AEChip: eu.seebetter.ini.chips.davis.DAVIS240C\r\n"


def of(events):
    return [getattr(events, name).tolist() for name in "txyp"]


def test_columns_of_a_davis_count_from_the_right(tmp_path):
    path = tmp_path / "a.aedat"
    path.write_bytes(DAVIS240C + struct.pack(">II", 179 << 22 | 0 << 12 | 1 << 11, 0))
    assert of(read_events(path)) == [[0], [239], [0], [1]]


def v2e_aedat2(t, x, y, p, size):
    """As v2e writes it: mirrored both ways, no line for the chip."""
    head = (
        b"#!AER-DAT2.0\r\n# This is a raw AE data file created by AEDat2Output in v2e\r\n# Timestamps tick is 1 us\r\n"
    )
    height, width = size
    address = (width - 1 - x) << 12 | (height - 1 - y) << 22 | p << 11
    return head + np.stack([address, t], 1).astype(">u4").tobytes()


@pytest.mark.parametrize("size", [(260, 346), (180, 240)])
def test_aedat2_of_v2e_is_read_as_it_was_written(size, tmp_path):
    rng = np.random.default_rng(3)
    t, p = np.sort(rng.integers(0, 1 << 20, 200)), rng.integers(0, 2, 200)
    y, x = (rng.integers(0, side, 200) for side in size)
    path = tmp_path / "a.aedat"
    path.write_bytes(v2e_aedat2(t, x, y, p, size))
    assert read_events(path, sensor_size=size, aedat2_layout="davis") == make_events(t, x, y, p)


def test_640_by_480_under_another_layout_says_which_fits(tmp_path):
    rng = np.random.default_rng(1)
    t, x, y = np.sort(rng.integers(0, 9999, 200)), rng.integers(0, 640, 200), rng.integers(0, 480, 200)
    whole = writers.aedat2(t.tolist(), x.tolist(), y.tolist(), [1] * 200, "dvs640")
    path = tmp_path / "a.aedat"
    path.write_bytes(whole.replace(b"com.sec.dvs.SecDvs640Gen2", b"none"))
    for layout in ("davis", "dvs128"):
        with pytest.raises(
            DatasetError, match=rf"events in the layout '{layout}'.*fit dvs640: aedat2_layout = \"dvs640\""
        ):
            read_events(path, aedat2_layout=layout, sensor_size=(480, 640))
    assert read_events(path, aedat2_layout="dvs640") == make_events(t, x, y, [1] * 200)


def test_a_davis_under_the_layout_of_a_dvs128(tmp_path):
    path = tmp_path / "a.aedat"
    path.write_bytes(writers.aedat2(*columns(0, 1), "davis"))
    with pytest.raises(DatasetError, match="fit davis or dvxplorer"):
        read_events(path, aedat2_layout="dvs128")


def test_a_davis_with_many_pictures_is_no_other_layout(tmp_path):
    path = tmp_path / "a.aedat"
    path.write_bytes(writers.aedat2([5], [3], [4], [1], "davis", extra=[(1 << 31 | n, 6) for n in range(50)]))
    assert of(read_events(path)) == [[5], [3], [4], [1]]
    path.write_bytes(writers.aedat2([], [], [], [], "davis", extra=[(1 << 31 | n, 6) for n in range(50)]))
    with pytest.raises(
        DatasetError, match="of 50 records 0 are events in the layout 'davis' and 50 samples of pictures"
    ):
        read_events(path)


@pytest.mark.parametrize(
    ("p", "says"),
    [
        (np.array([1, 255], np.uint8), r"polarities are 1 \(1 times\), 255 \(1 times\); 0 and 1, or -1 and 1"),
        ([1, 2, 1], r"polarities are 1 \(2 times\), 2 \(1 times\)"),
        ([0, 1, 2, 3], r"0 \(1 times\), .* 3 \(1 times\).*on_values = \[3\]"),
        ([0.0, 0.5, 1.0], r"0\.5 \(1 times\)"),
        (range(10), "and 4 more values"),
        ([-1, 0, 0], r"polarities are -1 \(1 times\), 0 \(2 times\).*on_values = \[0\]"),
    ],
)
def test_polarities_that_follow_no_convention(p, says):
    count = range(len(p))
    with pytest.raises(DatasetError, match=says):
        make_events(count, count, count, p)


@pytest.mark.parametrize(
    ("p", "wanted"),
    [
        ([0, 1, 1], [0, 1, 1]),
        ([-1, 1, -1], [0, 1, 0]),
        ([-1, 0, 1], [0, 0, 1]),
        ([True, False, True], [1, 0, 1]),
        ([-1.0, 1.0, 1.0], [0, 1, 1]),
    ],
)
def test_polarities_of_both_conventions(p, wanted):
    assert make_events(range(3), range(3), range(3), p).p.tolist() == wanted


@pytest.mark.parametrize("kind", ["i4", "i8", "f8"])
def test_rows_where_nothing_is_on_follow_no_convention(kind, tmp_path):
    rows = np.zeros((20_000, 4), kind)  # more than are converted at a time
    rows[15_000:, 3] = -1
    np.save(tmp_path / "a.npy", rows)
    with pytest.raises(DatasetError, match=r"-1 \(5000 times\), 0 \(15000 times\)"):
        read_events(tmp_path / "a.npy", columns="txyp", unit="us")
    rows[:, 3] = -1
    np.save(tmp_path / "a.npy", rows)
    assert not read_events(tmp_path / "a.npy", columns="txyp", unit="us").p.any()


def test_the_values_that_mean_on_can_be_told(tmp_path):
    assert make_events([0, 1], [0, 0], [0, 0], np.uint8([1, 255]), on_values=[1]).p.tolist() == [1, 0]
    np.savez(tmp_path / "a.npz", t=[0, 1, 2], x=[0, 0, 0], y=[0, 0, 0], p=[1, 2, 1])
    with pytest.raises(DatasetError, match="polarities are 1"):
        read_events(tmp_path / "a.npz", unit="us")
    assert read_events(tmp_path / "a.npz", unit="us", on_values=(2,)).p.tolist() == [0, 1, 0]


@pytest.mark.parametrize("kind", ["u4", "i4"])
def test_times_of_32_bits_that_turned_over(kind):
    t = np.array([4294967290, 4294967295, 3, 9, 2]).astype(kind) if kind == "u4" else None
    t = np.array([2147483640, 2147483647, -2147483646, -2147483640, 2147483644], "i4") if t is None else t
    events = make_events(t, range(5), range(5), [1] * 5)
    assert events.duration_us == 15 if kind == "u4" else events.duration_us == 16
    assert events.x.tolist() == ([0, 1, 4, 2, 3] if kind == "u4" else [0, 4, 1, 2, 3])


def test_a_turn_of_32_bits_in_a_wider_column_is_an_error():
    for kind in ("i8", "u8", "f8"):
        with pytest.raises(DatasetError, match="fall from 4294967295.* to 3.* at event 2, as a counter of 32 bits"):
            make_events(np.array([4294967290, 4294967295, 3, 9]).astype(kind), range(4), range(4), [1] * 4)


def test_sparse_times_in_order_are_no_turn():
    assert make_events(np.array([-(1 << 31), (1 << 31) - 1], "i4"), [0, 0], [0, 0], [0, 0]).t.tolist() == [
        -(1 << 31),
        (1 << 31) - 1,
    ]


SUFFIXES = ["bin", "dat", "raw", "npz", "npy", "h5", "aedat", "aedat3", "aedat4", "csv", "es", "bag"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_empty_file_is_an_error_in_every_format(suffix, tmp_path):
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(b"")
    for call in (read_events, lambda path: stated(path)):
        with pytest.raises(DatasetError, match="has 0 bytes; was it copied to the end"):
            call(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_pipe_is_refused_and_does_not_block(suffix, tmp_path):
    os.mkfifo(tmp_path / f"a.{suffix}")
    with pytest.raises(DatasetError, match="is a pipe or a device"):
        read_events(tmp_path / f"a.{suffix}")
    (tmp_path / f"b.{suffix}").mkdir()
    with pytest.raises(DatasetError, match="cannot be read: .*directory"):
        read_events(tmp_path / f"b.{suffix}")


def saved(root, name, label, i, form="npz"):
    events = make_events(*columns(label, i))
    (root / name).mkdir(parents=True, exist_ok=True)
    if form == "npz":
        np.savez(root / name / f"{i}.npz", **{c: getattr(events, c) for c in "txyp"})
    else:
        np.save(root / name / f"{i}.npy", events.structured())


def folder(root, **options):
    return create("dataset", "event-folder", root=str(root), **{"sensor_size": [16, 16], "unit": "us", **options})


def test_one_recording_in_two_formats_is_not_two_samples(tmp_path, data):
    for label, name in enumerate("ab"):
        for i in range(5):
            for form in ("npz", "npy"):
                saved(tmp_path, name, label, i, form)
    with pytest.raises(DatasetError, match=r"a/0: is there as \.npy and \.npz: the same name in two formats.*'form'"):
        folder(tmp_path).split("train")
    dataset = folder(tmp_path, form="npy")
    assert len(dataset.split("train")) + len(dataset.split("test")) == 10


def test_a_validation_split_in_a_folder(tmp_path, data):
    for split, count in (("train", 3), ("valid", 2), ("Test", 1)):
        for label, name in enumerate("ab"):
            for i in range(count):
                saved(tmp_path / split, name, label, 10 * count + i)
    dataset = folder(tmp_path)
    assert dataset.splits == ("train", "val", "test")
    assert [len(dataset.split(name)) for name in dataset.splits] == [6, 4, 2]
    assert dataset.split("val").recordings[0].path == "valid/a/20.npz"


@pytest.mark.parametrize("name", ["dev", "holdout"])
def test_a_folder_beside_the_splits_is_not_passed_over(name, tmp_path, data):
    for split in ("train", "test", name):
        for label, own in enumerate("ab"):
            saved(tmp_path / split, own, label, 1)
    with pytest.raises(DatasetError, match=f"'{name}' beside the splits test, train would be passed over"):
        folder(tmp_path).split("train")


def test_train_and_test_as_n_mnist_unpacks_them(tmp_path, data):
    for split in ("Train", "Test"):
        for label, name in enumerate("01"):
            saved(tmp_path / split, name, label, len(split))
    assert [len(folder(tmp_path).split(name)) for name in ("train", "test")] == [2, 2]
    saved(tmp_path / "training", "0", 0, 1)
    with pytest.raises(DatasetError, match="'Train' and 'training' are the same split"):
        folder(tmp_path).split("train")


def test_recordings_one_level_deeper_are_named(tmp_path, data):
    for half in ("train", "test"):
        saved(tmp_path / half / "a", "session1", 0, 1)
        saved(tmp_path / half, "b", 1, 1)
    with pytest.raises(
        DatasetError, match=r"class 'a' has no recordings, but .*session1 has: they lie one level deeper"
    ):
        folder(tmp_path).split("train")


def test_recordings_without_class_directories_can_be_looked_at(tmp_path, data):
    saved(tmp_path, ".", 0, 1)
    with pytest.raises(DatasetError, match="one per class is expected .for a single recording: spike view FILE"):
        folder(tmp_path).split("train")


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (b"% evt 4.0\n", r"names EVT 4\.0; EVT 2\.0, 2\.1 and 3\.0 are read"),
        (b"% format EVT4;height=720;width=1280\n", "names EVT 4;"),
        (b"% evt 2.0\n% format EVT3\n", r"names EVT 2\.0 and 3\.0"),
        (b"% date 2026\n", "names no version"),
    ],
)
def test_versions_of_evt_that_are_not_read_are_named(lines, says, tmp_path):
    path = tmp_path / "a.raw"
    path.write_bytes(lines + bytes(16))
    with pytest.raises(DatasetError, match=says):
        read_events(path)


@pytest.mark.parametrize("version", ["2.0", "3.0"])
def test_noise_under_a_header_of_evt_is_no_recording(version, tmp_path):
    path = tmp_path / "a.raw"
    noise = np.random.default_rng(0).integers(0, 256, 4000, dtype=np.uint8).tobytes()
    path.write_bytes(f"% evt {version}\n% end\n".encode() + noise)
    with pytest.raises(DatasetError, match="its words are those of none of the three"):
        read_events(path)


def test_columns_with_two_dimensions_are_no_columns(tmp_path):
    square = np.zeros((5, 2), np.int64)
    np.savez(tmp_path / "a.npz", t=square, x=square, y=square, p=square)
    with pytest.raises(DatasetError, match=r"column t has the shape \[5, 2\]; one number per event, \[N\]"):
        read_events(tmp_path / "a.npz", unit="us")
    upright, lying = np.arange(5).reshape(5, 1), np.arange(5).reshape(1, 5)
    assert make_events(upright, lying, upright, lying % 2) == make_events(*[range(5)] * 3, np.arange(5) % 2)


def test_a_vector_of_evt3_without_a_beginning_holds_no_events(tmp_path):
    path = tmp_path / "a.raw"
    words = [0x8000, 0x6005, 0x0007, 0x50FF, 0x3000 | 1 << 11 | 20, 0x5003, 0x4001]
    path.write_bytes(b"% evt 3.0\n" + np.array(words, "<u2").tobytes())
    assert of(read_events(path)) == [[5, 5, 5], [20, 21, 28], [7, 7, 7], [1, 1, 1]]


def test_a_structured_array_beside_a_label(tmp_path):
    events = make_events(*columns(0, 1))
    np.savez(tmp_path / "a.npz", event_data=events.structured(), label=np.array(3))
    assert read_events(tmp_path / "a.npz", unit="us") == events
    np.savez(tmp_path / "b.npz", one=events.structured(), two=events.structured()[:5], label=np.array(3))
    with pytest.raises(DatasetError, match='one, two hold events each; name one, as in stream = "one"'):
        read_events(tmp_path / "b.npz")
    assert read_events(tmp_path / "b.npz", stream="two", unit="us") == events[:5]
    with pytest.raises(DatasetError, match="has no array 'three'; it has one, two, label"):
        read_events(tmp_path / "b.npz", stream="three")


@pytest.mark.parametrize("order", ["txyp", "xypt", "pyxt"])
@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_arrays_of_four_columns_need_their_order(order, suffix, tmp_path):
    events = make_events(*columns(0, 1))
    rows = np.stack([getattr(events, name).astype(np.int64) for name in order], 1)
    path = tmp_path / f"a.{suffix}"
    np.save(path, rows) if suffix == "npy" else np.savez(path, rows)
    with pytest.raises(DatasetError, match=r"without names; its first row is \[.*columns = \"txyp\""):
        read_events(path)
    assert read_events(path, columns=order, unit="us") == events
    with pytest.raises(DatasetError, match="has 4 columns, and columns = 'txyp_' names 5"):
        read_events(path, columns="txyp_")


@pytest.mark.parametrize(("unit", "factor"), [("s", 1e-6), ("ms", 1e-3), ("us", 1), ("ns", 1000)])
def test_units_of_time(unit, factor, tmp_path):
    events = make_events(*columns(0, 1))
    t = events.t * factor if factor < 1 else events.t * int(factor)
    np.savez(tmp_path / "a.npz", t=t, x=events.x, y=events.y, p=events.p)
    assert read_events(tmp_path / "a.npz", unit=unit) == events
    with pytest.raises(DatasetError, match=r"does not state the unit of times; they run from .*unit = \"us\""):
        read_events(tmp_path / "a.npz")
    if factor < 1:
        with pytest.raises(DatasetError, match=r"column t must hold whole numbers.*unit = \"s\""):
            read_events(tmp_path / "a.npz", unit="us")
    np.savez(tmp_path / "b.npz", **{f"timestamp_{unit}": t, "x": events.x, "y": events.y, "pol": events.p})
    assert read_events(tmp_path / "b.npz") == events
    other = "ms" if unit == "s" else "s"
    with pytest.raises(DatasetError, match=f"states times in {unit}, and unit = '{other}' was given"):
        read_events(tmp_path / "b.npz", unit=other)


def test_whole_seconds_are_scaled_too():
    assert make_events([3, 5], [0, 0], [0, 0], [0, 0], unit="s").t.tolist() == [3_000_000, 5_000_000]
    assert make_events([1499, 2500], [0, 0], [0, 0], [0, 0], unit="ns").t.tolist() == [1, 3]


def test_coarse_times_are_not_taken_for_fine_ones():
    with pytest.raises(
        DatasetError, match="are float32 and reach 86400 s, where neighbouring numbers are 7812.5 µs apart"
    ):
        make_events(np.float32([0.5, 86400]), [0, 0], [0, 0], [0, 0], unit="s")
    assert make_events(np.float32([0.5, 2]), [0, 0], [0, 0], [0, 0], unit="s").t.tolist() == [500_000, 2_000_000]
    with pytest.raises(DatasetError, match="times reach 1e.16 s, beyond .*is the unit right"):
        make_events([0, 1e16], [0, 0], [0, 0], [0, 0], unit="s")


def test_own_names_of_columns(tmp_path):
    events = make_events(*columns(0, 1))
    np.savez(tmp_path / "a.npz", stamp=events.t, col=events.x, row=events.y, sign=events.p, t=[7])
    with pytest.raises(DatasetError, match=r"lacks the array 'x'; it has stamp, col, row, sign, t\. .*names = \"x="):
        read_events(tmp_path / "a.npz")
    names = "t=stamp, x=col, y=row, p=sign"
    assert read_events(tmp_path / "a.npz", names=names, unit="us") == events
    with pytest.raises(DatasetError, match="has no array 'time', which 'names' gives for t"):
        read_events(tmp_path / "a.npz", names="t=time")
    both = np.zeros(2, [*DTYPE.descr, ("ts", "i8")])
    np.save(tmp_path / "b.npy", both)
    with pytest.raises(DatasetError, match=r"both 't' and 'ts' mean t: say which"):
        read_events(tmp_path / "b.npy")
    assert len(read_events(tmp_path / "b.npy", names="t=ts", unit="us")) == 2


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"columns": "txy"}, "'columns' must have each of t, x, y, p once"),
        ({"columns": "ttxyp"}, "'columns' must have each"),
        ({"unit": "m"}, "'unit' must be one of .?auto"),
        ({"names": "q=a"}, "'names' must read as in"),
        ({"aedat2_layout": "dvs"}, "'aedat2_layout' must be one of .?auto"),
    ],
)
def test_options_that_are_none(options, says, tmp_path):
    with pytest.raises(OptionError, match=says):
        read_events(tmp_path / "a.npz", **options)
    with pytest.raises(OptionError, match=says):
        create("dataset", "event-folder", root=str(tmp_path), **options)

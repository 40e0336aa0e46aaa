"""Every format written byte by byte and read back event by event; damaged files; arbitrary bytes."""

import contextlib
import io
import random
import re
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
import writers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spikecore.errors import DatasetError, PluginUnavailable
from spikecore_datasets_dvs.columns import from_structured
from spikecore_datasets_dvs.events import (
    DTYPE,
    Events,
    check_inside,
    in_order,
    make_events,
    unwrapped,
)
from spikecore_datasets_dvs.formats import FORMATS, aedat2, binary, read_events
from spikecore_datasets_dvs.reading import Reading

RNG = random.Random(7)


def made(width, height, longest, n=200):
    t = sorted(RNG.randrange(longest) for _ in range(n))
    return (
        t,
        [RNG.randrange(width) for _ in t],
        [RNG.randrange(height) for _ in t],
        [RNG.randrange(2) for _ in t],
    )


CASES = {
    "atis.bin": (writers.atis_bin, made(240, 180, 1 << 23), None),
    "dvs128.aedat": (writers.aedat2, made(128, 128, 1 << 31), None),
    "davis.aedat": (lambda *e: writers.aedat2(*e, layout="davis"), made(240, 180, 1 << 31), None),
    "dvxplorer.aedat": (lambda *e: writers.aedat2(*e, layout="dvxplorer"), made(640, 480, 1 << 31), None),
    "dvs640.aedat": (lambda *e: writers.aedat2(*e, layout="dvs640"), made(640, 480, 1 << 31), None),
    "a.aedat3": (writers.aedat3, made(128, 128, 1 << 33), None),
    "new.dat": (writers.dat, made(1280, 720, 1 << 31), None),
    "old.dat": (lambda *e: writers.dat(*e, version=1, kind=0), made(304, 240, 1 << 31), None),
    "two.raw": (writers.evt2, made(1280, 720, 1 << 34), None),
    "two-one.raw": (writers.evt21, made(1280, 720, 1 << 34), None),
    "two-one-legacy.raw": (lambda *e: writers.evt21(*e, is_legacy=True), made(1280, 720, 1 << 34), None),
    "three.raw": (writers.evt3, made(1280, 720, 1 << 24), None),
    "dvs.es": (writers.es_dvs, made(304, 240, 1 << 16), None),
    "atis.es": (writers.es_atis, made(304, 240, 1 << 14), None),
}


def equal(events, columns):
    for name, wanted in zip("txyp", columns, strict=True):
        assert getattr(events, name).tolist() == list(wanted), name


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("chunk", [None, 7])
def test_written_and_read_back(name, chunk, tmp_path, monkeypatch):
    if chunk:  # what a chunk leaves to the next
        monkeypatch.setattr(binary, "CHUNK", chunk)
        monkeypatch.setattr("spikecore_datasets_dvs.formats.aedat3.CHUNK", chunk)
    write, columns, _ = CASES[name]
    path = tmp_path / name
    path.write_bytes(write(*columns))
    events = read_events(path)
    equal(events, columns)
    assert (events.t.dtype, events.x.dtype, events.y.dtype, events.p.dtype) == (
        np.int64,
        np.uint16,
        np.uint16,
        np.uint8,
    )


@pytest.mark.parametrize("chunk", [5, 1 << 18])
def test_evt3_vectors(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(binary, "CHUNK", chunk)
    rows = []
    for moment in range(0, 200, 10):
        for row in range(3):
            xs = sorted(RNG.sample(range(100, 170), RNG.randrange(1, 40)))
            rows += [(5000 + moment, x, 7 + row, row % 2) for x in xs]
    columns = [list(column) for column in zip(*rows, strict=True)]
    path = tmp_path / "v.raw"
    path.write_bytes(writers.evt3(*columns))
    assert path.stat().st_size < 2 * len(rows)  # vectors were written
    equal(read_events(path), columns)


@pytest.mark.parametrize("form", ["evt2", "evt3", "dat"])
def test_prophesee_files_read_as_expelliarmus_reads_them(form, tmp_path):
    expelliarmus = pytest.importorskip("expelliarmus")
    # Beyond one period of the low bits expelliarmus 1.1.12 leaves the description: it counts falls of the low bits as
    # well as the words of high bits, and writes only one of the latter.
    columns = made(1280, 720, 1 << 12 if form == "evt3" else 1 << 23, 500)
    path = tmp_path / f"a.{'dat' if form == 'dat' else 'raw'}"
    options = {"triggers": False} if form == "evt3" else {}  # it does not know them
    path.write_bytes(getattr(writers, form)(*columns, **options))
    theirs = expelliarmus.Wizard(encoding=form).read(str(path))
    assert read_events(path) == from_structured(theirs, reading=Reading(unit="us"))
    expelliarmus.Wizard(encoding=form).save(str(path.with_stem("b")), theirs)
    equal(read_events(path.with_stem("b")), columns)


def test_aedat4_as_dv_writes_it(tmp_path):
    dv = pytest.importorskip("dv_processing")
    pytest.importorskip("aedat")
    t, x, y, p = made(346, 260, 1 << 30, 2000)
    store = dv.EventStore()
    for event in zip(t, x, y, p, strict=True):
        store.push_back(*event[:3], bool(event[3]))
    path = tmp_path / "a.aedat4"
    writer = dv.io.MonoCameraWriter(str(path), dv.io.MonoCameraWriter.EventOnlyConfig("cam", (346, 260)))
    writer.writeEvents(store)
    del writer
    equal(read_events(path), (t, x, y, p))
    from spikecore_datasets_dvs.formats.aedat4 import _streams, _with_dv

    equal(_with_dv(path, _streams(path)[0]), (t, x, y, p))
    whole = path.read_bytes()
    for _ in range(60):
        raw = bytearray(whole)
        for _ in range(RNG.randrange(1, 4)):
            raw[RNG.randrange(len(raw))] = RNG.randrange(256)
        path.write_bytes(raw)
        with contextlib.suppress(DatasetError):
            read_events(path)
    for length in (300, len(whole) // 2):
        path.write_bytes(whole[:length])
        with pytest.raises(DatasetError, match="damaged"):
            read_events(path)


def test_aedat4_without_a_library_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr("spikecore_datasets_dvs.formats.aedat4.find_spec", lambda name: None)
    streams = b"<node name='0'><attr key='typeIdentifier'>EVTS</attr></node>"
    description = b"<dv><node name='outInfo'>" + streams + b"</node></dv>"
    (tmp_path / "a.aedat4").write_bytes(b"#!AER-DAT4.0\r\n" + description)
    with pytest.raises(PluginUnavailable, match=r"pip install 'spikecore-datasets-dvs\[aedat4\]'"):
        read_events(tmp_path / "a.aedat4")


@pytest.mark.parametrize("save", ["npy", "npz", "npz-structured", "h5", "h5-compound", "h5-root"])
def test_arrays(save, tmp_path):
    columns = made(1000, 900, 1 << 40)
    events = make_events(*columns)
    path = tmp_path / f"a.{save.split('-')[0]}"
    if save == "npy":
        np.save(path, events.structured())
    elif save == "npz":
        np.savez_compressed(path, timestamps=events.t, x=events.x, y=events.y, pol=events.p.astype(bool))
    elif save == "npz-structured":
        np.savez(path, events.structured())
    else:
        h5py = pytest.importorskip("h5py")
        with h5py.File(path, "w") as file:
            if save == "h5-compound":
                file["events"] = events.structured()
            else:
                group = file if save == "h5-root" else file.create_group("events")
                for name in "txyp":
                    group[name] = getattr(events, name)
    equal(read_events(path, unit="us"), columns)


def test_overflow_markers_of_atis(tmp_path):
    path = tmp_path / "a.bin"
    first, second = ([10, 20], [1, 2], [3, 4], [1, 0]), ([5, 6], [5, 6], [7, 239], [0, 1])
    marks = writers.overflow_marker(30) + writers.overflow_marker(0)
    path.write_bytes(writers.atis_bin(*first) + marks + writers.atis_bin(*second))
    equal(read_events(path), ([10, 20, 5 + 2 * 8192, 6 + 2 * 8192], [1, 2, 5, 6], [3, 4, 7, 239], [1, 0, 0, 1]))


def test_an_event_before_the_edge_of_atis_counter_may_come_second(tmp_path):
    """The second event is 108 µs earlier than the first, not 8 s later; one further away is later."""
    path, period = tmp_path / "a.bin", 1 << 23
    path.write_bytes(writers.atis_bin([100, period - 8], [1, 2], [3, 4], [0, 1]))
    equal(read_events(path), ([-8, 100], [2, 1], [4, 3], [1, 0]))
    path.write_bytes(writers.atis_bin([100, period // 2, period - 8], [1, 2, 3], [3, 4, 5], [0, 1, 1]))
    equal(read_events(path), ([100, period // 2, period - 8], [1, 2, 3], [3, 4, 5], [0, 1, 1]))


@pytest.mark.parametrize("chunk", [None, 3])
def test_the_counter_of_atis_runs_over_without_a_mark(chunk, tmp_path, monkeypatch):
    if chunk:
        monkeypatch.setattr(binary, "CHUNK", chunk)
    path, period = tmp_path / "a.bin", 1 << 23
    t = [period - 900_000, period - 5, period - 1, period + 3, 2 * period - 70_000, 2 * period + 8, 2 * period + 9]
    columns = (t, list(range(7)), [3] * 7, [1] * 7)
    path.write_bytes(writers.atis_bin(*columns))  # it writes the low 23 bits
    equal(read_events(path), columns)
    # Two events that changed places at the edge, and marks besides.
    t = [period - 9, period + 4, period - 2, period + 6]
    mark = writers.overflow_marker(7)
    path.write_bytes(writers.atis_bin(t, [1, 2, 3, 4], [0] * 4, [0] * 4) + mark + writers.atis_bin([8], [5], [0], [0]))
    equal(read_events(path), ([*sorted(t), period + 8 + 8192], [1, 3, 2, 4, 5], [0] * 5, [0] * 5))


@pytest.mark.parametrize("chunk", [None, 2])
def test_times_of_atis_that_run_backwards(chunk, tmp_path, monkeypatch):
    if chunk:
        monkeypatch.setattr(binary, "CHUNK", chunk)
    path = tmp_path / "a.bin"
    path.write_bytes(writers.atis_bin([5_000_000, 1_600_000], [1, 2], [0, 0], [0, 0]))
    with pytest.raises(DatasetError, match=r"timestamps run backwards: by 3400000 µs to 1600000 µs"):
        read_events(path)
    path.write_bytes(writers.atis_bin([50, 9000, 4000], [1, 2, 3], [0] * 3, [0] * 3))
    equal(read_events(path), ([50, 4000, 9000], [1, 3, 2], [0] * 3, [0] * 3))


def test_counters_that_run_over(tmp_path):
    times = [(1 << 32) - 10, (1 << 32) - 1, (1 << 32) + 5, (2 << 32) - 3, (2 << 32) + 1]
    t = sorted({*times, *range(1 << 32, 2 << 32, 1 << 30)})
    n = len(t)
    for name, write in (("a.aedat", writers.aedat2), ("a.dat", writers.dat)):
        (tmp_path / name).write_bytes(write(t, [3] * n, [4] * n, [1] * n))
        assert read_events(tmp_path / name).t.tolist() == t
    t = [0, (1 << 24) - 1, (1 << 24) + 3, (1 << 25) - 4096, (1 << 25) + 9]
    t = sorted({*t, *range(1 << 22, 1 << 25, 1 << 22)})
    n = len(t)
    (tmp_path / "a.raw").write_bytes(writers.evt3(t, [3] * n, [4] * n, [1] * n))
    assert read_events(tmp_path / "a.raw").t.tolist() == t


@pytest.mark.parametrize("y", [0x25, 0x2025 & 0x7FF])
def test_data_that_look_like_a_header_line(y, tmp_path):
    path = tmp_path / "a.raw"
    body = np.array([y, 0x8000, 0x6000 | 0x0A, 0x2000 | 7], "<u2").tobytes()  # a line feed among them
    path.write_bytes(b"% evt 3.0\n" + body)
    equal(read_events(path), ([10], [7], [y], [0]))


LINE_LIKE = {  # words that read "%…\n" behind the header
    "3.0": (np.array([0x8025, 0x6041, 0x000A, 0x2807], "<u2"), ([0x25041], [7], [10], [1])),
    "3.0 y": (
        np.array([0x8025, 0x6041, 0x0A80, 0x2807, 0x000A, 0x2808], "<u2"),
        ([0x25041] * 2, [7, 8], [0x280, 10], [1, 1]),
    ),
    "2.0": (np.array([0x800A8025, 0x1041280A], "<u4"), ([0xA8025 << 6 | 1], [0x25], [10], [1])),
}


@pytest.mark.parametrize("name", LINE_LIKE)
@pytest.mark.parametrize("end", [b"% end\n", b"% end\r\n", b"%end\n"])
def test_a_header_that_names_its_end_ends_there(name, end, tmp_path):
    words, columns = LINE_LIKE[name]
    path = tmp_path / "a.raw"
    path.write_bytes(b"% evt " + name[:3].encode() + b"\n% integrator_name Prophesee\n" + end + words.tobytes())
    equal(read_events(path), columns)


@given(st.lists(st.integers(0, 120), max_size=30), st.integers(2, 9))
def test_unwrapping(steps, cut):
    wanted = np.cumsum(np.array(steps, dtype=np.int64))
    counter = wanted % 256
    assert unwrapped(counter, 256).tolist() == wanted.tolist()
    parts, last = [], 0
    for start in range(0, len(counter), cut):
        part = unwrapped(counter[start : start + cut], 256, last)
        parts += part.tolist()
        last = parts[-1]
    assert parts == wanted.tolist()


def test_times_that_run_backwards_are_sorted_and_keep_ties(tmp_path):
    path = tmp_path / "a.dat"
    path.write_bytes(writers.dat([50, 40, 60, 40], [1, 2, 3, 4], [0] * 4, [1] * 4))
    equal(read_events(path), ([40, 40, 50, 60], [2, 4, 1, 3], [0] * 4, [1] * 4))


@given(
    st.lists(st.one_of(st.integers(-50, 50), st.sampled_from([-(2**63), 2**63 - 1, 2**60, -(2**60)])), max_size=40),
    st.booleans(),
)
def test_sorting_is_stable_whatever_the_times(times, in_place):
    t = np.array(times, np.int64)
    numbers = np.arange(len(t))
    given_ = Events(
        t.copy(), numbers.astype(np.uint16), (numbers * 3).astype(np.uint16), (numbers % 2).astype(np.uint8)
    )
    if not in_place:
        for column in (given_.t, given_.x, given_.y, given_.p):
            column.setflags(write=False)
    order = np.argsort(t, kind="stable")
    wanted = Events(t[order], order.astype(np.uint16), (order * 3).astype(np.uint16), (order % 2).astype(np.uint8))
    assert in_order(given_, in_place) == wanted


def test_what_is_no_brightness_change_is_left_out(tmp_path):
    path = tmp_path / "a.aedat"
    path.write_bytes(writers.aedat2([5], [1], [2], [1], extra=[(0x8000, 6)]))
    equal(read_events(path), ([5], [1], [2], [1]))
    samples = [(1 << 31, 6), (1 << 10, 7), (1 << 31 | 1 << 10, 8)]  # a picture's, from outside, the inertial sensor's
    path.write_bytes(writers.aedat2([5], [1], [2], [1], layout="davis", extra=samples))
    equal(read_events(path), ([5], [1], [2], [1]))
    events = [(writers.aedat3_data(1, 2, 1), 5), (writers.aedat3_data(1, 2, 1, valid=0), 6)]
    path.write_bytes(writers.AEDAT3_HEADER + writers.aedat3_packet(events, capacity=3, body=None) + b"\0" * 8)
    equal(read_events(path), ([5], [1], [2], [1]))


@pytest.mark.parametrize(("name", "count"), [(name, count) for name in CASES for count in (0, 1)][1:])
def test_no_event_and_one_event(name, count, tmp_path):
    write, columns, _ = CASES[name]
    columns = [column[:count] for column in columns]
    path = tmp_path / name
    path.write_bytes(write(*columns))
    equal(read_events(path, allow_empty=True), columns)
    if not count:
        with pytest.raises(DatasetError, match="holds no events, though it is read as .*allow_empty = true"):
            read_events(path)


@pytest.mark.parametrize("name", [name for name in CASES if name != "atis.bin"])
def test_a_foreign_file(name, tmp_path):
    path = tmp_path / name
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(250)))
    with pytest.raises(DatasetError):
        read_events(path)


@pytest.mark.parametrize("name", CASES)
def test_every_truncation_is_an_error_or_a_shorter_recording(name, tmp_path):
    write, columns, _ = CASES[name]
    columns = [column[:12] for column in columns]
    whole = write(*columns)
    path = tmp_path / name
    errors = 0
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        try:
            events = read_events(path)
        except DatasetError:
            errors += 1
        else:
            n = len(events)
            equal(events, [column[:n] for column in columns])
    assert errors > len(whole) / 3


@pytest.mark.parametrize(
    ("packet", "says"),
    [
        (writers.aedat3_packet([(1, 5)])[:20], "header at byte 61 is cut short"),
        (writers.aedat3_packet([(1, 5)])[:-1], "cut short or damaged"),
        (writers.aedat3_packet([(1, 5)], capacity=10**9), "cut short or damaged"),
        (writers.aedat3_packet([(1, 5)], number=-1), "cut short or damaged"),
        (writers.aedat3_packet([(1, 5)], size=0), "cut short or damaged"),
        (writers.aedat3_packet([(1, 5)], size=4, number=2), "4 bytes instead of 8"),
        (writers.aedat3_packet([(1, 5)], overflow=-1), "cut short or damaged"),
        (writers.aedat3_packet([(1, -5)]), "time is negative"),
    ],
)
def test_damaged_packets(packet, says, tmp_path):
    path = tmp_path / "a.aedat3"
    path.write_bytes(writers.AEDAT3_HEADER + packet)
    with pytest.raises(DatasetError, match=says):
        read_events(path)


@pytest.mark.parametrize("form", [b"SERIALIZED_TS", b"PNG_FRAMES", b"0x01", b""])
def test_packets_of_another_format_are_refused(form, tmp_path):
    path = tmp_path / "a.aedat3"
    head = writers.AEDAT3_HEADER.replace(b"RAW", form)
    path.write_bytes(head + writers.aedat3_packet([(writers.aedat3_data(1, 2, 1), 5)]))
    with pytest.raises(DatasetError, match=f"the format '{form.decode()}'; RAW is expected"):
        read_events(path)


def test_rows_of_aedat3_0_count_otherwise(tmp_path):
    path = tmp_path / "a.aedat3"
    path.write_bytes(writers.AEDAT3_HEADER.replace(b"3.1", b"3.0"))
    with pytest.raises(DatasetError, match=r"is not AEDAT 3\.1: line 1 is b'#!AER-DAT3\.0"):
        read_events(path)


def npz_bytes(members):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


def npy_bytes(array, allow_pickle=False):
    out = io.BytesIO()
    np.save(out, array, allow_pickle=allow_pickle)
    return out.getvalue()


def test_arrays_that_are_no_events(tmp_path):
    ok = npy_bytes(np.arange(3))

    def three(names, **other):
        return npz_bytes({**{f"{n}.npy": ok for n in names}, **{f"{n}.npy": npy_bytes(a) for n, a in other.items()}})

    bad = {
        "pickle.npy": (npy_bytes(np.array([{}]), True), "pickled objects"),
        "plain.npy": (npy_bytes(np.zeros((3, 4))), "without names; its first row"),
        "flat.npy": (npy_bytes(np.zeros(3)), r"\[N, 4\] are expected"),
        "short.npy": (npy_bytes(np.zeros(3, DTYPE))[:-1], "damaged"),
        "huge.npy": (npy_bytes(np.zeros(3, DTYPE)).replace(b"(3,)", b"(9999999999999999,)"), "damaged|sound"),
        "garbage.npy": (b"\x93NUMPY\x01\x00\x10\x00{'descr': ooops}", "sound array"),
        "fields.npy": (npy_bytes(np.zeros(3, [("a", "i4")])), "lacks the field 't'"),
        "pickle.npz": (npz_bytes({"t.npy": npy_bytes(np.array([{}]), True)}), "pickled objects"),
        "lacking.npz": (three("txy"), "lacks the array 'p'"),
        "uneven.npz": (three("txy", p=np.zeros(2)), "differ in length"),
        "text.npz": (three("txy", p=np.array(list("abc"))), "whole numbers"),
        "nan.npz": (three("xyp", t=np.full(3, np.nan)), "not finite"),
        "negative.npz": (three("typ", x=-np.arange(3)), "column x runs"),
        "none.npz": (b"", "has 0 bytes"),
        "other.npz": (b"no archive", "sound .npz"),
        "cut.npz": (npz_bytes({"t.npy": ok})[:60], "sound .npz"),
    }
    for name, (content, says) in bad.items():
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(DatasetError, match=says):
            read_events(path, unit="us")


@pytest.mark.parametrize(
    ("column", "values", "says"),
    [
        (
            "t",
            np.linspace(0, 0.9, 10),
            r"column t must hold whole numbers; got 0\.1 at event 1 \(9 of 10 .* microseconds",
        ),
        (
            "x",
            np.r_[np.zeros(9), 1.7],
            r"column x must hold whole numbers; got 1\.7 at event 9 \(1 of 10 .* round or scale",
        ),
        ("y", np.full(10, -0.5, np.float32), r"column y must hold whole numbers; got -0\.5 at event 0"),
        ("t", np.full(10, 2.0**63), r"column t runs from 9223372036854775808 to 9223372036854775808, beyond"),
        ("t", np.full(10, 2**63, np.uint64), r"column t runs from 9223372036854775808"),
        ("x", np.full(10, 65536.0), r"column x runs from 65536 to 65536, beyond 0 \.\. 65535"),
    ],
)
def test_numbers_that_are_not_whole_or_too_large(column, values, says):
    columns = {name: np.zeros(10) for name in "txyp"} | {column: values}
    with pytest.raises(DatasetError, match=says):
        make_events(**columns)


@pytest.mark.parametrize("ends", [(-(2**63), 2**63 - 1), (0, 2**62), (-(2**61) - 1, 0)])
def test_times_whose_difference_fits_no_column(ends):
    with pytest.raises(DatasetError, match=f"column t runs from {ends[0]} to {ends[1]}, beyond .* microseconds"):
        make_events(np.array(ends), [0, 0], [0, 0], [0, 0])
    assert make_events([-(2**61), 2**61], [0, 0], [0, 0], [0, 0]).duration_us == 1 << 62


def test_names_of_members_that_are_no_text(tmp_path):
    path, ok = tmp_path / "a.npz", npy_bytes(np.arange(3))
    raw = npz_bytes({"\xe9.npy": ok, **{f"{n}.npy": ok for n in "txyp"}})
    for at in (raw.index(b"\xc3\xa9"), raw.rindex(b"\xc3\xa9")):  # in front of the member, and in the list of all
        path.write_bytes(raw[:at] + b"\xff" + raw[at + 1 :])
        with pytest.raises(DatasetError, match="a.npz: is not a sound .npz file"):
            read_events(path)


def test_whole_numbers_in_floats_are_taken():
    equal(
        make_events([0.0, 2.0**40], np.float32([3, 4]), [0.0, 65535.0], [-1.0, 1.0]),
        ([0, 1 << 40], [3, 4], [0, 65535], [0, 1]),
    )


def test_hdf5_that_are_no_events(tmp_path):
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "a.h5"
    path.write_bytes(b"nonsense")
    with pytest.raises(DatasetError, match="not a sound HDF5|is damaged: OSError"):
        read_events(path)
    with h5py.File(path, "w") as file:
        file["t"] = np.arange(3)
    with pytest.raises(DatasetError, match="lacks the dataset 'x'"):
        read_events(path)
    with h5py.File(path, "w") as file:
        for name in "xyp":
            file[name] = np.arange(3)
        file.create_dataset("t", (10**12,), "i8", chunks=(1000,))  # nothing stored
    with pytest.raises(DatasetError, match="cut short"):
        read_events(path)
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) // 2])
    with pytest.raises(DatasetError):
        read_events(path)


def test_outside_the_sensor(tmp_path):
    path = tmp_path / "a.dat"
    path.write_bytes(writers.dat([1, 2, 3], [1, 5, 9], [1, 1, 1], [0, 0, 0]))
    with pytest.raises(DatasetError, match=r"1 of 3 events lie outside the sensor of H, W = 8, 8; .* x = 9"):
        read_events(path, sensor_size=(8, 8))
    with pytest.raises(DatasetError, match="3 of 3"):
        read_events(path, sensor_size=(1, 8))
    assert len(read_events(path, sensor_size=(2, 10))) == 3


def test_files_that_are_not_there_or_of_no_format(tmp_path):
    with pytest.raises(DatasetError, match="is missing"):
        read_events(tmp_path / "a.bin")
    (tmp_path / "a.log").write_text("x")
    with pytest.raises(DatasetError, match=r"no event format has the suffix '\.log'"):
        read_events(tmp_path / "a.log")
    with pytest.raises(DatasetError, match="no event format 'mp4'"):
        read_events(tmp_path / "a.bin", "mp4")


OWN = {
    "atis": ".bin",
    "aedat2": ".aedat",
    "aedat3": ".aedat",
    "dat": ".dat",
    "evt": ".raw",
    "npz": ".npz",
    "npy": ".npy",
    "text": ".csv",
    "es": ".es",
}
SEEDS = {
    "atis": [writers.atis_bin(*made(200, 180, 1000, 5))],
    "aedat2": [writers.aedat2(*made(100, 100, 1000, 5))],
    "aedat3": [writers.aedat3(*made(100, 100, 1000, 20))],
    "dat": [writers.dat(*made(100, 100, 1000, 5))],
    "evt": [
        writers.evt2(*made(100, 100, 1000, 5)),
        writers.evt21(*made(100, 100, 1000, 5)),
        writers.evt3(*made(100, 100, 1000, 9)),
    ],
    "text": [writers.text(*made(100, 100, 1000, 5)), writers.text(*made(100, 100, 1000, 5), heading="t_s;x;y;p")],
    "es": [writers.es_dvs(*made(100, 100, 1000, 5)), writers.es_atis(*made(100, 100, 1000, 5))],
    "npz": [npz_bytes({f"{n}.npy": npy_bytes(np.arange(5) % 2) for n in ("t_us", *"xyp")})],
    "npy": [npy_bytes(make_events(*made(100, 100, 1000, 5)).structured().view([("t_us", "<i8"), *DTYPE.descr[1:]]))],
}


@given(data=st.data(), form=st.sampled_from(sorted(OWN)))
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_give_an_error_of_ours_or_events(data, form, tmp_path):
    seed = data.draw(st.sampled_from([*SEEDS[form], b""]))
    raw = bytearray(seed)
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, len(raw)))
        raw[at : at + data.draw(st.integers(0, 6))] = data.draw(st.binary(max_size=12))
    path = tmp_path / f"fuzz{OWN[form]}"
    path.write_bytes(raw)
    tracemalloc.start()
    try:
        events = read_events(path, form)
    except DatasetError:
        pass
    else:
        assert isinstance(events, Events)
        assert len({len(events.t), len(events.x), len(events.y), len(events.p)}) == 1
        assert bool((np.diff(events.t) >= 0).all())
        check_inside(events, (1 << 16, 1 << 16))
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 8 << 20


@pytest.mark.parametrize("name", ["atis.bin", "a.aedat3", "dvs128.aedat", "new.dat", "two.raw"])
def test_memory_stays_near_the_size_of_the_events(name, tmp_path):
    """Reading takes at most four times the recording: the larger of the file and its four columns."""
    write, few, _ = CASES[name]
    n = 20_000
    columns = [np.sort(np.resize(few[0], n)), *(np.resize(column, n) for column in few[1:])]
    path = tmp_path / name
    path.write_bytes(write(*(column.tolist() for column in columns)))
    size = path.stat().st_size
    read_events(path)  # what is imported on first use does not count
    tracemalloc.start()
    events = read_events(path)
    reading = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(events) == n
    assert reading < 4 * max(size, 13 * n) + (1 << 18)


def test_every_format_is_covered_here():
    assert set(FORMATS) - set(OWN) == {"aedat4", "hdf5", "rosbag"}  # those of libraries


def test_layouts_of_aedat2_can_be_told(tmp_path):
    path = tmp_path / "a.aedat"
    path.write_bytes(
        writers.aedat2([5], [100], [90], [1], layout="davis").replace(
            b"eu.seebetter.ini.chips.davis.DAVIS240C", b"unknown"
        )
    )
    equal(aedat2.read(path, Reading(aedat2_layout="davis", sensor_size=(180, 240))), ([5], [100], [90], [1]))
    equal(read_events(path, sensor_size=(180, 240), aedat2_layout="davis"), ([5], [100], [90], [1]))
    with pytest.raises(DatasetError, match="'unknown' the number of rows and columns is not known: give sensor_size"):
        read_events(path, aedat2_layout="davis")
    path.write_bytes(b"#!AER-DAT1.0\r\n" + b"\0" * 8)
    with pytest.raises(DatasetError, match="is not AEDAT 2"):
        read_events(path)


@pytest.mark.parametrize(
    ("layout", "chip"),
    [
        ("dvs128", b"ch.unizh.ini.jaer.chip.retina.DVS128"),
        ("davis", b"eu.seebetter.ini.chips.davis.DAVIS240C"),
        ("davis", b"eu.seebetter.ini.chips.davis.Davis240b"),
    ],
)
def test_the_layout_of_aedat2_is_that_of_its_chip_line(layout, chip, tmp_path):
    path = tmp_path / "a.aedat"
    other = b"DVS128" if layout == "davis" else b"davis"
    whole = writers.aedat2([5], [100], [90], [1], layout)
    named = re.sub(rb"AEChip: \S+", b"recorded by " + other + b"@lab\r\n# AEChip: " + chip, whole)
    path.write_bytes(named)
    equal(read_events(path), ([5], [100], [90], [1]))


@pytest.mark.parametrize(
    ("line", "says"), [(b"AEChip: Cochlea64", "names the chip 'cochlea64'"), (b"davis", "has no line")]
)
def test_the_layout_of_aedat2_is_not_guessed(line, says, tmp_path):
    path = tmp_path / "a.aedat"
    path.write_bytes(re.sub(rb"AEChip: \S+", line, writers.aedat2([5], [100], [90], [1])))
    with pytest.raises(DatasetError, match=f"{says}.*dvs128, dvxplorer, davis.*aedat2_layout"):
        read_events(path)


@pytest.mark.parametrize(
    ("chip", "height"),
    [
        ("Davis240a", 180),
        ("DAVIS240C", 180),
        ("DAVIS346cBSI", 260),
        ("Davis640", 480),
        ("DavisRGBW640", 480),
        ("DVS128", 128),
    ],
)
def test_rows_of_aedat2_count_from_below(chip, height, tmp_path):
    path = tmp_path / "a.aedat"
    row, is_davis = height // 4, chip != "DVS128"  # a quarter from below: in the lower half of the picture
    address = row << (22 if is_davis else 8)
    head = f"#!AER-DAT2.0\r\n# AEChip: eu.seebetter.ini.chips.{chip}\r\n".encode()
    path.write_bytes(head + struct.pack(">II", address, 5))
    assert read_events(path).y.tolist() == [height - 1 - row]
    if is_davis:
        path.write_bytes(head + struct.pack(">II", height << 22, 5))
        with pytest.raises(DatasetError, match=f"row {height} lies outside the sensor of H = {height}"):
            read_events(path)


def test_turns_of_aedat3_belong_to_their_own_events(tmp_path):
    """Two packets with unlike turns are decoded together, and an event of the first is not valid."""
    path = tmp_path / "a.aedat3"
    first = [(writers.aedat3_data(1, 2, 1, valid=0), 6), (writers.aedat3_data(3, 4, 1), 7)]
    second = [(writers.aedat3_data(5, 6, 0), 8)]
    packets = writers.aedat3_packet(first, overflow=1) + writers.aedat3_packet(second, overflow=3)
    path.write_bytes(writers.AEDAT3_HEADER + packets)
    equal(read_events(path), ([(1 << 31) + 7, (3 << 31) + 8], [3, 5], [4, 6], [1, 0]))


def test_the_time_of_an_event_that_is_not_valid_does_not_matter(tmp_path):
    path = tmp_path / "a.aedat3"
    events = [(writers.aedat3_data(1, 2, 1), 5), (writers.aedat3_data(1, 2, 1, valid=0), -7)]
    path.write_bytes(writers.AEDAT3_HEADER + writers.aedat3_packet(events) + writers.aedat3_packet(events[1:]))
    equal(read_events(path), ([5], [1], [2], [1]))

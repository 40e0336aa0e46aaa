"""Several recordings in one file: streams of AEDAT 4 and topics of ROS bags; what files state of themselves."""

import random
import struct

import numpy as np
import pytest
import writers
from test_folder import columns

from spikecore import create
from spikecore.errors import DatasetError
from spikecore_datasets_dvs import make_events, read_events
from spikecore_datasets_dvs.events import Events
from spikecore_datasets_dvs.formats import aedat4, stated
from spikecore_datasets_dvs.reading import Reading


def recorded(seed, count):
    return make_events(*columns(seed % 2, seed, count))


def store(dv, events):
    made = dv.EventStore()
    for event in zip(*(getattr(events, name).tolist() for name in "txyp"), strict=True):
        made.push_back(*event[:3], bool(event[3]))
    return made


def raw_and_filtered(dv, path, one="events", two="filtered"):
    config = dv.io.MonoCameraWriter.Config("cam")
    for name in (one, two):
        config.addEventStream((64, 48), name)
    writer = dv.io.MonoCameraWriter(str(path), config)
    writer.writeEvents(store(dv, recorded(1, 1000)), one)
    writer.writeEvents(store(dv, recorded(2, 700)), two)


def stereo(dv, path):
    configs = [dv.io.MonoCameraWriter.EventOnlyConfig(name, (64, 48)) for name in ("left", "right")]
    writer = dv.io.StereoCameraWriter(str(path), *configs)
    writer.left.writeEvents(store(dv, recorded(1, 1000)))
    writer.right.writeEvents(store(dv, recorded(2, 700)))


@pytest.fixture(params=["aedat", "dv_processing"])
def library(request, monkeypatch):
    """Each of the two libraries alone: the same file gives the same events."""
    pytest.importorskip(request.param)
    monkeypatch.setattr(aedat4, "find_spec", lambda name: True if name == request.param else None)


def test_raw_and_filtered_events(tmp_path, library):
    path = tmp_path / "a.aedat4"
    raw_and_filtered(pytest.importorskip("dv_processing"), path)
    assert read_events(path) == recorded(1, 1000)
    assert read_events(path, stream="filtered") == recorded(2, 700)
    assert read_events(path, stream="cam/events") == recorded(1, 1000)
    with pytest.raises(DatasetError, match="stream = 'none' means 0 of its streams: cam/events, cam/filtered"):
        read_events(path, stream="none")


def test_two_cameras(tmp_path, library):
    path = tmp_path / "a.aedat4"
    stereo(pytest.importorskip("dv_processing"), path)
    with pytest.raises(
        DatasetError, match="it holds several streams of events: left/events, right/events; name one, as"
    ):
        read_events(path)
    with pytest.raises(DatasetError, match="stream = 'events' means 2 of its streams"):
        read_events(path, stream="events")
    assert read_events(path, stream="left/events") == recorded(1, 1000)
    assert read_events(path, stream="right/events") == recorded(2, 700)


def test_no_stream_is_called_events(tmp_path, library):
    path = tmp_path / "a.aedat4"
    raw_and_filtered(pytest.importorskip("dv_processing"), path, "one", "two")
    with pytest.raises(DatasetError, match="several streams of events: cam/one, cam/two"):
        read_events(path)


def test_the_stream_is_in_the_key_of_the_cache(tmp_path, data):
    dv = pytest.importorskip("dv_processing")
    for name in "ab":
        (tmp_path / "r" / name).mkdir(parents=True)
        for i in range(2):
            raw_and_filtered(dv, tmp_path / "r" / name / f"{i}.aedat4")
    sums = [
        create("dataset", "event-folder", root=str(tmp_path / "r"), stream=stream, duplicates="warn")
        .split("train")[0][0]
        .sum()
        .item()
        for stream in ("events", "filtered")
    ]
    assert sums == [1000, 700]


STATED = {
    "a.aedat": (writers.aedat2, (128, 128), "AEDAT 2.0, chip ch.unizh.ini.jaer.chip.retina.dvs128"),
    "b.aedat": (lambda *e: writers.aedat2(*e, "davis"), (180, 240), "davis240c"),
    "c.aedat": (lambda *e: writers.aedat2(*e, "dvs640"), (480, 640), "secdvs640gen2"),
    "a.aedat3": (writers.aedat3, (128, 128), "AEDAT 3.1"),
    "a.bin": (writers.atis_bin, None, "ATIS"),
    "a.dat": (
        lambda *e: writers.dat(*e).replace(b"Height 720\n", b"Height 720\n% Width 1280\n"),
        (720, 1280),
        "DAT, version 2",
    ),
    "b.dat": (writers.dat, None, "DAT, version 2"),
    "a.raw": (writers.evt3, (720, 1280), "EVT 3.0"),
    "b.raw": (writers.evt21, (720, 1280), "EVT 2.1"),
    "c.raw": (writers.evt2, None, "EVT 2.0"),
    "a.es": (writers.es_dvs, (240, 304), "Event Stream 2, DVS"),
    "a.csv": (writers.text, None, "text with the heading t_us, x, y, p"),
    "b.txt": (lambda *e: b"346 260\n" + writers.text(*e), (260, 346), "text"),
}


@pytest.mark.parametrize("name", STATED)
def test_what_a_file_states(name, tmp_path):
    write, size, variant = STATED[name]
    path = tmp_path / name
    path.write_bytes(write(*columns(0, 1)))
    own = stated(path, Reading())
    assert own.sensor_size == size
    assert variant in own.variant
    assert bool(own.where) == (size is not None)
    assert read_events(path) == make_events(*columns(0, 1))


@pytest.mark.parametrize("name", ["a.raw", "a.es", "b.aedat"])
def test_the_size_of_the_sensor_may_come_from_the_headers(name, tmp_path, data):
    write, size, _ = STATED[name]
    for own in "ab":
        (tmp_path / "r" / own).mkdir(parents=True)
        for i in range(2):
            (tmp_path / "r" / own / f"{i}.{name[2:]}").write_bytes(write(*columns(0, i)))
    dataset = create("dataset", "event-folder", root=str(tmp_path / "r"))
    assert dataset.sensor_size == dataset.info.sensor_size == size
    assert dataset.sample_shape == (2, *size)
    assert dataset.split("train")[0][0].sum() == 400


def test_headers_that_differ_or_say_nothing(tmp_path, data):
    for own in "ab":
        (tmp_path / "r" / own).mkdir(parents=True)
        (tmp_path / "r" / own / "0.es").write_bytes(writers.es_dvs(*columns(0, 1), width=304 if own == "a" else 640))
    with pytest.raises(
        DatasetError, match=r"different sizes of the sensor, H and W: a/0.es \[240, 304\], b/0.es \[240, 640\]"
    ):
        create("dataset", "event-folder", root=str(tmp_path / "r"), test_share=0.5).split("train")
    for own in "ab":
        (tmp_path / "r" / own / "0.es").unlink()
        (tmp_path / "r" / own / "0.bin").write_bytes(writers.atis_bin(*columns(0, 1)))
    with pytest.raises(
        DatasetError, match=r"a/0.bin: does not state the size of its sensor .ATIS.*sensor_size = \[180, 240\]"
    ):
        create("dataset", "event-folder", root=str(tmp_path / "r"), test_share=0.5).split("train")


DVS_MSGS = """# one packet
std_msgs/Header header
uint32 height
uint32 width
dvs_msgs/Event[] events
"""
EVENT_MSG = "uint16 x\nuint16 y\ntime ts\nbool polarity\n"


def message(events, size=(180, 240), frame=b"cam", base_s=1_600_000_000):
    out = struct.pack("<III", 7, base_s, 0) + struct.pack("<I", len(frame)) + frame
    out += struct.pack("<III", *size, len(events))
    for t, x, y, p in zip(*(getattr(events, name).tolist() for name in "txyp"), strict=True):
        out += struct.pack("<HHIIB", x, y, base_s + t // 1_000_000, t % 1_000_000 * 1000, p)
    return out


def write_bag(path, topics, event=EVENT_MSG, compression=None):
    rosbag1 = pytest.importorskip("rosbags.rosbag1")
    from rosbags.typesys import Stores, get_types_from_msg, get_typestore

    types = get_typestore(Stores.ROS1_NOETIC)
    types.register(get_types_from_msg(event, "dvs_msgs/msg/Event"))
    types.register(get_types_from_msg(DVS_MSGS, "dvs_msgs/msg/EventArray"))
    writer = rosbag1.Writer(path)
    if compression:
        writer.set_compression(compression)
    with writer:
        for topic, parts in topics.items():
            connection = writer.add_connection(topic, "dvs_msgs/msg/EventArray", typestore=types)
            for i, part in enumerate(parts):
                writer.write(connection, i, part)


@pytest.mark.parametrize("packed", [False, True])
def test_ros_bags(tmp_path, packed):
    rosbag1 = pytest.importorskip("rosbags.rosbag1")
    left, right = recorded(1, 1000), recorded(2, 300)
    path = tmp_path / "a.bag"
    parts = [message(left[:600]), message(left[600:])]
    write_bag(path, {"/dvs/left": parts}, compression=rosbag1.Writer.CompressionFormat.BZ2 if packed else None)
    wanted = left.replace(t=left.t + 1_600_000_000 * 1_000_000)
    assert read_events(path) == wanted
    own = stated(path, Reading())
    assert own.sensor_size == (180, 240)
    assert "/dvs/left" in own.variant
    path = tmp_path / "b.bag"
    write_bag(path, {"/dvs/left": parts, "/dvs/right": [message(right)]})
    with pytest.raises(DatasetError, match='several topics of events; its topics: /dvs/left .*stream = "/dvs/left"'):
        read_events(path)
    assert read_events(path, stream="/dvs/left") == wanted
    assert read_events(path, stream="/dvs/right").p.tolist() == right.p.tolist()
    with pytest.raises(DatasetError, match="no topic of EventArray called '/none'"):
        read_events(path, stream="/none")


def test_messages_that_are_others_than_they_seem(tmp_path):
    path = tmp_path / "a.bag"
    write_bag(path, {"/dvs": [message(recorded(1, 5))]}, event=EVENT_MSG.replace("uint16 y", "uint32 y"))
    with pytest.raises(
        DatasetError, match=r"has messages .*EventArray with the fields .* and events with .*'uint32 y'"
    ):
        read_events(path)
    path = tmp_path / "b.bag"
    write_bag(path, {"/dvs": [message(recorded(1, 5))[:-1]]})
    with pytest.raises(DatasetError, match="names 5 events and has 64 bytes for them"):
        read_events(path)


def test_damaged_bags_are_errors_of_ours(tmp_path):
    path = tmp_path / "a.bag"
    write_bag(path, {"/dvs": [message(recorded(1, 30))]})
    whole, rng = path.read_bytes(), random.Random(5)
    num_whole = 0
    for _ in range(300):
        raw = bytearray(whole[: rng.randrange(len(whole))] if rng.random() < 0.2 else whole)
        for _ in range(rng.randrange(1, 4)):
            if raw:
                raw[rng.randrange(len(raw))] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)])
        path.write_bytes(raw or b"x")
        try:
            num_whole += isinstance(read_events(path), Events)
        except DatasetError:
            continue
    assert 0 < num_whole < 290


def test_event_streams_that_are_not_read(tmp_path):
    path, whole = tmp_path / "a.es", writers.es_dvs(*columns(0, 1))
    for at, value, says in (
        (12, 1, r"is Event Stream 1\.0\.0"),
        (15, 4, "of type colour"),
        (0, 0, "is no Event Stream"),
    ):
        raw = bytearray(whole)
        raw[at] = value
        path.write_bytes(raw)
        with pytest.raises(DatasetError, match=says):
            read_events(path)
    path.write_bytes(whole[:-2])
    with pytest.raises(DatasetError, match="the last event has 3 of 5 bytes"):
        read_events(path)
    path.write_bytes(writers.es_dvs(*columns(1, 1), width=9))
    with pytest.raises(DatasetError, match=r"outside the sensor that its header states, H, W = \(240, 9\)"):
        read_events(path)


@pytest.mark.parametrize("piece", [5, 6, 64])
def test_event_streams_in_pieces(piece, tmp_path, monkeypatch):
    monkeypatch.setattr("spikecore_datasets_dvs.formats.es.PIECE", piece)
    for name, write in (("a.es", writers.es_dvs), ("b.es", writers.es_atis)):
        (tmp_path / name).write_bytes(write(*columns(0, 1)))
        assert read_events(tmp_path / name) == make_events(*columns(0, 1))


def test_words_of_evt21_in_the_other_order(tmp_path):
    path = tmp_path / "a.raw"
    legacy = writers.evt21(*columns(0, 1), is_legacy=True).replace(b";endianness=legacy", b"")
    path.write_bytes(legacy)
    with pytest.raises(
        DatasetError, match="the other way round than the header says: .* should have endianness=legacy"
    ):
        read_events(path)
    path.write_bytes(writers.evt21(*columns(0, 1)).replace(b"width=1280", b"width=1280;endianness=legacy"))
    with pytest.raises(DatasetError, match="should not have endianness=legacy"):
        read_events(path)
    path.write_bytes(b"% evt 2.1\n" + np.array([1 << 32 | 7], "<u8").tobytes() * 9)
    with pytest.raises(DatasetError, match="of 27 events 27 have no time"):
        read_events(path)
    rows = [(1000, x, 7, 1) for x in range(64, 96)] + [(1001, x, 8, 0) for x in (3, 31, 32)]
    wanted = [list(column) for column in zip(*rows, strict=True)]
    path.write_bytes(writers.evt21(*wanted))
    assert path.stat().st_size < 200  # vectors were written
    assert read_events(path) == make_events(*wanted)
    assert np.array_equal(np.diff(read_events(path).t) >= 0, np.ones(34, bool))

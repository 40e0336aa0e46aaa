"""Event Stream and EVT as independent libraries read them; and bytes as the specifications have them.

faery and event_stream are by the authors of Event Stream. No library that installs with pip reads EVT 2.1 (faery 0.7.1
names it and stops) or, with numpy 2, a bag (importRosbag 1.0.4 fails): these are written byte by byte.
"""

import struct

import numpy as np
import peer
import pytest
import writers
from test_folder import columns
from test_streams import message

from spikecore.errors import DatasetError
from spikecore_datasets_dvs import make_events, read_events

EVENTS = make_events(*columns(1, 3))
OWN = [getattr(EVENTS, name).tolist() for name in "txyp"]


def of(events):
    return [getattr(events, name).tolist() for name in "txyp"]


@pytest.mark.parametrize("name", ["es_dvs", "es_atis", "evt2", "evt3", "dat"])
def test_as_faery_reads_it(name, tmp_path):
    faery = peer.require("faery")
    path = tmp_path / f"a.{'es' if name.startswith('es') else 'dat' if name == 'dat' else 'raw'}"
    path.write_bytes(getattr(writers, name)(*OWN))
    theirs = np.concatenate(list(faery.events_stream_from_file(path)))
    assert of(read_events(path)) == [theirs[field].astype(np.int64).tolist() for field in ("t", "x", "y", "on")] == OWN


@pytest.mark.parametrize("name", ["es_dvs", "es_atis"])
def test_as_event_stream_reads_it(name, tmp_path):
    library = peer.require("event_stream")
    path = tmp_path / "a.es"
    path.write_bytes(getattr(writers, name)(*OWN))
    theirs = np.concatenate(list(library.Decoder(str(path))))
    if name == "es_atis":
        theirs = theirs[~theirs["exposure"]]  # the others measure brightness
    polarity = "on" if name == "es_dvs" else "polarity"
    height = 240  # it leaves rows as they are in the file, where they count from below
    wanted = [theirs["t"], theirs["x"], height - 1 - theirs["y"].astype(int), theirs[polarity].astype(int)]
    assert of(read_events(path)) == [column.tolist() for column in wanted] == OWN


def test_as_event_stream_writes_it(tmp_path):
    library = peer.require("event_stream")
    path = tmp_path / "a.es"
    rows = np.zeros(len(EVENTS), library.dvs_dtype)
    rows["t"], rows["x"], rows["y"], rows["on"] = EVENTS.t, EVENTS.x, 239 - EVENTS.y.astype(int), EVENTS.p
    with library.Encoder(str(path), "dvs", 304, 240) as encoder:
        encoder.write(rows)
    assert read_events(path) == EVENTS


def test_event_stream_byte_by_byte(tmp_path):
    """The bytes of the specification's tables, written out."""
    head = b"Event Stream" + bytes([2, 0, 0, 1]) + struct.pack("<HH", 304, 240)
    #      5 µs, ON         127 µs  reset   126 µs, OFF
    body = b"\x0b\x03\x00\x04\x00" + b"\xff" + b"\xfe" + b"\xfc\x2f\x01\xef\x00"
    path = tmp_path / "a.es"
    path.write_bytes(head + body)
    assert of(read_events(path)) == [[5, 258], [3, 303], [235, 0], [1, 0]]
    head = head[:15] + b"\x02" + head[16:]
    #      2 µs, ON, an event       3 · 63 µs   0 µs, a measurement       62 µs, OFF, an event
    body = b"\x0a\x03\x00\x04\x00" + b"\xff" + b"\x01\x05\x00\x06\x00" + b"\xf8\x07\x00\x08\x00"
    path.write_bytes(head + body)
    assert of(read_events(path)) == [[2, 253], [3, 7], [235, 231], [1, 0]]


@pytest.mark.parametrize("is_legacy", [False, True])
def test_evt21_word_by_word(is_legacy, tmp_path):
    """Words as Prophesee's page lays out their bits: type 4, time 6, x 11, y 11, valid 32."""
    words = [
        0x8_0000001_00000000,  # time, bits 6 and up: 64 µs
        int("0001" + "000101" + f"{32:011b}" + f"{7:011b}", 2) << 32 | 0b101,  # ON at 69 µs: x = 32 and 34, y = 7
        0xE_0000000_00000000,  # another kind of word
        int("0000" + "000110" + f"{64:011b}" + f"{9:011b}", 2) << 32 | 1 << 31,  # OFF at 70 µs: x = 95, y = 9
    ]
    halves = [(word & 0xFFFFFFFF, word >> 32) for word in words]
    raw = b"".join(struct.pack("<II", *(pair[::-1] if is_legacy else pair)) for pair in halves)
    legacy = b"endianness=legacy;" if is_legacy else b""
    path = tmp_path / "a.raw"
    path.write_bytes(b"% evt 2.1\n% format EVT21;" + legacy + b"height=720;width=1280\n% end\n" + raw)
    assert of(read_events(path)) == [[69, 69, 70], [32, 34, 95], [7, 7, 9], [1, 1, 0]]


def record(fields, data):
    """A record of a ROS 1 bag: a header of named fields, and data, each with its length in front."""
    head = b"".join(struct.pack("<I", len(name) + 1 + len(value)) + name + b"=" + value for name, value in fields)
    return struct.pack("<I", len(head)) + head + struct.pack("<I", len(data)) + data


def bag(events, definition):
    """A bag of one chunk, byte by byte as the page on the format 2.0 has it."""
    topic, kind = b"/dvs/events", b"dvs_msgs/EventArray"
    about = record(
        [(b"op", b"\x07"), (b"conn", struct.pack("<I", 0)), (b"topic", topic)],
        b"".join(
            struct.pack("<I", len(item)) + item
            for item in (
                b"topic=" + topic,
                b"type=" + kind,
                b"md5sum=" + b"5e8beee5a6c107e504c2e78903c224b8",
                b"message_definition=" + definition,
            )
        ),
    )
    when = struct.pack("<II", 1_600_000_000, 0)
    data = record([(b"op", b"\x02"), (b"conn", struct.pack("<I", 0)), (b"time", when)], message(events))
    chunk_data = about + data
    size = struct.pack("<I", len(chunk_data))
    chunk = record([(b"op", b"\x05"), (b"compression", b"none"), (b"size", size)], chunk_data)
    index = record(
        [(b"op", b"\x04"), (b"ver", struct.pack("<I", 1)), (b"conn", struct.pack("<I", 0)), (b"count", b"\x01\0\0\0")],
        when + struct.pack("<I", len(about)),
    )
    magic, head_size = b"#ROSBAG V2.0\n", 4096

    def first(index_pos):
        fields = [(b"op", b"\x03"), (b"index_pos", struct.pack("<Q", index_pos))]
        fields += [(b"conn_count", struct.pack("<I", 1)), (b"chunk_count", struct.pack("<I", 1))]
        short = record(fields, b"")
        return record(fields, b" " * (head_size - len(short)))

    start = len(magic) + head_size
    info = record(
        [
            *((b"op", b"\x06"), (b"ver", struct.pack("<I", 1)), (b"chunk_pos", struct.pack("<Q", start))),
            *((b"start_time", when), (b"end_time", when), (b"count", struct.pack("<I", 1))),
        ],
        struct.pack("<II", 0, 1),
    )
    return magic + first(start + len(chunk) + len(index)) + chunk + index + about + info


DEFINITION = b"""Header header
uint32 height
uint32 width
Event[] events
""" + b"\n".join(
    [
        b"=" * 80,
        b"MSG: std_msgs/Header\nuint32 seq\ntime stamp\nstring frame_id\n",
        b"=" * 80,
        b"MSG: dvs_msgs/Event\nuint16 x\nuint16 y\ntime ts\nbool polarity\n",
    ]
)


def test_a_bag_byte_by_byte(tmp_path):
    pytest.importorskip("rosbags")
    path = tmp_path / "a.bag"
    whole = bag(EVENTS[:3], DEFINITION)
    path.write_bytes(whole)
    assert read_events(path) == EVENTS[:3].replace(t=EVENTS.t[:3] + 1_600_000_000 * 1_000_000)
    path.write_bytes(whole[:-9])
    with pytest.raises(DatasetError):
        read_events(path)

"""Writers of the genuine formats, byte by byte, from the published descriptions; independent of the readers.

`large_…` write millions of `Events` at once.
"""

import struct
import zlib

import numpy as np


def atis_bin(t, x, y, p):
    """Five bytes an event; times beyond 2^23 need overflow markers, which `overflow_marker` gives."""
    out = b""
    for ti, xi, yi, pi in zip(t, x, y, p, strict=True):
        out += bytes([xi, yi, (pi << 7) | (ti >> 16 & 0x7F), ti >> 8 & 0xFF, ti & 0xFF])
    return out


def overflow_marker(t=0):
    return bytes([0, 240, t >> 16 & 0x7F, t >> 8 & 0xFF, t & 0xFF])


AEDAT2 = {
    "dvs128": ("ch.unizh.ini.jaer.chip.retina.DVS128", 128, 128),
    "davis": ("eu.seebetter.ini.chips.davis.DAVIS240C", 180, 240),
    "dvxplorer": ("eu.seebetter.ini.chips.DVXplorer", 480, 640),
    "dvs640": ("com.sec.dvs.SecDvs640Gen2", 480, 640),
}


def aedat2(t, x, y, p, layout="dvs128", extra=()):
    """Rows count from below; columns of a DVS128 and a DAVIS from the right."""
    chip, height, width = AEDAT2[layout]
    out = f"#!AER-DAT2.0\r\n# This is a raw AE data file\r\n# AEChip: {chip}\r\n".encode()
    for ti, xi, yi, pi in zip(t, x, y, p, strict=True):
        row, mirrored = height - 1 - yi, width - 1 - xi
        address = {
            "dvs128": mirrored << 1 | row << 8 | (1 - pi),
            "davis": mirrored << 12 | row << 22 | pi << 11,
            "dvxplorer": xi << 12 | row << 22 | pi << 11,
            "dvs640": xi << 1 | row << 11 | pi,
        }[layout]
        out += struct.pack(">II", address, ti % (1 << 32))
    for address, ti in extra:
        out += struct.pack(">II", address, ti)
    return out


AEDAT3_HEADER = b"#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 1: DVS128\r\n#!END-HEADER\r\n"


def aedat3_packet(events, kind=1, size=8, overflow=0, capacity=None, number=None, body=None):
    body = b"".join(struct.pack("<Ii", data, time) for data, time in events) if body is None else body
    number = len(events) if number is None else number
    capacity = number if capacity is None else capacity
    return struct.pack("<hhiiiiii", kind, 1, size, 4, overflow, capacity, number, number) + body


def aedat3_data(x, y, p, valid=1):
    return x << 17 | y << 2 | p << 1 | valid


def aedat3(t, x, y, p, per_packet=7):
    """Packets of a few events, with packets of other types between them; a packet never straddles an overflow."""
    out, group, overflow = AEDAT3_HEADER, [], 0
    for ti, xi, yi, pi in zip(t, x, y, p, strict=True):
        if group and (ti >> 31 != overflow or len(group) == per_packet):
            out += aedat3_packet(group, overflow=overflow)
            out += aedat3_packet([], kind=0, body=b"\1" * 16, number=2)  # two special events
            group = []
        overflow = ti >> 31
        group.append((aedat3_data(xi, yi, pi), ti & 0x7FFFFFFF))
    return out + (aedat3_packet(group, overflow=overflow) if group else b"")


def dat(t, x, y, p, version=2, kind=12):
    xb, yb = (14, 14) if version >= 2 else (9, 8)
    out = f"% Data file containing CD events.\n% Version {version}\n% Height 720\n".encode() + bytes([kind, 8])
    for ti, xi, yi, pi in zip(t, x, y, p, strict=True):
        out += struct.pack("<II", ti % (1 << 32), xi | yi << xb | pi << xb + yb)
    return out


def evt2(t, x, y, p):
    words, high = [], None
    for ti, xi, yi, pi in zip(t, x, y, p, strict=True):
        if ti >> 6 != high:
            high = ti >> 6
            words += [0x8 << 28 | high & 0x0FFFFFFF, 0xA << 28 | 5]  # and a trigger, to be passed over
        words.append(pi << 28 | (ti & 63) << 22 | xi << 11 | yi)
    return b"% evt 2.0\n% date 2026-01-01\n" + np.array(words, "<u4").tobytes()


def evt3(t, x, y, p, vectors=True, triggers=True):
    """Runs of neighbours at one moment, in one row and of one polarity become vectors."""
    words, high, low, row, i = [], None, None, None, 0
    n = len(t)
    while i < n:
        if t[i] >> 12 != high:
            high = t[i] >> 12
            words.append(0x8 << 12 | high & 0xFFF)
        if t[i] & 0xFFF != low:
            low = t[i] & 0xFFF
            words.append(0x6 << 12 | low)
        if y[i] != row:
            row = y[i]
            words.append(0x0 << 12 | row)
        j = i
        while vectors and j + 1 < n and (t[j + 1], y[j + 1], p[j + 1]) == (t[i], y[i], p[i]) and x[j + 1] > x[j]:
            j += 1
        if j == i:
            words.append(0x2 << 12 | p[i] << 11 | x[i])
        else:
            words.append(0x3 << 12 | p[i] << 11 | x[i])
            base, places = x[i], {xi - x[i] for xi in x[i : j + 1]}
            while places:
                size = 12 if max(places) >= 8 else 8
                mask = sum(1 << place for place in places if place < size)
                words.append((0x4 if size == 12 else 0x5) << 12 | mask)
                places = {place - size for place in places if place >= size}
                base += size
        if triggers:
            words.append(0xA << 12 | 1)  # to be passed over
        i = j + 1
    return b"% evt 3.0\n% format EVT3;height=720;width=1280\n% end\n" + np.array(words, "<u2").tobytes()


def evt21(t, x, y, p, is_legacy=False):
    """Neighbours of one moment, row and polarity share a word; a trigger between them is to be passed over."""
    words, high, group = [], None, None
    for ti, xi, yi, pi in zip(t, x, y, p, strict=True):
        if ti >> 6 != high:
            high, group = ti >> 6, None
            words += [8 << 60 | (high & 0x0FFFFFFF) << 32, 10 << 60 | 5]
        base = xi // 32 * 32
        if (
            group == (ti, base, yi, pi)
            and not words[-1] >> (xi - base) & 1
            and words[-1] & (1 << 32) - 1 < 1 << xi - base
        ):
            words[-1] |= 1 << xi - base
        else:
            words.append(pi << 60 | (ti & 63) << 54 | base << 43 | yi << 32 | 1 << xi - base)
        group = (ti, base, yi, pi)
    raw = np.array(words, "<u8")
    if is_legacy:
        raw = (raw >> np.uint64(32)) | (raw << np.uint64(32))
    more = b";endianness=legacy" if is_legacy else b""
    head = b"% evt 2.1\n% format EVT21;height=720;width=1280" + more + b"\n% geometry 1280x720\n% end\n"
    return head + raw.astype("<u8").tobytes()


def es_dvs(t, x, y, p, width=304, height=240):
    """Event Stream 2, whose rows count from below; bytes of reset among the events."""
    out, last = struct.pack("<12s4BHH", b"Event Stream", 2, 0, 0, 1, width, height), 0
    for i, (ti, xi, yi, pi) in enumerate(zip(t, x, y, p, strict=True)):
        passed, last = ti - last, ti
        out += b"\xff" * (passed // 127) + (b"\xfe" * 5 if i % 11 == 3 else b"")
        out += struct.pack("<BHH", passed % 127 << 1 | pi, xi, height - 1 - yi)
    return out


def es_atis(t, x, y, p, width=304, height=240):
    """The same with measurements of brightness among the events."""
    out, last = struct.pack("<12s4BHH", b"Event Stream", 2, 0, 0, 2, width, height), 0
    for i, (ti, xi, yi, pi) in enumerate(zip(t, x, y, p, strict=True)):
        passed, last = ti - last, ti
        many, few = divmod(passed // 63, 3)
        out += b"\xff" * many + (bytes([0xFC + few]) if few else b"")
        out += struct.pack("<BHH", passed % 63 << 2 | pi << 1, xi, height - 1 - yi)
        if i % 7 == 2:
            out += struct.pack("<BHH", 0 << 2 | (i % 2) << 1 | 1, 5, 6)
    return out


def text(t, x, y, p, heading="t_us,x,y,p", separator=None, scale=None):
    """An event a line, in the order of the heading; in the unit that its time states."""
    separator = separator or next((mark for mark in ",;\t" if mark in heading), " ")
    names = [name.strip() for name in heading.split(separator.strip() or None)]
    show = {
        "t_us": str,
        "t_s": lambda v: f"{v / 1e6:.6f}",
        "t_ms": lambda v: f"{v / 1e3:.3f}",
        "t_ns": lambda v: str(v * 1000),
    }
    lines = [heading]
    for event in zip(t, x, y, p, strict=True):
        values = dict(zip("txyp", event, strict=True))
        lines.append(separator.join(show.get(name, str)(values[name[0]]) for name in names))
    return ("\n".join(lines) + "\n").encode()


MAT_TYPES = {"i1": 1, "u1": 2, "i2": 3, "u2": 4, "i4": 5, "u4": 6, "f4": 7, "f8": 9, "i8": 12, "u8": 13}
MAT_CLASSES = {"f8": 6, "f4": 7, "i1": 8, "u1": 9, "i2": 10, "u2": 11, "i4": 12, "u4": 13, "i8": 14, "u8": 15}


def mat(arrays, order="<", is_packed=False, stored=None):
    """MATLAB's version 5: arrays `[N, 1]`, in either byte order; `stored` is the dtype of numbers that all fit."""

    def element(kind, data):
        if len(data) <= 4 and kind not in (14, 15):
            return struct.pack(f"{order}I", len(data) << 16 | kind) + data.ljust(4, b"\0")
        return struct.pack(f"{order}II", kind, len(data)) + data + b"\0" * (-len(data) % 8 if kind != 15 else 0)

    out = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack(f"{order}HH", 0x0100, 0x4D49)
    for name, array in arrays.items():
        kind = array.dtype.str[1:]
        parts = element(6, struct.pack(f"{order}II", MAT_CLASSES[kind], 0))
        parts += element(5, struct.pack(f"{order}{array.ndim}i", *array.shape)) + element(1, name.encode())
        parts += element(MAT_TYPES[stored or kind], array.astype(order + (stored or kind)).tobytes(order="F"))
        whole = element(14, parts)
        out += element(15, zlib.compress(whole)) if is_packed else whole
    return out


RAR4, RAR5 = b"Rar!\x1a\x07\x00", b"Rar!\x1a\x07\x01\x00"
UNIX_FILE, UNIX_DIRECTORY, UNIX_LINK = 0o100644, 0o040755, 0o120777


def rar4(members, room=1 << 30):
    """The parts of an archive of stored members.

    Args:
        members: name → content; None for a directory, `(target,)` for a symbolic link.
        room: bytes of content in one part; what does not fit goes on in the next.
    """

    def block(kind, flags, body):
        head = struct.pack("<BHH", kind, flags, 7 + len(body)) + body
        return struct.pack("<H", zlib.crc32(head) & 0xFFFF) + head

    def entry(name, mode, part, whole, before, after):
        flags = 0x8000 | before | after << 1 | (0xE0 if mode == UNIX_DIRECTORY else 0)
        crc = zlib.crc32(part if after else whole)
        numbers = struct.pack("<IIBIIBBHI", len(part), len(whole), 3, crc, 0, 20, 0x30, len(name), mode)
        return block(0x74, flags, numbers + name.encode()) + part

    parts = _parts(members, room, entry)
    several = len(parts) > 1
    return [
        RAR4
        + block(0x73, several * (0x11 | (i == 0) << 8), bytes(6))
        + part
        + block(0x7B, 0x4000 | (i + 1 < len(parts)), b"")
        for i, part in enumerate(parts)
    ]


def rar5(members, room=1 << 30):
    """As `rar4`, in the newer format."""

    def block(*numbers, tail=b""):
        head = b"".join(map(_vint, numbers)) + tail
        sized = _vint(len(head)) + head
        return struct.pack("<I", zlib.crc32(sized)) + sized

    def entry(name, mode, part, whole, before, after):
        extra = b""
        if mode == UNIX_LINK:  # record 5: where it points
            record = _vint(5) + _vint(1) + _vint(0) + _vint(len(whole)) + whole
            extra, part, whole = _vint(len(record)) + record, b"", b""
        has_crc = mode != UNIX_DIRECTORY
        numbers = [2, 2 | bool(extra) | before << 3 | after << 4, *([len(extra)] if extra else []), len(part)]
        numbers += [4 if has_crc else 1, len(whole), mode]
        tail = struct.pack("<I", zlib.crc32(part if after else whole)) if has_crc else b""
        tail += _vint(0) + _vint(1) + _vint(len(name.encode())) + name.encode() + extra
        return block(*numbers, tail=tail) + part

    parts = _parts(members, room, entry)
    several = len(parts) > 1
    return [
        RAR5 + block(1, 0, *((3, i) if i else (int(several),))) + part + block(5, 0, int(i + 1 < len(parts)))
        for i, part in enumerate(parts)
    ]


def _parts(members, room, entry):
    parts, left = [b""], room
    for name, content in members.items():
        mode = UNIX_DIRECTORY if content is None else UNIX_LINK if isinstance(content, tuple) else UNIX_FILE
        whole = content[0] if isinstance(content, tuple) else content or b""
        start = 0
        if whole and not left:
            parts, left = [*parts, b""], room
        while True:
            part = whole[start : start + left]
            after = start + len(part) < len(whole)
            parts[-1] += entry(name, mode, part, whole, start > 0, after)
            start, left = start + len(part), left - len(part)
            if not after:
                break
            parts.append(b"")
            left = room
    return parts


def _vint(number):
    out = b""
    while number > 0x7F:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


def large_atis(path, events):
    raw = np.zeros((len(events), 5), np.uint8)
    t = events.t % (1 << 23)
    raw[:, 0], raw[:, 1] = events.x, events.y
    raw[:, 2], raw[:, 3], raw[:, 4] = events.p << 7 | (t >> 16).astype(np.uint8), t >> 8 & 255, t & 255
    path.write_bytes(raw.tobytes())


def large_aedat3(path, events, per_packet=4096):
    data = np.stack([events.x.astype("<u4") << 17 | events.y.astype("<u4") << 2 | events.p.astype("<u4") << 1 | 1], 1)
    both = np.hstack([data, events.t.astype("<u4")[:, None]]).astype("<u4")
    with path.open("wb") as file:
        file.write(b"#!AER-DAT3.1\r\n#!END-HEADER\r\n")
        for start in range(0, len(events), per_packet):
            part = both[start : start + per_packet]
            file.write(np.array([1, 1], "<i2").tobytes())
            file.write(np.array([8, 4, 0, len(part), len(part), len(part)], "<i4").tobytes())
            file.write(part.tobytes())

"""Writers of the genuine formats, byte by byte, from the published descriptions; independent of the readers."""

import struct

import numpy as np


def atis_bin(t, x, y, p):
    """Five bytes an event; times beyond 2^23 need overflow markers, which `overflow_marker` gives."""
    out = b""
    for ti, xi, yi, pi in zip(t, x, y, p, strict=True):
        out += bytes([xi, yi, (pi << 7) | (ti >> 16 & 0x7F), ti >> 8 & 0xFF, ti & 0xFF])
    return out


def overflow_marker(t=0):
    return bytes([0, 240, t >> 16 & 0x7F, t >> 8 & 0xFF, t & 0xFF])


def aedat2(t, x, y, p, layout="dvs128", extra=()):
    chip = "DAVIS240C" if layout == "davis" else "DVS128"
    out = f"#!AER-DAT2.0\r\n# This is a raw AE data file\r\n# AEChip: {chip}\r\n".encode()
    for ti, xi, yi, pi in zip(t, x, y, p, strict=True):
        address = xi << 12 | yi << 22 | pi << 11 if layout == "davis" else xi << 1 | yi << 8 | (1 - pi)
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

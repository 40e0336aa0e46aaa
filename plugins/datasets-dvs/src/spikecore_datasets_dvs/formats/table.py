"""The table of file formats. To add one, write its module with `read` and `stated`, and add a row.

`spike info format`, the recognition of files, the option `form` and the lists in errors are all made from it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Format:
    """A file format.

    Args:
        title: in words.
        suffixes: of file names.
        module: where `read` and `stated` are.
        magic: how such a file begins, where it begins with anything of its own.
        size: where the file states the size of the sensor; "" where it does not.
        unit: of times in the file.
        options: of `Reading` that matter to it.
        extra: of this plugin that installs the library it needs; "" where it needs none.
    """

    title: str
    suffixes: tuple[str, ...]
    module: str
    magic: bytes = b""
    size: str = ""
    unit: str = "µs"
    options: tuple[str, ...] = ()
    extra: str = ""


NAMED = ("columns", "names", "unit", "on_values")
FORMATS: dict[str, Format] = {
    "aedat2": Format(
        "AEDAT 2.0 (jAER): DVS128, DAVIS, DVXplorer, 640 × 480 sensors",
        (".aedat", ".aedat2"),
        "aedat2",
        b"#!AER-DAT2",
        "header line AEChip",
        options=("aedat2_layout", "sensor_size"),
    ),
    "aedat3": Format("AEDAT 3.1 (cAER)", (".aedat", ".aedat3"), "aedat3", b"#!AER-DAT3", "header line Source"),
    "aedat4": Format(
        "AEDAT 4 (DV)", (".aedat4",), "aedat4", b"#!AER-DAT4", "header", options=("stream",), extra="aedat4"
    ),
    "atis": Format("ATIS, 40 bits an event (N-MNIST)", (".bin",), "atis"),
    "dat": Format("Prophesee DAT, version 1 and 2", (".dat",), "dat", size="header lines Height and Width"),
    "evt": Format("Prophesee RAW: EVT 2.0, 2.1 and 3.0", (".raw",), "evt", size="header line geometry or format"),
    "npz": Format(
        "numpy: arrays t, x, y, p, one structured or one [N, 4]",
        (".npz",),
        "arrays",
        b"PK",
        "array sensor_size",
        unit="what a name or the array unit states, or the user",
        options=("stream", *NAMED),
    ),
    "npy": Format(
        "numpy: a structured array, or one [N, 4]",
        (".npy",),
        "arrays",
        b"\x93NUMPY",
        unit="what a name states, or the user",
        options=NAMED,
    ),
    "hdf5": Format(
        "HDF5 of v2e, Metavision, MVSEC, DSEC and others",
        (".h5", ".hdf5"),
        "hdf5",
        b"\x89HDF\r\n\x1a\n",
        "attribute geometry, or height and width",
        "what the writer, a name or the attribute unit states, or the user",
        ("stream", *NAMED),
        "hdf5",
    ),
    "text": Format(
        "text or CSV, an event a line",
        (".txt", ".csv", ".tsv"),
        "text",
        size="a first line W H",
        unit="what the heading or the user says",
        options=NAMED,
    ),
    "es": Format("Event Stream 2: DVS and ATIS", (".es",), "es", b"Event Stream", "header"),
    "rosbag": Format(
        "ROS 1 bag with EventArray messages",
        (".bag",),
        "rosbag",
        b"#ROSBAG V2.0",
        "its messages",
        "s and ns",
        ("stream", "on_values"),
        "rosbag",
    ),
}
SUFFIXES = tuple(sorted({suffix for form in FORMATS.values() for suffix in form.suffixes}))

"""One function per parser: it gets bytes, and may raise `SpikeError` and nothing else."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from spikecore.datasets.store import Limits, extract
from spikecore.errors import SpikeError
from spikecore.run.checkpoint import INDEX, CheckpointStore, _digest
from spikecore.run.config import resolve
from spikecore.run.record import Record, sealed

CORPUS = Path(__file__).with_name("corpus")
EVENTS = ("aedat2", "aedat3", "atis", "dat", "evt", "npz", "npy", "text", "es")
"""Formats of events whose readers are our own."""
OF_OTHERS = ("aedat4", "hdf5", "rosbag")
"""Formats of events that libraries of others read."""
LIBRARIES = {"aedat4": "aedat", "rosbag": "rosbags"}
"""Target → the library without which it refuses everything."""


def scratch() -> Path:
    """A folder in memory where there is one, for parsers that take a path."""
    shared = Path("/dev/shm")
    return Path(tempfile.mkdtemp(prefix="spikecore-fuzz-", dir=shared if shared.is_dir() else None))


def targets(folder: Path) -> dict[str, Callable[[bytes], None]]:
    """Name → what is called with every input.

    Args:
        folder: whose files are overwritten by every call.
    """
    functions: dict[str, Callable[[bytes], object]] = {
        **{form: partial(_events, folder / f"events-{form}", form) for form in (*EVENTS, *OF_OTHERS)},
        "mat": partial(_mat, folder / "a.mat"),
        "image": partial(_image, folder / "image"),
        "pickled": partial(_pickled, folder / "pickled.npy"),
        "idx": partial(_idx, folder / "idx"),
        "nir": partial(_nir, folder / "graph.nir"),
        "archive": partial(_archive, folder),
        "toml": partial(_toml, folder / "config.toml"),
        "record": partial(_record, folder / "run"),
        "signed-record": partial(_signed_record, folder / "signed"),
        "checkpoint": partial(_checkpoint, folder / "other"),
    }
    return {name: partial(_checked, function) for name, function in functions.items()}


def _checked(function: Callable[[bytes], object], data: bytes) -> None:
    with contextlib.suppress(SpikeError):
        function(data)


def _events(path: Path, form: str, data: bytes) -> None:
    from spikecore_datasets_dvs.formats import read_events

    path.write_bytes(data)
    read_events(path, form, sensor_size=(128, 128))


def _pickled(path: Path, data: bytes) -> None:
    from spikecore_datasets_dvs.pickled import read

    path.write_bytes(data)
    read(path)


def _idx(path: Path, data: bytes) -> None:
    from spikecore_datasets_vision.idx import read_idx

    path.write_bytes(data)
    read_idx(path)


def _mat(path: Path, data: bytes) -> None:
    from spikecore_datasets_dvs.formats.mat import read_mat

    path.write_bytes(data)
    read_mat(path, ("ts", "x", "y", "pol"))


def _image(path: Path, data: bytes) -> None:
    from spikecore_datasets_vision.decoding import decode

    path.write_bytes(data)
    decode(path, (8, 8), "colour", "crop")


def _nir(path: Path, data: bytes) -> None:
    from spikecore_deploy_nir.reading import read_graph

    path.write_bytes(data)
    read_graph(path, 1 << 20)


def _archive(folder: Path, data: bytes) -> None:
    (folder / "archive").write_bytes(data)
    try:
        extract(folder / "archive", folder / "out", limits=Limits(num_bytes=1 << 20, num_members=100))
    finally:
        shutil.rmtree(folder / "out", ignore_errors=True)


def _toml(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    resolve(path)


def _record(folder: Path, data: bytes) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "run.json").write_bytes(data)
    Record.read(folder)


def _signed_record(folder: Path, data: bytes) -> None:
    """As anybody can sign it: what it says is reached."""
    with contextlib.suppress(ValueError, RecursionError):
        plain = json.loads(data)
        if isinstance(plain, dict):
            data = sealed(plain).encode()
    _record(folder, data)


def _checkpoint(folder: Path, data: bytes) -> None:
    with contextlib.suppress(ValueError, RecursionError):
        body = json.loads(data)
        if isinstance(body, dict):  # signed again, as anybody can
            data = json.dumps({**body, "sha256": _digest({k: v for k, v in body.items() if k != "sha256"})}).encode()
    place = folder / "checkpoints" / "checkpoint-00000001"
    place.mkdir(parents=True, exist_ok=True)
    (place / INDEX).write_bytes(data)
    CheckpointStore(folder, "").read(place.name)

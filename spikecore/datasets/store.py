"""Where datasets are stored, and how they are built: fetch → verify → extract → convert → rename.

    directory = make_directory(data_dir() / "mnist" / "raw", make)     make(aside) fills it; renamed once it is complete
    path = fetch(DataFile("a.zip", ("https://…",), sha256="…"), directory)
    extract(path, directory / "a")

A path that exists is complete: everything is written under a temporary name, flushed and renamed. Locks separate
processes and are released when their holder dies, so the next process continues a killed build.
"""

from spikecore.datasets.archives import Limits, Member, extract, unpack
from spikecore.datasets.disk import data_dir, lock, make_directory, write_aside, writing
from spikecore.datasets.downloads import fetch, matches, verify
from spikecore.files import sync
from spikecore.interfaces.dataset import DataFile

__all__ = [
    "DataFile",
    "Limits",
    "Member",
    "data_dir",
    "extract",
    "fetch",
    "lock",
    "make_directory",
    "matches",
    "sync",
    "unpack",
    "verify",
    "write_aside",
    "writing",
]

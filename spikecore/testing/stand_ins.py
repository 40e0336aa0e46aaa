"""Small files in place of those that the authors of a dataset publish, so that it is proved without a download."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from spikecore.datasets import downloads
from spikecore.interfaces.dataset import DataFile


@contextmanager
def stand_ins(directory: Path) -> Iterator[None]:
    """Inside, files that are now below `directory` count as the published ones: each is held against its own sha256.

    Size and digests that a `DataFile` declares are of the real files, which no small one can have. Nothing is switched
    off: a stand-in that changes is refused, and every other file is held against its declaration. Only this process and
    those that it forks are concerned.

    Args:
        directory: of the stand-ins, at any depth.
    """
    digests = {path.resolve(): _sha256(path) for path in directory.rglob("*") if path.is_file()}
    real = downloads._difference

    def difference(path: Path, file: DataFile) -> str:
        own = digests.get(path.resolve())
        return real(path, file if own is None else replace(file, size=None, md5="", sha256=own))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(downloads, "_difference", difference)
        yield


@contextmanager
def no_network() -> Iterator[None]:
    """Inside, a network connection is a failure of the test; processes of this machine may talk to each other."""
    connect = socket.socket.connect

    def refuse(self: socket.socket, address: Any) -> None:
        if self.family != getattr(socket, "AF_UNIX", None):
            raise AssertionError("it opened a network connection")
        connect(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        yield


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()

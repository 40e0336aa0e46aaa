"""Rar archives, of which ES-ImageNet is made; through rarfile and a tool that it calls (bsdtar, unrar, unar or 7z).

`pip install spikecore-datasets-dvs[rar]`, and a tool from the system, such as `apt install libarchive-tools`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from spikecore.datasets.store import Limits, Member, made, unpack
from spikecore.errors import DatasetError, PluginUnavailable


def extract(archive: Path, into: Path, *, limits: Limits | None = None) -> Path:
    """As `store.extract`, for a rar archive or the first of its parts.

    Raises:
        PluginUnavailable: rarfile, or a tool that it can call, is missing.
        DatasetError: as `store.extract` raises it.
    """
    try:
        import rarfile
    except ImportError as error:
        raise PluginUnavailable(
            f"{archive.name} is a rar archive, and rarfile is not installed",
            "pip install 'spikecore-datasets-dvs[rar]'",
        ) from error
    try:
        rarfile.tool_setup()
    except rarfile.RarCannotExec as error:
        raise PluginUnavailable(
            f"{archive.name} is a rar archive, and no tool that unpacks one is installed",
            "for instance: apt install libarchive-tools (bsdtar)",
        ) from error

    def make(aside: Path) -> None:
        try:
            with rarfile.RarFile(str(archive)) as opened:
                unpack(members(opened), aside, source=str(archive), limits=limits)
        except rarfile.Error as error:
            raise DatasetError(f"{archive}: cannot be unpacked: {error}; delete it and fetch it again") from error

    return made(into, make)


def members(opened: Any) -> Iterator[Member]:
    """The entries of an open rarfile, for `store.unpack`."""
    for item in opened.infolist():
        kind = "directory" if item.is_dir() else "file" if item.is_file() else "link"
        yield Member(item.filename, item.file_size or 0, kind, _opener(opened, item))


def _opener(opened: Any, item: Any) -> Callable[[], Any]:
    @contextmanager
    def content() -> Iterator[IO[bytes]]:
        with opened.open(item) as stream:
            yield stream

    return content

"""Rar archives, of which ES-ImageNet is made: rarfile lists them, and bsdtar unpacks them in one pass.

`pip install spikecore-datasets-dvs[rar]` and `apt install libarchive-tools`.

bsdtar turns the archive, its parts one behind the other, into a tar stream, from which the store unpacks with its own
checks; names, sizes and checksums of what comes are held against rarfile's list. Without bsdtar, rarfile calls unrar,
unar or 7z for each member, and that is slow for a million of them.
"""

from __future__ import annotations

import shutil
import subprocess
import tarfile
import tempfile
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from spikecore.datasets import Limits, Member, make_directory, unpack
from spikecore.errors import DatasetError, PluginUnavailable

READ_AHEAD = 1 << 16
"""Zeros behind the last part: bsdtar looks further ahead than a short last part of RAR 5 reaches, and gives up."""


def extract(archive: Path, into: Path, *, limits: Limits | None = None) -> Path:
    """As `store.extract`, for a rar archive or the first of its parts.

    Raises:
        PluginUnavailable: rarfile, or a tool that unpacks this archive, is missing.
        DatasetError: as `store.extract` raises it.
    """
    try:
        import rarfile
    except ImportError as error:
        raise PluginUnavailable(
            f"{archive.name} is a rar archive, and rarfile is not installed",
            "pip install 'spikecore-datasets-dvs[rar]'",
        ) from error

    def make(aside: Path) -> None:
        try:
            with rarfile.RarFile(str(archive)) as opened:
                if opened.needs_password():
                    raise DatasetError(f"{archive}: is encrypted; is it the right archive?")
                volumes = [Path(volume) for volume in opened.volumelist()]
                num_packed = sum(volume.stat().st_size for volume in volumes)
                if _has_bsdtar(archive):
                    with _streamed(volumes) as tar:
                        checked = _checked(tar, opened, archive)
                        unpack(checked, aside, source=str(archive), limits=limits, num_packed=num_packed)
                else:
                    unpack(members(opened), aside, source=str(archive), limits=limits, num_packed=num_packed)
        except rarfile.Error as error:
            raise DatasetError(f"{archive}: cannot be unpacked: {error}; delete it and fetch it again") from error
        except tarfile.TarError as error:
            raise DatasetError(f"{archive}: bsdtar broke off: {error}; delete it and fetch it again") from error

    return make_directory(into, make)


def _has_bsdtar(archive: Path) -> bool:
    import rarfile

    if shutil.which("bsdtar"):
        return True
    try:
        rarfile.tool_setup(bsdtar=False, force=True)  # rarfile's own command line for bsdtar does not work
    except rarfile.RarCannotExec as error:
        raise PluginUnavailable(
            f"{archive.name} is a rar archive, and bsdtar, which unpacks one, is not installed",
            "apt install libarchive-tools",
        ) from error
    return False


@contextmanager
def _streamed(volumes: Sequence[Path]) -> Iterator[tarfile.TarFile]:
    """What bsdtar makes of the archive, to be read once from front to end; where it complains, that is an error."""
    command = ["bsdtar", "-cf", "-", "--format", "pax", "@-"]
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors)
        assert process.stdin is not None
        assert process.stdout is not None
        feeder = threading.Thread(target=_feed, args=(volumes, process.stdin), daemon=True)
        feeder.start()
        try:
            with tarfile.open(fileobj=process.stdout, mode="r|") as tar:
                yield tar
            while process.stdout.read(1 << 20):  # what pads the stream
                pass
        except BaseException:
            process.kill()
            raise
        finally:
            process.stdout.close()
            code = process.wait()
            feeder.join()
        if code:
            errors.seek(0)
            said = errors.read(2000).decode(errors="replace").strip()
            raise DatasetError(f"{volumes[0]}: bsdtar cannot unpack it: {said}; delete it and fetch it again")


def _feed(volumes: Sequence[Path], pipe: IO[bytes]) -> None:
    with suppress(BrokenPipeError), pipe:  # bsdtar stops reading where it finds a fault, and says which
        for volume in volumes:
            with volume.open("rb") as file:
                shutil.copyfileobj(file, pipe, 1 << 20)
        pipe.write(bytes(READ_AHEAD))


def members(opened: Any) -> Iterator[Member]:
    """The entries of an open rarfile, for `store.unpack`."""
    for item in opened.infolist():
        kind = "directory" if item.is_dir() else "file" if item.is_file() else "link"
        yield Member(item.filename, item.file_size or 0, kind, _opener(opened.open, item))


def _opener(open_item: Callable[[Any], Any], item: Any) -> Callable[[], Any]:
    @contextmanager
    def content() -> Iterator[IO[bytes]]:
        with open_item(item) as stream:
            yield stream

    return content


def _checked(tar: tarfile.TarFile, opened: Any, archive: Path) -> Iterator[Member]:
    """The entries of bsdtar's stream, each held against rarfile's list.

    Raises:
        DatasetError: one is missing, or not what the archive says.
    """
    listed = {item.filename: item for item in opened.infolist() if item.is_file()}
    count = len(listed)
    for item in tar:
        kind = "file" if item.isreg() else "directory" if item.isdir() else "link"
        if kind != "file":
            yield Member(item.name, 0, kind, _opener(tar.extractfile, item))
            continue
        own = listed.pop(item.name, None)
        sums: list[_Summed] = []
        yield Member(item.name, item.size, kind, _summing(tar, item, sums))
        if own is None or own.file_size != item.size or (own.CRC is not None and sums[0].crc != own.CRC):
            raise DatasetError(f"{archive}: {item.name!r} is damaged; delete the archive and fetch it again")
    if listed:
        raise DatasetError(
            f"{archive}: {len(listed)} of {count} members did not come, {min(listed)!r} among them; unpack it with a "
            "tool of your own (unrar x), or delete it and fetch it again"
        )


class _Summed:
    """A stream whose checksum is kept; bsdtar compares none of stored members."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream, self.crc = stream, 0

    def read(self, size: int) -> bytes:
        chunk = self.stream.read(size)
        self.crc = zlib.crc32(chunk, self.crc)
        return chunk


def _summing(tar: tarfile.TarFile, item: tarfile.TarInfo, sums: list[_Summed]) -> Callable[[], Any]:
    @contextmanager
    def content() -> Iterator[_Summed]:
        stream = tar.extractfile(item)
        assert stream is not None, "a regular member has content"
        with stream:
            sums.append(_Summed(stream))
            yield sums[0]

    return content

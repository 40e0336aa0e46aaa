"""Unpacks archives member by member. Names that lead out of the directory, links, devices and bombs are refused.

This module reads zip and tar (uncompressed, gz, bz2, xz); a plugin that reads another format passes its members to
`unpack`.
"""

from __future__ import annotations

import bz2
import errno
import gzip
import lzma
import re
import shutil
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from spikecore.datasets.disk import make_directory
from spikecore.errors import DatasetError


@dataclass(frozen=True)
class Limits:
    """Upper limits for an archive.

    Args:
        num_bytes: of all members, unpacked; by default 1 GiB and 100 times the archive. It is never more than what the
            disk has free.
        num_members: files and directories.
        num_header_bytes: of the headers before one member, unpacked: long names, attributes.
    """

    num_bytes: int | None = None
    num_members: int = 5_000_000
    num_header_bytes: int = 1 << 20


@dataclass(frozen=True)
class Member:
    """One entry of an archive.

    Args:
        name: as the archive says, with `/`.
        size: unpacked bytes, as the archive says.
        kind: `file`, `directory`, or what else it is (`link`, `device` …), which is refused.
        open: gives the content.
    """

    name: str
    size: int
    kind: str
    open: Callable[[], AbstractContextManager[IO[bytes]]]


DAMAGED = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, struct.error),
    *(EOFError, NotImplementedError, ValueError, RuntimeError),  # RuntimeError: the member is encrypted
)
BASE_BYTES, MOST_RATIO = 1 << 30, 100
"""Every archive may unpack to so many bytes, and to so many times its own size besides."""
MOST_BEHIND = 1 << 24
"""Most bytes after the end mark of a tar archive, which is padded to a multiple of some kilobytes."""
DAMAGED_NUMBERS = (None, errno.EINVAL, errno.ENAMETOOLONG, errno.EILSEQ)
"""`OSError.errno` of an impossible offset or name; None: not a gzip file, or a wrong checksum in one."""


def extract(
    archive: Path,
    into: Path,
    *,
    limits: Limits | None = None,
    keep: Callable[[str], bool] | None = None,
) -> Path:
    """Unpack a zip or tar archive into the directory `into`, which exists afterwards if and only if all went well.

    Args:
        archive: the file; its content says what it is, not its name.
        into: made, unless it exists: then nothing is done.
        limits: what is too much.
        keep: chooses members by name; all by default.

    Raises:
        DatasetError: it is missing, damaged or no archive; or a member is refused: a path out of the directory, a link,
            a device, more members or bytes than the limits allow.
    """

    def make(aside: Path) -> None:
        try:
            if not archive.is_file() and archive.exists():
                raise DatasetError(f"{archive}: is no regular file; name the archive itself")
            with archive.open("rb") as file:
                head = file.read(512)
            if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
                opened = _zip(archive)
            else:
                opened = _tar(archive, head, (limits or Limits()).num_header_bytes)
            with opened as members:
                chosen = members if keep is None else (member for member in members if keep(member.name))
                unpack(chosen, aside, source=str(archive), limits=limits, num_packed=archive.stat().st_size)
        except FileNotFoundError as error:
            raise DatasetError(f"{archive}: is missing: {error}") from error
        except DAMAGED as error:
            raise DatasetError(f"{archive}: cannot be unpacked: {error}; delete it and fetch it again") from error
        except OSError as error:
            if error.errno in DAMAGED_NUMBERS:
                raise DatasetError(f"{archive}: is damaged: {error}; delete it and fetch it again") from error
            raise

    return make_directory(into, make)


def unpack(
    members: Iterable[Member], into: Path, *, source: str, limits: Limits | None = None, num_packed: int = 0
) -> None:
    """Write members into a directory that holds nothing else.

    Args:
        members: in any order.
        into: exists.
        source: of the members, for messages.
        limits: what is too much.
        num_packed: size of the archive in bytes, from which the default limit follows.

    Raises:
        DatasetError: a member is refused; nothing of it is written.
    """
    limits = limits or Limits()
    most_bytes, excess = _most_bytes(limits, num_packed, into)
    total = 0
    for count, member in enumerate(members, 1):
        path = into.joinpath(*_parts(member.name, source))
        if count > limits.num_members:
            raise DatasetError(f"{source}: has more than {limits.num_members} members; is it the right archive?")
        if member.kind not in ("file", "directory"):
            raise DatasetError(f"{source}: {member.name!r} is a {member.kind}; only files and directories are unpacked")
        if member.size > most_bytes - total:
            raise DatasetError(f"{source}: unpacks to more than {excess}")
        try:
            if member.kind == "directory":
                path.mkdir(parents=True, exist_ok=True)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            with member.open() as content, path.open("xb") as file:
                written = _copy(content, file, member.size)
        except (FileExistsError, IsADirectoryError, NotADirectoryError) as error:
            raise DatasetError(f"{source}: {member.name!r} is there twice") from error
        if written != member.size:
            raise DatasetError(f"{source}: {member.name!r} has not the {member.size} bytes that the archive says")
        total += written


def _most_bytes(limits: Limits, num_packed: int, into: Path) -> tuple[int, str]:
    """Most bytes to unpack, and the end of the sentence that refuses more."""
    most = limits.num_bytes
    text = f"{most} bytes; is it the right archive?"
    if most is None:
        most = BASE_BYTES + MOST_RATIO * num_packed
        text = f"{most} bytes (1 GiB and {MOST_RATIO} times the archive); if that is right, unpack it yourself"
    free = shutil.disk_usage(into).free
    if free < most:
        return free, f"the {free} bytes that are free there; free some space, or choose another directory"
    return most, text


def _copy(content: IO[bytes], file: IO[bytes], size: int) -> int:
    """Copy, but never more than one chunk beyond the declared size."""
    written = 0
    while written <= size and (chunk := content.read(1 << 20)):
        file.write(chunk)
        written += len(chunk)
    return written


def _parts(name: str, source: str) -> tuple[str, ...]:
    plain = name.replace("\\", "/")
    parts = tuple(part for part in PurePosixPath(plain).parts if part != ".")
    if not parts and plain.strip("./") == "":
        return ()
    if plain.startswith("/") or ".." in parts or re.match(r"[A-Za-z]:", plain) or "\0" in plain:
        raise DatasetError(f"{source}: {name!r} leads out of the archive's own directory; do not use this file")
    return parts


@contextmanager
def _zip(archive: Path) -> Iterator[Iterable[Member]]:
    with zipfile.ZipFile(archive) as opened:

        def members() -> Iterator[Member]:
            for item in opened.infolist():
                mode = item.external_attr >> 16
                if not item.filename:
                    raise zipfile.BadZipFile("it has a member without a name")
                is_special = (mode & 0o170000) not in (0, 0o100000, 0o040000)
                kind = "file"
                if is_special:
                    kind = "link"
                elif item.is_dir():
                    kind = "directory"
                yield Member(item.filename, item.file_size, kind, lambda item=item: opened.open(item))  # type: ignore[misc]

        yield members()


class _Metered:
    """A stream that refuses to give more than a budget, so that tarfile cannot be led to read endless headers."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.left: int | None = None
        """Bytes that may still be read; None for any number."""

    def read(self, size: int = -1) -> bytes:
        if self.left is not None:
            if size < 0 or size > self.left:
                raise DatasetError("has headers of implausible length: it was made to fill the memory; do not use it")
            self.left -= size
        return self._stream.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()


def _open_uncompressed(archive: Path, head: bytes) -> Any:
    """The archive's bytes without their compression."""
    if head.startswith(b"\x1f\x8b"):
        return gzip.open(archive)
    if head.startswith(b"BZh"):
        return bz2.open(archive)
    if head.startswith((b"\xfd7zXZ\0", b"]\0\0")):
        return lzma.open(archive)
    return archive.open("rb")


@contextmanager
def _tar(archive: Path, head: bytes, num_header_bytes: int) -> Iterator[Iterable[Member]]:
    is_ended = False

    class Header(tarfile.TarInfo):
        """tarfile takes anything that is not a header for the end of the archive; this class notes a real end mark."""

        @classmethod
        def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Any:
            nonlocal is_ended
            is_ended = is_ended or buf == bytes(tarfile.BLOCKSIZE)
            return super().frombuf(buf, encoding, errors)

    with _open_uncompressed(archive, head) as stream:
        metered = _Metered(stream)
        metered.left = num_header_bytes
        try:
            source: Any = metered  # it has what tarfile reads with, and neither `write` nor `close`
            opened: Any = tarfile.TarFile(fileobj=source, mode="r", tarinfo=Header)
        except DatasetError as error:
            raise DatasetError(f"{archive}: {error}") from error

        def next_item() -> tarfile.TarInfo | None:
            metered.left = num_header_bytes
            try:
                item: tarfile.TarInfo | None = opened.next()
            except DatasetError as error:
                raise DatasetError(f"{archive}: {error}") from error
            metered.left = None
            opened.members.clear()  # tarfile keeps all of them, and an archive of a few MB may have millions
            return item

        def members() -> Iterator[Member]:
            while (item := next_item()) is not None:
                plain = ""
                if item.isreg():
                    plain = "file"
                elif item.isdir():
                    plain = "directory"
                kind = plain or ("link" if item.issym() or item.islnk() else "device")

                @contextmanager
                def content(item: tarfile.TarInfo = item) -> Iterator[IO[bytes]]:
                    stream = opened.extractfile(item)
                    assert stream is not None, "a regular member has content"
                    with stream:
                        yield stream

                yield Member(item.name, item.size, kind, content)
            if not is_ended:
                raise tarfile.ReadError("it ends without the mark of an end: it was cut off, or is damaged")
            _read_out(metered)

        yield members()


def _read_out(file: Any) -> None:
    """Read to the end of the compressed stream, so that its checksum is verified."""
    left = MOST_BEHIND
    while chunk := file.read(1 << 20):
        left -= len(chunk)
        if left < 0:
            raise tarfile.ReadError(f"it has more than {MOST_BEHIND} bytes behind its end")

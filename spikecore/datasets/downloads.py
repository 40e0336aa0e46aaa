"""Downloads that resume where they stopped, and are verified before use."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from spikecore.datasets.disk import lock, writing
from spikecore.documents import parse_json
from spikecore.errors import DatasetError, NotDownloadedError
from spikecore.files import discard, open_part, own_size, read_file, sync, write_file
from spikecore.interfaces.dataset import DataFile
from spikecore.version import __version__

CHUNK = 1 << 18
PAUSE_S = 0.2
"""Before the second attempt; doubled before each further one."""
MOST_NOTE_BYTES = 1 << 16
"""Of the note beside a partial file, which says where it comes from."""

_counting = threading.Lock()
_num_offline = 0
"""Open `offline` blocks, of all threads."""
_refused: list[str] = []
"""Where connections were wanted inside `offline`."""
_is_watching = False
"""The audit hook is in place; Python has no way to take one away."""
_CONNECTING = ("socket.connect", "socket.getaddrinfo")


@contextmanager
def offline() -> Iterator[list[str]]:
    """Inside, nothing is downloaded in this process: `fetch` raises for a file that is missing, and so does Python's
    own `socket` for every connection, for datasets that download by other means.

    Yields:
        Where connections were wanted, as the block goes on; also those whose error was caught on the way.
    """
    global _num_offline, _is_watching
    with _counting:
        if not _is_watching:
            sys.addaudithook(_refuse_connections)
            _is_watching = True
        _num_offline += 1
        if _num_offline == 1:
            _refused.clear()
    try:
        yield _refused
    finally:
        with _counting:
            _num_offline -= 1


def is_offline() -> bool:
    """Whether nothing may be downloaded now: a dataset that does not use `fetch` asks before it would download, and
    raises `NotDownloadedError` then.
    """
    return _num_offline > 0


def _refuse_connections(event: str, arguments: tuple[Any, ...]) -> None:
    if not _num_offline or event not in _CONNECTING:
        return
    address = arguments[1] if event == "socket.connect" else arguments[:2]
    if isinstance(address, str | bytes):
        return  # a Unix socket: another process of this machine
    place = ":".join(str(part) for part in address[:2])
    _refused.append(place)
    raise NotDownloadedError(f"a connection to {place} was wanted, and nothing is downloaded now")


def fetch(file: DataFile, directory: Path, *, manual: str = "", attempts: int = 5, timeout_s: float = 60.0) -> Path:
    """The file in `directory`, downloaded where it is missing, and verified.

    Args:
        file: name, places and digests.
        directory: where it is, or goes.
        manual: how to download a file without urls, for the message.
        attempts: per url; every attempt resumes where the last one stopped.
        timeout_s: of one read.

    Raises:
        NotDownloadedError: it is missing, inside `offline`.
        DatasetError: it cannot be downloaded, or its size or a digest differs.
    """
    path = directory / file.name
    if path.is_file():
        verify(path, file)
        return path
    if not file.urls:
        where = manual or "get it from the authors"
        raise DatasetError(f"{file.name} must be downloaded manually: {where}. Put it at {path}")
    if _num_offline:
        raise NotDownloadedError(f"{file.name} is not in {directory}, and nothing is downloaded now", str(directory))
    with lock(directory / f".{file.name}.lock"):
        if not path.is_file():
            _from_any(file, path, attempts, timeout_s)
    return path


def verify(path: Path, file: DataFile) -> None:
    """Size and digests, as far as they are known.

    Raises:
        DatasetError: the file differs; the message shows both values.
    """
    if problem := _difference(path, file):
        raise DatasetError(f"{path}: {problem}. Delete it, and get {file.name} again{_source(file)}")


def matches(path: Path, file: DataFile) -> bool:
    """Is this the file, as far as size and digests say?"""
    return path.is_file() and not _difference(path, file)


def _difference(path: Path, file: DataFile) -> str:
    size = path.stat().st_size
    if file.size is not None and size != file.size:
        return f"has {size} bytes instead of {file.size}"
    for kind, wanted in (("sha256", file.sha256), ("md5", file.md5)):
        if wanted and (got := _digest(path, kind)) != wanted.lower():
            return f"its {kind} is {got} instead of {wanted.lower()}"
    return ""


def _digest(path: Path, kind: str) -> str:
    digest = hashlib.new(kind, usedforsecurity=False)
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _source(file: DataFile) -> str:
    return f" from {file.urls[0]}" if file.urls else ""


def _from_any(file: DataFile, path: Path, attempts: int, timeout_s: float) -> None:
    partial = path.with_name(f".{path.name}.partial")
    failures = []
    for url in file.urls:
        try:
            with writing(path):
                _download(url, file, partial, attempts, timeout_s)
                if problem := _difference(partial, file):
                    raise DatasetError(f"what came {problem}")
                sync(partial)
                partial.replace(path)
                sync(path.parent)
            _note(partial).unlink(missing_ok=True)
            return
        except _Gone as error:
            failures.append(f"{url}: {error}")  # what came so far is kept for the next call
        except DatasetError as error:
            failures.append(f"{url}: {error}")
            _forget(partial)
    raise DatasetError(f"{file.name} cannot be fetched: {'; '.join(failures)}. Try later, or put it at {path}")


class _Gone(DatasetError):
    """The server cannot be reached, or closes the connection repeatedly; the part received so far is valid."""


def _download(url: str, file: DataFile, partial: Path, attempts: int, timeout_s: float) -> None:
    if not url.startswith(("http://", "https://")):
        raise DatasetError("only http and https are supported")
    with _bar(file) as advance:
        for attempt in range(1, attempts + 1):
            try:
                _receive(url, file, partial, timeout_s, advance)
                return
            except urllib.error.HTTPError as error:
                if error.code < 500:
                    raise DatasetError(f"the server answers {error.code} {error.reason}") from error
                failure: Exception = error
            except (http.client.HTTPException, urllib.error.URLError, TimeoutError, ConnectionError) as error:
                failure = error
            if attempt == attempts:
                raise _Gone(f"broke off {attempts} times, last with: {failure}") from failure
            time.sleep(PAUSE_S * 2 ** (attempt - 1))


def _receive(url: str, file: DataFile, partial: Path, timeout_s: float, advance: Callable[[int, int], None]) -> None:
    """One request; appends to `partial` where the server agrees that it is the same file."""
    have = own_size(partial)
    tag = _tag(partial, url)
    if have and not tag:
        _forget(partial)  # nothing says that the server's file is still the one it was
        have = 0
    headers = {"User-Agent": f"spikecore/{__version__}", "Accept-Encoding": "identity"}
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": tag}
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=timeout_s)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        error.close()
        if error.headers.get("Content-Range") == f"bytes */{have}":
            return  # all of it had come
        _forget(partial)
        raise ConnectionError("the server's file has changed") from error
    with response:
        if "text/html" in response.headers.get("Content-Type", "") and not file.name.endswith((".html", ".htm")):
            raise DatasetError("a web page came instead of the file; open the address in a browser to see what it says")
        resumed = response.status == 206
        if resumed and not re.match(rf"bytes {have}-\d+/", response.headers.get("Content-Range", "")):
            _forget(partial)
            raise ConnectionError("the server resumes at another offset than requested")
        start = have if resumed else 0
        declared = response.headers.get("Content-Length")
        total = start + int(declared) if declared and declared.isdecimal() else None
        if file.size is not None and total is not None and total != file.size:
            raise DatasetError(f"the server's file has {total} bytes instead of {file.size}")
        mark = response.headers.get("ETag", "")
        if not mark or mark.startswith("W/"):  # a weak tag also stands for files that differ in some bytes
            mark = response.headers.get("Last-Modified", "")
        write_file(_note(partial), json.dumps({"url": url, "tag": mark}))
        _append(response, partial, file, start, total, advance)


def _append(
    response: http.client.HTTPResponse,
    partial: Path,
    file: DataFile,
    start: int,
    total: int | None,
    advance: Callable[[int, int], None],
) -> None:
    count = start
    with open_part(partial, start) as stream:
        while chunk := response.read(CHUNK):
            if count == 0 and _is_page(chunk) and not file.name.endswith((".html", ".htm")):
                raise DatasetError("a web page came instead of the file; open the address in a browser to read it")
            count += len(chunk)
            if file.size is not None and count > file.size:
                raise DatasetError(f"more than the expected {file.size} bytes came")
            stream.write(chunk)
            advance(count, total or file.size or 0)
        stream.flush()
        os.fsync(stream.fileno())
    if total is not None and count < total:
        raise http.client.IncompleteRead(b"", total - count)


def _is_page(head: bytes) -> bool:
    return head[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith((b"<!doctype html", b"<html"))


def _note(partial: Path) -> Path:
    return partial.with_name(f"{partial.name}.json")


def _tag(partial: Path, url: str) -> str:
    """The server's mark of the file whose beginning we have; "" where it gave none or it is another's."""
    try:
        note = parse_json(read_file(_note(partial), MOST_NOTE_BYTES), most_bytes=MOST_NOTE_BYTES)
        return str(note["tag"]) if note["url"] == url else ""
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _forget(partial: Path) -> None:
    discard(partial)
    discard(_note(partial))


@contextmanager
def _bar(file: DataFile) -> Iterator[Callable[[int, int], None]]:
    """A progress bar of bytes; silent when not on a terminal."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(file.name, total=file.size)
        yield lambda done, total: bar.update(task, completed=done, total=total or None)

"""The base of datasets that others recorded: fetch → verify → extract → recordings; and the layouts they share.

What each of them is stands in `declarations.py`; how it is laid out, in `catalogue.py`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import ClassVar, Literal

from spikecore.datasets import DataFile, extract, fetch, make_directory
from spikecore.errors import DatasetError
from spikecore.files import read_file
from spikecore.interfaces import DatasetCapabilities
from spikecore_datasets_dvs import rar
from spikecore_datasets_dvs.dataset import EventDataset, Recording
from spikecore_datasets_dvs.events import Events, Unit
from spikecore_datasets_dvs.formats import read_events

MOST_TEXT_BYTES = 1 << 28
"""Of a list of names and labels; that of a million recordings has 50 MB."""
ARCHIVES = (".zip", ".tar.gz", ".tgz", ".tar", ".rar")


class NamedDataset(EventDataset):
    """Base: `present` shows that the files are there; else the archives are fetched and unpacked."""

    capabilities: ClassVar[DatasetCapabilities] = dataclasses.replace(
        EventDataset.capabilities,
        same_samples=(*EventDataset.capabilities.same_samples, "root"),  # of the published files, which are verified
    )
    present: ClassVar[tuple[str, ...]]
    """Patterns below the dataset's directory; any match means that it is unpacked."""
    repacks: ClassVar[tuple[DataFile, ...]] = ()
    """Archives of others that hold the same data in another form; used where a person has put them there."""
    nested: ClassVar[bool] = False
    """The archives hold archives."""
    unit: ClassVar[Unit | Literal["auto"]] = "auto"
    """Of times, where its authors' files do not state it."""

    @dataclass(frozen=True)
    class Config(EventDataset.Config):
        """
        Args:
            allow_partial: take fewer or more recordings than were published.
        """

        allow_partial: bool = False

    def prepare(self) -> Path:
        root = self.directory
        extracted = root / "extracted"
        if not extracted.is_dir():
            if self._is_unpacked(root):
                return root  # a person did it
            if not self.info.files:
                raise DatasetError(f"{root}: holds nothing of {self.info.title}; {self.info.manual}")
            root.mkdir(parents=True, exist_ok=True)
            archives = self._archives(root)

            def fill(aside: Path) -> None:
                for path in archives:
                    if path.name.endswith(ARCHIVES):  # and not a list of labels
                        self._unpack(path, aside / _stem(path))

            make_directory(extracted, fill, resumable=True)
        if not self._is_unpacked(extracted):
            raise DatasetError(
                f"{extracted}: nothing there matches {' or '.join(self.present)}; is this {self.info.title}? "
                "Delete this directory, and get the archives again"
            )
        return extracted

    def _is_unpacked(self, root: Path) -> bool:
        return root.is_dir() and any(_matches(root, pattern) for pattern in self.present)

    def _archives(self, root: Path) -> list[Path]:
        for file in self.repacks:
            if (root / file.name).is_file():
                others = [other for other in self.repacks if (root / other.name).is_file()]
                return [fetch(other, root) for other in others]
        return [fetch(file, root, manual=self.info.manual) for file in self.info.files]

    def _unpack(self, path: Path, into: Path) -> None:
        if path.name.endswith(".rar"):
            if ".part" not in path.name or path.name.endswith((".part1.rar", ".part01.rar")):
                rar.extract(path, into)
            return
        extract(path, into)
        if self.nested and not into.is_symlink():  # as somebody may have left it: archives elsewhere stay as they are
            for inner in sorted(into.rglob("*.zip")):
                if not inner.name.startswith("."):
                    extract(inner, inner.with_suffix(""))

    def counted(self, by_split: dict[str, list[Recording]]) -> dict[str, list[Recording]]:
        """The recordings themselves.

        Raises:
            DatasetError: they are not as many as were published.
        """
        wanted = dict(self.info.num_samples)
        got = {name: len(recordings) for name, recordings in by_split.items()}
        if "all" in wanted:
            got = {"all": sum(got.values())}
        wrong = [f"{got[name]} of {count} ({name})" for name, count in wanted.items() if got.get(name) != count]
        if wrong and not self.config.allow_partial:
            raise DatasetError(
                f"{self.name}: there are {', '.join(wrong)} recordings: files are missing or double. Get the archives "
                "again, or set allow_partial = true"
            )
        return by_split

    def read(self, directory: Path, recording: Recording) -> Events:
        return read_events(directory / recording.path, sensor_size=self.sensor_size, unit=self.unit)


def _matches(top: Path, pattern: str) -> bool:
    """Whether anything matches; what is hidden is unfinished, and does not count."""
    paths = (path.relative_to(top) for path in top.glob(pattern))
    return any(not any(part.startswith(".") for part in path.parts) for path in paths)


def _stem(path: Path) -> str:
    return next((path.name.removesuffix(suffix) for suffix in ARCHIVES if path.name.endswith(suffix)), path.stem)


def the_directory(top: Path, *names: str, depth: int = 4) -> Path:
    """The nearest directory of one of these names at or below `top`; of several in one another, the innermost.

    An archive is unpacked into a directory of its own name, and often holds one of the same name.

    Raises:
        DatasetError: there is none.
    """
    level = [top]
    for _ in range(depth):
        for name in names:
            if inner := next((path for path in level if path.name == name), None):
                while (inner / name).is_dir():
                    inner = inner / name
                return inner
        level = sorted(path for parent in level for path in parent.iterdir() if path.is_dir() and path.name[0] != ".")
    raise DatasetError(f"{top}: holds no directory {' or '.join(names)}; files are missing, get the archives again")


def text(path: Path, what: str) -> str:
    """The content of a list that came with the data.

    Raises:
        DatasetError: it is missing, or no text.
    """
    try:
        return read_file(path, MOST_TEXT_BYTES, follows_link=True).decode("utf-8")
    except FileNotFoundError as error:
        raise DatasetError(f"{path}: the {what} is missing; get the archive again") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: cannot be read: {error}; get the archive again") from error


def below(top: Path, name: str, source: Path) -> Path:
    """The file that a list names, below a directory.

    Args:
        top: the directory.
        name: as it stands in the list.
        source: the list.

    Raises:
        DatasetError: the name is an absolute path, or goes up.
    """
    plain = PurePosixPath(name)
    if plain.is_absolute() or ".." in plain.parts or "\0" in name:
        raise DatasetError(f"{source}: names {name!r}, which leads out of {top}; get the archive again")
    return top / plain


def table(path: Path, classes: int, separator: str | None = None) -> list[tuple[str, int]]:
    """Lines `name label`.

    Raises:
        DatasetError: the file is missing, a line is not of this form, or a label is out of range.
    """
    lines = text(path, "file of labels").splitlines()
    rows = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        name, _, label = line.strip().rpartition(separator or ("," if "," in line else " "))
        if not name or not re.fullmatch(r"[0-9]{1,9}", label.strip()):
            raise DatasetError(f"{path}: line {number} is {line!r}; a name and a label were expected")
        if int(label) >= classes:
            raise DatasetError(f"{path}: line {number} has the unknown class {label}; there are {classes}")
        rows.append((name.strip(), int(label)))
    return rows


def numbered(recordings: Sequence[Recording]) -> list[Recording]:
    """In the order of the last number in each file's name."""

    def key(recording: Recording) -> tuple[int, str]:
        digits = "".join(c if c.isdigit() else " " for c in Path(recording.path).stem).split()
        return (int(digits[-1]) if digits else 0, recording.path)

    return sorted(recordings, key=key)

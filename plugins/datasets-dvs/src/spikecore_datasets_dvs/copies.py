"""Files of equal content in two splits: what is trained on would be tested on.

Files are compared by size, then by the SHA-256 of their first bytes, and only where both agree by that of the whole: in
most folders hardly a byte is read.
"""

from __future__ import annotations

import hashlib
import warnings
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from spikecore.errors import DatasetError

HEAD = 1 << 16
"""Bytes that are compared first."""
PIECE = 1 << 22
SHOWN = 5


def check_no_copies(splits: Mapping[str, Sequence[Path]], otherwise: Literal["error", "warn"] = "error") -> None:
    """No file of one split has the content of a file of another one.

    Args:
        splits: the files of each; what cannot be read is left to whoever reads it.
        otherwise: what to do where one has.

    Raises:
        DatasetError: one has.
    """
    names: dict[Path, set[str]] = defaultdict(set)  # parts of one file may be in several
    for name, paths in splits.items():
        for path in paths:
            names[path].add(name)
    copies = []
    for group in equal_files(names):
        first = group[0]
        copies += [(first, other) for other in group[1:] if len(names[first] | names[other]) > 1]
    if not copies:
        return
    shown = [[f"{path} ({', '.join(sorted(names[path]))})" for path in pair] for pair in copies[:SHOWN]]
    pairs = "; ".join(" and ".join(pair) for pair in shown)
    more = f" … {len(copies)} pairs in all" if len(copies) > SHOWN else ""
    text = (
        f"the same content is in two splits, so tests would see what was trained on: {pairs}{more}. Remove one of "
        'them, or keep them in one split (train/…, test/…, subject_pattern); duplicates = "warn" takes them as they are'
    )
    if otherwise == "error":
        raise DatasetError(text)
    warnings.warn(text, stacklevel=2)


def equal_files(paths: Iterable[Path]) -> list[list[Path]]:
    """Groups of at least two files of the same content, in the order given."""
    groups = [list(paths)]
    tests: tuple[Callable[[Path], Hashable], ...] = (_size, _head, _whole)
    for test in tests:
        finer = []
        for group in groups:
            by_value: dict[Hashable, list[Path]] = defaultdict(list)
            for path in group:
                by_value[test(path)].append(path)
            finer += [part for value, part in by_value.items() if value is not None and len(part) > 1]
        groups = finer
    return groups


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size or None if path.is_file() else None  # empty files are errors of their own
    except OSError:
        return None


def _head(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            return hashlib.sha256(file.read(HEAD)).digest()
    except OSError:
        return None


def _whole(path: Path) -> bytes | None:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while piece := file.read(PIECE):
                digest.update(piece)
    except OSError:
        return None
    return digest.digest()

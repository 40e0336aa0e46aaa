"""Anyone's files in a directory per class, with or without `train` and `test` above.

root/cat/a.png   root/dog/b.png …            root/train/cat/a.png   root/test/cat/b.png …
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from spikecore.errors import DatasetError


def is_class(path: Path) -> bool:
    """Whether a directory is one of a class: hidden ones and what macOS leaves are not."""
    return path.is_dir() and not path.name.startswith((".", "__MACOSX"))


def tops(root: Path, splits: Sequence[str]) -> list[Path]:
    """The directories that hold those of the classes: one for each split where all of them are there, else the root.

    Raises:
        DatasetError: the root is no directory.
    """
    if not root.is_dir():
        raise DatasetError(f"{root}: is not a directory; option 'root' should hold one per class")
    halves = [root / split for split in splits]
    return halves if all(half.is_dir() for half in halves) else [root]


def class_names(directories: Sequence[Path]) -> tuple[str, ...]:
    """The classes that are found in any of them, in alphabetical order: label order."""
    return tuple(sorted({path.name for top in directories for path in top.iterdir() if is_class(path)}))


def labelled(directory: Path, classes: Sequence[str], pattern: str = "*") -> list[tuple[Path, int]]:
    """The files of each class's directory with their labels, in order.

    Args:
        directory: holds a directory per class.
        classes: their names, in label order.
        pattern: of the files.

    Raises:
        DatasetError: the directory is missing, or one in it is no class.
    """
    if not directory.is_dir():
        raise DatasetError(f"{directory}: is missing; it should hold a directory for each class")
    labels = {name: i for i, name in enumerate(classes)}
    found = []
    for path in sorted(directory.iterdir()):
        if not is_class(path):
            continue
        if path.name not in labels:
            some = ", ".join(classes[:12]) + (f" … {len(classes)} in all" if len(classes) > 12 else "")
            raise DatasetError(f"{path}: is the directory of an unknown class (classes: {some})")
        files = [file for file in sorted(path.glob(pattern)) if file.is_file() and not file.name.startswith(".")]
        found += [(file, labels[path.name]) for file in files]
    return found

"""Files in one directory per class, with or without directories `train` and `test` around them.

root/cat/a.png   root/dog/b.png …            root/train/cat/a.png   root/test/cat/b.png …
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from spikecore.errors import DatasetError


def is_class(path: Path) -> bool:
    """Is this the directory of a class? Hidden directories and those that macOS leaves in archives are not."""
    return path.is_dir() and not path.name.startswith((".", "__MACOSX"))


SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
"""Split → how its directory may be called, in upper or lower case."""


def split_directories(root: Path) -> dict[str, Path]:
    """The directories of the splits, in the order train, val, test; empty where classes lie at the root.

    Raises:
        DatasetError: the root is no directory, a split is there twice or missing, or a directory beside the splits
            holds the same classes and would be passed over.
    """
    if not root.is_dir():
        raise DatasetError(f"{root}: is not a directory; option 'root' should hold one per class")
    halves: dict[str, Path] = {}
    beside = []
    for path in sorted(root.iterdir()):
        if not is_class(path) or not any(map(is_class, path.iterdir())):
            continue  # a class may have the name of a split, but holds no directories
        split = next((split for split, names in SPLITS.items() if path.name.lower() in names), None)
        if split is None:
            beside.append(path)
            continue
        if split in halves:
            raise DatasetError(f"{root}: {halves[split].name!r} and {path.name!r} are the same split; keep one of them")
        halves[split] = path
    if not halves:
        return {}
    for needed in ("train", "test"):
        if needed not in halves:
            half = next(iter(halves.values()))
            raise DatasetError(
                f"{root}: has {half.name!r} with a directory per class, but no {needed!r}; add it, or give {half} "
                "as root"
            )
    classes = set(class_names(list(halves.values())))
    if others := [path.name for path in beside if classes & set(class_names([path]))]:
        splits = ", ".join(half.name for half in halves.values())
        raise DatasetError(
            f"{root}: {', '.join(map(repr, others))} beside the splits {splits} would be passed over: call a "
            "directory for validation 'val', and move others away"
        )
    return {split: halves[split] for split in SPLITS if split in halves}


def tops(root: Path, splits: Sequence[str]) -> list[Path]:
    """The directories that contain the class directories: one per split if all splits exist, else the root.

    Raises:
        DatasetError: the root is no directory, only some of the splits are there, or one that is not asked for.
    """
    halves = split_directories(root)
    if not halves:
        return [root]
    if missing := [split for split in splits if split not in halves]:
        half = next(iter(halves.values()))
        raise DatasetError(
            f"{root}: has {half.name!r} with a directory per class, but no {missing[0]!r}; add it, or give {half} "
            "as root"
        )
    if others := [path.name for split, path in halves.items() if split not in splits]:
        raise DatasetError(
            f"{root}: {others[0]!r} would be passed over; only {', '.join(splits)} are read: move it away"
        )
    return [halves[split] for split in splits]


def class_names(directories: Sequence[Path]) -> tuple[str, ...]:
    """The classes that are found in any of them, in alphabetical order: label order."""
    names: set[str] = set()
    for top in directories:
        names.update(path.name for path in top.iterdir() if is_class(path))
    return tuple(sorted(names))


def labelled_files(directory: Path, classes: Sequence[str], pattern: str = "*") -> list[tuple[Path, int]]:
    """The files of each class's directory with their labels, in order.

    Args:
        directory: holds a directory per class.
        classes: their names, in label order.
        pattern: of the files.

    Raises:
        DatasetError: the directory is missing, one in it is no class, or a link leads nowhere.
    """
    if not directory.is_dir():
        raise DatasetError(f"{directory}: is missing; it should hold a directory for each class")
    labels = {name: i for i, name in enumerate(classes)}
    samples = []
    for path in sorted(directory.iterdir()):
        _check_link(path)
        if not is_class(path):
            continue
        if path.name not in labels:
            more = f" … {len(classes)} in all" if len(classes) > 12 else ""
            raise DatasetError(
                f"{path}: is the directory of an unknown class (classes: {', '.join(classes[:12])}{more})"
            )
        for file in sorted(path.glob(pattern)):
            _check_link(file)
            if file.is_file() and not file.name.startswith("."):
                samples.append((file, labels[path.name]))
    return samples


def _check_link(path: Path) -> None:
    if path.is_symlink() and not path.exists() and not path.name.startswith("."):
        raise DatasetError(f"{path}: is a link to {path.readlink()}, which does not exist; fix or remove it")


def check_filled(parts: Sequence[tuple[Path, set[int]]], classes: Sequence[str], what: str) -> None:
    """Every class has something to learn from, and no directory is empty.

    Args:
        parts: each directory that holds those of the classes, the first one of them to learn from; the labels found.
        classes: their names, in label order.
        what: should be in a directory, as in `images (suffixes: .png)`.

    Raises:
        DatasetError: a class has nothing in the first part, or a directory of another part has nothing.
    """
    (top, labels), *others = parts
    if missing := [name for label, name in enumerate(classes) if label not in labels]:
        has = "has" if len(missing) == 1 else "have"
        raise DatasetError(f"{top}: {_some(missing)} {has} no {what}; every class needs some to learn from")
    for top, labels in others:
        if empty := [name for name in class_names([top]) if classes.index(name) not in labels]:
            raise DatasetError(f"{top}: the directory of {_some(empty)} holds no {what}; fill or remove it")


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, names[:5]))
    if len(names) == 1:
        return f"class {shown}"
    return f"the classes {shown} …" if len(names) > 5 else f"the classes {shown}"

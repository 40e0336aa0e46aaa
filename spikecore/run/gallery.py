"""What a run shows, kept in its directory: the latest value of each name.

shown/000-confusion-1f0c2a9b.safetensors    the value: its tensors, and the rest as JSON; no pickle

All of it is part of every checkpoint too, so a resumed run shows what it showed then.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spikecore.errors import CheckpointError, ContractError
from spikecore.files import clean, discard, refuse_link
from spikecore.interfaces.show import SHOWN, Shown
from spikecore.run.tree import read_tree, write_tree

FOLDER = "shown"
SUFFIX = ".safetensors"
MAX_NAMES = 100
MAX_NAME = 80
KINDS: dict[str, type[Shown]] = {shape.kind: shape for shape in SHOWN}


class Gallery:
    """What has been shown so far.

    Attributes:
        values: name → value, in the order in which the names came.
        directory: of the run; None to keep nothing on disk, as in a notebook.
    """

    def __init__(self) -> None:
        self.values: dict[str, Shown] = {}
        self.directory: Path | None = None

    def show(self, name: str, value: Shown) -> None:
        """Keep a value in place of the one that this name had.

        Raises:
            ContractError: the value is none of the declared ones, the name cannot be kept, or there are too many.
            OSError: the disk refused.
        """
        if not isinstance(value, SHOWN):
            kinds = ", ".join(shape.__name__ for shape in SHOWN)
            raise ContractError(f"show({name!r}, ...) takes one of {kinds} of spikecore.interfaces, got {value!r:.80}")
        _check_name(name)
        if name not in self.values and len(self.values) >= MAX_NAMES:
            raise ContractError(f"show: {MAX_NAMES} names are in use; show {name!r} under one of them")
        self.values[name] = value
        self._write(name)

    def state(self) -> list[dict[str, Any]]:
        """For a checkpoint."""
        return [to_plain(name, value) for name, value in self.values.items()]

    def restore(self, state: Sequence[Mapping[str, Any]]) -> None:
        """Go back to what was shown when a checkpoint was written; `rewrite` does so on disk.

        Raises:
            CheckpointError: this is no such state.
        """
        try:
            self.values = dict(from_plain(item) for item in state)
        except Exception as error:
            raise CheckpointError(f"what the run showed cannot be restored: {type(error).__name__}: {error}") from error

    def rewrite(self) -> None:
        """Make the files those of the values: what was shown after the checkpoint goes.

        Raises:
            OSError: the disk refused.
        """
        if self.directory is None:
            return
        folder = self.directory / FOLDER
        refuse_link(folder)
        for path in folder.glob(f"*{SUFFIX}"):
            discard(path)
        for name in self.values:
            self._write(name)

    def _write(self, name: str) -> None:
        if self.directory is None:
            return
        folder = self.directory / FOLDER
        refuse_link(folder)
        folder.mkdir(exist_ok=True)
        clean(folder)
        write_tree(folder / _file_name(list(self.values).index(name), name), to_plain(name, self.values[name]))


def read_gallery(directory: Path) -> tuple[dict[str, Shown], list[str]]:
    """What a run showed, and what of it cannot be read and why; raises nothing for a damaged file."""
    values: dict[str, Shown] = {}
    problems = []
    if (directory / FOLDER).is_symlink():
        return {}, [f"{FOLDER} is a link, which is not followed"]
    for path in sorted((directory / FOLDER).glob(f"*{SUFFIX}")):
        try:
            name, value = from_plain(read_tree(path))
            values[name] = value
        except Exception as error:  # whatever is in the file, the rest of the report is made
            problems.append(f"{FOLDER}/{path.name} is damaged: {type(error).__name__}: {error}")
    return values, problems


def to_plain(name: str, value: Shown) -> dict[str, Any]:
    """A value as data that `tree.flatten` takes."""
    fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return {"name": name, "kind": value.kind, "value": fields}


def from_plain(plain: Mapping[str, Any]) -> tuple[str, Shown]:
    """What `to_plain` was given, checked again."""
    _check_name(plain["name"])
    return plain["name"], KINDS[plain["kind"]](**plain["value"])


def _check_name(name: object) -> None:
    if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME or not name.isprintable():
        raise ContractError(f"show: a name is 1 to {MAX_NAME} printable characters, got {name!r:.120}")


def _file_name(index: int, name: str) -> str:
    """Sorts as the names came; readable, and not the same for two names."""
    word = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40]
    return f"{index:03d}-{word or 'value'}-{hashlib.sha256(name.encode()).hexdigest()[:8]}{SUFFIX}"

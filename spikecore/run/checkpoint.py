"""Checkpoints: a directory per checkpoint, complete or not there, every byte of it verified before it is used.

checkpoints/checkpoint-00000042/
    model.safetensors   the net's state_dict, as any program can read it
    state.safetensors   tensors of trainer, encoder and random generators
    large.safetensors   tensors of a state too large to be kept more than once (a replay buffer): newest checkpoint only
    run.json, config.toml, metrics.jsonl    what the run's own files held then: `run.rebuilding` puts them back
    checkpoint.json     the rest, with the SHA-256 of all these files and of itself

The number counts the trainer's safe points; names are ordered by it and by nothing else, so clocks do not matter.
There is no pickle anywhere.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, isfinite

from spikecore.documents import parse_json
from spikecore.errors import CheckpointError
from spikecore.files import clean, read_file, refuse_link, remove_directory, write_directory
from spikecore.run.log import EMPTY
from spikecore.run.tree import flatten, restore
from spikecore.run.typed import Mismatch, from_plain
from spikecore.version import __version__

FORMAT = 3
"""2: weights of its own beside the model's, a generator on the device, a large state. 3: the run's own files."""
FOLDER = "checkpoints"
MODEL, STATE, INDEX = "model.safetensors", "state.safetensors", "checkpoint.json"
LARGE = "large.safetensors"
KEPT = ("run.json", "config.toml", "metrics.jsonl")
LAST, BEST = "last", "best"
NUM_SHOWN = 8
MOST_INDEX_BYTES = 1 << 28
_NAME = re.compile(r"checkpoint-(\d{8,})")


@dataclass(frozen=True)
class FileSum:
    """A file of a checkpoint, or the start of one."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Index:
    """Form of `checkpoint.json`; anybody can sign one, so its types are verified too."""

    format: int
    spikecore: str
    run: str
    count: int
    score: float | None
    written: str
    timings_s: dict[str, float]
    pace_s: list[float]
    log: FileSum
    model: dict[str, Any]
    state: dict[str, Any]
    large: dict[str, Any]
    files: dict[str, FileSum]
    kept: dict[str, FileSum]


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint, verified.

    Args:
        name: of its directory.
        count: safe points passed when it was written.
        model: the net's state_dict, or what the trainer gave in its place.
        state: what else is needed to go on: trainer, encoder, random generators.
        large: the trainer's large state; empty where it has none, or was not asked for.
        score: of the net, higher is better; None where it was not evaluated.
        log: length and SHA-256 of `metrics.jsonl` when it was written.
        timings: seconds spent so far, by part.
        pace: seconds since the epoch began, then those of the latest epochs.
    """

    name: str
    count: int
    model: dict[str, Any]
    state: dict[str, Any]
    score: float | None
    log: dict[str, Any]
    timings: dict[str, float]
    pace: list[float]
    large: dict[str, Any]


class CheckpointStore:
    """The checkpoints of one run.

    Args:
        directory: the run directory.
        run: the run's id; a checkpoint of another run is refused.
        keep_last: how many of the newest stay.
        keep_best: the one with the highest score stays too; one whose weights or score are not finite has none.
    """

    def __init__(self, directory: Path, run: str, keep_last: int = 2, keep_best: bool = True) -> None:
        self.directory = directory
        self._folder = directory / FOLDER
        self._run = run
        self._keep_last, self._keep_best = keep_last, keep_best
        self._scores: dict[str, float | None] = {}

    def path(self, name: str) -> Path:
        """Where a checkpoint lies."""
        return self._folder / name

    def names(self) -> list[str]:
        """All that are there, oldest first; nothing is verified.

        Raises:
            CheckpointError: the folder is a link, which may lead anywhere, or may not be read.
        """
        try:
            if self._folder.is_symlink():
                raise CheckpointError(f"{self._folder}: is a link, which is not followed: put the folder itself there")
            if not self._folder.is_dir():
                return []
            names = [path.name for path in self._folder.iterdir() if _NAME.fullmatch(path.name)]
        except OSError as error:
            raise CheckpointError(f"{self._folder}: cannot be read: {error.strerror}") from None
        return sorted(names, key=_number)

    def save(
        self,
        count: int,
        model: Mapping[str, Any],
        state: Mapping[str, Any],
        *,
        large: Mapping[str, Any] | None = None,
        score: float | None = None,
        log: Mapping[str, Any] | None = None,
        timings: Mapping[str, float] | None = None,
        pace: Sequence[float] = (),
        kept: Mapping[str, bytes] | None = None,
    ) -> str:
        """Write a checkpoint, then delete those that are no longer kept, and the large state of those that are.

        Where one of this number is there, and the same, nothing is written; where it differs, the next number is taken.

        Raises:
            ContractError: the state holds something that cannot be saved.
            OSError: the disk refused; what was there before is untouched.
        """
        name = _name(count)
        files, body = _pack(model, state, large or {})
        if name in self.names():
            if self._same(name, body):
                return name
            more = {"large": large, "score": score, "log": log, "timings": timings, "pace": pace, "kept": kept}
            return self.save(count + 1, model, state, **more)  # type: ignore[arg-type]
        score = _finite(score) if score is not None and are_finite(model) else None
        head = {"format": FORMAT, "spikecore": __version__, "run": self._run, "count": count, "score": score}
        written = datetime.now(timezone.utc).isoformat()
        times = {"written": written, "timings_s": dict(timings or {}), "pace_s": list(pace)}
        kept = kept or {}
        body = {**head, **times, "log": dict(log or EMPTY), **body, "kept": _sums(kept)}
        body["sha256"] = _digest(body)
        # Not its parents: a run directory that was removed must not come back with half of its files.
        self._folder.mkdir(exist_ok=True)
        write_directory(self._folder / name, {**files, **kept, INDEX: json.dumps(body, indent=1).encode()})
        self._scores[name] = score
        self._prune()
        return name

    def read(self, name: str, *, with_large: bool = False) -> Checkpoint:
        """The checkpoint, after every byte of it was verified.

        Args:
            name: its name.
            with_large: its large state as well, which is needed to go on with training.

        Raises:
            CheckpointError: it is missing, incomplete, damaged, from a foreign version or of another run; or its large
                state is asked for and was not kept.
        """
        path = self._folder / name
        body = self._index(name)
        if body["run"] != self._run:
            raise CheckpointError(f"{path}: belongs to run {body['run']}, this is run {self._run}: it was copied here")
        if body["count"] != _number(name):  # names tell the order, so a wrong one would bring back what is older
            raise CheckpointError(
                f"{path}: was renamed: it was written as {_name(body['count'])}; give it that name again"
            )
        tensors = {file: _tensors(path / file, body["files"][file]) for file in (MODEL, STATE)}
        try:
            model, state = restore(body["model"], tensors[MODEL]), restore(body["state"], tensors[STATE])
        except (TypeError, ValueError, RecursionError) as error:
            raise CheckpointError(f"{path}: is damaged: {type(error).__name__}: {error}") from error
        if not isinstance(model, dict) or not isinstance(state, dict):
            raise CheckpointError(f"{path}: is damaged: its model and state must be tables of names")
        return Checkpoint(
            name=name,
            count=body["count"],
            model=model,
            state=state,
            score=body["score"],
            log=body["log"],
            timings=body["timings_s"],
            pace=body["pace_s"],
            large=self._large(name, body) if with_large else {},
        )

    def kept(self, name: str) -> dict[str, bytes]:
        """The run's own files as they were when this checkpoint was written, each verified.

        Raises:
            CheckpointError: one is missing or damaged, or the checkpoint is another run's; a store of run "" takes any.
        """
        body = self._index(name)
        if self._run and body["run"] != self._run:
            raise CheckpointError(f"{self._folder / name}: belongs to run {body['run']}, this is run {self._run}")
        if not set(KEPT) <= set(body["kept"]):
            raise CheckpointError(f"{self._folder / name}: does not keep {', '.join(KEPT)}")
        return {file: _read_verified(self._folder / name / file, body["kept"][file]) for file in KEPT}

    def weight_bytes(self, name: str) -> int:
        """Size of the file of weights; 0 where there is none. Nothing is verified."""
        try:
            refuse_link(self._folder / name)
            return (self._folder / name / MODEL).lstat().st_size
        except OSError:
            return 0

    def log_position(self, name: str) -> Mapping[str, Any]:
        """Length and SHA-256 of `metrics.jsonl` at this checkpoint."""
        position: Mapping[str, Any] = self._index(name)["log"]
        return position

    def best(self) -> str | None:
        """The first one with the highest score; None where no score is known."""
        best, highest = None, -math.inf
        for name in self.names():
            score = self._score(name)
            if score is not None and score > highest:
                best, highest = name, score
        return best

    def find(self, which: str) -> str:
        """The checkpoint that `last`, `best` or a name means.

        Raises:
            CheckpointError: there is none.
        """
        names = self.names()
        if not names:
            raise CheckpointError(f"{self.directory}: holds no checkpoint yet")
        name: str | None = which
        if which == LAST:
            name = names[-1]
        elif which == BEST:
            name = self.best()
        if name is None:
            raise CheckpointError(f"{self.directory}: no checkpoint has a score; use {LAST!r} or one of {_list(names)}")
        if name not in names:
            raise CheckpointError(f"{self.directory}: no checkpoint {which!r}; there are {_list(names)}")
        return name

    def keep_until(self, name: str | None) -> list[str]:
        """Go back to `name` (before the first, for None): what is newer goes, and what a crash left; returns the names
        of the newer ones.
        """
        if self._folder.is_dir():
            clean(self._folder)
        gone = [other for other in self.names() if name is None or _number(other) > _number(name)]
        for other in gone:
            remove_directory(self._folder / other)
        self._prune()  # a crash may have come before it
        return gone

    def _large(self, name: str, body: Mapping[str, Any]) -> dict[str, Any]:
        if LARGE not in body["files"]:
            return {}
        newest = self.names()[-1]
        if name != newest and not (self._folder / name / LARGE).exists():
            raise CheckpointError(
                f"{self._folder / name}: cannot be resumed from: its trainer has a large state, which is kept with the "
                f"newest checkpoint only: resume from {newest}. `spike eval` and spikecore.load do not need it"
            )
        large: dict[str, Any] = restore(body["large"], _tensors(self._folder / name / LARGE, body["files"][LARGE]))
        return large

    def _prune(self) -> None:
        names = self.names()
        kept = set(names[-self._keep_last :])
        if self._keep_best and (best := self.best()):
            kept.add(best)
        for name in names:
            if name not in kept:
                remove_directory(self._folder / name)
            elif name != names[-1] and not (self._folder / name).is_symlink():  # what it leads to is not the run's
                (self._folder / name / LARGE).unlink(missing_ok=True)

    def _score(self, name: str) -> float | None:
        if name not in self._scores:
            try:
                self._scores[name] = self._index(name)["score"]
            except CheckpointError:
                return None
        return self._scores[name]

    def _same(self, name: str, body: Mapping[str, Any]) -> bool:
        try:
            there = self._index(name)
        except CheckpointError:
            return False
        return all(there[part] == body[part] for part in ("files", "model", "state", "large"))

    def _index(self, name: str) -> dict[str, Any]:
        path = self._folder / name / INDEX
        if path.parent.is_symlink():
            raise CheckpointError(f"{path.parent}: is a link, which is not followed: put the checkpoint itself there")
        try:
            body: dict[str, Any] = parse_json(read_file(path, MOST_INDEX_BYTES), most_bytes=MOST_INDEX_BYTES)
            version = body.get("format")
        except FileNotFoundError:
            raise CheckpointError(f"{path.parent}: is incomplete: {INDEX} is missing") from None
        except (OSError, ValueError, AttributeError) as error:
            raise CheckpointError(f"{path}: is damaged: {type(error).__name__}: {error}") from error
        if version != FORMAT:
            raise CheckpointError(
                f"{path}: is in checkpoint format {version!r}, written by spikecore {body.get('spikecore')}; this is "
                f"spikecore {__version__}, which reads format {FORMAT}: use the version that wrote it"
            )
        if body.pop("sha256", None) != _digest(body):
            raise CheckpointError(f"{path}: is damaged: its content does not have its own SHA-256")
        try:
            index: Index = from_plain(Index, body)
        except Mismatch as error:
            raise CheckpointError(f"{path}: is damaged: {error}") from error
        if any(part.bytes < 0 for part in (index.log, *index.files.values(), *index.kept.values())):
            raise CheckpointError(f"{path}: is damaged: it names a length below 0")
        if missing := {MODEL, STATE} - set(index.files):
            raise CheckpointError(f"{path}: is damaged: it does not know {', '.join(sorted(missing))}")
        return body


def differences(expected: Mapping[str, Any], saved: Mapping[str, Any]) -> list[str]:
    """How the tensors of a checkpoint differ from those of a net: keys, shapes, dtypes."""
    lines = [f"{key}: missing from the checkpoint" for key in expected if key not in saved]
    lines += [f"{key}: unknown to the net" for key in saved if key not in expected]
    for key in expected:
        if key in saved and _form(expected[key]) != _form(saved[key]):
            lines.append(f"{key}: {_form(saved[key])} in the checkpoint, {_form(expected[key])} in the net")
    return lines


def refuse_other_model(path: Path, expected: Mapping[str, Any], saved: Mapping[str, Any]) -> None:
    """Raises `CheckpointError` with the differing keys unless both describe the same net."""
    lines = differences(expected, saved)
    if lines:
        more = [f"and {len(lines) - NUM_SHOWN} more"] if len(lines) > NUM_SHOWN else []
        text = "\n  ".join([*lines[:NUM_SHOWN], *more])
        raise CheckpointError(f"{path}: is of another model than the one this configuration builds:\n  {text}")


def _pack(
    model: Mapping[str, Any], state: Mapping[str, Any], large: Mapping[str, Any]
) -> tuple[dict[str, bytes], dict[str, Any]]:
    """The files of a checkpoint, and what its index says of them."""
    parts = {"model": (MODEL, model), "state": (STATE, state)}
    if large:
        parts["large"] = (LARGE, large)
    files: dict[str, bytes] = {}
    body: dict[str, Any] = {"large": {}}
    for part, (name, content) in parts.items():
        body[part], tensors = flatten(content)
        files[name] = save_tensors(tensors)
    body["files"] = _sums(files)
    return files, body


def _sums(files: Mapping[str, bytes]) -> dict[str, dict[str, Any]]:
    return {name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()}


def _tensors(path: Path, expected: Mapping[str, Any]) -> dict[str, Tensor]:
    data = _read_verified(path, expected)
    try:
        return load_tensors(data)
    except SafetensorError as error:  # the sums fit, so this is how it was written
        raise CheckpointError(f"{path}: cannot be read: {error}") from error


def _read_verified(path: Path, expected: Mapping[str, Any]) -> bytes:
    try:
        size = path.lstat().st_size
        if size != expected["bytes"]:  # before a file with holes fills the memory
            raise CheckpointError(f"{path}: is truncated or padded: {size} bytes, {expected['bytes']} were written")
        data = read_file(path, size)
    except FileNotFoundError:
        raise CheckpointError(f"{path.parent}: is incomplete: {path.name} is missing") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from error
    if hashlib.sha256(data).hexdigest() != expected["sha256"]:
        raise CheckpointError(f"{path}: is damaged: its content does not have the SHA-256 of what was written")
    return data


def _digest(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _form(value: Any) -> str:
    return f"{tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}" if isinstance(value, Tensor) else "data"


def are_finite(model: Mapping[str, Any]) -> bool:
    """Whether no weight is nan or infinite: a net of such weights may have a score, but is never the best."""
    tensors = (value for value in model.values() if isinstance(value, Tensor) and value.is_floating_point())
    return all(bool(isfinite(tensor).all()) for tensor in tensors)


def _finite(score: float | None) -> float | None:
    return float(score) if score is not None and math.isfinite(score) else None


def _name(count: int) -> str:
    return f"checkpoint-{count:08d}"


def _number(name: str) -> int:
    match = _NAME.fullmatch(name)
    if match is None:
        raise CheckpointError(f"{name!r} is no checkpoint's name; those look like 'checkpoint-00000042'")
    return int(match[1])


def _list(names: Sequence[str]) -> str:
    return ", ".join(names)

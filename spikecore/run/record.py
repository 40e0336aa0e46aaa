"""`run.json`: what ran, with which parts, where, and how it ended; always whole, written aside and renamed."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

from spikecore.documents import parse_json
from spikecore.errors import ConfigError
from spikecore.files import read_file, write_file
from spikecore.run.files import holder
from spikecore.run.log import finite
from spikecore.run.typed import Mismatch, from_plain
from spikecore.version import __version__

FILE = "run.json"
SCHEMA = 5
"""Raised when a field is added, dropped or changes its meaning."""
MOST_BYTES = 1 << 28
OLDER = {
    1: "it does not say which input and how many outputs the net has, so the net cannot be rebuilt from it",
    2: "it does not say which weights the net started from, nor what the files given with --load defined",
    3: "it does not say how many samples the run's splits held",
    4: "it does not say in which order the samples of the run's splits were",
}
"""Schema that is refused → why it cannot be read."""
OWN_SUM = "record_sha256"
"""Key of the checksum over all else: what is read was written by a run, to the last bit."""
RUNNING, DIED = "running", "died"
FINISHED, INTERRUPTED, FAILED = "finished", "interrupted", "failed"


def rebuilding_cure(directory: Path) -> str:
    """How the files of a damaged run are put back from a checkpoint; "" where it has none."""
    if not os.path.isdir(directory / "checkpoints"):  # unlike pathlib's, also False where nothing may be read
        return ""
    return f"`spike run --resume {directory}` rebuilds it from a checkpoint"


class DamageError(ConfigError):
    """The record is damaged or was edited. Where there are checkpoints, the message says how it is rebuilt from one.

    Args:
        path: of the record.
        reason: what is wrong with it.
    """

    def __init__(self, path: Path, reason: str) -> None:
        self.plain = f"{path}: {reason}"
        cure = rebuilding_cure(path.parent)
        super().__init__(f"{self.plain}; {cure}" if cure else self.plain)


class SchemaError(ConfigError):
    """The record is whole, and of a schema that this version does not read."""


@dataclass(frozen=True)
class WeightsRecord:
    """What a net started from.

    Args:
        name: of weights that ship with the model, or a file, as the configuration says it.
        sha256: of the file.
    """

    name: str
    sha256: str


@dataclass(frozen=True)
class NetRecord:
    """How a net was built.

    Args:
        role: the table that names its model.
        input_shape: of one step of one sample, without T and B.
        num_outputs: size of the output's last axis.
        weights: what it started from; None for new weights.
    """

    role: str
    input_shape: tuple[int, ...]
    num_outputs: int
    weights: WeightsRecord | None = None


@dataclass(frozen=True)
class ComponentRecord:
    """Which component filled a table, and whose it is."""

    name: str
    target: str
    plugin: str
    distribution: str
    version: str


@dataclass(frozen=True)
class PluginRecord:
    """A plugin that was there."""

    id: str
    distribution: str
    version: str
    target: str
    source: str
    status: str
    reason: str
    hooks: bool


@dataclass(frozen=True)
class FileRecord:
    """A file given with `--load`.

    Args:
        path: of the file.
        sha256: of its bytes.
        components: what it registered, each as `kind:name`.
    """

    path: str
    sha256: str
    components: tuple[str, ...]


@dataclass(frozen=True)
class BackendRecord:
    """What a neuron was asked to run on, what it ran on, and why."""

    asked: str
    ran: str
    reason: str


@dataclass(frozen=True)
class ResumeRecord:
    """One time that the run was resumed.

    Args:
        at: when.
        after: status before.
        checkpoint: it went on from; None for the seed.
        dropped_lines: lines of metrics newer than the checkpoint.
        dropped_checkpoints: newer than the one restored.
        changes: overrides given.
        environment, plugins: of this process.
        differs: what is not as it was before, and may change the numbers.
    """

    at: str
    after: str
    checkpoint: str | None
    dropped_lines: int
    dropped_checkpoints: list[str]
    changes: list[str]
    environment: dict[str, Any]
    plugins: list[PluginRecord]
    differs: list[str]


@dataclass
class Record:
    """A run: what it is, from its first moment on, and what became of it.

    Args:
        seed: `run.seed`.
        config_sha256: of `config.toml`.
        config: its tables.
        task: what the trainer learns from, `capabilities.task`.
        nets: name in the task's model ("" for the model itself) → how it was built; empty where the trainer makes its
            net itself.
        classes: names of the labels.
        samples: split (`train`, `val`, `test`) → how many samples it held, as the run used it: without those that
            `val_share` took from it; empty where the run has no data.
        labels: split → SHA-256 of its labels in their order, where the dataset knows them without reading samples.
        components: table → component.
        plugins, files, environment, git: see `run.provenance`.
        header: lines printed at the start.
        id: of the run; its checkpoints carry it.
        started, ended: times for people; nothing is ordered by them.
        status: `running`, `finished`, `interrupted` or `failed`; see `status_of`.
        exit_status: of the process; None while it runs.
        changes: overrides of every resumption.
        backends: layer → backend.
        timings_s: seconds per part, and `total`.
        metrics: the final ones; a number that is not finite is None.
        error: why it failed.
        notes: what the report could not show.
    """

    seed: int
    config_sha256: str
    config: dict[str, dict[str, Any]]
    task: str
    nets: dict[str, NetRecord]
    classes: list[str]
    samples: dict[str, int]
    labels: dict[str, str]
    components: dict[str, ComponentRecord]
    plugins: list[PluginRecord]
    files: list[FileRecord]
    environment: dict[str, Any]
    git: dict[str, Any] | None
    header: list[str]
    id: str = field(default_factory=lambda: secrets.token_hex(8))
    started: str = field(default_factory=lambda: now())
    ended: str | None = None
    status: Literal["running", "finished", "stopped", "interrupted", "failed"] = "running"
    exit_status: int | None = None
    changes: list[str] = field(default_factory=list)
    backends: dict[str, BackendRecord] = field(default_factory=dict)
    timings_s: dict[str, float] = field(default_factory=dict)
    resumes: list[ResumeRecord] = field(default_factory=list)
    metrics: dict[str, float | None] | None = None
    error: str | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def net(self) -> NetRecord:
        """How the net was built, where there is one and `parts.model` built it.

        Raises:
            ConfigError: there are several, or none.
        """
        if set(self.nets) != {""}:
            names = ", ".join(map(repr, self.nets)) or "none that core built"
            raise ConfigError(f"run {self.id} has not one net but {names}; ask for record.nets")
        return self.nets[""]

    def finish(self, metrics: Mapping[str, float]) -> None:
        """The run came to its end."""
        self.status, self.exit_status, self.metrics = "finished", 0, dict(metrics)

    def stop(self, reason: str) -> None:
        """A hook ended the run on purpose."""
        self.status, self.exit_status = "stopped", 0
        self.notes.append(f"Stopped by a hook: {reason}")

    def interrupt(self) -> None:
        """Ctrl-C was pressed."""
        self.status, self.exit_status = "interrupted", 130

    def fail(self, error: BaseException) -> None:
        """An error ended the run."""
        self.status, self.exit_status, self.error = "failed", 1, f"{type(error).__name__}: {error}"

    def restart(self, resumption: ResumeRecord) -> None:
        """The run goes on."""
        self.resumes.append(resumption)
        self.changes = [*self.changes, *resumption.changes]
        self.status, self.exit_status = "running", None
        self.error = self.metrics = self.ended = None

    def to_plain(self) -> dict[str, Any]:
        """Plain JSON data, as in `run.json`."""
        plain: dict[str, Any] = _plain({"schema": SCHEMA, **dataclasses.asdict(self)})
        return plain

    def write(self, directory: Path) -> None:
        """Replace the record of a run.

        Raises:
            OSError: the disk refused.
        """
        write_file(directory / FILE, sealed(self.to_plain()))

    @classmethod
    def read(cls, directory: Path) -> Record:
        """The record of a run, verified.

        Raises:
            DamageError: it is damaged or was edited; or there is none, although the run has checkpoints.
            ConfigError: no run began here.
            SchemaError: it is of another schema.
        """
        path = directory / FILE
        try:
            plain = parse_json(read_file(path, MOST_BYTES), most_bytes=MOST_BYTES)
            version = plain.pop("schema")
        except NotADirectoryError:
            raise ConfigError(f"{directory}: is no directory; name the directory that `spike run` printed") from None
        except FileNotFoundError:
            if rebuilding_cure(directory):
                raise DamageError(path, "is missing, although a folder of checkpoints is here") from None
            raise ConfigError(
                f"{directory}: holds no {FILE}, so no run began here; name the directory that `spike run` printed"
            ) from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DamageError(path, f"is damaged: {type(error).__name__}: {error}") from error
        if type(version) is not int:
            raise DamageError(path, f"is damaged: its schema must be a number, got {version!r:.80}")
        if version != SCHEMA:
            rest = {key: value for key, value in plain.items() if key != OWN_SUM}
            if plain.get(OWN_SUM) == _sum({"schema": SCHEMA, **rest}):
                raise DamageError(path, f"is damaged or was edited: its schema is {SCHEMA}, and it says {version!r}")
            raise SchemaError(f"{path}: {_refusal(version, plain)}")
        lost = [item.name for item in dataclasses.fields(cls) if item.name not in plain]
        if lost:
            raise DamageError(path, f"is damaged: it lacks {', '.join(lost)}")
        if plain.pop(OWN_SUM, None) != _sum({"schema": version, **plain}):
            raise DamageError(path, f"is damaged or was edited: its content is not what {OWN_SUM} says")
        try:
            record: Record = from_plain(cls, plain)
        except Mismatch as error:
            raise DamageError(path, f"is damaged: {error}") from error
        return record


def sealed(plain: Mapping[str, Any]) -> str:
    """The text of `run.json`: these data, with the checksum over them."""
    content = {key: value for key, value in plain.items() if key != OWN_SUM}
    return json.dumps({**content, OWN_SUM: _sum(content)}, indent=2) + "\n"


def status_of(directory: Path, status: str) -> str:
    """What a record's status means now: `died` where it says running and nothing runs; else the status itself."""
    return DIED if status == RUNNING and holder(directory) is None else status


def now() -> str:
    """This moment, for people; nothing is ordered by it."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def digest(text: str) -> str:
    """SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def _refusal(version: int, plain: Mapping[str, Any]) -> str:
    environment = plain.get("environment")
    wrote = environment.get("spikecore") if isinstance(environment, Mapping) else None
    author = f"spikecore {wrote}" if wrote else "another spikecore"
    head = f"is of schema {version!r}, written by {author}; this is spikecore {__version__}, which reads {SCHEMA}"
    if version in OLDER:
        return f"{head}: {OLDER[version]}; use the version that wrote it, or train again from its config.toml"
    return f"{head}: use the version that wrote it, or a newer one"


def _sum(plain: Mapping[str, Any]) -> str:
    return digest(json.dumps(plain, sort_keys=True))


def _plain(value: Any) -> Any:
    """Strict JSON: numbers that are not finite become null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return finite(value)

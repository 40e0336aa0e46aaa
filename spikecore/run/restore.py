"""From a run directory back to the parts: what is there is verified before it is used."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from spikecore.errors import CheckpointError, ConfigError, InputError, SpikeError
from spikecore.files import cure, read_file
from spikecore.nn import quantized
from spikecore.registry import registry, use
from spikecore.registry.loading import STRICT_VARIABLE, cause_text, is_strict
from spikecore.run import provenance
from spikecore.run.build import Prepared, prepare
from spikecore.run.checkpoint import LAST, Checkpoint, CheckpointStore, refuse_other_model
from spikecore.run.config import Resolved, refuse_changes, resolve
from spikecore.run.directory import CONFIG, store_of
from spikecore.run.log import MetricsLog
from spikecore.run.parts import Parts, rebuild_model
from spikecore.run.randomness import seed_everything
from spikecore.run.record import FINISHED, MOST_BYTES, Record, rebuilding_cure
from spikecore.run.text import other_labels, samples_text


def load(directory: str | Path, checkpoint: str = LAST, *, backend: str | None = None) -> nn.Module:
    """The net of a run, in evaluation mode, on the CPU; every byte read is verified.

    It needs the run directory and the plugins of model, neuron and backend; neither the dataset nor the trainer, unless
    the trainer made the net itself.

    Args:
        directory: the run directory.
        checkpoint: `last`, `best` or a name.
        backend: to run the neurons on; None for the run's own.

    Raises:
        ConfigError: this is no run, its configuration was edited, or a file that defines the net is not here.
        CheckpointError: the checkpoint is missing, damaged, foreign or of another model.
    """
    saved = SavedRun.open(Path(directory))
    net = saved.net(backend)
    restored = saved.checkpoint(checkpoint, net)
    net.load_state_dict(restored.model)
    return net.eval()


OVERRIDES = {"backend": ", or use another one: --set backend.name=torch; in Python load(..., backend='auto')"}
"""Table → what to do without its component."""


@dataclass(frozen=True)
class SavedRun:
    """A run directory that is there, with its record verified."""

    directory: Path
    record: Record

    @classmethod
    def open(cls, directory: Path) -> SavedRun:
        """Read the record, and verify that the configuration is the one that was trained with.

        The files that the run was given with `--load` are verified where they are needed: see `net`, `reopen_with`.

        Raises:
            ConfigError: this is no run, or its configuration was edited.
        """
        record = Record.read(directory)
        path = directory / CONFIG
        try:
            text = read_file(path, MOST_BYTES)
        except FileNotFoundError:
            return cls(directory, record)
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read: {cure(error)}") from error
        if hashlib.sha256(text).hexdigest() != record.config_sha256:
            way_back = rebuilding_cure(directory) or "put it back"
            raise ConfigError(
                f"{path}: was edited after the run began, so it no longer tells what was trained: {way_back}; or start "
                f"a new run with `spike run {path}`"
            )
        return cls(directory, record)

    def is_done(self, checkpoint: str, overrides: Sequence[str]) -> bool:
        """Whether resuming from `checkpoint` with `overrides` has nothing left to do."""
        return self.record.status == FINISHED and not overrides and checkpoint == LAST

    @property
    def source(self) -> Path | dict[str, dict[str, Any]]:
        """The configuration: its file, or what the record says, where the run died before the file was written."""
        path = self.directory / CONFIG
        return path if path.is_file() else self.record.config

    def resolve(self, overrides: Sequence[str] = ()) -> Resolved:
        """Its configuration, with what was changed when it was resumed, and `overrides`.

        Raises:
            ConfigError: something in it is not installed, or an override is not allowed.
        """
        resolved = self.reopen_with(())
        if not overrides:
            return resolved
        changed = self.reopen_with(overrides)
        refuse_changes(resolved, changed)
        return changed

    def reopen_with(self, overrides: Sequence[str]) -> Resolved:
        """Its configuration with any overrides; whether they may change what it computes is for the caller to say.

        Raises:
            ConfigError: an override is wrong, something is not installed (names the distribution that it came from),
                or a file that the run was made with is not here.
        """
        provenance.check_files(self.record, registry())
        try:
            return resolve(self.source, [*self.record.changes, *overrides])
        except ConfigError as error:
            raise self._with_origin(error) from error

    def _with_origin(self, error: ConfigError) -> ConfigError:
        """The error, with the distributions that the parts which are missing came from, and what to do."""
        origins = []
        for table, part in self.record.components.items():
            if any(line.startswith(f"{table}.name:") for line in error.problems):
                origin = f"{part.distribution} {part.version}: install it" if part.version else "a file: --load it"
                origins.append(f"this run had {table} {part.name!r} from {origin}{OVERRIDES.get(table, '')}")
        return ConfigError([*error.problems, *origins])

    def net(self, backend: str | None = None, loaded_bytes: int | None = None) -> nn.Module:
        """Its net with new weights, on the CPU, for those that were saved.

        Args:
            backend: to run the neurons on; None for the run's own.
            loaded_bytes: of the weights that are to be loaded; None for those of its checkpoints.

        Raises:
            ConfigError: what it is built from is not installed, or a file that defined it is not here.
            CheckpointError: it takes far more memory than the weights.
        """
        loaded_bytes = (self.weight_bytes or 0) if loaded_bytes is None else loaded_bytes
        overrides = [*self.record.changes, *([f"backend.name={backend}"] if backend else [])]
        device = torch.device("cpu")
        if not self.record.nets:  # the trainer made it, so the trainer has to make it again
            resolved = self.reopen_with(overrides[len(self.record.changes) :])
            return prepare(resolved, device, loaded_bytes=loaded_bytes).task.model
        parts = {"neuron", "backend", *(how.role for how in self.record.nets.values())}
        provenance.check_files(self.record, registry(), parts - ({"backend"} if backend else set()))
        needed = {"run", "plugins", *parts}
        try:
            resolved = resolve(self.source, overrides, only=[table for table in self.record.config if table in needed])
        except ConfigError as error:
            raise self._with_origin(error) from error
        with use(resolved.registry):
            seed_everything(self.record.seed)
            return rebuild_model(Parts(resolved, device, loaded_bytes), self.record.nets)

    def checkpoint(self, which: str, model: nn.Module) -> Checkpoint:
        """The checkpoint asked for, verified against the net.

        Raises:
            CheckpointError: there is none, or it is damaged, foreign or of another model; names a good one before it.
        """
        return find(store_of(self.directory, self.record.id), which, model)

    @property
    def weight_bytes(self) -> int | None:
        """Size of the largest weights among its checkpoints; None where there is no checkpoint to go on from."""
        store = store_of(self.directory, self.record.id)
        return max(map(store.weight_bytes, store.names()), default=None)

    def refuse_other_samples(self, prepared: Prepared) -> None:
        """Refuse to go on with other data than those of before.

        Raises:
            ConfigError: a split holds more samples than then, or fewer, or samples with other labels.
        """
        new_run = f"start a new run with `spike run {self.directory / CONFIG}`"
        if self.record.samples != prepared.num_samples:
            then, here = samples_text(self.record.samples), samples_text(prepared.num_samples)
            raise ConfigError(
                f"{self.directory}: the run began with {then}, and its dataset now gives {here}: put the data back as "
                f"they were, or {new_run}"
            )
        if self.record.labels != prepared.label_sums:
            splits = other_labels(self.record.labels, prepared.label_sums)
            raise ConfigError(
                f"{self.directory}: the samples of {splits} have other labels than when the run began, or are in "
                "another order, so that other samples would be held back for validation: put the data back as they "
                f"were, or {new_run}"
            )

    def resumable(self, which: str, prepared: Prepared) -> Checkpoint | None:
        """The checkpoint to go on from; None where a run has none yet and starts anew.

        Raises:
            ConfigError: the trainer cannot be resumed.
            CheckpointError: as `checkpoint`, or the metrics are not those of then.
        """
        if not prepared.trainer.capabilities.resumable:
            name = type(prepared.trainer).__name__
            raise ConfigError(f"trainer {name} cannot be resumed: its capabilities say so")
        store = store_of(self.directory, self.record.id)
        if not store.names() and which == LAST:
            return None
        return find(store, which, prepared.task.model, MetricsLog(self.directory))


@contextmanager
def going_on(since: Checkpoint | None, has_passed: Callable[[], bool]) -> Iterator[None]:
    """Inside, what a trainer raises before its first safe point names the checkpoint that it goes on from.

    A state may be restored and yet be of other types than the trainer works with, such as an optimizer's: that comes to
    light in the first step only.

    Args:
        since: the checkpoint; None where a run starts from its seed.
        has_passed: whether a safe point came since.

    Raises:
        CheckpointError: in place of an exception of Python or torch; `SPIKE_PLUGIN_STRICT=1` lets the original through.
    """
    try:
        yield
    except (TypeError, LookupError, ValueError, AttributeError, RuntimeError) as error:
        is_other = isinstance(error, SpikeError | torch.OutOfMemoryError)
        if since is None or is_other or is_strict() or has_passed():
            raise
        raise CheckpointError(
            f"{since.name}: training failed between this checkpoint and the next safe point: {cause_text(error)}. "
            f"Either its state is not what the trainer works with: resume from another one (--checkpoint); or the "
            f"trainer is at fault: {STRICT_VARIABLE}=1 shows the traceback."
        ) from error


def find(store: CheckpointStore, which: str, model: nn.Module, log: MetricsLog | None = None) -> Checkpoint:
    """The checkpoint asked for, verified against the net; to go on from, also against the metrics in `log`.

    The net gets room for the quantized records that the checkpoint holds.
    """
    names = store.names()
    name = store.find(which)

    def verified(name: str) -> Checkpoint:
        checkpoint = store.read(name, with_large=log is not None)
        try:
            quantized.prepare(model, checkpoint.model)
        except InputError as error:
            raise CheckpointError(f"{store.path(name)}: {error}") from error
        refuse_other_model(store.path(name), model.state_dict(), checkpoint.model)
        if log is not None:
            log.check(checkpoint.log)
        return checkpoint

    try:
        return verified(name)
    except CheckpointError as error:
        problem = error
    for other in reversed(names[: names.index(name)]):
        try:
            verified(other)
        except CheckpointError:
            continue
        raise CheckpointError(
            f"{problem}\nThe newest good one before it is {other}: "
            f"ask for it with --checkpoint {other} (in Python: checkpoint={other!r})"
        ) from problem
    raise CheckpointError(f"{problem}\nNo earlier checkpoint is good either") from problem

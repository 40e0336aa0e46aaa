"""One run in its directory, from the first line of its record to the last.

config.toml      the resolved configuration
run.json         plugins, backend per layer, environment, seed, timings, exit status
metrics.jsonl    one line per epoch
checkpoints/     weights and everything else that is needed to go on
shown/           what the trainer showed
probe-*.safetensors, report.html    what the net did before and after training, and all of it as one page
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spikecore.errors import (
    BackendError,
    ConfigError,
    DynamicsError,
    InputError,
    NetTraceError,
    OptionError,
    RunError,
    ShapeError,
    SpikeError,
    StopRun,
)
from spikecore.files import clean, cure, write_file
from spikecore.registry import use
from spikecore.run import probe as probing
from spikecore.run import provenance
from spikecore.run.blame import naming_layers
from spikecore.run.build import Output, Prepared, prepare
from spikecore.run.checkpoint import Checkpoint
from spikecore.run.config import Resolved, tables_of
from spikecore.run.context import Keeping
from spikecore.run.directory import CONFIG, store_of
from spikecore.run.files import Place
from spikecore.run.idle import idle_options, unused_tables
from spikecore.run.idle_layers import IdleLayers
from spikecore.run.log import EMPTY, MetricsLog
from spikecore.run.metrics import checked_metrics
from spikecore.run.processes import Group
from spikecore.run.record import FILE as RECORD
from spikecore.run.record import FINISHED, RUNNING, Record, ResumeRecord, digest, now, sealed
from spikecore.run.restore import SavedRun, going_on
from spikecore.run.signals import terminable
from spikecore.run.text import reason_text
from spikecore.workers import naming_dead_readers


@dataclass(frozen=True)
class Result:
    """What a run gives back: final metrics, seconds per part, and where its files are."""

    metrics: dict[str, Any]
    timings: dict[str, float]
    directory: Path


LASTING = (ConfigError, OptionError, ShapeError, InputError, DynamicsError, BackendError, NetTraceError)
"""Errors that come again whenever a run is resumed, because they follow from its configuration."""


@dataclass
class Run:
    """A run that holds the lock of its directory: begun or reopened, then carried out once.

    Args:
        directory: the run directory.
        resolved: the configuration.
        record: what `run.json` says, or will say.
        prepared: task, trainer and context.
        since: the checkpoint that it goes on from; None where it starts from its seed.
    """

    directory: Path
    resolved: Resolved
    record: Record
    prepared: Prepared
    since: Checkpoint | None = None
    _idle_layers: IdleLayers | None = field(default=None, init=False)

    @classmethod
    def begin(cls, directory: Path, resolved: Resolved, prepared: Prepared) -> Run:
        """Start a new run in an empty directory.

        Raises:
            RunError: the directory cannot be written.
        """
        run = cls(directory, resolved, _new_record(resolved, prepared), prepared)
        run._processes.first(run._write_beginning)
        run._keep()
        return run

    @classmethod
    def reopen(
        cls,
        saved: SavedRun,
        checkpoint: str,
        overrides: Sequence[str],
        output: Output,
        processes: Group | None = None,
    ) -> Run:
        """Bring a run back to a checkpoint; what is newer is dropped.

        Raises:
            ConfigError: an override is not allowed, or the directory cannot be written.
            CheckpointError: the checkpoint cannot be used.
        """
        processes = processes or Group()
        run = processes.together(lambda: cls._reopened(saved, checkpoint, overrides, output, processes))
        processes.first(lambda: run._write_resumption(overrides))
        return run

    @classmethod
    def _reopened(
        cls, saved: SavedRun, checkpoint: str, overrides: Sequence[str], output: Output, processes: Group
    ) -> Run:
        resolved = saved.resolve(overrides)
        prepared = prepare(resolved, output=output, processes=processes, loaded_bytes=saved.weight_bytes)
        saved.refuse_other_samples(prepared)
        with output.clock.timed("restore"):
            since = saved.resumable(checkpoint, prepared)
            run = cls(saved.directory, resolved, saved.record, prepared, since)
            run._keep()
            if since is not None:
                prepared.context.restore(since, prepared.trainer, prepared.task.encoder)
        return run

    def carry_out(self) -> Result:
        """Train from where the run stands to the end; whatever happens, the record says how it ended.

        Raises:
            RunError: the disk refused; the message names the last good checkpoint.
            ProcessError: another process failed or is gone.
            StopRun: a hook ended it.
        """
        self._processes.resume_command = resume_command(self.directory, self.record)
        if not self._processes.is_first:  # the first process writes for all
            with self._processes.guarding():
                metrics = self._train()
            return Result(metrics, self.prepared.context.times(), self.directory)
        with terminable():
            return self._carry_out()

    def _carry_out(self) -> Result:
        metrics: dict[str, float] = {}
        try:
            with self._processes.guarding():
                self._announce()
                if self.since is None:
                    self._look("before")
                self._note_backends()
                self._write_record()
                metrics = self._train()
            self._look("after")
            self.record.finish(metrics)
        except KeyboardInterrupt:
            self.record.interrupt()
            self._tell_resumption("interrupted")
            raise
        except StopRun as stop:
            self.record.stop(str(stop))
            self._tell_resumption(f"stopped: {stop}")
            raise
        except BaseException as error:
            self.record.fail(error)
            if isinstance(error, Exception):
                is_lasting = isinstance(error, LASTING)
                self._tell_resumption(f"failed with {type(error).__name__}", is_lasting)
            raise
        finally:
            self._note_backends()
            self.record.notes += [note for note in self.prepared.context.notes if note not in self.record.notes]
            self.record.ended = now()
            try:
                self.resolved.registry.hooks.run_end(self.directory, self.record.status, metrics)
            finally:
                self._close()
        return Result(metrics, self.record.timings_s, self.directory)

    # The steps of `begin` and `reopen`

    @property
    def _processes(self) -> Group:
        return self.prepared.context.processes

    def _write_beginning(self) -> None:
        self._greet(self.record.header)
        self._tell_idle_options()
        try:
            clean(self.directory)
            self.record.write(self.directory)
            write_file(self.directory / CONFIG, self.resolved.to_toml())
        except OSError as error:
            raise RunError(f"{self.directory}: cannot be written: {cure(error)}") from error

    def _write_resumption(self, overrides: Sequence[str]) -> None:
        self._greet(self.resolved.registry.hooks.report_header(str(self.prepared.context.device)))
        try:
            self._rewind(overrides)
        except OSError as error:
            raise ConfigError(f"{self.directory}: cannot be written: {cure(error)}") from error

    def _keep(self) -> None:
        """Give the context its directory."""
        options = self.resolved.tables["run"]
        context = self.prepared.context
        if self._processes.is_first:
            context.gallery.directory = self.directory
            context.after_epoch = self._tell_idle_layers
            self._idle_layers = IdleLayers(self.prepared.task, self.prepared.trainer, context, self.record.notes)
        context.keeping = Keeping(
            directory=self.directory,
            store=store_of(self.directory, self.record.id, self.resolved),
            log=MetricsLog(self.directory),
            trainer=self.prepared.trainer,
            encoder=self.prepared.task.encoder,
            every_steps=options.checkpoint_every_steps,
            every_s=options.checkpoint_every_s,
            describe=self._own_files,
            place=Place(self.directory) if self._processes.is_first else None,
        )

    def _own_files(self) -> dict[str, bytes]:
        """What a checkpoint keeps of them."""
        files = {RECORD: sealed(self.record.to_plain()), CONFIG: self.resolved.to_toml()}
        return {name: text.encode() for name, text in files.items()}

    def _check_place(self) -> None:
        keeping = self.prepared.context.keeping
        if keeping is not None and keeping.place is not None:
            keeping.place.check()

    def _greet(self, header: Sequence[str]) -> None:
        failures = self.resolved.registry.hooks.failures.values()
        console = self.prepared.context.console
        for line in header:
            console.say(line)
        for error in failures:
            console.warn(f"hooks are left out: {error}")

    def _tell_idle_options(self) -> None:
        idle = idle_options(self.resolved, unused_tables(self.resolved, self.prepared.task))
        for line in [*self.resolved.dropped, *idle]:
            self._note(line)
            self.prepared.context.console.warn(line)

    def _rewind(self, overrides: Sequence[str]) -> None:
        """Drop what is newer than the checkpoint, and note in the record that the run goes on."""
        keeping = self.prepared.context.keeping
        assert keeping is not None
        clean(self.directory)
        if self.since is None:
            where = "there is no checkpoint yet: starting again from the seed"
            name, position = None, EMPTY
        else:
            where = f"going on from {self.since.name}"
            name, position = self.since.name, self.since.log
        checkpoints = keeping.store.keep_until(name)
        lines = keeping.log.restore(position)
        resumption = self._resumption(overrides, checkpoints, lines)
        self.prepared.context.gallery.rewrite()
        self.record.restart(resumption)
        self._write_changed_config()
        self._put_back_config()
        if lines or checkpoints:
            where += f"; dropped {lines} newer lines of metrics and {len(checkpoints)} newer checkpoints"
        console = self.prepared.context.console
        console.say(f"{self.directory}: {where}")
        for line in resumption.differs:
            console.warn(f"{line}: the rest of the run may differ in its last bits")

    def _resumption(self, overrides: Sequence[str], checkpoints: list[str], lines: int) -> ResumeRecord:
        record = self.record
        here = provenance.environment(self.prepared.context.device, self._processes.world_size)
        plugins = provenance.plugins(self.resolved)
        last = record.resumes[-1] if record.resumes else record
        return ResumeRecord(
            at=now(),
            # Whoever holds the lock is this process, so a record that says running is that of a run that died.
            after="died" if record.status == RUNNING else record.status,
            checkpoint=self.since.name if self.since else None,
            dropped_lines=lines,
            dropped_checkpoints=checkpoints,
            changes=list(overrides),
            environment=here,
            plugins=plugins,
            differs=provenance.changed_environment(last.environment, last.plugins, here, plugins),
        )

    def _write_changed_config(self) -> None:
        """Record and configuration say what the run computes from now on, such as how many epochs it has."""
        text = self.resolved.to_toml()
        if digest(text) != self.record.config_sha256:
            # Without the file the record tells the configuration, so the run is whole between these steps as well.
            (self.directory / CONFIG).unlink(missing_ok=True)
            self.record.config, self.record.config_sha256 = tables_of(text), digest(text)
        self.record.write(self.directory)

    def _put_back_config(self) -> None:
        """It is written just after the record, so a run may have died between the two."""
        path, text = self.directory / CONFIG, self.resolved.to_toml()
        if not path.is_file() and digest(text) == self.record.config_sha256:
            write_file(path, text)

    # The steps of `carry_out`

    def _announce(self) -> None:
        hooks = self.prepared.context.hooks = self.resolved.registry.hooks
        hooks.run_start(self.directory, self.record.to_plain(), self.prepared.task.model)

    def _look(self, moment: str) -> None:
        """Keep what the report shows of the net; a net or data that cannot be shown so is no reason to stop."""
        self._check_place()
        trainer, task, context = self.prepared.trainer, self.prepared.task, self.prepared.context
        seen: dict[str, Any] = {"layers": [], "unseen": probing.neuron_layers(task.model)}
        with context.timed("probe"):
            try:
                seen = probing.probe(task, context, trainer.example(task))
            except probing.NothingToFeed as error:
                self._tell_not_fed(error)
            except Exception as error:
                self._note(f"spikes {moment} training cannot be shown: {reason_text(error)}")
            try:
                probing.save(probing.path_of(self.directory, moment), seen)
            except (OSError, SpikeError) as error:
                self._note(f"spikes {moment} training could not be kept: {error}")

    def _tell_idle_layers(self, epoch: int) -> None:
        """Warn of layers that never spike, or always; a net that cannot be looked at so trains all the same."""
        context = self.prepared.context
        if self._idle_layers is None:
            return
        with context.timed("probe"):
            try:
                warnings = self._idle_layers.look(epoch)
            except probing.NothingToFeed as error:
                self._idle_layers = None
                self._tell_not_fed(error)
                return
            except Exception as error:
                self._idle_layers = None
                self._note(f"silent layers are not told from epoch {epoch} on: {reason_text(error)}")
                return
        for text in warnings:
            self._note(text)
            context.console.warn(text)

    def _tell_not_fed(self, error: probing.NothingToFeed) -> None:
        if probing.neuron_layers(self.prepared.task.model):
            self._note(f"What the net's neurons do is not shown, and silent layers are not told: {error}.")

    def _note(self, text: str) -> None:
        """For the report; a note from before the run was resumed is kept once."""
        if text not in self.record.notes:
            self.record.notes.append(text)

    def _tell_resumption(self, what: str, is_lasting: bool = False) -> None:
        """After Ctrl-C or an error: where the run is, and the command that goes on with it."""
        console, saved = self.prepared.context.console, self.prepared.context.saved
        last = (
            f"the last checkpoint is {saved}" if saved else "no checkpoint yet, so it would start again from its seed"
        )
        console.say(f"{what}: {last}")
        console.say(f"run directory  {self.directory}")
        if is_lasting:
            console.say("resuming would end in the same error: correct what it names, and start a new run")
        elif self.prepared.trainer.capabilities.resumable:
            console.say(f"go on with     {resume_command(self.directory, self.record)}")
        else:
            console.say(f"trainer {self.resolved.names['trainer']!r} cannot be resumed: its capabilities say so")

    def _note_backends(self) -> None:
        self.record.backends |= provenance.backends(self.prepared.task.model)

    def _train(self) -> dict[str, float]:
        context = self.prepared.context
        if self.since is None:
            context.begin_random()
        else:
            context.restore_random(self.since)  # the last thing before training: what was built since may have drawn
        naming = naming_layers(self.prepared.task.model)
        with use(self.resolved.registry), context.stoppable(), self._going_on(), naming_dead_readers(), naming:
            context.begin_training()
            with context.timed("loop"):  # what the trainer does not time itself
                returned = self.prepared.trainer.fit(self.prepared.task, context)
        context.save()  # first: what it returned may be wrong, what it trained is not
        context.tell_plugins(is_saved=True)
        metrics = checked_metrics(self.prepared.trainer, "fit", returned)
        context.tell_infinite(metrics)
        return metrics

    def _going_on(self) -> AbstractContextManager[None]:
        since, context = self.since, self.prepared.context
        return going_on(since, lambda: since is None or context.count > since.count)

    def _write_record(self) -> None:
        self._check_place()
        try:
            self.record.write(self.directory)
        except OSError as error:
            again = f"then `spike run --resume {self.directory}`; nothing that is in a checkpoint is lost"
            raise RunError(f"{self.directory}: the record cannot be written: {cure(error)}, {again}") from error

    def _close(self) -> None:
        """The last files of a run."""
        context = self.prepared.context
        self._seal_record()
        if self.resolved.tables["run"].report:
            with context.timed("report"):
                self._report()
            self._seal_record()  # the report tells all times but its own

    def _seal_record(self) -> None:
        """Write the record with the times so far; when it fails, the run's own error is the one to be seen."""
        self.record.timings_s = self.prepared.context.times()
        try:
            self._write_record()
        except RunError as error:
            if self.record.status == FINISHED:
                raise
            self.prepared.context.console.warn(str(error))

    def _report(self) -> None:
        from spikecore.run.report import write_report

        try:
            self._check_place()
            write_report(self.directory)
        except Exception as error:
            again = f"the run itself is complete: `spike report {self.directory}` tries again"
            self.prepared.context.console.warn(f"no report was written: {type(error).__name__}: {error}; {again}")


def resume_command(directory: Path, record: Record) -> str:
    """What to type to go on with a run, from the same working directory; files are given again."""
    last = record.resumes[-1] if record.resumes else record
    num_processes = int(last.environment.get("num_processes", 1))
    start = ["spike"]
    if num_processes > 1:
        start = ["torchrun", "--nproc-per-node", str(num_processes), "-m", "spikecore"]
    words = [*start, "run", "--resume", str(directory)]
    for file in record.files:
        words += ["--load", file.path]
    return shlex.join(words)


def _new_record(resolved: Resolved, prepared: Prepared) -> Record:
    device, text = prepared.context.device, resolved.to_toml()
    return Record(
        seed=resolved.tables["run"].seed,
        config_sha256=digest(text),
        config=tables_of(text),
        task=prepared.trainer.capabilities.task,
        nets=prepared.nets,
        classes=list(prepared.task.classes),
        samples=prepared.num_samples,
        labels=prepared.label_sums,
        components=provenance.components(resolved),
        plugins=provenance.plugins(resolved),
        files=provenance.files(resolved.registry),
        environment=provenance.environment(device, prepared.context.world_size),
        git=provenance.git(),
        header=list(resolved.registry.hooks.report_header(str(device))),
    )

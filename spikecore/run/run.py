"""One run in its directory, from the first line of its record to the last.

config.toml      the resolved configuration
run.json         plugins, backend per layer, environment, seed, timings, exit status
metrics.jsonl    one line per epoch
checkpoints/     weights and everything else that is needed to go on
probe-*.safetensors, report.html    what the net did before and after training, and all of it as one page
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spikecore.errors import ConfigError, RunError, SpikeError
from spikecore.files import clean, cure, write_file
from spikecore.registry import use
from spikecore.run import probe as probing
from spikecore.run import provenance
from spikecore.run.build import Prepared, prepare
from spikecore.run.checkpoint import Checkpoint
from spikecore.run.config import Resolved, tables_of
from spikecore.run.context import Keeping
from spikecore.run.directory import CONFIG, store_of
from spikecore.run.idle import idle_options, unused_tables
from spikecore.run.log import EMPTY, MetricsLog
from spikecore.run.record import FINISHED, RUNNING, Record, ResumeRecord, digest, now
from spikecore.run.restore import SavedRun


@dataclass(frozen=True)
class Result:
    """What a run gives back: final metrics, seconds per part, and where its files are."""

    metrics: dict[str, Any]
    timings: dict[str, float]
    directory: Path


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

    @classmethod
    def begin(cls, directory: Path, resolved: Resolved, prepared: Prepared) -> Run:
        """Start a new run in an empty directory.

        Raises:
            RunError: the directory cannot be written.
        """
        run = cls(directory, resolved, _new_record(resolved, prepared), prepared)
        run._greet(run.record.header)
        run._tell_idle_options()
        try:
            clean(directory)
            run.record.write(directory)
            write_file(directory / CONFIG, resolved.to_toml())
        except OSError as error:
            raise RunError(f"{directory}: cannot be written: {cure(error)}") from error
        run._keep()
        return run

    @classmethod
    def reopen(cls, saved: SavedRun, checkpoint: str, overrides: Sequence[str]) -> Run:
        """Bring a run back to a checkpoint; what is newer is dropped.

        Raises:
            ConfigError: an override is not allowed, or the directory cannot be written.
            CheckpointError: the checkpoint cannot be used.
        """
        resolved = saved.resolve(overrides)
        prepared = prepare(resolved)
        run = cls(saved.directory, resolved, saved.record, prepared, saved.resumable(checkpoint, prepared))
        run._keep()
        if run.since is not None:
            prepared.context.restore(run.since, prepared.trainer, prepared.task.encoder)
        run._greet(resolved.registry.hooks.report_header(str(prepared.context.device)))
        try:
            run._rewind(overrides)
        except OSError as error:
            raise ConfigError(f"{saved.directory}: cannot be written: {cure(error)}") from error
        return run

    def carry_out(self) -> Result:
        """Train from where the run stands to the end; whatever happens, the record says how it ended.

        Raises:
            RunError: the disk refused; the message names the last good checkpoint.
        """
        metrics: dict[str, float] = {}
        try:
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
            raise
        except BaseException as error:
            self.record.fail(error)
            raise
        finally:
            self._note_backends()
            self.record.ended, self.record.timings_s = now(), self.prepared.context.times()
            try:
                self.resolved.registry.hooks.run_end(self.directory, self.record.status, metrics)
            finally:
                self._close()
        return Result(metrics, self.record.timings_s, self.directory)

    # The steps of `begin` and `reopen`

    def _keep(self) -> None:
        """Give the context its directory."""
        options = self.resolved.tables["run"]
        self.prepared.context.keeping = Keeping(
            directory=self.directory,
            store=store_of(self.directory, self.record.id, self.resolved),
            log=MetricsLog(self.directory),
            trainer=self.prepared.trainer,
            encoder=self.prepared.task.encoder,
            every_steps=options.checkpoint_every_steps,
            every_s=options.checkpoint_every_s,
        )

    def _greet(self, header: Sequence[str]) -> None:
        failures = self.resolved.registry.hooks.failures.values()
        for line in (*header, *(f"warning: hooks are left out: {error}" for error in failures)):
            print(line, file=sys.stderr)

    def _tell_idle_options(self) -> None:
        for line in idle_options(self.resolved, unused_tables(self.resolved, self.prepared.task)):
            self.record.notes.append(line)
            print(f"warning: {line}", file=sys.stderr)

    def _rewind(self, overrides: Sequence[str]) -> None:
        """Drop what is newer than the checkpoint, and note in the record that the run goes on."""
        keeping = self.prepared.context.keeping
        assert keeping is not None
        clean(self.directory)
        resumption = self._resumption(
            overrides,
            checkpoints=keeping.store.keep_until(self.since.name if self.since else None),
            lines=keeping.log.restore(self.since.log if self.since else EMPTY),
        )
        self.record.restart(resumption)
        self.record.write(self.directory)
        self._put_back_config()
        where = (
            f"going on from {self.since.name}"
            if self.since
            else "there is no checkpoint yet: starting again from the seed"
        )
        lines, checkpoints = resumption.dropped_lines, resumption.dropped_checkpoints
        dropped = f"; dropped {lines} newer lines of metrics and {len(checkpoints)} newer checkpoints"
        print(f"{self.directory}: {where}{dropped if lines or checkpoints else ''}", file=sys.stderr)
        for line in resumption.differs:
            print(f"warning: {line}: the rest of the run may differ in its last bits", file=sys.stderr)

    def _resumption(self, overrides: Sequence[str], checkpoints: list[str], lines: int) -> ResumeRecord:
        record = self.record
        here, plugins = provenance.environment(self.prepared.context.device), provenance.plugins(self.resolved)
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
        trainer, task, context = self.prepared.trainer, self.prepared.task, self.prepared.context
        seen: dict[str, Any] = {"layers": []}
        with context.timed("probe"):
            try:
                seen = probing.probe(task, context, trainer.example(task))
            except Exception as error:
                self.record.notes.append(f"spikes {moment} training cannot be shown: {type(error).__name__}: {error}")
            confusion = getattr(trainer, "confusion", None) if moment == "after" else None
            try:
                probing.save(probing.path_of(self.directory, moment), {**seen, "confusion": confusion})
            except (OSError, SpikeError) as error:
                self.record.notes.append(f"spikes {moment} training could not be kept: {error}")

    def _note_backends(self) -> None:
        self.record.backends |= provenance.backends(self.prepared.task.model)

    def _train(self) -> dict[str, float]:
        context = self.prepared.context
        if self.since is not None:
            context.restore_random(self.since)  # the last thing before training: what was built since may have drawn
        with use(self.resolved.registry), context.stoppable():
            metrics = self.prepared.trainer.fit(self.prepared.task, context)
        context.save()
        return metrics

    def _write_record(self) -> None:
        try:
            self.record.write(self.directory)
        except OSError as error:
            again = f"then `spike run --resume {self.directory}`; nothing that is in a checkpoint is lost"
            raise RunError(f"{self.directory}: the record cannot be written: {cure(error)}, {again}") from error

    def _close(self) -> None:
        """The last files of a run; when it fails, its own error is the one to be seen."""
        try:
            self._write_record()
        except RunError as error:
            if self.record.status == FINISHED:
                raise
            print(f"warning: {error}", file=sys.stderr)
        if self.resolved.tables["run"].report:
            self._report()

    def _report(self) -> None:
        from spikecore.run.report import write_report

        try:
            write_report(self.directory)
        except Exception as error:
            again = f"the run itself is complete: `spike report {self.directory}` tries again"
            print(f"warning: no report was written: {type(error).__name__}: {error}; {again}", file=sys.stderr)


def _new_record(resolved: Resolved, prepared: Prepared) -> Record:
    device, text = prepared.context.device, resolved.to_toml()
    return Record(
        seed=resolved.tables["run"].seed,
        config_sha256=digest(text),
        config=tables_of(text),
        task=prepared.trainer.capabilities.task,
        nets=prepared.nets,
        classes=list(prepared.task.classes),
        components=provenance.components(resolved),
        plugins=provenance.plugins(resolved),
        files=provenance.files(resolved.registry),
        environment=provenance.environment(device),
        git=provenance.git(),
        header=list(resolved.registry.hooks.report_header(str(device))),
    )

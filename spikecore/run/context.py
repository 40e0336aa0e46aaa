"""What a run gives to its trainer: device, random numbers, and the ways out for metrics, checkpoints and events."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from spikecore.errors import CheckpointError, ContractError, RunError, StopRun
from spikecore.files import cure
from spikecore.interfaces.processes import Shard
from spikecore.interfaces.show import Shown
from spikecore.interfaces.trainer import Trainer
from spikecore.nn.layers.sync_norm import is_synchronised
from spikecore.registry.manager import Hooks
from spikecore.run.checkpoint import Checkpoint, CheckpointStore, are_finite, differences
from spikecore.run.clock import Clock
from spikecore.run.console import Console, Stopwatch
from spikecore.run.files import Place
from spikecore.run.gallery import Gallery
from spikecore.run.log import FILE as METRICS
from spikecore.run.log import MetricsLog
from spikecore.run.metrics import check_epoch, check_line, check_score, checked_state
from spikecore.run.order import EpochOrder
from spikecore.run.processes import Group
from spikecore.run.randomness import generator_on, random_state, rank_seed, seed_everything, set_random_state
from spikecore.run.signals import TERMINATIONS, handling
from spikecore.torch_internals import BatchNorm

T = TypeVar("T")


@dataclass
class Keeping:
    """Where a run keeps what it does.

    Args:
        directory: the run directory.
        store: of checkpoints.
        log: of metrics.
        trainer: whose state is saved.
        encoder: whose state is saved, where there is one and it has any.
        every_steps: a checkpoint at least every so many safe points; 0 for no such rule.
        every_s: and at least every so many seconds.
        describe: gives record and configuration as they are now, which checkpoints keep.
        place: is checked before everything that is written.
    """

    directory: Path
    store: CheckpointStore
    log: MetricsLog
    trainer: Trainer
    encoder: nn.Module | None
    every_steps: int = 0
    every_s: float = 600.0
    describe: Callable[[], Mapping[str, bytes]] = dict
    place: Place | None = None


@dataclass
class Context:
    """See `interfaces.trainer.RunContext`. Without `keeping` it writes nothing, as in a notebook."""

    device: torch.device
    dtype: torch.dtype
    generator: torch.Generator
    model: nn.Module
    keeping: Keeping | None = None
    hooks: Hooks | None = None
    clock: Clock = field(default_factory=Clock)
    console: Console = field(default_factory=Console)
    gallery: Gallery = field(default_factory=Gallery)
    processes: Group = field(default_factory=Group)
    after_epoch: Callable[[int], None] | None = None
    """Called with the epoch's number when it is over."""
    count: int = 0
    """Safe points passed."""
    stopping: bool = False
    """Ctrl-C was pressed, or SIGTERM came: the next safe point is the last."""
    stop_reason: str | None = None
    """A hook wants the run to end: the next safe point is the last."""
    saved: str | None = None
    """The newest checkpoint."""
    notes: list[str] = field(default_factory=list)
    """What the record and the report are to say of this run."""
    weights: Mapping[str, Tensor] | None = None
    """What the trainer gave at the latest safe point to be used in place of the model's own weights."""
    order: EpochOrder = field(default_factory=EpochOrder)
    """Watches how the trainer ends its epochs."""
    rank_generator: torch.Generator = field(init=False)
    device_generator: torch.Generator = field(init=False)
    _saved_at: tuple[int, float] = field(default_factory=lambda: (0, time.monotonic()))
    _stopwatch: Stopwatch = field(init=False)
    _untold: tuple[int, dict[str, float]] | None = None
    """The epoch whose end is reported to the plugins at the next safe point, once it is saved."""

    def __post_init__(self) -> None:
        self._stopwatch = Stopwatch(self.clock)
        self.device_generator = generator_on(self.device, self.generator.initial_seed(), self.rank)
        self.rank_generator = self.generator
        if self.world_size > 1:
            self.rank_generator = torch.Generator().manual_seed(self._rank_seed())

    @property
    def rank(self) -> int:
        """Number of this process."""
        return self.processes.rank

    @property
    def world_size(self) -> int:
        """How many processes there are."""
        return self.processes.world_size

    def wrap(self, model: nn.Module) -> nn.Module:
        """The net to call in training; says once if its batch norms make it another net than in one process."""
        self._tell_own_statistics(model)
        return self.processes.wrap(model)

    def fully_shard(self, model: nn.Module) -> nn.Module:
        """The net to train, which shares its parameters out among the processes."""
        self._tell_own_statistics(model)
        return self.processes.fully_shard(model)

    def _tell_own_statistics(self, model: nn.Module) -> None:
        if self.world_size > 1 and any(map(_has_own_statistics, model.modules())):
            self.note(
                f"batch norm: each of the {self.world_size} processes normalises with the statistics of its own part "
                "of a batch, and the running statistics of process 0 are kept: the numbers are not those of one process"
            )

    def shard(self, batch: Any) -> Shard:
        """This process's part of a global batch."""
        return self.processes.shard(batch)

    def all_sum(self, tensor: Tensor) -> Tensor:
        """The sum over the processes."""
        with self._exchange():
            return self.processes.all_sum(tensor)

    def share_buffers(self, model: nn.Module) -> None:
        """Give every process rank 0's buffers."""
        with self._exchange():
            self.processes.share_buffers(model)

    def log(self, **metrics: float | int | str) -> None:
        """Append one line to `metrics.jsonl`.

        Raises:
            ContractError: a value is neither a number nor a text.
            RunError: the disk refused.
        """
        check_line(metrics)
        self.order.log(metrics)
        self.tell_infinite(metrics)
        if self.keeping is not None and self.processes.is_first:
            with self._writing("the metrics"):
                self.keeping.log.append(metrics)
            if self.hooks is not None:
                self._tell(self.hooks.log, self.keeping.directory, dict(metrics))

    def tell_infinite(self, metrics: Mapping[str, Any]) -> None:
        """Warn once of every metric that is nan or infinite; `metrics.jsonl` has null for it."""
        for name, value in metrics.items():
            if isinstance(value, float) and not math.isfinite(value):
                self.note(
                    f"metric {name!r} became {value}: the training has diverged, or its loss is not defined for these "
                    "data; try a lower learning rate, and look at the first line of metrics.jsonl that holds null"
                )

    def show(self, name: str, value: Shown) -> None:
        """See `interfaces.trainer.RunContext`.

        Raises:
            ContractError: the value is none of the declared ones, or the name cannot be kept.
            RunError: the disk refused.
        """
        with self.timed("show"), self._writing(f"what is shown as {name!r}"):
            self.gallery.show(name, value)

    def checkpoint(self, score: float | None = None, weights: Mapping[str, Tensor] | None = None) -> None:
        """A safe point: saves when there is a score, when it is time, and when the user wants to stop.

        Raises:
            ContractError: `weights` were given before, and now are not; or they are of another model; or the score is
                no number.
            StopRun: a hook asked for the end of the run.
        """
        check_score(score)
        if weights is None and self.weights is not None:
            raise ContractError(
                "checkpoint() without weights, which were given at an earlier safe point: give them at every one, or "
                "`last` and `best` would hold different things"
            )
        self.count += 1
        self.weights = weights
        self.order.checkpoint(score)
        if self.keeping is None:
            return
        self._tell_no_score(score)
        due = self._is_due(self.keeping)
        # The processes' clocks differ, and a signal may reach one of them only: all do what one has to.
        with self._exchange():
            due, stopping, stopped = self.processes.any(
                due, self.stopping or self.processes.is_terminated, self.stop_reason is not None
            )
        is_saved = score is not None or due or stopping or stopped
        if is_saved:
            self.save(score)
        self.tell_plugins(is_saved)
        if stopping:
            raise KeyboardInterrupt
        if stopped:
            raise StopRun(self.stop_reason or "a hook in process 0 ended the run")

    def _is_due(self, keeping: Keeping) -> bool:
        """Whether a checkpoint is due by the number of safe points, or by the clock."""
        count, moment = self._saved_at
        if 0 < keeping.every_steps <= self.count - count:
            return True
        return time.monotonic() - moment >= keeping.every_s

    def _tell_no_score(self, score: float | None) -> None:
        """Warn once of a score that is nan or infinite: if all are, `best` names nothing."""
        if score is not None and not math.isfinite(score):
            self.note(
                "a score given to checkpoint() was nan or infinite: such a checkpoint is kept, and it is never `best`; "
                "expected a finite number, higher for a better net, or None for a safe point without an evaluation"
            )

    def tell_plugins(self, is_saved: bool) -> None:
        """The hooks of an epoch that is over; at a safe point, so that one that fails costs no epoch.

        Args:
            is_saved: there is a checkpoint of it already; else one is written when a hook fails.

        Raises:
            BrokenPluginError: a hook failed.
        """
        if self._untold is None or self.hooks is None or self.keeping is None:
            return
        (epoch, metrics), self._untold = self._untold, None
        try:
            self._tell(self.hooks.epoch_end, self.keeping.directory, epoch, metrics)
        except Exception:
            if not is_saved and self.world_size == 1:  # the other processes know nothing of it, and would not help
                self.save()
            raise

    def _tell(self, hook: Callable[..., None], *arguments: Any) -> None:
        """Call the hooks of the plugins; one that wants to stop the run is heard at the next safe point."""
        try:
            hook(*arguments)
        except StopRun as stop:
            self.stop_reason = str(stop) or "a hook ended the run"

    def save(self, score: float | None = None) -> None:
        """Write a checkpoint of everything as it is now.

        Raises:
            RunError: the disk refused; earlier checkpoints are intact.
        """
        if self.keeping is None:
            return
        with self.timed("checkpoint"):
            self.processes.make_whole(self.model)
            keeping, model, state = self.keeping, self._model_weights(), self._state(self.keeping)
            if self.weights is not None and not are_finite(model):
                self.note(
                    "the weights that the trainer keeps in place of the model's own, such as an average, are nan or "
                    "infinite: `load` would give a net that has diverged, and no such checkpoint is the best"
                )
            large = checked_state(keeping.trainer, "large_state_dict", keeping.trainer.large_state_dict())
            self.saved = self.processes.first(lambda: self._write(keeping, model, state, large, score))
        self._saved_at = (self.count, time.monotonic())

    def _write(
        self,
        keeping: Keeping,
        model: Mapping[str, Tensor],
        state: dict[str, Any],
        large: dict[str, Any],
        score: float | None,
    ) -> str:
        with self._writing("a checkpoint"):
            return keeping.store.save(
                self.count,
                model,
                state,
                large=large,
                score=score,
                log=keeping.log.position(),
                timings=self.times(),
                pace=self._stopwatch.state(),
                kept={**keeping.describe(), METRICS: keeping.log.content()},
            )

    def restore(self, checkpoint: Checkpoint, trainer: Trainer, encoder: nn.Module | None) -> None:
        """Put net, trainer, encoder and counters where a checkpoint has them, to go on with training; `restore_random`
        follows when all is built.

        Raises:
            CheckpointError: they do not take what the checkpoint holds.
        """
        try:
            trained = checkpoint.state["model"]
            self.model.load_state_dict(checkpoint.model if trained is None else trained)
            self.weights = None if trained is None else checkpoint.model
            trainer.load_state_dict(checkpoint.state["trainer"])
            if checkpoint.large:
                trainer.load_large_state_dict(checkpoint.large)
            if isinstance(encoder, nn.Module):
                encoder.load_state_dict(checkpoint.state["encoder"])
        except Exception as error:
            raise CheckpointError(
                f"{checkpoint.name}: does not fit this run: {type(error).__name__}: {error}"
            ) from error
        self.gallery.restore(checkpoint.state.get("shown", ()))
        self._stopwatch.restore(checkpoint.pace)
        self.count, self.saved = checkpoint.count, checkpoint.name
        self._saved_at = (checkpoint.count, time.monotonic())
        self.clock.add(checkpoint.timings)

    def restore_random(self, checkpoint: Checkpoint) -> None:
        """Put every random generator where it was; of another number of processes, those after the first start anew.

        Raises:
            CheckpointError: the checkpoint does not hold their states.
        """
        try:
            self._restore_random(checkpoint)
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            text = f"{type(error).__name__}: {error}"
            raise CheckpointError(f"{checkpoint.name}: its random numbers cannot be restored: {text}") from error

    def _restore_random(self, checkpoint: Checkpoint) -> None:
        self.generator.set_state(checkpoint.state["generator"])
        own = [checkpoint.state, *checkpoint.state.get("other_processes", [])]
        if len(own) == self.world_size or self.rank == 0:
            set_random_state(own[self.rank]["random"], self.device)
            self._restore_device_generator(*own[self.rank]["device_generator"])
        else:
            self.begin_random()
        if self.world_size > 1:
            self.rank_generator.manual_seed(self._rank_seed())
            if len(own) == self.world_size:
                self.rank_generator.set_state(own[self.rank]["rank_generator"])

    def begin_random(self) -> None:
        """Give every process after the first its own random numbers (dropout); the first has those of one process."""
        if self.rank > 0:
            seed_everything(self._rank_seed())

    def begin_training(self) -> None:
        """The first epoch begins now, or what is left of one."""
        self._stopwatch.begin()

    def epoch_end(
        self,
        epoch: int,
        metrics: dict[str, float],
        *,
        num_epochs: int | None = None,
        count: int | None = None,
        unit: str = "samples",
    ) -> None:
        """See `interfaces.trainer.RunContext`."""
        check_epoch(epoch, metrics)
        self.order.epoch_end(epoch, metrics)
        pace = self._stopwatch.lap(epoch, num_epochs, count, unit)
        if self.keeping is None:
            return
        self.tell_plugins(is_saved=True)  # of the epoch before, after which no safe point came
        self.console.epoch(epoch, num_epochs, metrics, pace)
        self._untold = epoch, dict(metrics)
        if self.after_epoch is not None:
            self.after_epoch(epoch)

    def note(self, text: str) -> None:
        """See `interfaces.trainer.RunContext`; the first process tells it."""
        if self.processes.is_first and text not in self.notes:
            self.notes.append(text)
            self.console.warn(text)

    def progress(self, items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
        """Iterate with a progress bar; silent when not on a terminal."""
        return self.console.progress(items, label, total)

    def times(self) -> dict[str, float]:
        """Seconds so far by part, and in total; of a resumed run, without what was done in vain."""
        return self.clock.times()

    def timed(self, part: str) -> AbstractContextManager[None]:
        """Count the time inside under `part`; a part inside another one counts as its own only."""
        return self.clock.timed(part)

    @contextmanager
    def stoppable(self) -> Iterator[None]:
        """Inside, Ctrl-C or SIGTERM stops at the next safe point, with a checkpoint; a second one, at once."""
        if self.keeping is None or not self.keeping.trainer.capabilities.resumable:
            yield
            return

        def stop(number: int, frame: FrameType | None) -> None:
            if self.stopping:
                raise KeyboardInterrupt
            self.stopping = True
            self.console.say_from_handler(
                "stopping at the next safe point, with a checkpoint; Ctrl-C again stops at once"
            )

        try:
            with handling(stop, *TERMINATIONS):
                yield
        finally:
            self.console.wait_for_handler()

    def _exchange(self) -> AbstractContextManager[None]:
        """Counts the time that a process waits for the others; nothing where there is one."""
        return self.timed("exchange") if self.world_size > 1 else nullcontext()

    def _state(self, keeping: Keeping) -> dict[str, Any]:
        encoder = keeping.encoder
        state: dict[str, Any] = {
            "model": None if self.weights is None else self.model.state_dict(),
            "trainer": checked_state(keeping.trainer, "state_dict", keeping.trainer.state_dict()),
            "encoder": encoder.state_dict() if isinstance(encoder, nn.Module) else {},
            "shown": self.gallery.state(),
            "generator": self.generator.get_state(),
            "device_generator": self._device_generator_state(),
            "random": random_state(self.device),
        }
        if self.world_size > 1:
            state["rank_generator"], state["other_processes"] = self.rank_generator.get_state(), self._others()
        return state

    def _others(self) -> list[dict[str, Any]]:
        """The random numbers of the processes after the first.

        Raises:
            ContractError: `generator` is no longer the same in all, so that they would go through different batches.
        """
        own = {
            "rank_generator": self.rank_generator.get_state(),
            "device_generator": self._device_generator_state(),
            "random": random_state(self.device),
        }
        everyone = self.processes.gather((own, self.generator.get_state(), self.count))
        _, shared, count = everyone[0]
        for rank, (_, generator, passed) in enumerate(everyone):
            problem = ""
            if passed != count:
                problem = (
                    f"process {rank} has passed {passed} safe points, process 0 {count}: a trainer has to call "
                    "checkpoint() in every process, the same number of times"
                )
            elif not torch.equal(generator, shared):
                problem = (
                    f"context.generator of process {rank} is not where that of process 0 is: draw from it what all "
                    "processes share, such as the order of samples, and the rest from context.rank_generator"
                )
            if problem:
                error = ContractError(problem)
                error.is_told = not self.processes.is_first  # all of them raise it
                raise error
        return [own for own, _, _ in everyone[1:]]

    def _model_weights(self) -> Mapping[str, Tensor]:
        """What `load` is to find."""
        own: Mapping[str, Tensor] = self.model.state_dict()
        if self.weights is None:
            return own
        if wrong := differences(own, self.weights):
            raise ContractError(f"the weights given to checkpoint() are not of this model: {'; '.join(wrong[:8])}")
        return self.weights

    def _device_generator_state(self) -> list[Any]:
        return [self.device.type, self.device_generator.get_state()]

    def _restore_device_generator(self, kind: str, state: Tensor) -> None:
        """On another kind of device a bit-identical continuation is impossible; the generator then starts anew."""
        if kind == self.device.type:
            self.device_generator.set_state(state)

    def _rank_seed(self) -> int:
        """A seed of this process alone, and of this safe point."""
        return rank_seed(self.generator.initial_seed(), self.rank, self.count)

    @contextmanager
    def _writing(self, what: str) -> Iterator[None]:
        if self.keeping is not None and self.keeping.place is not None:
            self.keeping.place.check()
        try:
            yield
        except OSError as error:
            assert self.keeping is not None
            directory = self.keeping.directory
            last = f"the last good checkpoint is {self.saved}" if self.saved else "there is no checkpoint yet"
            raise RunError(
                f"{directory}: {what} cannot be written: {cure(error)}, then `spike run --resume {directory}`; {last}"
            ) from error


def _has_own_statistics(module: nn.Module) -> bool:
    """Whether it normalises over the samples of a batch that this process has."""
    return isinstance(module, BatchNorm) and not is_synchronised(module)

"""What a run gives to its trainer: device, random numbers, and the ways out for metrics, checkpoints and events."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

from spikecore.errors import CheckpointError, RunError
from spikecore.files import cure
from spikecore.interfaces.show import Shown
from spikecore.interfaces.trainer import Trainer
from spikecore.registry.manager import Hooks
from spikecore.run.checkpoint import Checkpoint, CheckpointStore
from spikecore.run.clock import Clock
from spikecore.run.console import Console, Stopwatch
from spikecore.run.gallery import Gallery
from spikecore.run.log import MetricsLog

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
    """

    directory: Path
    store: CheckpointStore
    log: MetricsLog
    trainer: Trainer
    encoder: nn.Module | None
    every_steps: int = 0
    every_s: float = 600.0


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
    after_epoch: Callable[[int], None] | None = None
    """Called with the epoch's number when it is over."""
    count: int = 0
    """Safe points passed."""
    stopping: bool = False
    """Ctrl-C was pressed: the next safe point is the last."""
    saved: str | None = None
    """The newest checkpoint."""
    _saved_at: tuple[int, float] = field(default_factory=lambda: (0, time.monotonic()))
    _stopwatch: Stopwatch = field(init=False)

    def __post_init__(self) -> None:
        self._stopwatch = Stopwatch(self.clock)

    def log(self, **metrics: float | int | str) -> None:
        """Append one line to `metrics.jsonl`."""
        if self.keeping is not None:
            with self._writing("the metrics"):
                self.keeping.log.append(metrics)

    def show(self, name: str, value: Shown) -> None:
        """See `interfaces.trainer.RunContext`.

        Raises:
            ContractError: the value is none of the declared ones, or the name cannot be kept.
            RunError: the disk refused.
        """
        with self.timed("show"), self._writing(f"what is shown as {name!r}"):
            self.gallery.show(name, value)

    def checkpoint(self, score: float | None = None) -> None:
        """A safe point: saves when there is a score, when it is time, and when the user wants to stop."""
        self.count += 1
        if self.keeping is None:
            return
        count, moment = self._saved_at
        due = 0 < self.keeping.every_steps <= self.count - count or time.monotonic() - moment >= self.keeping.every_s
        if score is not None or due or self.stopping:
            self.save(score)
        if self.stopping:
            raise KeyboardInterrupt

    def save(self, score: float | None = None) -> None:
        """Write a checkpoint of everything as it is now.

        Raises:
            RunError: the disk refused; earlier checkpoints are intact.
        """
        if self.keeping is None:
            return
        with self.timed("checkpoint"), self._writing("a checkpoint"):
            self.saved = self.keeping.store.save(
                self.count,
                self.model.state_dict(),
                self._state(self.keeping),
                score=score,
                log=self.keeping.log.position(),
                timings=self.times(),
            )
        self._saved_at = (self.count, time.monotonic())

    def restore(self, found: Checkpoint, trainer: Trainer, encoder: nn.Module | None) -> None:
        """Put net, trainer, encoder and counters where a checkpoint has them; `restore_random` follows when all is
        built.

        Raises:
            CheckpointError: they do not take what the checkpoint holds.
        """
        try:
            self.model.load_state_dict(found.model)
            trainer.load_state_dict(found.state["trainer"])
            if isinstance(encoder, nn.Module):
                encoder.load_state_dict(found.state["encoder"])
        except Exception as error:
            raise CheckpointError(f"{found.name}: does not fit this run: {type(error).__name__}: {error}") from error
        self.gallery.restore(found.state["shown"])
        self.count, self.saved = found.count, found.name
        self._saved_at = (found.count, time.monotonic())
        self.clock.add(found.timings)

    def restore_random(self, found: Checkpoint) -> None:
        """Put every random generator where it was."""
        self.generator.set_state(found.state["generator"])
        _set_random_state(found.state["random"], self.device)

    def begin_training(self) -> None:
        """The first epoch begins now, or what is left of one."""
        self._stopwatch.begin(is_partial=self.count > 0)

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
        pace = self._stopwatch.lap(epoch, num_epochs, count, unit)
        if self.keeping is None:
            return
        self.console.epoch(epoch, num_epochs, metrics, pace)
        if self.hooks is not None:
            self.hooks.epoch_end(self.keeping.directory, epoch, metrics)
        if self.after_epoch is not None:
            self.after_epoch(epoch)

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
        """Inside, Ctrl-C stops at the next safe point, with a checkpoint; pressed again, at once."""
        usable = self.keeping is not None and self.keeping.trainer.capabilities.resumable
        ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN  # as under nohup
        if not usable or ignored or threading.current_thread() is not threading.main_thread():
            yield
            return

        def stop(number: int, frame: FrameType | None) -> None:
            if self.stopping:
                raise KeyboardInterrupt
            self.stopping = True
            self.console.say("stopping at the next safe point, with a checkpoint; Ctrl-C again stops at once")

        before = signal.signal(signal.SIGINT, stop)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _state(self, keeping: Keeping) -> dict[str, Any]:
        encoder = keeping.encoder
        return {
            "trainer": keeping.trainer.state_dict(),
            "encoder": encoder.state_dict() if isinstance(encoder, nn.Module) else {},
            "shown": self.gallery.state(),
            "generator": self.generator.get_state(),
            "random": _random_state(self.device),
        }

    @contextmanager
    def _writing(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            assert self.keeping is not None
            directory = self.keeping.directory
            last = f"the last good checkpoint is {self.saved}" if self.saved else "there is no checkpoint yet"
            raise RunError(
                f"{directory}: {what} cannot be written: {cure(error)}, then `spike run --resume {directory}`; {last}"
            ) from error


def seed_everything(seed: int) -> None:
    """Start every global random generator from the seed; what is random in a run comes from these or its own."""
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


@contextmanager
def undisturbed(device: torch.device) -> Iterator[None]:
    """What is done inside draws from no random generator, as far as the outside can tell."""
    before = _random_state(device)
    try:
        yield
    finally:
        _set_random_state(before, device)


def _random_state(device: torch.device) -> dict[str, Any]:
    legacy: Any = np.random.get_state()
    _, keys, position, has_gauss, gauss = legacy
    version, words, next_gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "device": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        "numpy": [torch.from_numpy(keys.astype(np.int64)), int(position), int(has_gauss), float(gauss)],
        "python": [version, torch.tensor(words), next_gauss],
    }


def _set_random_state(state: dict[str, Any], device: torch.device) -> None:
    torch.set_rng_state(state["torch"])
    if device.type == "cuda" and state["device"] is not None:
        torch.cuda.set_rng_state(state["device"], device)
    keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), position, has_gauss, gauss))
    version, words, next_gauss = state["python"]
    random.setstate((version, tuple(words.tolist()), next_gauss))

"""What a run gives to its trainer: device, random numbers, and the ways out for metrics, checkpoints and events."""

from __future__ import annotations

import random
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from spikecore.errors import CheckpointError, ContractError, RunError
from spikecore.files import cure
from spikecore.interfaces.trainer import Trainer
from spikecore.registry.manager import Hooks
from spikecore.run.checkpoint import Checkpoint, CheckpointStore, differences
from spikecore.run.log import MetricsLog

T = TypeVar("T")

DEVICE_STREAM = 1
"""Tells the stream of `device_generator` from others that are derived from the run's seed."""


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
    timings: dict[str, float] = field(default_factory=dict)
    count: int = 0
    """Safe points passed."""
    stopping: bool = False
    """Ctrl-C was pressed: the next safe point is the last."""
    saved: str | None = None
    """The newest checkpoint."""
    weights: Mapping[str, Tensor] | None = None
    """What the trainer gave at the latest safe point to be used in place of the model's own weights."""
    device_generator: torch.Generator = field(init=False)
    _saved_at: tuple[int, float] = field(default_factory=lambda: (0, time.monotonic()))
    _began: float = field(default_factory=time.perf_counter)

    def __post_init__(self) -> None:
        self.device_generator = generator_on(self.device, self.generator.initial_seed())

    def log(self, **metrics: float | int | str) -> None:
        """Append one line to `metrics.jsonl`."""
        if self.keeping is not None:
            with self._writing("the metrics"):
                self.keeping.log.append(metrics)

    def checkpoint(self, score: float | None = None, weights: Mapping[str, Tensor] | None = None) -> None:
        """A safe point: saves when there is a score, when it is time, and when the user wants to stop.

        Raises:
            ContractError: `weights` were given before, and now are not; or they are of another model.
        """
        if weights is None and self.weights is not None:
            raise ContractError(
                "checkpoint() without weights, which were given at an earlier safe point: give them at every one, or "
                "`last` and `best` would hold different things"
            )
        self.count += 1
        self.weights = weights
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
                self._model_weights(),
                self._state(self.keeping),
                large=self.keeping.trainer.large_state_dict(),
                score=score,
                log=self.keeping.log.position(),
                timings=self.times(),
            )
        self._saved_at = (self.count, time.monotonic())

    def restore(self, found: Checkpoint, trainer: Trainer, encoder: nn.Module | None) -> None:
        """Put net, trainer, encoder and counters where a checkpoint has them, to go on with training; `restore_random`
        follows when all is built.

        Raises:
            CheckpointError: they do not take what the checkpoint holds.
        """
        try:
            trained = found.state["model"]
            self.model.load_state_dict(found.model if trained is None else trained)
            self.weights = None if trained is None else found.model
            trainer.load_state_dict(found.state["trainer"])
            if found.large:
                trainer.load_large_state_dict(found.large)
            if isinstance(encoder, nn.Module):
                encoder.load_state_dict(found.state["encoder"])
        except Exception as error:
            raise CheckpointError(f"{found.name}: does not fit this run: {type(error).__name__}: {error}") from error
        self.count, self.saved = found.count, found.name
        self._saved_at = (found.count, time.monotonic())
        self.timings |= found.timings
        self._began = time.perf_counter() - self.timings.pop("total", 0.0)

    def restore_random(self, found: Checkpoint) -> None:
        """Put every random generator where it was."""
        self.generator.set_state(found.state["generator"])
        kind, state = found.state["device_generator"]
        if kind == self.device.type:  # on another kind of device the run cannot go on to the same bits, and says so
            self.device_generator.set_state(state)
        _set_random_state(found.state["random"], self.device)

    def epoch_end(self, epoch: int, metrics: dict[str, float]) -> None:
        """Tell the plugins that an epoch is over."""
        if self.hooks is not None and self.keeping is not None:
            self.hooks.epoch_end(self.keeping.directory, epoch, metrics)

    def progress(self, items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
        """Iterate with a progress bar; silent when not on a terminal."""
        if not sys.stderr.isatty():
            yield from items
            return
        from rich.console import Console
        from rich.progress import track

        yield from track(items, label, total=total, console=Console(stderr=True))

    def times(self) -> dict[str, float]:
        """Seconds so far by part, and in total; of a resumed run, without what was done in vain."""
        return {**self.timings, "total": time.perf_counter() - self._began}

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Count the time inside under `part`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.timings[part] = self.timings.get(part, 0.0) + time.perf_counter() - start

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
            print("stopping at the next safe point, with a checkpoint; Ctrl-C again stops at once", file=sys.stderr)

        before = signal.signal(signal.SIGINT, stop)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _model_weights(self) -> Mapping[str, Tensor]:
        """What `load` is to find."""
        own: Mapping[str, Tensor] = self.model.state_dict()
        if self.weights is None:
            return own
        if wrong := differences(own, self.weights):
            raise ContractError(f"the weights given to checkpoint() are not of this model: {'; '.join(wrong[:8])}")
        return self.weights

    def _state(self, keeping: Keeping) -> dict[str, Any]:
        encoder = keeping.encoder
        return {
            "model": None if self.weights is None else self.model.state_dict(),
            "trainer": keeping.trainer.state_dict(),
            "encoder": encoder.state_dict() if isinstance(encoder, nn.Module) else {},
            "generator": self.generator.get_state(),
            "device_generator": [self.device.type, self.device_generator.get_state()],
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


def generator_on(device: torch.device, seed: int) -> torch.Generator:
    """A generator on a device, with a stream of its own: unlike that of a generator with the same seed."""
    (word,) = np.random.SeedSequence([seed, DEVICE_STREAM]).generate_state(1)
    return torch.Generator(device).manual_seed(int(word))


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

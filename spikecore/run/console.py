"""What a run prints while it trains, to stderr: a line per epoch, warnings, and a progress bar on a terminal.

Where stderr is no terminal the lines are the same, as long as they need be, with the names of `metrics.jsonl`.
"""

from __future__ import annotations

import _thread
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from spikecore.foreign import printable_lines
from spikecore.run.clock import Clock
from spikecore.run.text import clock_text, rate_text, seconds_text, value_text
from spikecore.terminal import width, wrapped

if TYPE_CHECKING:
    from rich.progress import Progress

T = TypeVar("T")
SPLITS = ("train", "val", "test")
NOT_TRAINING = ("evaluate", "checkpoint", "probe")
"""Parts of the time that do not count for the rate of training."""
SAID_S = 5.0
"""How long the end of a run waits for a line that a signal's handler has printed."""
NUM_LAPS = 5
"""Epochs whose mean tells the time left."""


@dataclass(frozen=True)
class Pace:
    """How fast an epoch went.

    Args:
        rate: per second of training; None where the trainer does not count.
        unit: what it counts.
        left_s: seconds to the end of training; None where that is not known.
    """

    rate: float | None = None
    unit: str = "samples"
    left_s: float | None = None


class Stopwatch:
    """Times the epochs of a run.

    Args:
        clock: of the run: evaluation and checkpoints do not count for the rate.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._laps: list[float] = []
        self._earlier_s = 0.0
        """What was spent on the epoch before the run was resumed in the middle of it."""
        self._mark()

    def begin(self) -> None:
        """Training begins, or goes on where `restore` says."""
        self._mark()

    def state(self) -> list[float]:
        """What `restore` takes: seconds since the epoch began, then those of the latest epochs."""
        return [self._earlier_s + time.perf_counter() - self._began, *self._laps]

    def restore(self, state: Sequence[float]) -> None:
        """Go on with an epoch of which a part was done in another process."""
        self._earlier_s, *self._laps = state or [0.0]

    def lap(self, epoch: int, num_epochs: int | None, count: int | None, unit: str) -> Pace:
        """An epoch is over, in which `count` samples (or steps, as `unit` says) were trained on."""
        seconds = time.perf_counter() - self._began
        training_s = seconds - (self._aside() - self._aside_then)
        self._laps = [*self._laps, self._earlier_s + seconds][-NUM_LAPS:]
        self._earlier_s = 0.0
        self._mark()
        rate = None if count is None else count / max(training_s, 1e-9)
        if num_epochs is None or epoch >= num_epochs:
            return Pace(rate, unit)
        return Pace(rate, unit, (num_epochs - epoch) * sum(self._laps) / len(self._laps))

    def _mark(self) -> None:
        self._began, self._aside_then = time.perf_counter(), self._aside()

    def _aside(self) -> float:
        return sum(self._clock.of(part) for part in NOT_TRAINING)


class Console:
    """Prints; nothing but warnings and errors when quiet.

    Args:
        is_quiet: no epochs, no progress bar.
    """

    def __init__(self, is_quiet: bool = False) -> None:
        self.is_quiet = is_quiet
        self._bar: Progress | None = None
        self._said: _thread.LockType | None = None

    def epoch(self, epoch: int, num_epochs: int | None, metrics: Mapping[str, float], pace: Pace) -> None:
        """Print the line of an epoch."""
        if not self.is_quiet:
            self._print(epoch_text(epoch, num_epochs, metrics, pace, width()))

    def warn(self, text: str) -> None:
        """Print a warning."""
        self._print(wrapped(f"warning: {text}", width()))

    def say(self, text: str) -> None:
        """Print a line as it is: a path or a command is never broken."""
        self._print(text)

    def say_from_handler(self, text: str) -> None:
        """Print a line from a signal's handler; `wait_for_handler` waits until it is there.

        What the signal interrupts may hold the locks of stderr or of the bar, for which the handler would wait for
        ever. So another thread prints it, and waits. (`threading.Thread` has a lock of its own.)
        """
        self._said = _thread.allocate_lock()
        self._said.acquire()
        try:
            _thread.start_new_thread(self._say_and_release, (text, self._said))
        except BaseException as error:
            self._said.release()
            if not isinstance(error, RuntimeError):  # another signal
                raise
            # The system gives no more threads: the signal counts, what is said of it does not.

    def wait_for_handler(self) -> None:
        """Wait until what a handler said is printed, for a few seconds at most: stderr may take nothing."""
        if self._said is not None and self._said.acquire(timeout=SAID_S):
            self._said.release()

    def _say_and_release(self, text: str, said: _thread.LockType) -> None:
        try:
            self.say(text)
        finally:
            said.release()

    def progress(self, items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
        """Iterate with a progress bar; none when quiet or not on a terminal."""
        if self.is_quiet or self._bar is not None or not sys.stderr.isatty():
            yield from items
            return
        from rich import console, progress

        columns = (
            progress.TextColumn("{task.description}"),
            progress.BarColumn(bar_width=None),
            progress.TaskProgressColumn(),
            progress.TimeRemainingColumn(),
        )
        with progress.Progress(*columns, console=console.Console(stderr=True), expand=True) as bar:
            self._bar = bar
            try:
                yield from bar.track(items, total=total, description=label)
            finally:
                self._bar = None

    def _print(self, text: str) -> None:
        text = printable_lines(text)  # it may say what a plugin, a file or an error of theirs says
        bar = self._bar  # which may end meanwhile, where a handler's thread prints
        if bar is None:
            print(f"{text}\n", end="", file=sys.stderr, flush=True)  # in one piece: a handler's thread may print, too
        else:  # above the bar
            bar.console.print(text, markup=False, highlight=False, emoji=False, soft_wrap=True)


class Mute(Console):
    """Prints nothing at all: the user hears the first process of a run only."""

    def progress(self, items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
        """Iterate."""
        yield from items

    def _print(self, text: str) -> None:
        pass


def epoch_text(
    epoch: int, num_epochs: int | None, metrics: Mapping[str, float], pace: Pace, width: int | None = None
) -> str:
    """The line of an epoch: whole where it fits, else shortened, and broken only where that does not do.

    epoch  3/20  train_loss 0.4312  val_loss 0.3321  val_accuracy 91.33%  5420 samples/s  1 min 20 s left
    epoch  3/20  loss 0.4312 val 0.3321  accuracy val 91.33%  5420/s  1:20 left
    """
    head = f"epoch {epoch}" if num_epochs is None else f"epoch {epoch:>{len(str(num_epochs))}}/{num_epochs}"
    parts = [head, *(f"{name} {value_text(name, value)}" for name, value in metrics.items())]
    short = [head, *_group_by_metric(metrics)]
    if pace.rate is not None:
        parts.append(f"{rate_text(pace.rate)} {pace.unit}/s")
        short.append(f"{rate_text(pace.rate)}/s")
    if pace.left_s is not None:
        parts.append(f"{seconds_text(pace.left_s)} left")
        short.append(f"{clock_text(pace.left_s)} left")
    line = "  ".join(parts)
    if width is None or len(line) < width:
        return line
    return _fill_lines(short, width)


def _group_by_metric(metrics: Mapping[str, float]) -> list[str]:
    """`train_loss`, `val_loss` → `loss 0.4312 val 0.3321`."""
    groups: dict[str, list[str]] = {}
    for name, value in metrics.items():
        split, _, rest = name.partition("_")
        is_of_split = split in SPLITS and bool(rest)
        metric = rest if is_of_split else name
        label = f"{split} " if is_of_split and split != "train" else ""
        groups.setdefault(metric, []).append(f"{label}{value_text(name, value)}")
    return [f"{metric} {' '.join(values)}" for metric, values in groups.items()]


def _fill_lines(parts: list[str], width: int) -> str:
    """The parts in lines of less than `width` columns, so that a terminal breaks none of them."""
    lines = [parts[0]]
    for part in parts[1:]:
        if len(lines[-1]) + 2 + len(part) < width:
            lines[-1] += "  " + part
        else:
            lines.append("  " + part)
    return "\n".join(lines)

"""Checks of a trainer: it learns, it repeats, it resumes, it tells what happens in order, it leaves no file."""

from __future__ import annotations

import dataclasses
import io
import math
import os
import tempfile
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from spikecore.interfaces.task import Task
from spikecore.testing.compare import assert_same
from spikecore.testing.suite import Suite, needs, skip
from spikecore.testing.training import Recorder, Snapshot, loss_and_accuracy, small_task

PLAIN = (Tensor, bool, int, float, str, type(None))


class TrainerSuite(Suite):
    """Trains a small net on patterns that are easily told apart, with a context that keeps everything it is told."""

    kind: ClassVar[str] = "trainer"
    minimum = 10
    short: ClassVar[dict[str, Any]] = {"epochs": 16, "batch_size": 10}
    """Options that keep the checks quick, where the trainer has them; `options` come before them."""

    def make(self, **options: Any) -> Any:
        """A trainer with a short schedule."""
        known = {field.name for field in dataclasses.fields(self.target.Config)}
        return super().make(**{**{k: v for k, v in self.short.items() if k in known}, **self.options, **options})

    def fit(self, snapshots: bool = False, is_sequence: bool = False) -> tuple[Task, Any, Recorder, dict[str, float]]:
        """A whole run: `(task, trainer, recorder, final metrics)`."""
        task, trainer = small_task(is_sequence), self.make()
        recorder = Recorder(trainer=trainer, model=task.model) if snapshots else Recorder()
        return task, trainer, recorder, trainer.fit(task, recorder)

    def test_it_learns(self) -> None:
        """The loss falls, by a measure of its own, and most training samples are told apart."""
        before = loss_and_accuracy(small_task())
        task, *_ = self.fit()
        after = loss_and_accuracy(task)
        assert after[0] < before[0], f"the loss went from {before[0]:.3f} to {after[0]:.3f}"
        assert after[1] >= 0.7, f"{after[1]:.0%} of the training samples are right; guessing gives 33 %"

    def test_metrics(self) -> None:
        """`fit` and `evaluate` give finite numbers by name, and evaluating again gives the same."""
        task, trainer, _, metrics = self.fit()
        assert metrics, "fit returned no metrics"
        for name, value in metrics.items():
            assert isinstance(value, int | float), f"{name} is {type(value).__name__}"
            assert math.isfinite(value), f"{name} is {value}"
        evaluated = [trainer.evaluate(task, Recorder()) for _ in range(2)]
        assert evaluated[0] == evaluated[1], "two evaluations differ"
        common = {name: metrics[name] for name in evaluated[0] if name in metrics}
        assert common == {name: evaluated[0][name] for name in common}, "fit and evaluate disagree on the final model"

    def test_evaluation_changes_nothing(self) -> None:
        """`evaluate` leaves the weights as they are, tells nobody, and draws nothing from the global generator."""
        task, trainer, recorder = small_task(), self.make(), Recorder()
        kept = {name: value.clone() for name, value in task.model.state_dict().items()}
        before = torch.get_rng_state()
        trainer.evaluate(task, recorder)
        assert_same(dict(task.model.state_dict()), kept, "the weights after evaluate")
        assert not recorder.events, f"evaluate told of {recorder.events[0][0]}"
        assert torch.equal(before, torch.get_rng_state()), "evaluate drew random numbers"

    def test_same_seed_same_bits(self) -> None:
        """Two runs with one seed of the context's generator end in the same bits, whatever torch's global seed is."""
        first, _, recorder, metrics = self.fit()
        torch.manual_seed(99)
        second, _, other, again = self.fit()
        assert_same(dict(second.model.state_dict()), dict(first.model.state_dict()), "the weights of a second run")
        assert again == metrics, f"the metrics were {metrics}, then {again}"
        assert other.events == recorder.events, "the second run told something else"

    @needs("resumable")
    def test_resumed_equals_uninterrupted(self) -> None:
        """From a safe point, also within an epoch, a new trainer goes on to the same bits, metrics and messages."""
        task, trainer, recorder, metrics = self.fit(snapshots=True)
        points = recorder.snapshots
        assert points, "fit never called context.checkpoint()"
        for at in sorted({0, len(points) // 3, len(points) // 2, len(points) - 1}):
            torch.manual_seed(99 + at)
            where = f"safe point {at + 1} of {len(points)}"
            resumed, later = self._resumed(points[at])
            found = later.trainer.fit(resumed, later)
            assert_same(dict(resumed.model.state_dict()), dict(task.model.state_dict()), f"the weights from {where}")
            assert found == metrics, f"resumed at {where} the metrics are {found}, uninterrupted {metrics}"
            assert later.events == recorder.events[points[at].num_events :], f"resumed at {where} it told another story"
            state = trainer.state_dict()
            assert_same(later.trainer.state_dict(), state, f"the trainer's state after a run from {where}")

    def _resumed(self, point: Snapshot, **options: Any) -> tuple[Task, Recorder]:
        task, trainer = small_task(seed=5), self.make(**options)
        task.model.load_state_dict(point.model)
        trainer.load_state_dict(_saved(point.trainer))
        recorder = Recorder(seed=5, trainer=trainer)
        recorder.generator.set_state(point.generator)
        return task, recorder

    @needs("resumable")
    def test_state_is_plain(self) -> None:
        """`state_dict` holds tensors, numbers, strings, None, lists, tuples and dicts; it can be saved at any time."""
        trainer = self.make()
        states = [trainer.state_dict(), *(p.trainer for p in self.fit(snapshots=True)[2].snapshots[:2])]
        for state in states:
            _assert_plain(state, "state_dict()")
            _saved(state)

    @needs("resumable")
    def test_a_fresh_state_starts_anew(self) -> None:
        """The state of a trainer that has done nothing, loaded into another one, leads to the same run."""
        task, trainer = small_task(), self.make()
        trainer.load_state_dict(_saved(self.make().state_dict()))
        trainer.fit(task, Recorder())
        assert_same(dict(task.model.state_dict()), dict(self.fit()[0].model.state_dict()), "the weights")

    @needs("resumable")
    def test_extended(self) -> None:
        """An option that `capabilities.extendable` names may be larger when a run is resumed: the run goes on."""
        extendable = getattr(self.capabilities, "extendable", ())
        if not extendable:
            skip("capabilities.extendable is empty")
        _, short, recorder, _ = self.fit(snapshots=True)
        for name in extendable:
            assert hasattr(short.config, name), f"capabilities.extendable names {name!r}, which Config does not have"
            task, later = self._resumed(recorder.snapshots[-1], **{name: 2 * getattr(short.config, name)})
            later.trainer.fit(task, later)
            told = [value[0] for kind, value in later.events if kind == "epoch_end"]
            before = sum(kind == "epoch_end" for kind, _ in recorder.events)
            assert told, f"with twice the {name} a finished run does not go on"
            assert told == list(range(before + 1, before + 1 + len(told))), f"after epoch {before} it told of {told}"

    def test_hooks_in_order(self) -> None:
        """Epochs are told as 1, 2, 3 …, each after its log; the last epoch is followed by a safe point."""
        _, trainer, recorder, _ = self.fit(snapshots=True)
        told = [value for name, value in recorder.events if name == "epoch_end"]
        assert told, "context.epoch_end was never called"
        assert [epoch for epoch, _ in told] == list(range(1, len(told) + 1)), f"epochs told: {[e for e, _ in told]}"
        if hasattr(trainer.config, "epochs"):
            assert len(told) == trainer.config.epochs, (
                f"{len(told)} epochs were told, {trainer.config.epochs} asked for"
            )
        for _, metrics in told:
            assert all(isinstance(v, int | float) and math.isfinite(v) for v in metrics.values()), metrics
        names = [name for name, _ in recorder.events]
        for index in (i for i, name in enumerate(names) if name == "epoch_end"):
            previous = max((i for i in range(index) if names[i] == "epoch_end"), default=-1)
            assert "log" in names[previous + 1 : index], "an epoch ended without a line in the log"
        last = max(i for i, name in enumerate(names) if name == "epoch_end")
        assert recorder.snapshots, "fit never called context.checkpoint()"
        assert recorder.snapshots[-1].num_events > last, "no safe point follows the last epoch"

    def test_interrupt_gets_through(self) -> None:
        """A KeyboardInterrupt at a safe point ends `fit`."""
        recorder = Recorder(stop_at=2)
        with pytest.raises(KeyboardInterrupt):
            self.make().fit(small_task(), recorder)
        assert recorder.num_checkpoints == 2, "it went on after the interrupt"

    def test_writes_no_file(self) -> None:
        """Files are the run's: training in an empty directory leaves it empty."""
        here = os.getcwd()
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            try:
                self.fit()
            finally:
                os.chdir(here)
            assert not os.listdir(folder), f"it left {os.listdir(folder)}"

    def test_sequences(self) -> None:
        """Samples that are sequences already are trained on as well, and give what the same values static give."""
        static, sequences = self.fit()[0], self.fit(is_sequence=True)[0]
        assert_same(dict(sequences.model.state_dict()), dict(static.model.state_dict()), "the weights")

    def test_only_the_model_is_trained(self) -> None:
        """Frozen parameters stay as they are."""
        task = small_task()
        frozen = next(task.model.parameters()).requires_grad_(False)
        kept = frozen.clone()
        if not self.capabilities.gradient:
            skip("capabilities.gradient is False")
        self.make().fit(task, Recorder())
        assert_same(frozen.detach(), kept, "a parameter with requires_grad=False")


def _saved(state: Any) -> Any:
    """As it comes back from a file, without pickle."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def _assert_plain(value: Any, where: str) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            assert isinstance(key, str | int), f"{where}: the key {key!r} is {type(key).__name__}"
            _assert_plain(inner, f"{where}[{key!r}]")
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            _assert_plain(inner, f"{where}[{index}]")
    else:
        assert isinstance(value, PLAIN), f"{where} is {type(value).__name__}, which is not saved without pickle"

"""Checks of a trainer: it learns, it repeats, it resumes, it tells what happens in order, it leaves no file."""

from __future__ import annotations

import dataclasses
import io
import itertools
import math
import os
import tempfile
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from spikecore.interfaces.task import Task
from spikecore.run.connected import Connected
from spikecore.testing.compare import assert_same
from spikecore.testing.suite import Suite, advice, needs, skip
from spikecore.testing.training import Recorder, Snapshot, Spied, small_task, train_outputs
from spikecore.testing.two_processes import SharedRecorder, in_two_processes, obstacle

AS_ONE = 1e-3
"""How near the metrics of two processes are to those of one: their sums of floats have another order."""
GENERATORS = ("torch", "context.generator", "context.device_generator")
PLAIN = (Tensor, bool, int, float, str, type(None))


class TrainerSuite(Suite):
    """Trains a small net on a small task for what the trainer learns from (`capabilities.task`), with a context that
    keeps everything that is reported to it. The task is what the trainer prepares from small parts; `make_task` may be
    overridden.
    """

    kind: ClassVar[str] = "trainer"
    minimum = 10
    short: ClassVar[dict[str, Any]] = {"epochs": 16, "batch_size": 10}
    """Options that keep the checks quick, where the trainer has them; `options` come before them."""

    def make(self, **options: Any) -> Any:
        """A trainer with a short schedule."""
        known = {field.name for field in dataclasses.fields(self.target.Config)}
        short = {name: value for name, value in self.short.items() if name in known}
        own = getattr(self.target, "short_run", {}).get("trainer", {})
        return super().make(**{**short, **own, **self.options, **options})

    def make_task(self, trainer: Any, is_sequence: bool = False, seed: int = 0) -> Task:
        """What the trainer is to train.

        Args:
            trainer: made by `make`.
            is_sequence: samples have a time axis.
            seed: of the net's weights; everything else is the same for every seed.
        """
        return small_task(trainer, is_sequence, seed)

    def ready(self, is_sequence: bool = False, seed: int = 0, **options: Any) -> tuple[Task, Any]:
        """A trainer, and its task."""
        trainer = self.make(**options)
        return self.make_task(trainer, is_sequence, seed), trainer

    def fit(
        self, snapshots: bool = False, is_sequence: bool = False, seed: int = 0
    ) -> tuple[Task, Any, Recorder, dict[str, float]]:
        """A whole run: `(task, trainer, recorder, final metrics)`."""
        task, trainer = self.ready(is_sequence, seed)
        recorder = Recorder(trainer=trainer, model=task.model) if snapshots else Recorder()
        return task, trainer, recorder, trainer.fit(task, recorder)

    def test_it_learns(self) -> None:
        """The net becomes better on what it is trained on, by a measure of the suite's own where there are labels."""
        checks = {"class": self._learns_classes, "value": self._learns_values, "sequence": self._learns_values}
        checks.get(self.capabilities.task, self._raises_its_score)()

    def _learns_classes(self) -> None:
        before = _loss_and_accuracy(self.ready()[0])
        after = _loss_and_accuracy(self.fit()[0])
        assert after[0] < before[0], f"the loss went from {before[0]:.3f} to {after[0]:.3f}"
        assert after[1] >= 0.7, f"{after[1]:.0%} of the training samples are right; guessing gives 33 %"

    def _learns_values(self) -> None:
        error, guess = _errors(self.fit()[0])
        assert error <= 0.5 * guess, (
            f"the mean squared error on the training samples is {error:.3f}; guessing their mean gives {guess:.3f}"
        )

    def _raises_its_score(self) -> None:
        """The metric that it gives as its score is better than that of the net it began with; mean of two nets."""
        gains = []
        for seed in (0, 1):
            task, trainer, recorder, _ = self.fit(seed=seed)
            scores = [value for kind, value in recorder.events if kind == "checkpoint"]
            if not scores:
                skip("it gives no score to checkpoint()")
            fresh, beginner = self.ready(seed=seed)
            after, before = _metrics(task, trainer), _metrics(fresh, beginner)
            names = [name for name, value in after.items() if scores[-1] in (value, -value)]
            if not names:
                skip("its last score is no metric of `evaluate`, so the suite cannot tell what it is to raise")
            sign = 1 if after[names[0]] == scores[-1] else -1
            gains.append(sign * (after[names[0]] - before[names[0]]))
        assert sum(gains) > 0, f"its score did not rise: it changed by {gains} from the nets it began with"

    def test_metrics(self) -> None:
        """`fit` and `evaluate` give finite numbers, named after the split; evaluating again gives the same."""
        task, trainer, _, metrics = self.fit()
        assert metrics, "fit returned no metrics"
        for name, value in metrics.items():
            assert isinstance(value, int | float), f"{name} is {type(value).__name__}"
            assert math.isfinite(value), f"{name} is {value}"
        for split in _measured(task):
            evaluated = [trainer.evaluate(task, Recorder(seed=seed), split) for seed in (0, 1)]
            assert evaluated[0] == evaluated[1], "two evaluations differ"
            names = [name for name in evaluated[0] if task.splits and not name.startswith(f"{split}_")]
            assert not names, f"evaluated on {split!r}, it calls metrics {', '.join(names)}, not {split}_..."
            common = {name: metrics[name] for name in evaluated[0] if name in metrics}
            right = {name: evaluated[0][name] for name in common}
            assert common == right, "fit and evaluate disagree on the final model"

    @advice(
        "compare models on task.val while training, and call evaluate(task, context, 'test') once at the end of fit"
    )
    def test_the_test_split_is_read_last(self) -> None:
        """No sample of the test split is read before the last epoch is over."""
        task, trainer = self.ready()
        if task.test is None:
            skip("its task has no test split")
        recorder = Recorder()
        spied = Spied(task.test, recorder)
        trainer.fit(dataclasses.replace(task, test=spied), recorder)
        told = sum(kind == "epoch_end" for kind, _ in recorder.events)
        assert spied.first_read in (None, told), f"the test split was read after {spied.first_read} of {told} epochs"

    def test_evaluation_changes_nothing(self) -> None:
        """`evaluate` changes no weights, calls no hooks, and draws from no generator but its own."""
        (task, trainer), recorder = self.ready(), Recorder()
        kept = {name: value.clone() for name, value in task.model.state_dict().items()}
        before = torch.get_rng_state(), recorder.generator.get_state(), recorder.device_generator.get_state()
        trainer.evaluate(task, recorder)
        assert_same(dict(task.model.state_dict()), kept, "the weights after evaluate")
        assert not recorder.events, f"evaluate told of {recorder.events[0][0]}"
        after = torch.get_rng_state(), recorder.generator.get_state(), recorder.device_generator.get_state()
        for where, ours, theirs in zip(GENERATORS, after, before, strict=True):
            assert torch.equal(ours, theirs), f"evaluate drew random numbers from {where}"

    def test_same_seed_same_bits(self) -> None:
        """Two runs with one seed of the context's generators end in the same bits, whatever torch's global seed is."""
        first, _, recorder, metrics = self.fit()
        torch.manual_seed(99)
        second, _, other, again = self.fit()
        assert_same(dict(second.model.state_dict()), dict(first.model.state_dict()), "the weights of a second run")
        assert again == metrics, f"the metrics were {metrics}, then {again}"
        assert other.events == recorder.events, "the second run told something else"

    @advice("pass weights=... to every call of context.checkpoint(), or to none; all tensors of the model's state_dict")
    def test_weights_fit_the_model(self) -> None:
        """`checkpoint(weights=...)`, where it is used, is used at every safe point, with a whole `state_dict`."""
        task, _, recorder, _ = self.fit()
        given = [weights for weights in recorder.weights if weights is not None]
        if not given:
            skip("it gives no weights: the model's own are what a run keeps")
        assert len(given) == len(recorder.weights), f"{len(given)} of {len(recorder.weights)} safe points have weights"
        state = task.model.state_dict()
        for weights in given:
            assert list(weights) == list(state), (
                f"the weights are {', '.join(weights)}; the model has {', '.join(state)}"
            )
            for name, value in weights.items():
                assert (value.shape, value.dtype) == (state[name].shape, state[name].dtype), f"weights: {name}"

    @needs("resumable")
    @advice(
        "keep in state_dict() all that `fit` needs to go on, and at the end of an epoch call context.log, then "
        "context.epoch_end, then context.checkpoint"
    )
    def test_resumed_equals_uninterrupted(self) -> None:
        """From a safe point, also within an epoch, a new trainer continues bit-identically: metrics and messages."""
        task, trainer, recorder, metrics = self.fit(snapshots=True)
        points = recorder.snapshots
        assert points, "fit never called context.checkpoint()"
        for at in sorted({0, len(points) // 3, len(points) // 2, len(points) - 1}):
            torch.manual_seed(99 + at)
            where = f"safe point {at + 1} of {len(points)}"
            resumed, later = self._resumed(points[at])
            final = later.trainer.fit(resumed, later)
            assert_same(dict(resumed.model.state_dict()), dict(task.model.state_dict()), f"the weights from {where}")
            assert final == metrics, f"resumed at {where} the metrics are {final}, uninterrupted {metrics}"
            _assert_told(later.events, recorder.events[points[at].num_events :], where)
            state = [trainer.state_dict(), trainer.large_state_dict()]
            again = [later.trainer.state_dict(), later.trainer.large_state_dict()]
            assert_same(again, state, f"the trainer's state after a run from {where}")

    def _resumed(self, point: Snapshot, **options: Any) -> tuple[Task, Recorder]:
        task, trainer = self.ready(seed=5, **options)
        task.model.load_state_dict(point.model)
        trainer.load_state_dict(_saved(point.trainer))
        if point.large:
            trainer.load_large_state_dict(_saved(point.large))
        recorder = Recorder(seed=5, trainer=trainer)
        recorder.generator.set_state(point.generator)
        recorder.device_generator.set_state(point.device_generator)
        return task, recorder

    @needs("resumable")
    def test_state_is_plain(self) -> None:
        """`state_dict` holds tensors, numbers, strings, None, lists, tuples and dicts; it can be saved at any time."""
        trainer = self.make()
        points = self.fit(snapshots=True)[2].snapshots[:2]
        for state in [trainer.state_dict(), *(point.trainer for point in points)]:
            _assert_plain(state, "state_dict()")
            _saved(state)
        for state in [trainer.large_state_dict(), *(point.large for point in points)]:
            assert isinstance(state, dict), f"large_state_dict() is {type(state).__name__}; expected a dict"
            _assert_plain(state, "large_state_dict()")
            _saved(state)

    @needs("resumable")
    def test_a_fresh_state_starts_anew(self) -> None:
        """The state of a trainer that has done nothing, loaded into another one, leads to the same run."""
        task, trainer = self.ready()
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
        """Epochs are reported as 1, 2, 3 …, each after its log; the last epoch is followed by a safe point."""
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
        assert recorder.snapshots[-1].num_events > last, (
            "no safe point follows the last epoch: call context.checkpoint() after context.epoch_end()"
        )

    def test_interrupt_gets_through(self) -> None:
        """A KeyboardInterrupt at a safe point ends `fit`."""
        recorder = Recorder(stop_at=2)
        task, trainer = self.ready()
        with pytest.raises(KeyboardInterrupt):
            trainer.fit(task, recorder)
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

    @needs("multi_process")
    @advice("use context.wrap, shard with its weight, all_sum and share_buffers, in every process equally often")
    def test_two_processes_train_as_one(self) -> None:
        """Two processes connected by gloo end with the same net, state and metrics, which are those of one process but
        for rounding; both come to as many safe points, and write no file."""
        if reason := obstacle():
            skip(reason)
        # Batches of an odd size have shards of different sizes; a few epochs leave rounding no time to grow.
        known = {field.name for field in dataclasses.fields(self.target.Config)}
        short = {"epochs": 3, "batch_size": 7}
        options: dict[str, Any] = {key: value for key, value in short.items() if key in known}
        task, trainer = self.ready(**options)
        metrics = trainer.fit(task, Recorder())
        with tempfile.TemporaryDirectory() as folder:
            first, second = in_two_processes(lambda group: self._trained_by(group, folder, options))
            left = os.listdir(folder)
        assert not left, f"a process left {', '.join(left)}: files are the run's"
        for key, what in (("model", "the weights"), ("metrics", "the metrics"), ("state", "the trainer's state")):
            assert_same(second[key], first[key], f"{what} of process 1, compared with process 0")
        assert second["points"] == first["points"], (
            f"process 0 came to {first['points']} safe points, process 1 to {second['points']}"
        )
        assert min(first["shards"], second["shards"]), "a process never asked for its shard of a batch"
        assert first["metrics"] == pytest.approx(metrics, rel=AS_ONE, abs=AS_ONE), (
            f"one process ends with {metrics}, two with {first['metrics']}"
        )

    def _trained_by(self, group: Connected, folder: str, options: dict[str, Any]) -> dict[str, Any]:
        """What one of the two processes has at its end."""
        os.chdir(folder)
        task, trainer = self.ready(**options)
        recorder = SharedRecorder(group)
        metrics = trainer.fit(task, recorder)
        return {
            "model": dict(task.model.state_dict()),
            "state": trainer.state_dict(),
            "metrics": metrics,
            "points": recorder.num_checkpoints,
            "shards": recorder.num_shards,
        }

    def test_sequences(self) -> None:
        """Samples that are sequences already are trained on as well, and give what the same values static give."""
        if self.capabilities.task in ("sequence", "environment"):
            skip(f"capabilities.task is {self.capabilities.task!r}: it has no static samples")
        if "dataset" not in self.capabilities.roles:
            skip("capabilities.roles lack 'dataset': it has no samples")
        static, sequences = self.fit()[0], self.fit(is_sequence=True)[0]
        assert_same(dict(sequences.model.state_dict()), dict(static.model.state_dict()), "the weights")

    def test_only_the_model_is_trained(self) -> None:
        """Frozen parameters stay as they are."""
        if not self.capabilities.gradient:
            skip("capabilities.gradient is False")
        task, trainer = self.ready()
        frozen = next(task.model.parameters()).requires_grad_(False)
        kept = frozen.clone()
        trainer.fit(task, Recorder())
        assert_same(frozen.detach(), kept, "a parameter with requires_grad=False")


def _loss_and_accuracy(task: Task) -> tuple[float, float]:
    """Cross entropy of the mean over time, and the share that is right, on the training split."""
    out, labels = train_outputs(task)
    logits, label = out.mean(0), torch.tensor(labels)
    loss = torch.nn.functional.cross_entropy(logits, label)
    return float(loss), float((logits.argmax(-1) == label).float().mean())


def _errors(task: Task) -> tuple[float, float]:
    """Mean squared errors on the training split: of the net, and of the best constant answer."""
    out, labels = train_outputs(task)
    wanted = torch.stack([torch.as_tensor(label) for label in labels])
    if wanted.dim() == 3:  # [N, T, C]: a value in each step
        answer = out.transpose(0, 1)
        guess = wanted.mean((0, 1))
    else:
        answer = out.mean(0)
        guess = wanted.mean(0)
    return float((answer - wanted).square().mean()), float((guess - wanted).square().mean())


def _measured(task: Task) -> list[str]:
    """What `evaluate` can be asked for: the splits, or the seeds of validation and of the test in an environment."""
    return list(task.splits) or ["val", "test"]


def _metrics(task: Task, trainer: Any) -> dict[str, float]:
    """Of every split that there is, or of the environment."""
    metrics: dict[str, float] = {}
    for split in _measured(task):
        metrics |= trainer.evaluate(task, Recorder(), split)
    return metrics


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


def _assert_told(told: list[tuple[str, Any]], wanted: list[tuple[str, Any]], where: str) -> None:
    """A resumed run tells what an uninterrupted one tells after that safe point."""
    if told == wanted:
        return
    same = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(told, wanted, strict=False)))
    ours, theirs = (_call_text(events[same]) if same < len(events) else "nothing more" for events in (told, wanted))
    raise AssertionError(
        f"resumed at {where} it does not tell what the uninterrupted run tells from there on: after {same} calls that "
        f"agree it tells {ours}, uninterrupted {theirs}"
    )


def _call_text(event: tuple[str, Any]) -> str:
    name, value = event
    return f"context.{name}({value})"

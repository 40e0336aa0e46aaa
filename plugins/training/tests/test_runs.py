"""Whole runs: `spike run`, resuming, stopping by a hook, TensorBoard."""

import json

import pytest
import torch

import spikecore
from spikecore import hookimpl
from spikecore.errors import RunError, StopRun
from spikecore.run.experiment import evaluate, resume
from spikecore_training.plugin import FOLDER

CONFIG = {
    "run": {"report": False, "checkpoint_every_steps": 2, "keep_last": 50},
    "dataset": {"test_share": 0.3},
    "encoder": {"num_steps": 2},
    "model": {"name": "mlp", "hidden": [16]},
    "neuron": {"v_threshold": 0.3},
    "backend": {"name": "torch"},
    "trainer": {
        "name": "supervised",
        "epochs": 2,
        "batch_size": 200,
        "lr": 0.02,
        "ema": 0.5,
        "mixup": 0.4,
        "label_smoothing": 0.1,
        "log_every": 2,
        "clip_norm": 1.0,
        "firing_rates": True,
    },
}


def config(**trainer):
    return {**CONFIG, "trainer": {**CONFIG["trainer"], **trainer}}


def lines(directory):
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


class Stopping:
    """Prunes, as a sweep does."""

    def __init__(self, at):
        self.at, self.seen = at, []

    @hookimpl
    def spike_log(self, metrics):
        self.seen.append(dict(metrics))
        if metrics.get("step") == self.at:
            raise StopRun("pruned: worse than the median")


def test_a_hook_stops_a_run_which_resumes_to_the_same_bits(tmp_path):
    whole = spikecore.run(config(tensorboard=True), out=tmp_path / "whole")
    assert whole.metrics["test_firing_rate"] > 0.01
    pruning = Stopping(at=4)
    with pytest.raises(StopRun, match="worse than the median"):
        spikecore.run(config(tensorboard=True), out=tmp_path / "pruned", hooks=[pruning])
    record = json.loads((tmp_path / "pruned/run.json").read_text())
    assert (record["status"], record["exit_status"]) == ("stopped", 0)
    assert [line["step"] for line in pruning.seen] == [2, 4]
    resumed = resume(tmp_path / "pruned")
    assert resumed.metrics == whole.metrics
    assert lines(tmp_path / "pruned") == lines(tmp_path / "whole")
    ours, theirs = (spikecore.load(tmp_path / name).state_dict() for name in ("pruned", "whole"))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    # What is loaded is the moving average, which is what was evaluated.
    assert evaluate(tmp_path / "whole").metrics["test_loss"] == pytest.approx(whole.metrics["test_loss"], rel=1e-6)
    assert_written(tmp_path / "whole", whole.metrics)


def assert_written(directory, metrics):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(directory / FOLDER)).Reload()
    assert [event.step for event in events.Scalars("lr")] == [2, 4, 6, 8, 10, 12][: len(events.Scalars("lr"))]
    losses = events.Scalars("val_loss")
    assert [event.step for event in losses] == [1, 2]
    assert losses[-1].value == pytest.approx(metrics["val_loss"], rel=1e-6)


def test_a_loss_that_is_no_number_leaves_the_last_checkpoint_good(tmp_path):
    class Poison:
        @hookimpl
        def spike_run_start(self, model):
            self.model = model

        @hookimpl
        def spike_log(self, metrics):
            if metrics.get("step") == 4:
                with torch.no_grad():
                    self.model.layers[0].bias[0] = float("nan")

    with pytest.raises(RunError, match="epoch 1, step 5.*layers.0.bias is not finite"):
        spikecore.run(config(ema=0.0), out=tmp_path / "run", hooks=[Poison()])
    record = json.loads((tmp_path / "run/run.json").read_text())
    assert record["status"] == "failed"
    names = sorted(path.name for path in (tmp_path / "run/checkpoints").iterdir())
    assert names
    weights = spikecore.load(tmp_path / "run", checkpoint=names[0]).state_dict()
    assert all(value.isfinite().all() for value in weights.values())


def test_a_listener_without_a_hook_is_refused(tmp_path):
    with pytest.raises(spikecore.errors.BrokenPluginError, match="mark its methods with @spikecore.hookimpl"):
        spikecore.run(config(), out=tmp_path / "run", hooks=[object()])

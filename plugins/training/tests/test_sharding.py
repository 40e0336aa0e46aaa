"""Processes that hold parts of a net (FSDP2) train it as one process does."""

import copy
import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import spiking_task
from test_processes import OPTIONS, assert_as_one
from torch import nn as torch_nn

import spikecore
from spikecore import nn
from spikecore.errors import ConfigError, OptionError
from spikecore.run.config import resolve
from spikecore.run.experiment import resume
from spikecore.testing.training import Recorder
from spikecore.testing.two_processes import SharedRecorder, in_processes
from spikecore_training.supervised import Supervised

SCENARIO = Path(__file__).with_name("sharding_scenario.py")
SOURCE = Path(spikecore.__file__).parents[1]
HANG_S = 240.0
STOPPED_AT = 6
"""Of the 9 safe points of two epochs, 4 + 4 steps and the ends of the epochs: in the middle of the second one."""


def plif_net(num_outputs):
    """With a time constant for a layer, which has no axis to divide it along, and a norm."""
    torch.manual_seed(1)
    neuron = nn.ParametricLIF(v_threshold=0.3, backend="torch")
    return torch_nn.Sequential(
        nn.Flatten(-3), nn.Linear(16, 20), nn.BatchNorm1d(20), neuron, nn.Linear(20, num_outputs)
    )


def make(**options):
    """A trainer, and its task in double precision, as in `test_processes`."""
    trainer = Supervised(**{**OPTIONS, "batch_size": 13, **options})
    task = spiking_task(trainer)
    if options.get("sync_batch_norm"):
        task = dataclasses.replace(task, model=plif_net(task.num_outputs))
    task.model.double().register_forward_pre_hook(lambda module, inputs: (inputs[0].double(),))
    return trainer, task


def fit(recorder, snapshot=None, **options):
    """Train, from a safe point where one is given; what is left at the end."""
    trainer, task = make(**options)
    recorder.trainer, recorder.model = trainer, task.model
    if snapshot is not None:
        snapshot = copy.deepcopy(snapshot)  # an optimizer goes on counting in the tensors that it loads
        task.model.load_state_dict(snapshot["model"])
        trainer.load_state_dict(snapshot["trainer"])
        recorder.generator.set_state(snapshot["generator"])
    metrics = trainer.fit(task, recorder)
    points = [
        {"model": dict(point.model), "trainer": point.trainer, "generator": point.generator}
        for point in recorder.snapshots
    ]
    return {
        "model": dict(task.model.state_dict()),
        "metrics": metrics,
        "logs": [event for name, event in recorder.events if name == "log"],
        "notes": recorder.notes,
        "held": held(trainer),
        "points": points,
        "optimizer": trainer.state_dict()["optimizer"],
    }


def local(tensor):
    """This process's part."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def held(trainer):
    """How many numbers this process holds of parameters, of their gradients, and of what the optimizer keeps."""
    optimizer = trainer._optimizer
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    kept = [value for values in optimizer.state.values() for value in values.values() if value.dim()]
    return [sum(local(tensor).numel() for tensor in tensors) for tensors in (parameters, gradients, kept)]


def assert_same_state(some, other):
    assert some["param_groups"] == other["param_groups"]
    assert some["state"].keys() == other["state"].keys()
    for number, values in some["state"].items():
        for name, value in values.items():
            torch.testing.assert_close(value, other["state"][number][name], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    ("world_size", "options"),
    [
        (2, {"accumulate": 3, "clip_norm": 0.05, "sync_batch_norm": True}),
        (4, {"truncate": 2, "rate_penalty": 1.0, "label_smoothing": 0.1, "clip_value": 0.003}),
    ],
)
def test_parts_train_as_the_whole(world_size, options):
    one = fit(Recorder(), **options)
    several = in_processes(lambda group: fit(SharedRecorder(group), parallel="fsdp", **options), world_size)
    assert_as_one(several, one)
    assert one["metrics"]["test_firing_rate"] > 0.05
    for name in ("clip_norm", "clip_value"):
        if name in options:  # it must have mattered
            with pytest.raises(AssertionError):
                assert_as_one([fit(Recorder(), **{**options, name: 0.0})], one)
    for answer in several:
        assert_same_state(answer["optimizer"], one["optimizer"])
    # In parts for real: together they hold each number once, but for the time constant, which all of them hold.
    num_shared = 1 if "sync_batch_norm" in options else 0
    for place, total in enumerate(one["held"]):
        parts = [answer["held"][place] for answer in several]
        copies = num_shared * (world_size - 1) if place < 2 else 0  # `held` leaves out what has no axis
        assert sum(parts) == total + copies
        assert max(parts) < 1.3 * total / world_size


def test_a_run_in_parts_goes_on_in_any_number_of_processes():
    whole = fit(Recorder())
    first, _ = in_processes(lambda group: fit(SharedRecorder(group), parallel="fsdp"), 2)
    point = first["points"][STOPPED_AT - 1]
    assert point["trainer"]["progress"]["steps"] == 1
    alone = fit(Recorder(), point)
    four = in_processes(lambda group: fit(SharedRecorder(group), point, parallel="fsdp"), 4)
    copies = in_processes(lambda group: fit(SharedRecorder(group), four[0]["points"][1], parallel="ddp"), 2)
    for answer in (alone, *four, *copies):
        assert answer["metrics"] == pytest.approx(whole["metrics"], rel=1e-5, abs=1e-6)
        assert_same_state(answer["optimizer"], whole["optimizer"])
        for name, value in whole["model"].items():
            torch.testing.assert_close(answer["model"][name], value, rtol=1e-6, atol=1e-8)


def half(recorder, **options):
    trainer = Supervised(**{**OPTIONS, "epochs": 1, "clip_norm": 0.5, **options})
    recorder.dtype = torch.float16
    return trainer.fit(spiking_task(trainer), recorder)


def test_float16_is_scaled_in_parts_as_in_copies():
    parts = in_processes(lambda group: half(SharedRecorder(group), parallel="fsdp", memory="save"), 2)
    copies = in_processes(lambda group: half(SharedRecorder(group), parallel="ddp"), 2)
    assert parts[0] == parts[1]
    assert parts[0] == pytest.approx(copies[0], rel=1e-3)


def emptied(group):
    trainer, task = make(epochs=1)
    net = group.fully_shard(task.model)
    x = torch.rand(4, 2, 1, 4, 4)
    group.make_whole(task.model)
    first = task.model(x)
    net(x)
    before = [parameter.numel() for parameter in task.model.parameters()]
    group.share_buffers(task.model)
    return {"empty": before, "same": bool(torch.equal(first, task.model(x)))}


def test_the_net_itself_is_empty_while_its_parts_are_trained():
    for answer in in_processes(emptied, 2):
        assert set(answer["empty"]) == {0}
        assert answer["same"]


def refused(group):
    trainer, task = make(epochs=1, parallel="fsdp")
    with torch.no_grad():
        weight = task.model[1].weight
        weight.data = weight.data.t().contiguous().t()
    try:
        trainer.fit(task, SharedRecorder(group))
    except OptionError as error:
        return {"text": str(error), "is_told": error.is_told}
    return {}


def test_a_net_that_torch_cannot_divide_is_named():
    answers = in_processes(refused, 2)
    for answer in answers:
        assert "cannot be sharded between processes" in answer["text"]
        assert "contiguous" in answer["text"]
    assert [answer["is_told"] for answer in answers] == [False, True]  # one of them shows it


@pytest.mark.parametrize(
    ("options", "cure"),
    [
        (["trainer.ema=0.9"], "leave out ema"),
        (["trainer.compile=true"], "leave out compile"),
        (["trainer.channels_last=true"], "leave out channels_last"),
        (["trainer.optimizer.name=rprop"], "Rprop takes whole weights only"),
        (["trainer.optimizer.name=adafactor"], "Adafactor takes whole weights only"),
    ],
)
def test_what_cannot_be_combined_is_named(options, cure):
    changes = ["trainer.name=supervised", "trainer.parallel=fsdp", *options]
    with pytest.raises(ConfigError, match=cure):
        resolve(None, changes)


def test_a_killed_process_is_restarted_and_the_run_goes_on_in_one(tmp_path):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--max-restarts", "1"]
    env = {**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*launcher, str(SCENARIO)], env=env, cwd=tmp_path, capture_output=True, text=True, timeout=HANG_S, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "process 1 is gone" in done.stderr
    (directory,) = (tmp_path / "runs").iterdir()
    record = json.loads((directory / "run.json").read_text())
    assert record["status"] == "finished"
    assert [resumption["checkpoint"] for resumption in record["resumes"]] == ["checkpoint-00000007"]
    result = resume(directory, overrides=["trainer.epochs=3"])
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    assert result.metrics["test_accuracy"] > 0.3
    assert all(value.isfinite().all() for value in spikecore.load(directory).state_dict().values())

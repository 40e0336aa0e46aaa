"""Run by torchrun: what one of two processes does in test_processes.py, several runs one after the other.

argv: the name of the scenario. Each rank writes `answers-RANK.json`: name of the run → exit status, stdout and stderr.
"""

import contextlib
import errno
import io
import json
import os
import signal
import sys
from pathlib import Path

import torch
from torch import nn

import spikecore
from spikecore.cli import main
from spikecore.interfaces import TrainerCapabilities
from spikecore.models.mlp import MLP
from spikecore.run.checkpoint import CheckpointStore
from spikecore.trainers.classify import Classify

RANK = int(os.environ.get("RANK", "0"))
FAULT_AT = 6
"""Safe points before a fault."""
WITH_TAIL = ["trainer.val_share=0", "trainer.batch_size=419"]
"""The last one of the 1258 samples is a batch by itself, of which process 0 has none."""
SMALL = [
    "dataset.test_share=0.3",
    "encoder.num_steps=2",
    "model.name=mlp",
    "model.hidden=[16]",
    "neuron.v_threshold=0.3",
    "trainer.epochs=3",
    "trainer.batch_size=101",  # odd, and the last batch of an epoch is smaller
    "run.checkpoint_every_steps=2",
    "run.report=false",
]


class Dropping(MLP):
    """Draws from the global generator while it trains."""

    def forward(self, x):
        if self.training:
            x = nn.functional.dropout(x, 0.2)
        return super().forward(x)


class Normed(MLP):
    """With a batch norm, and a parameter that gets no gradient."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.norm = nn.BatchNorm1d(self.layers[0].in_features)
        self.spare = nn.Linear(2, 2)

    def forward(self, x):
        flat = x.flatten(x.dim() - self.input_rank)
        return self.layers(self.norm(flat.flatten(0, 1)).unflatten(0, flat.shape[:2]))


def faulty_epoch(self, task, net, context):
    """An epoch in which process FAULT_RANK does what FAULT says, after some steps."""
    real = task.model.forward

    def forward(x):
        if context.count >= FAULT_AT and task.model.training and str(context.rank) == os.environ.get("FAULT_RANK"):
            fault(os.environ["FAULT"], context)
        return real(x)

    task.model.forward = forward
    try:
        return sound_epoch(self, task, net, context)
    finally:
        task.model.forward = real


def fault(name, context):
    """Happens in the middle of a step."""
    if name == "raise":
        raise ValueError("the sensor burnt through")
    if name == "full":
        CheckpointStore.save = refuse_to_write
    if name == "draw":
        torch.rand(1, generator=context.generator)
    if name in ("SIGKILL", "SIGINT", "SIGTERM") and not context.stopping and not context.processes.is_terminated:
        os.kill(os.getpid(), getattr(signal, name))


def refuse_to_write(*arguments, **options):
    """The disk of this process is full."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class Alone(Classify):
    """Does not say that it works in several processes."""

    capabilities = TrainerCapabilities()


def spike(name, *words, **environment):
    """`spike run` with these words, and how it ended."""
    os.environ.update(environment)
    out, err = io.StringIO(), io.StringIO()
    sys.argv = ["spike", "run", *words]
    status = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as stop:
            status = stop.code or 0
    answers[name] = {"status": status, "stdout": out.getvalue(), "stderr": err.getvalue()}
    Path(f"answers-{RANK}.json").write_text(json.dumps(answers))


def options(*changes):
    return [word for text in [*SMALL, *changes] for word in ("--set", text)]


def sound():
    """Runs that come to their end, or are stopped and resumed."""
    spike("mlp", *options(), "--out", "mlp")
    noisy = options("model.name=dropping", "encoder.name=poisson")
    spike("whole", *noisy, "--out", "whole")
    spike("stopped", *noisy, "--out", "stopped", FAULT="SIGTERM", FAULT_RANK="1")
    spike("resumed", "--resume", "stopped", FAULT="none")
    spike("halted", *options(), "--out", "halted", FAULT="SIGINT", FAULT_RANK="0")
    spike("normed", *options("model.name=normed", "trainer.epochs=1"), "--out", "normed", FAULT="none")
    spike("tail", *options(*WITH_TAIL), "--out", "tail")


def refused():
    """Runs that are refused before they begin, or end for all when one process finds a fault."""
    Path(f"file-{RANK}").touch()
    spike("unlike", *options(f"trainer.lr=0.0{RANK + 1}"), "--out", "unlike")
    spike("unwritable", *options(), "--out", "file-0/run")
    spike("alone", *options("trainer.name=alone"), "--out", "alone")
    spike("wrong", *options("trainer.lr=-1"), "--out", "wrong")
    spike("one wrong", *options(*(["trainer.lr=-1"] if RANK else [])), "--out", "wrong")
    spike("draw", *options(), "--out", "draw", FAULT="draw", FAULT_RANK="1")
    spike("dry", *options(), "--dry-run")
    spike("full", *options(), "--out", "full", FAULT="full", FAULT_RANK="0")


answers = {}
sound_epoch = Classify._train_epoch
if __name__ == "__main__":
    Classify._train_epoch = faulty_epoch
    spikecore.register("model", "dropping", Dropping)
    spikecore.register("model", "normed", Normed)
    spikecore.register("trainer", "alone", Alone)
    scenario = sys.argv[1]
    if scenario in ("sound", "refused"):
        {"sound": sound, "refused": refused}[scenario]()
    else:
        told = ["--resume", "faulty"] if scenario == "again" else [*options(), "--out", scenario]
        sys.argv = ["spike", "run", *told]
        main()

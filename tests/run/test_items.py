"""Boxes: a dataset whose labels are items, from its suite to a run, its evaluation, its report and a resumption."""

import json
from dataclasses import dataclass
from typing import Annotated

import pytest
import torch
from torch import nn

import spikecore
from spikecore.cli import spike as spike_command
from spikecore.errors import OptionError
from spikecore.interfaces.component import Range
from spikecore.interfaces.dataset import DatasetCapabilities, DatasetInfo
from spikecore.interfaces.model import ModelCapabilities
from spikecore.interfaces.trainer import TrainerCapabilities
from spikecore.models.mlp import MLP
from spikecore.registry import Blocking, Registry, use
from spikecore.run.checkpoint import CheckpointStore
from spikecore.run.context import Context
from spikecore.run.experiment import evaluate, resume
from spikecore.run.record import Record
from spikecore.run.report import build
from spikecore.run.samples import samples_of
from spikecore.testing.proving import prove
from spikecore.trainers import Trainer, assemble, dataset_task, in_batches
from tests.conformance.toys import ToyDataset, ToySplit, ToyValues

SIZE = 8


@dataclass(frozen=True)
class BoxSplit(ToySplit):
    """Bright boxes on a dark ground; the label has a row for each, its corners: x0, y0, x1, y1."""

    def __getitem__(self, index):
        if not 0 <= index < self.size:
            raise IndexError(index)
        generator = torch.Generator().manual_seed(self.seed + index)
        x, boxes = 0.1 * torch.rand(1, SIZE, SIZE, generator=generator), []
        for _ in range(index % 3):
            left, top = torch.randint(0, SIZE - 2, (2,), generator=generator).tolist()
            x[0, top : top + 2, left : left + 2] = 1.0
            boxes.append([left, top, left + 2, top + 2])
        return x, torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)


class Boxes(ToyDataset):
    """None, one or two boxes in a picture."""

    capabilities = DatasetCapabilities(embedded=True, target="items")
    info = DatasetInfo("Boxes", ("box",), (1, SIZE, SIZE), "CC0", "nobody")
    num_outputs, sample_shape = 1, (1, SIZE, SIZE)
    make_split = BoxSplit


class BoxNet(MLP):
    """A net whose output is read as something about items."""

    capabilities = ModelCapabilities(targets=("items",))


class Counter(Trainer):
    """Learns how many boxes there are; a safe point after every step."""

    capabilities = TrainerCapabilities(extendable=("epochs",), task="unsupervised")

    @dataclass(frozen=True)
    class Config:
        epochs: Annotated[int, Range(ge=0)] = 4
        val_share: float = 0.2

    def __init__(self, **options):
        super().__init__(**options)
        self._optimizer, self._pending = None, None
        self._epoch, self._step, self._order = 0, 0, None

    def prepare(self, parts):
        return dataset_task(parts, "items", self.config.val_share)

    def fit(self, task, context):
        self._optimizer = torch.optim.Adam(task.model.parameters(), lr=0.02)
        if self._pending is not None:
            self._optimizer.load_state_dict(self._pending)
        while self._epoch < self.config.epochs:
            self._train(task, context)
            metrics = self.evaluate(task, context, "val")
            context.log(epoch=self._epoch, **metrics)
            context.epoch_end(self._epoch, metrics)
            context.checkpoint(-metrics["val_error"])
        return {**self.evaluate(task, context, "val"), **self.evaluate(task, context, "test")}

    def _train(self, task, context):
        task.model.train()
        if self._order is None:
            self._order = torch.cat(list(in_batches(task.train, 8, context.generator))).tolist()
        while self._step < len(self._order):
            self._optimizer.zero_grad()
            index = self._order[self._step : self._step + 8]
            self._error(task, task.train, index).backward()
            self._optimizer.step()
            self._step += 8
            context.checkpoint()
        self._epoch, self._step, self._order = self._epoch + 1, 0, None

    def evaluate(self, task, context, split="test"):
        task.model.eval()
        samples = task.split(split)
        with torch.no_grad():
            return {f"{split}_error": float(self._error(task, samples, range(len(samples))))}

    def _error(self, task, split, index):
        batch = assemble(split, index, task.is_sequence)
        assert isinstance(batch.label, list), "items are kept apart"
        counts = torch.tensor([float(len(boxes)) for boxes in batch.label])
        out = task.model(task.sequence(batch.x, None)).mean(0).squeeze(1)
        return nn.functional.mse_loss(out, counts)

    def state_dict(self):
        optimizer = self._optimizer.state_dict() if self._optimizer else self._pending
        return {"optimizer": optimizer, "epoch": self._epoch, "step": self._step, "order": self._order}

    def load_state_dict(self, state):
        self._optimizer, self._pending = None, state["optimizer"]
        self._epoch, self._step, self._order = state["epoch"], state["step"], state["order"]


TABLES = {
    "dataset": {"name": "boxes"},
    "encoder": {"num_steps": 3},
    "model": {"name": "box-net", "hidden": [16]},
    "neuron": {"v_threshold": 0.3},
    "trainer": {"name": "counter"},
}


@pytest.fixture(autouse=True)
def mine():
    with use(Registry(blocking=Blocking())) as registry:
        registry.register("dataset", "boxes", Boxes)
        registry.register("model", "box-net", BoxNet)
        registry.register("trainer", "counter", Counter)
        yield registry


def test_the_dataset_passes_its_suite():
    report = prove("dataset", "boxes")
    assert [check for check in report["checks"] if check["outcome"] == "failed"] == []
    assert report["ok"]


def test_a_run_on_boxes_and_everything_that_reads_it(tmp_path):
    result = spikecore.run(TABLES, out=tmp_path / "r")
    assert result.metrics["test_error"] < 0.4, "it learns from the boxes: a constant answer errs by 2/3"
    assert evaluate(tmp_path / "r").metrics == {"test_error": result.metrics["test_error"]}
    record = Record.read(tmp_path / "r")
    assert record.samples == {"train": 32, "val": 8, "test": 12}
    assert samples_of(tmp_path / "r", 5).labels is None
    html = build(tmp_path / "r")
    assert '<figure id="val_error"' in html
    assert 'id="raster-after-' in html
    assert "cannot be shown" not in html


def _errors(directory):
    return [json.loads(line)["val_error"] for line in (directory / "metrics.jsonl").read_text().splitlines()]


def test_it_resumes_in_the_middle_of_an_epoch_to_the_same_bits(tmp_path, monkeypatch):
    whole = spikecore.run(TABLES, out=tmp_path / "whole")
    checkpoint = Context.checkpoint

    def stop(self, *arguments):
        self.stopping = self.count + 1 == 7
        checkpoint(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Context, "checkpoint", stop)
        with pytest.raises(KeyboardInterrupt):
            spikecore.run(TABLES, out=tmp_path / "parts")
    store = CheckpointStore(tmp_path / "parts", Record.read(tmp_path / "parts").id)
    assert store.read(store.find("last")).state["trainer"]["step"] > 0
    assert resume(tmp_path / "parts").metrics == whole.metrics
    assert _errors(tmp_path / "parts") == _errors(tmp_path / "whole")


def test_a_trainer_of_another_target_refuses_it_by_name():
    with pytest.raises(OptionError, match=r"dataset Boxes are of the target 'items', and this trainer learns 'class'"):
        spikecore.run({**TABLES, "trainer": {"name": "classify"}})


def test_a_model_that_is_not_for_items_is_refused_by_name():
    with pytest.raises(OptionError, match="model MLP can be trained for class, value, sequence, and the labels of dat"):
        spikecore.run({**TABLES, "model": {"name": "mlp"}})


def test_a_trainer_of_items_refuses_other_targets_by_name(mine):
    mine.register("dataset", "values", ToyValues)
    with pytest.raises(OptionError, match=r"are of the target 'value', and this trainer learns 'items'"):
        spikecore.run({**TABLES, "dataset": {"name": "values"}})


def test_view_tells_the_boxes(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for index, says in ((1, "label   "), (3, "label   none, [0, 4]")):
        spike_command.main(["view", "boxes", str(index)], standalone_mode=False)
        assert says in capsys.readouterr().out
    boxes = Boxes().split("train")[1][1].flatten().tolist()
    spike_command.main(["view", "boxes", "1"], standalone_mode=False)
    assert "label   " + ", ".join(f"{value:g}" for value in boxes) in capsys.readouterr().out

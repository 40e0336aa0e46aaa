"""Samples that no net can take, or that do not fit together, are refused by name wherever they are put together."""

import dataclasses
import re

import pytest
import torch

import spikecore
from spikecore.cli import spike as spike_command
from spikecore.errors import ConfigError, ContractError, DatasetError
from spikecore.interfaces.dataset import Batch, Target
from spikecore.registry import Blocking, Registry, use
from spikecore.run.build import prepare
from spikecore.run.calibration import calibration_of
from spikecore.run.config import resolve
from spikecore.run.conversion import source_of
from spikecore.run.dry_run import inspect_resume
from spikecore.run.experiment import evaluate, resume
from spikecore.run.record import Record
from spikecore.run.samples import samples_of
from spikecore.run.sources import Source
from spikecore.trainers import TaskSplit, assemble, label_problem, put_together, stack
from spikecore.trainers.targets import input_problem, sample_problem
from tests.conformance.toys import ToyDataset, ToySplit

TABLES = {
    "dataset": {"name": "faulty"},
    "encoder": {"num_steps": 2},
    "model": {"name": "mlp", "hidden": [4]},
    "trainer": {"epochs": 1, "batch_size": 64},
    "run": {"report": False},
}
FAULTS = {
    "shape": (lambda x: x[:, 1:], r"its x has the shape \(1, 3, 4\); the dataset's sample_shape asks for \(1, 4, 4\)"),
    "int64": (lambda x: (255 * x).long(), r"its x is of torch\.int64; it must be float32 or uint8: call \.float\(\)"),
    "float64": (lambda x: x.double(), r"its x is of torch\.float64; it must be float32 or uint8: call \.float\(\)"),
    "array": (lambda x: x.numpy(), "its x is of type ndarray; it must be a tensor"),
}


class Faulty(ToyDataset):
    """The toy images, one of which in one split is damaged."""

    place, change = ("", 0), None

    def split(self, name):
        return FaultySplit(*dataclasses.astuple(super().split(name)), name, self)


@dataclasses.dataclass(frozen=True)
class FaultySplit(ToySplit):
    name: str
    dataset: Faulty

    def __getitem__(self, index):
        x, label = super().__getitem__(index)
        is_damaged = (self.name, index) == self.dataset.place
        return self.dataset.change(x) if is_damaged else x, label


@pytest.fixture
def faulty():
    """The dataset of runs, sound until it is told otherwise."""
    dataset = type("Planted", (Faulty,), {})
    with use(Registry(blocking=Blocking())) as registry:
        registry.register("dataset", "faulty", dataset)
        yield dataset


def damage(dataset, split, index, fault):
    dataset.place, dataset.change = (split, index), staticmethod(FAULTS[fault][0])
    return rf"planted {split}\[{index}\]: {FAULTS[fault][1]}"


@pytest.mark.parametrize("fault", FAULTS)
def test_a_run_ends_with_the_name_of_the_sample(fault, faulty, tmp_path):
    says = damage(faulty, "train", 7, fault)
    with pytest.raises(DatasetError, match=says):
        spikecore.run(TABLES, out=tmp_path / "r")


@pytest.mark.parametrize("fault", FAULTS)
def test_evaluation_deployment_and_calibration_name_it_too(fault, faulty, tmp_path):
    spikecore.run({**TABLES, "encoder": {"num_steps": 1}, "neuron": {"name": "relu"}}, out=tmp_path / "r")
    says = damage(faulty, "test", 3, fault)
    with pytest.raises(DatasetError, match=says):
        evaluate(tmp_path / "r")
    with pytest.raises(DatasetError, match=says):
        samples_of(tmp_path / "r", 12)
    says = damage(faulty, "train", 5, fault)
    for data in (None, "faulty"):
        with pytest.raises((ConfigError, DatasetError), match=says):
            list(calibration_of(source_of(str(tmp_path / "r")), data, 40, 8).batches())


@pytest.mark.parametrize("fault", ["shape", "int64"])
def test_view_shows_the_numbers_and_then_names_it(fault, faulty, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    damage(faulty, "train", 7, fault)
    with pytest.raises(DatasetError, match=rf"faulty train\[7\]: {FAULTS[fault][1]}"):
        spike_command.main(["view", "faulty", "7"], standalone_mode=False)
    assert "label   1 (b)" in capsys.readouterr().out
    with pytest.raises(DatasetError, match=rf"faulty train\[7\]: {FAULTS[fault][1]}"):
        spike_command.main(["view", "faulty", "--all", "--out", "all"], standalone_mode=False)
    spike_command.main(["view", "faulty", "6"], standalone_mode=False)


def test_view_of_what_has_no_numbers_names_it(faulty):
    damage(faulty, "train", 7, "array")
    with pytest.raises(DatasetError, match=r"faulty train\[7\]: its x is of type ndarray; it must be a tensor"):
        spike_command.main(["view", "faulty", "7"], standalone_mode=False)


class Uneven:
    """Sequences of several lengths."""

    def __init__(self, lengths):
        self.lengths = lengths

    def __len__(self):
        return len(self.lengths)

    def __getitem__(self, index):
        return torch.ones(self.lengths[index], 2), 0


def sequences(split):
    return TaskSplit(split, Target("class", 2), True, "uneven train")


def test_samples_that_do_not_fit_together_are_named_with_the_cure():
    split = sequences(Uneven([3, 3, 5])).part([0, 2])
    says = (
        r"uneven train\[2\] has an x of the shape \(5, 2\), uneven train\[0\] one of \(3, 2\).*"
        r"one shape: give the split a collate\(samples, generator\) that pads them"
    )
    with pytest.raises(DatasetError, match=says):
        assemble(split, [0, 1], True)
    samples = [split[0], split[1]]
    with pytest.raises(DatasetError, match=says):
        put_together(split, samples, True, indices=[0, 1])
    with pytest.raises(DatasetError, match=r"sample 1 of the batch has an x of the shape \(5, 2\), sample 0"):
        put_together(split, samples, True)
    with pytest.raises(DatasetError, match=r"sample 1 of the batch has an x of the shape \(5, 2\), sample 0"):
        stack(samples, True, "class")


def test_labels_that_do_not_fit_together_are_named():
    x, labels = torch.ones(4, 2), [torch.zeros(1, 2), torch.zeros(1, 3)]
    split = TaskSplit([(x, label) for label in labels], Target("value", 1), False, "uneven train")
    with pytest.raises(DatasetError, match=r"uneven train\[1\] has a label of the shape \(1, 3\), uneven train\[0\]"):
        assemble(split, [0, 1], False)


def test_a_label_of_another_type_is_not_taken_for_one_of_another_shape():
    x, labels = torch.ones(4, 2), [0, torch.zeros(1, 2), torch.zeros(1, 3)]
    with pytest.raises(ContractError, match="labels of the target 'value' must be tensors; one is no tensor"):
        stack([(x, label) for label in labels], False, "value")


def test_as_many_samples_as_indices():
    class Short(Uneven):
        def __getitems__(self, indices):
            return [self[index] for index in indices[1:]]

    says = r"uneven train: its __getitems__ must give a sample for each of 2 indices, in their order, got 1"
    with pytest.raises(DatasetError, match=says):
        assemble(sequences(Short([3, 3])), [0, 1], True)


def test_a_collate_that_fails_is_told_with_the_samples():
    class Collating(Uneven):
        def collate(self, samples, generator):
            return self.give(samples)

    split = sequences(Collating([3, 5]))
    split.whole.give = lambda samples: Batch(torch.stack([x for x, _ in samples]), torch.zeros(2))
    with pytest.raises(DatasetError, match=r"collate failed on uneven train\[0\], uneven train\[1\]: RuntimeError: st"):
        assemble(split, [0, 1], True)
    split.whole.give = lambda samples: (torch.zeros(1), 0)
    with pytest.raises(ContractError, match=r"gave tuple for uneven train\[0\], .*must give a .*Batch\(x, label, mask"):
        assemble(split, [0, 1], True)


def test_what_a_sample_of_a_sequence_must_be():
    x = torch.ones(3, 2)
    assert input_problem(x, True, (2,)) == ""
    assert input_problem((255 * torch.ones(1, 2)).to(torch.uint8), False, (1, 2)) == ""
    assert re.search("of torch.uint8; the x of a sequence must be float32", input_problem(x.byte(), True, (2,)))
    assert re.search(r"\(0, 2\); a sequence must be \[T, \.\.\.\]", input_problem(x[:0], True, (2,)))
    assert re.search(r"asks for \[T, 3\]", input_problem(x, True, (3,)))
    assert sample_problem((x, 1), Target("class", 2), True, (2,)) == ""
    assert re.search(r"it is of type Tensor; a sample must be a pair", sample_problem(x, Target("class", 2), True))
    assert label_problem(1, Target("class", 2)) == ""


def test_a_run_goes_on_with_the_data_that_it_began_with(faulty, tmp_path):
    spikecore.run(TABLES, out=tmp_path / "r")
    assert Record.read(tmp_path / "r").samples == {"train": 37, "val": 3, "test": 12}
    assert prepare(resolve(TABLES)).num_samples == {"train": 37, "val": 3, "test": 12}
    faulty.split = lambda self, name: ToySplit(0, 40) if name == "train" else ToySplit(1000, 11)
    with pytest.raises(ConfigError, match="the run began with 37 training, 3 validation, 12 test samples, and its"):
        inspect_resume(tmp_path / "r", "last", ["trainer.epochs=2"])
    with pytest.raises(
        ConfigError,
        match=r"began with 37 training, 3 validation, 12 test samples, and its dataset now gives .*, 11 test samples: "
        "put the data back as they were, or start a new run",
    ):
        resume(tmp_path / "r", overrides=["trainer.epochs=2"])
    with pytest.raises(ConfigError, match=r"now gives .* 11 test samples: .val. may hold samples"):
        evaluate(tmp_path / "r", split="val")
    assert evaluate(tmp_path / "r", split="val", other_samples=True).other_samples == ("dataset",)


@dataclasses.dataclass(frozen=True)
class Known:
    """A split that knows its labels."""

    split: ToySplit
    order: tuple[int, ...]

    @property
    def labels(self):
        return torch.tensor([self.split[index][1] for index in self.order])

    def __len__(self):
        return len(self.order)

    def __getitem__(self, index):
        return self.split[self.order[index]]


def test_a_run_goes_on_with_the_order_of_samples_that_it_began_with(faulty, tmp_path):
    """As many samples in another order: other ones would be held back for validation."""

    def give(order):
        faulty.split = lambda self, name: Known(ToySplit(0 if name == "train" else 1000, 40), tuple(order))

    give(range(40))
    spikecore.run(TABLES, out=tmp_path / "r")
    assert Record.read(tmp_path / "r").labels.keys() == {"train", "val", "test"}
    give(range(39, -1, -1))
    with pytest.raises(ConfigError, match=r"samples of 'train', 'test' have other labels than when the run began"):
        resume(tmp_path / "r", overrides=["trainer.epochs=2"])
    with pytest.raises(ConfigError, match=r"have other labels than those of the run, .*: 'val' may hold samples"):
        evaluate(tmp_path / "r", split="val")
    assert evaluate(tmp_path / "r", split="val", other_samples=True).other_samples == ("dataset",)
    give(range(40))
    assert evaluate(tmp_path / "r", split="val").other_samples == ()
    resume(tmp_path / "r", overrides=["trainer.epochs=2"])


def test_bytes_of_a_dataset_are_calibrated_as_encoders_read_them(faulty):
    faulty.split = lambda self, name: [((255 * x).to(torch.uint8), label) for x, label in ToySplit(0, 40)]
    about = {"kind": "factory", "step_mode": "single"}
    calibration = calibration_of(Source(torch.nn.Identity(), about, {}, None, None), "faulty", 6, 4)
    batches = list(calibration.batches())
    assert [batch.shape for batch in batches] == [(4, 1, 4, 4), (2, 1, 4, 4)]
    torch.testing.assert_close(batches[0][0], ToySplit(0, 40)[0][0], atol=1 / 255, rtol=0)

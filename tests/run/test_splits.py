"""Validation cut from the training split, labels checked on the way, and batches by target."""

import dataclasses
import pickle
import re

import pytest
import torch
from torch.utils.data import DataLoader

import spikecore
from spikecore import create
from spikecore.errors import ConfigError, ContractError, DatasetError, IncompatiblePluginError, OptionError, SpikeError
from spikecore.interfaces.component import Configurable, make_config
from spikecore.interfaces.dataset import Batch, DatasetCapabilities, DatasetInfo, Target
from spikecore.models.mlp import MLP
from spikecore.registry import Blocking, Registry, use
from spikecore.run.build import prepare
from spikecore.run.checkpoint import CheckpointStore
from spikecore.run.config import resolve
from spikecore.run.idle import idle_options
from spikecore.run.log import read_lines
from spikecore.run.record import Record
from spikecore.trainers import (
    TaskSplit,
    Trainer,
    assemble,
    cut_validation,
    dataset_splits,
    in_batches,
    label_problem,
    require_model,
    stack_labels,
    unaugmented,
)
from tests.conformance.toys import ToyItems, ToyStepClasses, ToySteps, ToyValues

COUNTS = (30, 12, 6)


class Letters:
    """Samples `(number, class)`, 48 of three classes, in an order that mixes them."""

    def __init__(self, counts=COUNTS):
        order = torch.randperm(sum(counts), generator=torch.Generator().manual_seed(3))
        self.classes = torch.cat([torch.full((count,), kind) for kind, count in enumerate(counts)])[order].tolist()

    def __len__(self):
        return len(self.classes)

    def __getitem__(self, index):
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return torch.full((1,), float(index)), self.classes[index]


def whole(split=None, num_outputs=3, kind="class"):
    return TaskSplit(split or Letters(), Target(kind, num_outputs), False, "letters train")


def numbers(split):
    return [int(split[i][0]) for i in range(len(split))]


def test_the_parts_are_stratified_disjoint_and_drawn_with_the_seed():
    train, val = cut_validation(whole(), 0.25, seed=4)
    labels = [val[i][1] for i in range(len(val))]
    assert [labels.count(kind) for kind in range(3)] == [8, 3, 2]  # 7.5, 3 and 1.5, rounded half up
    assert sorted(numbers(train) + numbers(val)) == list(range(48))
    assert numbers(train) == sorted(numbers(train))
    again = cut_validation(whole(), 0.25, seed=4)[1]
    assert numbers(again) == numbers(val)
    assert numbers(cut_validation(whole(), 0.25, seed=5)[1]) != numbers(val)


@pytest.mark.parametrize(
    ("counts", "share", "says"),
    [
        ((30, 12, 1), 0.1, "training samples of class 'c' leaves none to validate, and one sample cannot do both"),
        ((30, 4, 20), 0.1, r"0\.1 of the 4 training samples of class 'b' .*to validate: set .* from 0\.125 to below"),
        ((30, 12, 3), 0.9, "of the 3 training samples of class 'c' leaves none to train: .*val_share = 0 to train"),
    ],
)
def test_a_share_that_leaves_a_class_empty_names_it_and_the_cure(counts, share, says):
    with pytest.raises(OptionError, match=says):
        cut_validation(whole(Letters(counts)), share, 0, ("a", "b", "c"))


def test_classes_of_one_name_are_cut_one_by_one():
    val = cut_validation(whole(), 0.25, 4, ("a", "a", "b"))[1]
    labels = [val[i][1] for i in range(len(val))]
    assert [labels.count(kind) for kind in range(3)] == [8, 3, 2]


@pytest.mark.parametrize("size", [2, 3, 4, 7, 60])
def test_the_cure_cures(size):
    with pytest.raises(OptionError) as error:
        cut_validation(whole(Letters((size, 30, 30))), 0.001, 0)
    low = float(str(error.value).split("trainer.val_share from ")[1].split()[0])
    if size < 60:
        assert len(cut_validation(whole(Letters((size, 30, 30))), low, 0)[1]) >= 3


def test_values_are_cut_at_random():
    class Values(Letters):
        def __getitem__(self, index):
            x, label = super().__getitem__(index)
            return x, torch.tensor([float(label)])

    train, val = cut_validation(whole(Values(), 1, "value"), 0.25, 0)
    assert (len(train), len(val)) == (36, 12)
    with pytest.raises(OptionError, match="of the training split leaves none to validate"):
        cut_validation(whole(Values(), 1, "value"), 0.001, 0)


@pytest.mark.parametrize(
    ("x", "says"),
    [
        (torch.tensor([0.5, float("nan")]), "its x holds nan; inputs must be finite numbers"),
        (torch.tensor([float("-inf"), 1.0]), "its x holds -inf"),
        ([0.5, 1.0], "its x is of type list; it must be a tensor"),
    ],
)
def test_an_input_that_no_net_can_take_is_refused_by_sample(x, says):
    class Faulty(Letters):
        def __getitem__(self, index):
            return (x, 1) if index == 7 else super().__getitem__(index)

    with pytest.raises(DatasetError, match=rf"letters train\[7\]: {says}"):
        assemble(whole(Faulty()), [6, 7], False)


def test_a_large_finite_input_is_taken():
    class Large(Letters):
        def __getitem__(self, index):
            return torch.full((4,), 3e38), 1  # its sum is beyond float32

    assert whole(Large())[0][0][0] == 3e38


def test_known_labels_are_not_read_from_samples():
    class Known(Letters):
        def __getitem__(self, index):
            raise AssertionError("a sample was read")

        @property
        def labels(self):
            return torch.tensor(self.classes)

    train, val = cut_validation(whole(Known()), 0.25, 4)
    assert [len(train), len(val)] == [35, 13]
    assert torch.bincount(val.labels).tolist() == [8, 3, 2]


class Full(Letters):
    """Every optional member."""

    def __init__(self):
        super().__init__()
        self.epoch, self.asked = 0, []

    @property
    def labels(self):
        return torch.tensor(self.classes)

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __getitem__(self, index):
        x, label = super().__getitem__(index)
        return x + 1000 * self.epoch, label

    def __getitems__(self, indices):
        self.asked.append(list(indices))
        return [self[index] for index in indices]

    def unaugmented(self):
        return Letters()

    def batches(self, batch_size, generator, indices=None):
        chosen = list(range(len(self)) if indices is None else indices)
        return [chosen[start : start + batch_size] for start in range(0, len(chosen), batch_size)]

    def collate(self, samples, generator):
        return Batch(torch.stack([x for x, _ in samples]) + 0.5, torch.tensor([label for _, label in samples]))

    def unnormalised(self, x):
        return -x


def test_a_part_has_the_members_of_the_whole_with_numbers_of_its_own():
    full = Full()
    train, val = cut_validation(whole(full), 0.25, 4)
    assert isinstance(full[0][1], int)
    assert [number for batch in in_batches(train, 8, torch.Generator()) for number in batch] == list(range(35))
    assert torch.equal(train.labels, torch.tensor([train[i][1] for i in range(35)]))
    assert [int(x) for x, _ in train.__getitems__([3, 0])] == [numbers(train)[3], numbers(train)[0]]
    assert full.asked == [[numbers(train)[3], numbers(train)[0]]]
    train.set_epoch(2)
    assert numbers(train)[0] >= 2000
    assert max(numbers(val)) < 48, "validation is not augmented"
    assert max(numbers(unaugmented(train))) < 48
    assert assemble(train, [0], False).x.item() == numbers(train)[0] + 0.5
    assert train.unnormalised(torch.ones(1)).item() == -1
    assert not hasattr(whole(), "collate")
    assert not hasattr(whole(), "__getitems__")
    assert numbers(unaugmented(whole())) == list(range(48))
    with pytest.raises(IndexError):
        train[35]
    with pytest.raises(IndexError):
        train.__getitems__([35])
    assert numbers(pickle.loads(pickle.dumps(val))) == numbers(val)
    loaded = DataLoader(train, 4, num_workers=1, collate_fn=list)
    assert [int(x) for batch in loaded for x, _ in batch] == numbers(train)


@pytest.mark.parametrize(
    ("label", "target", "says"),
    [
        (7, Target("class", 3), r"its label is 7; a class must lie in 0 \.\. 2"),
        (-1, Target("class", 3), r"its label is -1; a class must lie in 0 \.\. 2"),
        (True, Target("class", 3), "True \\(bool\\); a class must be an int"),
        (torch.tensor(1), Target("class", 3), "a class must be an int from 0 to 2"),
        (1.5, Target("value", 1), "must be a tensor"),
        (torch.tensor([1]), Target("value", 1), "torch.int64; values must be floating point"),
        (torch.tensor([1.0, torch.nan]), Target("value", 2), "its label holds nan; values must be finite"),
        (torch.zeros(3), Target("value", 2), r"the shape \(3,\); values must be \[2, ...\]"),
        (torch.zeros(4, 3), Target("sequence", 2), r"the shape \(4, 3\); values must be \[T, 2, ...\]"),
        (torch.zeros(3, 2), Target("sequence", 2), "has 3 steps, the sample itself 4"),
        (torch.tensor([0, 1, 2, 3]), Target("sequence", 3), r"holds the class 3; classes must lie in 0 \.\. 2"),
        (torch.zeros(4, dtype=torch.int32), Target("sequence", 3), "classes of steps must be int64"),
        (torch.tensor(1.0), Target("items", 3), "items must be"),
        (torch.tensor([[torch.inf]]), Target("items", 3), "holds inf"),
    ],
)
def test_a_label_outside_its_target_says_so(label, target, says):
    assert re.search(says, label_problem(label, target, 4)), label_problem(label, target, 4)


@pytest.mark.parametrize(
    ("label", "target"),
    [
        (2, Target("class", 3)),
        (torch.tensor([-5.0, 9.0]), Target("value", 2)),
        (torch.zeros(2, 7, 7), Target("value", 2)),
        (torch.zeros(4, 2), Target("sequence", 2)),
        (torch.tensor([0, 1, 2, 0]), Target("sequence", 3)),
        (torch.zeros(0, 5), Target("items", 3)),
    ],
)
def test_a_label_within_its_target_is_taken(label, target):
    assert label_problem(label, target, 4) == ""


def test_an_error_names_sample_value_and_range_wherever_the_sample_is_read():
    class Wrong(Full):
        def __getitem__(self, index):
            x, label = Letters.__getitem__(self, index)
            return x, 5 if index == 11 else label

    split = whole(Wrong()).part([4, 11])
    for read in (lambda: split[1], lambda: split.__getitems__([0, 1]), lambda: assemble(split, [1], False)):
        with pytest.raises(DatasetError, match=r"letters train\[11\]: its label is 5; a class must lie in 0 \.\. 2"):
            read()
    assert split[0][1] in (0, 1, 2)

    class Lying(Letters):
        @property
        def labels(self):
            return torch.tensor([9] * len(self))

    with pytest.raises(DatasetError, match=r"letters train\[0\]: its label is 9"):
        cut_validation(whole(Lying()), 0.1, 0)


@pytest.mark.parametrize(
    ("dataset", "shape"),
    [(ToyValues, (4, 2)), (ToySteps, (3, 4, 1)), (ToyStepClasses, (3, 4))],
)
def test_labels_are_stacked_by_target(dataset, shape):
    made = dataset()
    train = dataset_splits(made, 0.25, 0)["train"]
    batch = assemble(train, [3, 0, 1, 2], made.is_sequence)
    assert batch.stacked.shape == shape
    first = batch.stacked[:, 0] if made.is_sequence else batch.stacked[0]
    assert torch.equal(first, train[3][1])


def test_items_stay_a_list():
    train = dataset_splits(ToyItems(), 0.0, 0)["train"]
    batch = assemble(train, [0, 1, 2], False)
    assert [label.shape for label in batch.label] == [(0, 5), (1, 5), (2, 5)]
    with pytest.raises(ContractError, match="items"):
        _ = batch.stacked
    with pytest.raises(ContractError, match="dataset_splits, whose splits know"):
        stack_labels([torch.zeros(1)], "class")


class Marked(Configurable):
    """Values, for runs."""

    api_version = 2
    capabilities = DatasetCapabilities(embedded=True, target="value")
    info = DatasetInfo("Marked", ("x",), (1, 2, 2), "CC0", "nobody")
    num_outputs, sample_shape, is_sequence, splits = 1, (1, 2, 2), False, ("train", "test", "val")

    def __init__(self, **options):
        self.config = make_config(type(self), options)

    def split(self, name):
        return [(torch.full((1, 2, 2), i / 10), torch.tensor([i / 10])) for i in range(10 if name == "train" else 4)]


@pytest.fixture
def mine():
    with use(Registry(blocking=Blocking())) as registry:
        registry.register("dataset", "marked", Marked)
        yield registry


def test_a_trainer_refuses_labels_that_it_does_not_learn_from(mine):
    with pytest.raises(OptionError, match=r"dataset Marked are of the target 'value', and this trainer learns 'class'"):
        spikecore.run({"dataset": {"name": "marked"}})


def test_a_model_refuses_a_target_that_it_is_not_made_for(mine):
    net = MLP(lambda: create("neuron", "lif"), (1, 2, 2), 1)
    require_model(net, Marked())
    net.capabilities = dataclasses.replace(net.capabilities, targets=("class",))
    with pytest.raises(OptionError, match="model MLP can be trained for class, and the labels of dataset Marked"):
        require_model(net, Marked())


@pytest.mark.parametrize(
    ("splits", "empty", "says"),
    [
        (("train", "val"), "", r"'marked' has no split 'test' \(its splits: train, val\): a run trains on 'train' and"),
        (("test",), "", r"'marked' has no split 'train' \(its splits: test\)"),
        (("train", "test"), "train", "marked train: expected samples, got a split without any: see where"),
        (("train", "val", "test"), "val", "marked val: expected samples, got a split without any"),
        (("train", "test"), "test", "marked test: expected samples, got a split without any"),
    ],
)
def test_a_split_that_is_not_there_or_empty_is_refused_before_training(splits, empty, says, monkeypatch):
    """An accuracy over no sample would be 0, and no error."""
    whole = Marked.split
    monkeypatch.setattr(Marked, "splits", splits)
    monkeypatch.setattr(Marked, "split", lambda self, name: [] if name == empty else whole(self, name))
    with pytest.raises(DatasetError, match=says):
        dataset_splits(Marked(), 0.2, 0)


@pytest.mark.parametrize("num_outputs", [0, "10", True, 2.0])
def test_a_number_of_outputs_that_is_none_is_refused(num_outputs, monkeypatch):
    monkeypatch.setattr(Marked, "num_outputs", num_outputs)
    with pytest.raises(DatasetError, match=rf"num_outputs must be an int of 1 or more, .* got {num_outputs!r}"):
        dataset_splits(Marked(), 0.2, 0)


@pytest.mark.parametrize(("has_val", "count"), [(True, 1), (False, 0)])
def test_whether_the_share_is_idle_is_asked_of_the_dataset_with_its_options(mine, has_val, count):
    class Optional(Marked):
        @dataclasses.dataclass(frozen=True)
        class Config:
            has_val: bool = True

        @property
        def splits(self):
            return ("train", "val", "test") if self.config.has_val else ("train", "test")

    mine.register("dataset", "optional", Optional)
    tables = {"dataset": {"name": "optional", "has_val": has_val}, "trainer": {"val_share": 0.3}}
    assert len(idle_options(resolve(tables), {})) == count


def test_a_val_split_of_the_dataset_comes_before_the_share(mine):
    class Regression(Trainer):
        capabilities = dataclasses.replace(Trainer.capabilities, task="value")

        @dataclasses.dataclass(frozen=True)
        class Config:
            val_share: float = 0.5

        def fit(self, task, context):
            return {}

        def evaluate(self, task, context, split="test"):
            return {}

        def state_dict(self):
            return {}

        def load_state_dict(self, state):
            pass

    mine.register("trainer", "regression", Regression)
    tables = {"dataset": {"name": "marked"}, "trainer": {"name": "regression"}, "model": {"name": "mlp"}}
    task = prepare(resolve(tables)).task
    given = resolve(tables, ["trainer.val_share=0.3"])
    assert idle_options(given, {}) == ["trainer.val_share has no effect: dataset 'marked' has a split 'val' of its own"]
    assert idle_options(resolve(tables), {}) == []
    assert {name: len(split) for name, split in task.splits.items()} == {"train": 10, "val": 4, "test": 4}
    assert task.num_outputs == 1
    with pytest.raises(ContractError, match=r"no split 'later'.*train, val, test"):
        task.split("later")


def test_a_run_without_validation_has_the_lowest_loss_as_its_best(tmp_path):
    tables = {
        "model": {"name": "mlp", "hidden": [8]},
        "dataset": {"test_share": 0.7},
        "trainer": {"epochs": 3, "val_share": 0.0},
        "run": {"report": False, "keep_last": 9},
    }
    result = spikecore.run(tables, out=tmp_path / "r")
    assert sorted(result.metrics) == ["test_accuracy", "test_loss"]
    losses = [line["train_loss"] for line in read_lines(tmp_path / "r")]
    store = CheckpointStore(tmp_path / "r", Record.read(tmp_path / "r").id)
    assert store.read(store.find("best")).score == -min(losses)


def test_the_command_line_refuses_a_share_that_leaves_a_class_empty(tmp_path):
    for share in (0.001, 0.999):
        with pytest.raises(SpikeError, match="of class '0' leaves none to"):
            spikecore.run({"trainer": {"val_share": share}}, out=tmp_path / "r")
    with pytest.raises(ConfigError, match=r"trainer\.val_share: must be >= 0 and < 1, got 1"):
        resolve({"trainer": {"val_share": 1.0}})


def test_a_dataset_built_for_the_old_contract_is_refused_by_name(mine):
    old = type("Old", (Marked,), {"api_version": 1})
    with pytest.raises(IncompatiblePluginError, match=r"'old'.* speaks api_version 1 of dataset; .* understands 2"):
        mine.register("dataset", "old", old)

"""A split's own collate reaches the trainer: padding is left out of the mean, shares of labels are learned from."""

import pytest
import torch

from spikecore import create
from spikecore.interfaces.dataset import Batch
from spikecore.interfaces.task import Task
from spikecore.registry import choices
from spikecore.run.experiment import Context
from spikecore.trainers.batches import assemble, in_batches


class Lengths:
    """Sample i has 1 + i % 3 steps of a pattern of its class."""

    def __init__(self, padding=0.0, shares=False):
        self.padding, self.shares, self.epochs = padding, shares, []

    def __len__(self):
        return 60

    def __getitem__(self, i):
        pattern = torch.zeros(1, 2, 2)
        pattern[0, i % 2] = 3.0
        return pattern.expand(1 + i % 3, 1, 2, 2), i % 2

    def set_epoch(self, epoch):
        self.epochs.append(epoch)

    def collate(self, samples, generator):
        longest = max(len(x) for x, _ in samples)
        x = torch.full((longest, len(samples), 1, 2, 2), self.padding)
        mask = torch.zeros(longest, len(samples), dtype=torch.bool)
        for i, (own, _) in enumerate(samples):
            x[: len(own), i], mask[: len(own), i] = own, True
        label = torch.tensor([label for _, label in samples])
        if self.shares and generator is not None:
            label = torch.nn.functional.one_hot(label, 2).float()
        return Batch(x, label, mask)


def train(split, seed=0):
    torch.manual_seed(seed)
    net = create("model", "mlp", lambda: create("neuron", "lif"), (1, 2, 2), 2, hidden=(16,))
    task = Task(net, create("encoder", "direct"), split, split, 2, is_sequence=True)
    context = Context(torch.device("cpu"), torch.float32, torch.Generator().manual_seed(0), net)
    return create("trainer", "classify", epochs=8, batch_size=16, lr=0.02).fit(task, context)


def test_padding_changes_nothing():
    plain = train(Lengths())
    assert plain["test_accuracy"] == 1.0
    assert train(Lengths(padding=100.0)) == pytest.approx(plain)


def test_labels_may_be_shares_and_epochs_are_told():
    split = Lengths(shares=True)
    assert train(split)["test_accuracy"] == 1.0
    assert split.epochs == list(range(8))


@pytest.mark.parametrize("loss", [entry.name for entry in choices("loss")])
@pytest.mark.parametrize("readout", ["auto", "last", "count"])
def test_padding_changes_nothing_whatever_the_loss(loss, readout):
    """Every sample comes alone, in batches of one and so without padding; or all together."""

    def evaluated(split, batch_size, **options):
        torch.manual_seed(0)
        neuron = {} if "first_spike" in loss else {"v_threshold": 0.6}
        net = create("model", "mlp", lambda: create("neuron", "lif", **neuron), (1, 2, 2), 2, hidden=(16,))
        net = torch.nn.Sequential(net, create("neuron", "lif", v_threshold=0.05))  # spikes, which some losses need
        task = Task(net, create("encoder", "direct"), split, split, 2, is_sequence=True)
        context = Context(torch.device("cpu"), torch.float32, torch.Generator().manual_seed(0), net)
        trainer = create("trainer", "classify", loss=loss, readout=readout, batch_size=batch_size, **options)
        return trainer.evaluate(task, context), context.gallery.values["confusion"]

    alone = evaluated(Lengths(), 1)
    assert evaluated(Lengths(padding=100.0), 16)[0] == pytest.approx(alone[0], rel=1e-5)
    assert evaluated(Lengths(padding=100.0), 16)[1] == alone[1]


def test_samples_of_one_length_are_stacked_with_time_first():
    class Plain:
        def __getitem__(self, i):
            return torch.full((3, 2), float(i)), i

    batch = assemble(Plain(), torch.tensor([4, 1]), is_sequence=True)
    assert batch.x.shape == (3, 2, 2)
    assert batch.x[0, :, 0].tolist() == [4, 1]
    assert assemble(Plain(), [4, 1], is_sequence=False).x.shape == (2, 3, 2)
    assert batch.mask is None


def test_samples_are_read_at_once_where_the_split_can():
    class AtOnce:
        def __getitem__(self, i):
            raise AssertionError("one by one")

        def __getitems__(self, indices):
            return [(torch.full((3, 2), float(i)), i) for i in indices]

    assert assemble(AtOnce(), torch.tensor([4, 1]), is_sequence=False).x[:, 0, 0].tolist() == [4, 1]


class Bucketed(Lengths):
    """Batches of one length each."""

    def __init__(self):
        super().__init__()
        self.read = []

    def batches(self, batch_size, generator):
        order = torch.randperm(len(self), generator=generator)
        return [part for k in range(3) for part in torch.split(order[order % 3 == k], batch_size)]

    def collate(self, samples, generator):
        if generator is not None:
            self.read.append([len(x) for x, _ in samples])
        return super().collate(samples, generator)


def test_a_split_may_say_which_samples_are_a_batch():
    split = Bucketed()
    train(split)
    assert all(len(set(lengths)) == 1 for lengths in split.read)
    assert (
        sorted(n for lengths in split.read[: len(split.read) // 8] for n in lengths) == [1] * 20 + [2] * 20 + [3] * 20
    )


def test_batches_of_a_split_are_drawn_as_an_order_is():
    generator = torch.Generator().manual_seed(1)
    plain = in_batches(Lengths(), 16, generator)
    assert [len(index) for index in plain] == [16, 16, 16, 12]
    wanted = torch.randperm(60, generator=torch.Generator().manual_seed(1))
    assert torch.equal(torch.cat(list(plain)), wanted)
    assert torch.equal(
        torch.cat(in_batches(Bucketed(), 60, torch.Generator().manual_seed(1))).sort()[0], torch.arange(60)
    )

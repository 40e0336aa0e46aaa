"""Whole runs: training from the authors' files on the command line, mixing with every loss, the same bits twice."""

import json

import pytest
import tiny
import torch
from click.testing import CliRunner

import spikecore
from spikecore import create
from spikecore.cli import spike as commands
from spikecore.interfaces.task import Task
from spikecore.registry import choices
from spikecore.run.experiment import Context
from spikecore.trainers.batches import assemble
from spikecore_datasets_vision.mnist import MNIST

CONFIG = """
[run]
seed = 1
[dataset]
name = "mnist"
allow_partial = true
augment = [{ name = "random_crop", padding = 1 }, "random_erasing", "mixup"]
[model]
name = "mlp"
hidden = [32]
[trainer]
epochs = 15
batch_size = 20
lr = 0.01
"""


@pytest.fixture
def files(data, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    tiny.put(monkeypatch, MNIST, data / "mnist", tiny.mnist_archives(num_train=200, num_test=50))


def spike(*arguments):
    result = CliRunner().invoke(commands, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_spike_run(files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "exp.toml").write_text(CONFIG)
    spike("run", "exp.toml", "--out", "run")
    metrics = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert metrics[-1]["val_accuracy"] >= 0.9
    assert metrics[-1]["train_loss"] < metrics[0]["train_loss"]
    spike("run", "exp.toml", "--out", "again", "--set", "trainer.epochs=3")
    spike("run", "exp.toml", "--out", "longer", "--set", "trainer.epochs=3")
    losses = [
        [json.loads(line)["train_loss"] for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("again", "longer")
    ]
    assert losses[0] == losses[1], "augmentation and mixing repeat themselves"


def test_a_run_that_is_resumed_comes_to_the_same_bits(files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "exp.toml").write_text(CONFIG)
    constant = ("--set", "trainer.schedule=constant")
    spike("run", "exp.toml", "--out", "whole", *constant, "--set", "trainer.epochs=4")
    spike("run", "exp.toml", "--out", "parts", *constant, "--set", "trainer.epochs=2")
    spike("run", "--resume", "parts", "--set", "trainer.epochs=4")
    whole, parts = (spikecore.load(tmp_path / name).state_dict() for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_spike_info():
    told = spike("info", "dataset", "mnist")
    for words in ("random_erasing", "f68b3c2dcbeaaa9fbdd348bbdeb94873", "LeCun", '["train", 60000]', "allow_partial"):
        assert words in told


@pytest.mark.parametrize("channels", ["colour", "grey"])
def test_spike_view(tmp_path, channels):
    root = tiny.pictures(tmp_path / "p")
    options = ["--set", f"root={root}", "--set", "size=[16, 12]", "--set", f"channels={channels}"]
    told = spike("view", "image-folder", "3", *options, "--out", str(tmp_path / "a.png"))
    assert "label   0 (bird)" in told
    assert f"[C, H, W] = [{3 if channels == 'colour' else 1}, 16, 12], torch.float32" in told
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_spike_view_of_mnist(files, tmp_path):
    told = spike("view", "mnist", "5", "--set", "allow_partial=true", "--out", str(tmp_path / "a.png"))
    assert "label   5 (5)" in told
    assert "[C, H, W] = [1, 28, 28]" in told


@pytest.mark.parametrize("loss", [entry.name for entry in choices("loss")])
def test_every_loss_learns_from_mixed_labels(files, loss):
    dataset = create("dataset", "mnist", allow_partial=True, augment=["mixup", "cutmix"])
    train, test = dataset.split("train"), dataset.split("test")
    torch.manual_seed(0)
    net = create("model", "mlp", lambda: create("neuron", "lif"), (1, 28, 28), 10, hidden=(16,))
    net = torch.nn.Sequential(net, create("neuron", "lif"))
    task = Task(net, create("encoder", "direct", num_steps=3), train, test, 10)
    context = Context(torch.device("cpu"), torch.float32, torch.Generator().manual_seed(0), net)
    trainer = create("trainer", "classify", loss=loss, epochs=2, batch_size=50)
    before = [p.detach().clone() for p in net.parameters()]
    metrics = trainer.fit(task, context)
    assert all(torch.isfinite(torch.tensor(value)) for value in metrics.values())
    assert any(not torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))


def test_batches_are_mixed_in_training_only(files):
    dataset = create("dataset", "mnist", allow_partial=True, augment=["cutmix"])
    train = dataset.split("train")
    batch = assemble(train, range(20), False, torch.Generator().manual_seed(0))
    assert batch.label.shape == (20, 10)
    torch.testing.assert_close(batch.label.sum(1), torch.ones(20))
    assert (batch.label > 0).sum(1).max() == 2
    assert assemble(train, range(20), False).label.tolist() == [i % 10 for i in range(20)]
    assert assemble(dataset.split("test"), range(20), False, torch.Generator()).label.dtype == torch.int64
    assert assemble(train, [3], False, torch.Generator()).label.tolist() == [3], "nothing to mix it with"


def test_the_test_split_is_transformed_and_the_training_split_augmented_before_that(files):
    size = {"height": 20, "width": 20}
    options = {"augment": [{"name": "random_crop", **size}], "transforms": [{"name": "crop", **size}]}
    plain, dataset = (create("dataset", "mnist", allow_partial=True, **given) for given in ({}, options))
    assert torch.equal(dataset.split("test")[3][0], plain.split("test")[3][0][:, 4:24, 4:24])
    train, whole = dataset.split("train"), plain.split("train")
    cropped = [whole[i][0].unfold(1, 20, 1).unfold(2, 20, 1)[0] for i in range(50)]
    places = [tuple((crops == train[i][0][0]).all(-1).all(-1).nonzero()[0].tolist()) for i, crops in enumerate(cropped)]
    assert len(set(places)) > 20


def test_augmentation_depends_on_the_seed_and_on_its_place(files):
    def flips(augment, seed):
        dataset = create("dataset", "mnist", allow_partial=True, augment=augment, seed=seed)
        train, whole = dataset.split("train"), create("dataset", "mnist", allow_partial=True).split("train")
        return [not torch.equal(train[i][0], whole[i][0]) for i in range(100)]

    assert flips(["random_flip"], 0) != flips(["random_flip"], 1)
    assert 25 < sum(flips(["random_flip", "random_flip"], 0)) < 75, "flipped by one of them, and not back by the other"


def test_torchs_loader_reads_whole_batches(files):
    split = create("dataset", "mnist", allow_partial=True, augment=["random_flip", "colour_jitter"]).split("train")
    split.set_epoch(4)
    for workers in (0, 2):
        loader = torch.utils.data.DataLoader(split, 30, num_workers=workers)
        x = torch.cat([x for x, _ in loader])
        assert torch.equal(x, torch.stack([split[i][0] for i in range(len(split))]))


def test_the_epoch_reaches_workers_that_stay(files):
    split = create("dataset", "mnist", allow_partial=True, augment=["colour_jitter"]).split("train")
    loader = torch.utils.data.DataLoader(split, 30, num_workers=1, persistent_workers=True)
    for epoch in (0, 1, 0):
        split.set_epoch(epoch)
        x = torch.cat([x for x, _ in loader])
        assert torch.equal(x, torch.stack([split[i][0] for i in range(len(split))])), epoch

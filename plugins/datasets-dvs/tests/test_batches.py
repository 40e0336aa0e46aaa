"""What of a dataset reaches those who train: batches of similar lengths, and the epoch in workers."""

import copy
import pickle

import pytest
import torch

import spikecore
from spikecore import create
from spikecore.errors import ContractError
from spikecore.run.config import resolve

VARIABLE = {"name": "fixed_duration", "duration_us": 8000}


@pytest.mark.parametrize("cache", [True, False])
def test_batches_of_similar_lengths(embedded, cache):
    dataset = create("dataset", "moving-bars", representation=VARIABLE, bucket=1000, num_train=20, cache=cache)
    split = dataset.split("train")
    assert not hasattr(dataset.split("test"), "batches")
    plain = create("dataset", "moving-bars", representation=VARIABLE, num_train=20).split("train")
    assert not hasattr(plain, "batches")
    for own in (split, pickle.loads(pickle.dumps(split)), copy.deepcopy(split)):
        batches = own.batches(8, torch.Generator().manual_seed(0))
        assert sorted(i for batch in batches for i in batch) == list(range(80))
        runs = sorted([len(plain[i][0]) for i in batch] for batch in batches)
        assert sorted(n for run in runs for n in run) == [n for run in runs for n in sorted(run)], "no two overlap"
    assert batches != own.batches(8, torch.Generator().manual_seed(1))


def test_batches_do_not_depend_on_the_epoch_they_are_first_asked_for_in(embedded):
    def batches(epoch):
        augment = [{"name": "drop_events", "p": 0.5, "by": "time"}]
        options = {"representation": VARIABLE, "bucket": 5, "num_train": 5, "augment": augment}
        split = create("dataset", "moving-bars", **options).split("train")
        split.set_epoch(epoch)
        return split.batches(4, torch.Generator().manual_seed(0))

    assert batches(0) == batches(3)


def test_a_run_takes_them(embedded, tmp_path, monkeypatch):
    asked = []
    from spikecore_datasets_dvs.dataset import EventSplit

    real = EventSplit._batches
    monkeypatch.setattr(EventSplit, "_batches", lambda *args: asked.append(args[1]) or real(*args))
    sets = ["dataset.name=moving-bars", "dataset.representation={name='fixed_duration', duration_us=8000}"]
    sets += ["dataset.bucket=5", "dataset.num_train=20", "model.name=mlp", "model.hidden=[16]", "trainer.epochs=2"]
    spikecore.run(resolve(None, sets), out=tmp_path / "run")
    assert asked == [64, 64]


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_the_epoch_reaches_workers_that_stay(embedded, context):
    augment = [{"name": "drop_events", "p": 0.5}]
    split = create("dataset", "moving-bars", augment=augment, num_train=5).split("train")
    loader = torch.utils.data.DataLoader(
        split,
        batch_size=10,
        num_workers=1,
        persistent_workers=True,
        multiprocessing_context=context,
        collate_fn=split.collate,
    )
    for epoch in (0, 1, 5, 0):
        split.set_epoch(epoch)
        seen = torch.cat([batch.x for batch in loader], 1)
        assert torch.equal(seen, torch.stack([split[i][0] for i in range(len(split))], 1)), epoch


def test_torchs_default_collate_is_refused(embedded):
    """It would put the batch before the time, and a net would take one for the other."""
    split = create("dataset", "moving-bars", num_train=5).split("train")
    with pytest.raises(ContractError, match=r"collate_fn=split.collate\); it gives x \[T, B"):
        next(iter(torch.utils.data.DataLoader(split, batch_size=4)))
    batch = next(iter(torch.utils.data.DataLoader(split, batch_size=4, collate_fn=split.collate)))
    assert batch.x.shape == (10, 4, 2, 16, 16)
    assert batch.label.tolist() == split.labels[:4].tolist()
    assert batch.mask is None
    sample = pickle.loads(pickle.dumps(split[0]))
    assert torch.equal(sample.x, split[0][0])
    assert sample.label == split[0][1]

"""Batches that cannot be put together are told by the names of their samples, whoever reads them."""

import pytest
import torch

import spikecore
from spikecore.errors import DatasetError, OptionError
from spikecore.interfaces import DatasetCapabilities, DatasetInfo, Target
from spikecore.interfaces.component import Configurable, make_config
from spikecore.registry import Blocking, Registry, use
from spikecore.trainers import TaskSplit
from spikecore_training.loader import Loader


class Uneven:
    """Sequences, one of which is longer."""

    def __len__(self):
        return 6

    def __getitem__(self, index):
        return torch.ones(5 if index == 4 else 3, 2), index % 2


class Boxes(Configurable):
    """Labels that are items."""

    api_version = 2
    capabilities = DatasetCapabilities(embedded=True, target="items")
    info = DatasetInfo("Boxes", ("box",), (1, 2, 2), "CC0", "nobody")
    num_outputs, sample_shape, is_sequence, splits = 1, (1, 2, 2), False, ("train", "test")

    def __init__(self, **options):
        self.config = make_config(type(self), options)

    def split(self, name):
        return [(torch.ones(1, 2, 2), torch.zeros(index, 4)) for index in range(4)]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_sample_that_does_not_fit_is_named(num_workers):
    split = TaskSplit(Uneven(), Target("class", 2), True, "uneven train")
    loader = Loader(split, True, torch.device("cpu"), num_workers)
    with pytest.raises(
        DatasetError, match=r"uneven train\[4\] has an x of the shape \(5, 2\), uneven train\[3\] one of"
    ):
        list(loader.batches([[0, 1, 2], [3, 4, 5]]))


@pytest.mark.parametrize("trainer", ["supervised", "regression", "sequence"])
def test_items_are_refused_by_name(trainer):
    with use(Registry(blocking=Blocking())) as registry:
        registry.register("dataset", "boxes", Boxes)
        with pytest.raises(
            OptionError, match="labels of dataset Boxes are of the target 'items', and this trainer learns"
        ):
            spikecore.run({"dataset": {"name": "boxes"}, "trainer": {"name": trainer}})

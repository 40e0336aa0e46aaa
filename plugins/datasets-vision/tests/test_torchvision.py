"""The bridge to torchvision, through a stand-in of its module; the real one is an extra, and imported nowhere else."""

import subprocess
import sys
import types

import pytest
import tiny
import torch

from spikecore import create
from spikecore.errors import DatasetError, OptionError, PluginUnavailable
from spikecore_datasets_vision import torchvision_bridge
from spikecore_datasets_vision.cifar import CIFAR10


class Noise:
    """Draws from torch's global generator, as theirs do."""

    def __init__(self, scale=1.0):
        if scale < 0:
            raise ValueError("scale must not be negative")
        self.scale = scale

    def __call__(self, image):
        return image + self.scale * torch.rand(1)


class Half:
    def __call__(self, image):
        return image[:, ::2]


@pytest.fixture
def theirs(monkeypatch):
    module = types.ModuleType(torchvision_bridge.MODULE)
    module.Noise, module.Half = Noise, Half
    monkeypatch.setitem(sys.modules, torchvision_bridge.MODULE, module)
    for name in ("torchvision", "torchvision.transforms"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setattr(torchvision_bridge, "find_spec", lambda name: object())


@pytest.fixture
def files(data, monkeypatch):
    tiny.put(monkeypatch, CIFAR10, data / "cifar10", tiny.archives()[CIFAR10])


def opened(**options):
    return create("dataset", "cifar10", allow_partial=True, augment=[{"name": "torchvision", **options}])


def test_it_is_seeded_for_each_sample_and_leaves_the_generator_alone(theirs, files):
    plain = create("dataset", "cifar10", allow_partial=True).split("train")
    dataset = opened(kind="Noise", options='{"scale": 0.5}')
    split = dataset.split("train")
    before = torch.get_rng_state()
    together = [x for x, _ in split.__getitems__([3, 1, 2])]
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(7)
    for x, i in zip(together, [3, 1, 2], strict=True):
        assert torch.equal(split[i][0], x)
    added = [float((split[i][0] - plain[i][0]).mean()) for i in range(10)]
    assert all(0 <= value < 0.5 for value in added)
    assert len({round(value, 4) for value in added}) == 10
    split.set_epoch(1)
    assert not torch.equal(split[3][0], together[0])
    assert torch.equal(
        dataset.split("test")[0][0], create("dataset", "cifar10", allow_partial=True).split("test")[0][0]
    )


def test_its_faults_are_told(theirs, files):
    with pytest.raises(OptionError, match="has no transform 'Nose'"):
        opened(kind="Nose")
    with pytest.raises(OptionError, match="does not take .*scale must not be negative"):
        opened(kind="Noise", options='{"scale": -1}')
    with pytest.raises(OptionError, match="does not take"):
        opened(kind="Noise", options='{"other": 1}')
    for options in ("{", "[1]"):
        with pytest.raises(OptionError, match="must be a JSON object"):
            opened(kind="Noise", options=options)
    with pytest.raises(OptionError, match=r"'augment\[0\].kind' is required"):
        opened()
    with pytest.raises(DatasetError, match="must keep the shape"):
        opened(kind="Half").split("train")[0]


@pytest.mark.skipif(torchvision_bridge.find_spec("torchvision") is not None, reason="torchvision is installed")
def test_without_it_the_line_that_installs_it():
    with pytest.raises(PluginUnavailable, match=r"pip install '\./plugins/datasets-vision\[torchvision\]'"):
        opened(kind="RandomRotation")


def test_nothing_else_imports_it():
    code = (
        "import sys; from spikecore import create; create('dataset', 'cifar10', augment=['random_flip', 'mixup']);"
        "assert not [name for name in sys.modules if name.startswith('torchvision')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

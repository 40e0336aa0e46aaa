"""The conformance suite on every dataset of this plugin, read from tiny archives in the authors' form."""

import pytest
import tiny

from spikecore.testing.suites.dataset import DatasetSuite

PARTIAL = {"allow_partial": True}


@pytest.fixture(autouse=True)
def files(data, monkeypatch):
    for cls, archives in tiny.archives().items():
        tiny.put(monkeypatch, cls, data / cls.name, archives)
    tiny.pictures(data / "pictures")
    monkeypatch.chdir(data)


class TestMNIST(DatasetSuite):
    component = "mnist"
    options = PARTIAL


class TestFashionMNIST(DatasetSuite):
    component = "fashion-mnist"
    options = PARTIAL


class TestCIFAR10(DatasetSuite):
    component = "cifar10"
    options = PARTIAL


class TestCIFAR100(DatasetSuite):
    component = "cifar100"
    options = PARTIAL


class TestCIFAR100Coarse(DatasetSuite):
    component = "cifar100"
    options = {**PARTIAL, "labels": "coarse"}  # noqa: RUF012


class TestImageFolder(DatasetSuite):
    component = "image-folder"
    options = {"root": "pictures", "size": [24, 16]}  # noqa: RUF012


class TestEverythingAtOnce(DatasetSuite):
    component = "cifar10"
    options = {  # noqa: RUF012
        **PARTIAL,
        "augment": [
            {"name": "random_crop", "padding": 4},
            *("random_flip", "random_resized_crop", "colour_jitter", "rand_augment", "random_erasing"),
            *("mixup", "cutmix"),
        ],
        "transforms": [{"name": "resize", "height": 24, "width": 20}],
        "normalise": "channels",
        "share": 0.5,
    }

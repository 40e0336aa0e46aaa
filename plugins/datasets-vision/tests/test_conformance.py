"""The conformance suite on every dataset of this plugin, read from tiny archives in the authors' form."""

import tiny

from spikecore.registry import load
from spikecore.testing import DatasetSuite

PARTIAL = {"allow_partial": True}


class OfOthers(DatasetSuite):
    """From archives in the authors' form, which are smaller than the published ones."""

    @classmethod
    def prepare(cls, data):
        dataset = load("dataset", cls.component)
        directory = data / dataset.name
        directory.mkdir()
        for name, content in tiny.archives()[dataset].items():
            (directory / name).write_bytes(content)


class TestMNIST(OfOthers):
    component = "mnist"
    options = PARTIAL


class TestFashionMNIST(OfOthers):
    component = "fashion-mnist"
    options = PARTIAL


class TestCIFAR10(OfOthers):
    component = "cifar10"
    options = PARTIAL


class TestCIFAR100(OfOthers):
    component = "cifar100"
    options = PARTIAL


class TestCIFAR100Coarse(OfOthers):
    component = "cifar100"
    options = {**PARTIAL, "labels": "coarse"}  # noqa: RUF012


class TestImageFolder(DatasetSuite):
    component = "image-folder"
    options = {"size": [24, 16]}  # noqa: RUF012

    @classmethod
    def prepare(cls, data):
        tiny.pictures(data / "pictures")
        return {"root": str(data / "pictures")}


class TestEverythingAtOnce(OfOthers):
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

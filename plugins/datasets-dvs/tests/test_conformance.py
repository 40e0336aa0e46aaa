"""The conformance suite of datasets: the simulated ones in usual and unusual forms, the others from small archives."""

import dataclasses
import os

import published
import pytest
import writers
from test_folder import columns, fill

from spikecore import register
from spikecore.testing import DatasetSuite
from spikecore_datasets_dvs.catalogue import SHD
from spikecore_datasets_dvs.embedded import MovingBars

FEW = {"num_train": 20, "num_test": 20}
twin = pytest.mark.skipif(
    not os.environ.get("SPIKE_FULL"), reason="the code of another class here: SPIKE_FULL=1 runs it"
)
"""For classes that run no line of the plugin that another class of this file, or a test beside it, does not run."""


@register("dataset", "bars-of-any-length")
class AnyLength(MovingBars):
    """The suite reads the capabilities of the class, before there is a representation."""

    capabilities = dataclasses.replace(MovingBars.capabilities, variable_length=True)


@register("dataset", "shd-of-any-length")
class SHDOfAnyLength(SHD):
    capabilities = dataclasses.replace(SHD.capabilities, variable_length=True)


@pytest.mark.usefixtures("embedded")
class TestMixed(DatasetSuite):
    """The first of this plugin, so the long checks are made on it: it has few samples."""

    component = "moving-bars"
    options = {"augment": ["event_cutmix"], **FEW}  # noqa: RUF012


@pytest.mark.usefixtures("embedded")
class TestNDigits(DatasetSuite):
    component = "ndigits"
    most_samples = 200


@pytest.mark.usefixtures("embedded")
class TestMovingBars(DatasetSuite):
    component = "moving-bars"


@pytest.mark.usefixtures("embedded")
class TestStepsOfFixedDuration(DatasetSuite):
    component = "bars-of-any-length"
    options = {  # noqa: RUF012
        "representation": {"name": "fixed_duration", "duration_us": 3_000},
        "augment": [{"name": "drop_events", "p": 0.2}],
        **FEW,
    }


class OfOthers(DatasetSuite):
    """From the files of `published.py`, which are fewer than the published ones."""

    options = {"allow_partial": True}  # noqa: RUF012

    @classmethod
    def prepare(cls, data):
        published.put(cls.component, data)


class TestNMNIST(OfOthers):
    component = "n-mnist"


class TestNCaltech101(OfOthers):
    component = "n-caltech101"


class TestCIFAR10DVS(OfOthers):
    component = "cifar10-dvs"


class TestDVS128Gesture(OfOthers):
    component = "dvs128-gesture"


class TestASLDVS(OfOthers):
    component = "asl-dvs"


class TestNAVGestureWalk(OfOthers):
    component = "nav-gesture-walk"


@twin
class TestNAVGestureSit(OfOthers):
    component = "nav-gesture-sit"


class TestESImageNet(OfOthers):
    component = "es-imagenet"


class TestHARDVS(OfOthers):
    component = "hardvs"


class TestBullying10K(OfOthers):
    component = "bullying10k"


class TestDVSLip(OfOthers):
    component = "dvs-lip"


class TestSHD(OfOthers):
    component = "shd"


class TestSSC(OfOthers):
    component = "ssc"


@twin
class TestSHDWithAValidationSplit(OfOthers):
    component = "shd"
    options = {"allow_partial": True, "val_share": 0.4, "val_by": "speaker"}  # noqa: RUF012


class TestSTMNIST(OfOthers):
    component = "st-mnist"


class TestNCars(OfOthers):
    component = "n-cars"


class TestPropheseeGen1(OfOthers):
    component = "prophesee-gen1"


class TestSpeechCommands(OfOthers):
    component = "speech-commands"
    expected_failures = {  # noqa: RUF012
        "test_every_seed_has_an_effect": "the small archive has so few clips of a word that `share` leaves no choice"
    }


@twin
class TestTonicsRepackOfDVS128Gesture(OfOthers):
    component = "dvs128-gesture"

    @classmethod
    def prepare(cls, data):
        published.put(cls.component, data, published.dvs128_gesture_of_tonic())


@twin
class TestSHDInStepsOfFixedDuration(OfOthers):
    component = "shd-of-any-length"
    options = {"allow_partial": True, "representation": {"name": "units", "num_steps": 0}}  # noqa: RUF012

    @classmethod
    def prepare(cls, data):
        published.put("shd", data)


class TestEventFolderByATable(DatasetSuite):
    """Parts of long recordings, with the size of the sensor from their headers."""

    component = "event-folder"

    @classmethod
    def prepare(cls, data):
        (data / "long").mkdir()
        for i in range(3):
            (data / "long" / f"{i}.es").write_bytes(writers.es_dvs(*columns(i % 2, i, 1000), width=20, height=16))
        rows = [f"{i}.es,{5 * k},{5 * k + 5},{'ab'[k % 2]}" for i in range(3) for k in range(9)]
        (data / "long" / "labels.csv").write_text("\n".join(["file,start_ms,stop_ms,label", *rows]))
        return {"root": str(data / "long"), "labels": "labels.csv"}


class TestEventFolder(DatasetSuite):
    component = "event-folder"

    @classmethod
    def prepare(cls, data):
        fill(data / "mine")
        return {"root": str(data / "mine"), "sensor_size": [16, 16], "unit": "us"}

"""The conformance suite of datasets, on the simulated ones in their usual and in their unusual forms."""

import dataclasses

import pytest

from spikecore import register
from spikecore.testing.suites.dataset import DatasetSuite
from spikecore_datasets_dvs.embedded import MovingBars

pytestmark = pytest.mark.usefixtures("embedded")
FEW = {"num_train": 20, "num_test": 20}


@register("dataset", "bars-of-any-length")
class AnyLength(MovingBars):
    """The suite reads the capabilities of the class, before there is a representation."""

    capabilities = dataclasses.replace(MovingBars.capabilities, variable_length=True)


class TestNDigits(DatasetSuite):
    component = "ndigits"
    most_samples = 200


class TestMovingBars(DatasetSuite):
    component = "moving-bars"


class TestStepsOfFixedDuration(DatasetSuite):
    component = "bars-of-any-length"
    options = {  # noqa: RUF012
        "representation": {"name": "fixed_duration", "duration_us": 3_000},
        "augment": [{"name": "drop_events", "p": 0.2}],
        **FEW,
    }


class TestMixed(DatasetSuite):
    component = "moving-bars"
    options = {"augment": ["event_cutmix"], **FEW}  # noqa: RUF012

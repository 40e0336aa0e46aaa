"""The conformance suite of datasets, on the simulated ones in their usual and in their unusual forms."""

import pytest

suites = pytest.importorskip("spikecore.testing.suites.dataset")

pytestmark = pytest.mark.usefixtures("embedded")


class TestNDigits(suites.DatasetSuite):
    component = "ndigits"
    most_samples = 200


class TestMovingBars(suites.DatasetSuite):
    component = "moving-bars"


class TestStepsOfFixedDuration(suites.DatasetSuite):
    component = "moving-bars"
    options = {  # noqa: RUF012
        "representation": {"name": "fixed_duration", "duration_us": 3_000},
        "augment": [{"name": "drop_events", "p": 0.2}],
        "num_train": 20,
        "num_test": 20,
    }


class TestMixed(suites.DatasetSuite):
    component = "moving-bars"
    options = {"augment": ["event_cutmix"], "num_train": 20, "num_test": 20}  # noqa: RUF012

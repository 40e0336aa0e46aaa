"""The conformance suites on every component of this plugin."""

from spikecore.testing.suites.trainer import TrainerSuite


class TestSupervised(TrainerSuite):
    component = "supervised"


class TestRegression(TrainerSuite):
    component = "regression"


class TestSequence(TrainerSuite):
    component = "sequence"


class TestSupervisedWithEverything(TrainerSuite):
    """Without mixing, which draws in each process for itself."""

    component = "supervised"
    options = {
        "batch_size": 5,
        "accumulate": 2,
        "ema": 0.5,
        "lr": 0.02,
        "log_every": 2,
        "rate_penalty": 0.1,
        "label_smoothing": 0.05,
        "clip_norm": 2.0,
        "warmup_epochs": 1.0,
        "schedule_per": "step",
        "firing_rates": True,
        "patience": 50,
    }

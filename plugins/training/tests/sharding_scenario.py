"""Run by torchrun with --max-restarts: a process that holds its part of a net is killed at its first start."""

import os
import signal

import spikecore
from spikecore.run.context import Context

KILLED_AT = 8
"""Safe points before process 1 is killed, once."""
CONFIG = {
    "run": {"checkpoint_every_steps": 2, "report": False, "device": "cpu"},
    "dataset": {"test_share": 0.3},
    "encoder": {"num_steps": 2},
    "model": {"name": "mlp", "hidden": [16]},
    "neuron": {"v_threshold": 0.3},
    "trainer": {"name": "supervised", "parallel": "fsdp", "epochs": 2, "batch_size": 201, "firing_rates": True},
}

passed = Context.checkpoint


def killing(self, *arguments, **options):
    passed(self, *arguments, **options)
    if self.rank == 1 and self.count == KILLED_AT and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    Context.checkpoint = killing
    spikecore.run(CONFIG)

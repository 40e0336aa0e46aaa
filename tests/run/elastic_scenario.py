"""Run by torchrun with --max-restarts: one process is killed at its first start, and the run goes on at the second.

argv: the arguments of `spike`.
"""

import os
import signal
import sys

from spikecore.cli import main
from spikecore.run.context import Context

KILLED_AT = 7
"""Safe points before process 1 is killed, once."""

passed = Context.checkpoint


def killing(self, *arguments, **options):
    passed(self, *arguments, **options)
    if self.rank == 1 and self.count == KILLED_AT and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        os.kill(os.getpid(), signal.SIGKILL)


Context.checkpoint = killing
sys.argv[0] = "spike"
main()

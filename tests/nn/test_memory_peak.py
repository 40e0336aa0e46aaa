"""Peak memory, measured in a process of its own: T = 64 fits where all that is kept lets only T = 16 fit."""

import os
import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SCRIPT = """
import sys, torch
sys.path.insert(0, sys.argv[1])
torch.set_num_threads(1)
from memory_modes import peak
print(peak("fast", 16, "torch"), peak("save", 64, "torch"), peak("balanced", 16, "torch"))
"""


def test_four_times_the_steps_fit():
    gives_back = dict.fromkeys(("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_"), "65536")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **gives_back}
    command = [sys.executable, "-c", SCRIPT, str(BENCHMARKS)]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    eager, saved, packed = map(float, said.split())
    assert eager > 20, "too small to be measured"
    assert saved < eager
    assert packed < eager

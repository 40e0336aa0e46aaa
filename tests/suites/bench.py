"""`make bench`: measures, and writes docs/benchmarks/*.csv and the README's table."""

from __future__ import annotations

from tests.suites.environments import bench_environment, call
from tests.suites.places import ROOT

PER_BYTE = ("lif", "plif", "izhikevich", "alif", "cuba_lif", "adaptive_threshold")
"""Where bytes alone count, these should cost what LIF costs; the last is of `examples/own_neuron.py`."""


def bench() -> None:
    """Measure, with every plugin and the other libraries."""
    python, csv = bench_environment() / "bin/python", ROOT / "docs" / "benchmarks"
    for script in ("startup", "eager", "run", "zoo"):
        call(python, f"tests/benchmarks/{script}.py")
    call(python, "plugins/datasets-dvs/benchmarks/events.py")
    spike = [python, "-m", "spikecore", "bench"]
    some = [part for name in PER_BYTE for part in ("--neuron", name)]
    own = ["--load", "examples/own_neuron.py"]
    call(*spike, "--peers", "--nets", "--compile-steps", "128", "--csv", csv / "speed.csv")
    call(*spike, *some, *own, "--shape", "64,64,16384", "--csv", csv / "beyond-caches.csv")
    call(*spike, "--neuron", "all", *own, "--csv", csv / "neurons.csv")
    call(python, "plugins/datasets-vision/benchmarks/images.py", "--out", csv / "images.csv")
    call(python, "tests/benchmarks/readme_table.py")

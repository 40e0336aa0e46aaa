"""`make bench-gpu`: what needs a GPU, in about ten minutes: docs/benchmarks/gpu-DTYPE.csv.

First the conformance suite of each GPU backend on the device; a backend that fails it is not timed. Then LIF, PLIF and
Izhikevich from few long sequences to many short ones, compared with the copy of the same run, with eager torch, with
`torch.compile` for T up to 16, and with SpikingJelly's kernels; then training steps of whole nets beside its layers.
Last gpu_nets.py: SEW-ResNet18, convolution and neuron under torch.compile, norm and neuron in one call.

It uses the Python that runs it: torch with CUDA, triton, cupy, core and the plugins have to be installed there.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import torch

BACKENDS = ("triton", "cupy")
NEURONS = ("lif", "plif", "izhikevich")
SHAPES = ((4, 64, 1 << 16), (16, 64, 1 << 14), (128, 16, 1 << 10), (500, 16, 512))
"""T, B, N: 2**22, 2**20, 2**14 and 2**13 neurons."""
DTYPES = ("float32", "bfloat16")
UNAVAILABLE = 2
OUT = Path(__file__).parents[2] / "docs" / "benchmarks"


def spike(*arguments: str) -> int:
    """Run a command of `spike`; its output is seen."""
    print("$ spike", *arguments, flush=True)
    return subprocess.run([sys.executable, "-m", "spikecore", *arguments], check=False).returncode


def main() -> int:
    if not torch.cuda.is_available():
        print("torch sees no GPU: nothing was checked, nothing was measured", file=sys.stderr)
        return UNAVAILABLE
    statuses = {name: spike("test", f"backend:{name}") for name in BACKENDS}
    proved = [name for name in BACKENDS if statuses[name] == 0]
    if proved:
        chosen = [part for name in proved for part in ("--backend", name)]
        chosen += [part for name in NEURONS for part in ("--neuron", name)]
        for shape in SHAPES:
            chosen += ["--shape", ",".join(map(str, shape))]
        for dtype in DTYPES:
            csv = str(OUT / f"gpu-{dtype}.csv")
            # Whole layers, training steps of a conv net among them, are measured in float32.
            nets = ["--nets"] if dtype == "float32" else []
            given = ["--device", "cuda", "--dtype", dtype, "--peers", *nets, "--csv", csv]
            statuses[dtype] = spike("bench", *chosen, *given)
        script = str(Path(__file__).with_name("gpu_nets.py"))
        named = [part for name in proved for part in ("--backend", name)]
        statuses["nets"] = subprocess.run([sys.executable, script, *named], check=False).returncode
    for name, status in statuses.items():
        print(f"{name}: {'ok' if status == 0 else f'exit status {status}'}")
    return exit_status(statuses.values())


def exit_status(statuses: Iterable[int]) -> int:
    """0 where all are 0, else the largest; 1 for a process that a signal ended, whose status is negative."""
    return max(status if status >= 0 else 1 for status in statuses)


if __name__ == "__main__":
    sys.exit(main())

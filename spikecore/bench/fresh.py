"""Measures a candidate's first use and memory in fresh processes.

A candidate keeps its cache below XDG_CACHE_HOME, or in the directories that the variables of torch.compile, Triton and
CuPy name. The first process finds these directories empty (cold), the second as the first left them (warm).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from spikecore.bench.candidates import Candidate
from spikecore.bench.cases import Case
from spikecore.registry import registry

TIMEOUT_S = 300.0
COMPILING_TIMEOUT_S = 1200.0
CACHES = ("XDG_CACHE_HOME", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "CUPY_CACHE_DIR")
Figures = dict[tuple[str, str], float]


@dataclass(frozen=True)
class Fresh:
    """What fresh processes found of one candidate; keys are `("T,B,N", measure)`.

    Args:
        load_cold_ms, load_warm_ms: loading the plugin or library, which comes before.
        cold_ms: first use with an empty cache.
        warm_ms: first use with the cache that the cold process left; empty where the candidate keeps none.
        peak_mib: memory at the peak.
        problem: why something is missing.
    """

    load_cold_ms: float | None = None
    load_warm_ms: float | None = None
    cold_ms: Figures = field(default_factory=dict)
    warm_ms: Figures = field(default_factory=dict)
    peak_mib: Figures = field(default_factory=dict)
    problem: str = ""


def measure(candidate: Candidate, cases: Sequence[Case], compile_steps: int) -> Fresh:
    """Start the processes for one candidate.

    Args:
        candidate: found again by its name; one that exists in this process alone cannot be measured.
        cases: the same neuron at several shapes.
        compile_steps: as for `peers`.
    """
    question = {
        "candidate": candidate.name,
        "is_backend": candidate.is_backend,
        "compile_steps": compile_steps,
        "cases": [case.pack() for case in cases],
    }
    with cache_directory() as cache:
        timeout_s = COMPILING_TIMEOUT_S if candidate.compiles_per_shape else TIMEOUT_S
        cold = _ask({**question, "memory": not candidate.caches}, cache, timeout_s)
        repeats = candidate.caches and "first" in cold
        warm = _ask({**question, "memory": True}, cache, timeout_s) if repeats else {}
    return Fresh(
        cold.get("load_ms"),
        warm.get("load_ms"),
        _by_shape_and_measure(cold.get("first", {})),
        _by_shape_and_measure(warm.get("first", {})),
        _by_shape_and_measure((warm or cold).get("peak", {})),
        cold["problem"] or warm.get("problem", ""),
    )


def measure_net(net: str, candidate: str, device: torch.device) -> tuple[float | None, str]:
    """MiB at the peak of one step of a net, and why there is none."""
    with cache_directory() as cache:
        answer = _ask({"net": net, "candidate": candidate, "device": str(device)}, cache)
    return answer.get("peak"), answer["problem"]


@contextmanager
def cache_directory() -> Iterator[dict[str, str]]:
    """Environment variables that make an empty directory the cache of every library."""
    with tempfile.TemporaryDirectory(prefix="spike-bench-", ignore_cleanup_errors=True) as folder:
        yield {name: str(Path(folder, name.lower())) for name in CACHES}


def _ask(question: Mapping[str, Any], cache: Mapping[str, str], timeout_s: float = TIMEOUT_S) -> dict[str, Any]:
    """The worker's answer; it always has the key `problem`."""
    command = [sys.executable, "-m", "spikecore.bench.worker"]
    environment = {**os.environ, **registry().blocking.environment(), **cache}
    files = [plugin.path for plugin in registry().files]
    try:
        result = subprocess.run(
            command,
            input=json.dumps({**question, "files": files}),
            env=environment,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )
    except subprocess.TimeoutExpired:
        return {"problem": f"a fresh process did not answer within {timeout_s:g} s"}
    if result.returncode:
        last = result.stderr.strip().splitlines()[-1:] or [f"status {result.returncode}"]
        return {"problem": f"a fresh process failed: {last[0]}"}
    lines = result.stdout.splitlines()
    if not lines:  # a candidate may end its process, as by `os._exit(0)`
        return {"problem": "a fresh process ended without an answer"}
    answer: dict[str, Any] = json.loads(lines[-1])
    return {"problem": "", **answer}


def _by_shape_and_measure(values: Mapping[str, float]) -> Figures:
    figures: Figures = {}
    for key, value in values.items():
        shape, _, measure = key.partition(" ")
        figures[shape, measure] = value
    return figures

"""Memory and first use, in processes of their own; with a backend that only a file brings."""

import subprocess
import sys

import pytest
import torch

from spikecore.bench import fresh
from spikecore.bench.candidates import backends
from spikecore.bench.cases import FORWARD, TRAINING, Case
from spikecore.bench.memory import in_child
from spikecore.registry import register, use
from tests.bench import toys

linux = pytest.mark.skipif(sys.platform != "linux", reason="memory is counted by Linux")
CPU = torch.device("cpu")
BACKEND = """
import os, time
from pathlib import Path

import torch

from spikecore import register
from spikecore.backends.reference import TorchBackend
from spikecore.interfaces.backend import BackendCapabilities


@register("backend", "hungry")
class Hungry(TorchBackend):
    capabilities = BackendCapabilities(priority=3)

    def run(self, *given):
        cache = Path(os.environ["XDG_CACHE_HOME"], "hungry")
        if not cache.exists():  # compiles
            time.sleep(3)
            cache.mkdir(parents=True)
        self.pool = getattr(self, "pool", None)
        if self.pool is None and given[1].numel() > 10:
            self.pool = torch.ones(20 << 18)  # 20 MiB, kept for the next call
        print("noise on standard output")
        return super().run(*given)
"""


PEAK = """
import sys

import torch

from spikecore.bench.memory import in_child, peak_mib

torch.set_num_threads(1)  # as in the benchmark's own workers: what is forked has run one thread


def make():
    before = torch.ones(100 << 18)  # the input does not count

    def run():
        big = torch.ones(int(sys.argv[1]) << 18)
        del big
        return torch.ones(4 << 18), before

    return run


torch.ones(200 << 18)  # nor what was freed before
print(in_child(lambda: peak_mib(make, torch.device("cpu"))))
"""


@linux
@pytest.mark.parametrize("mib", [8, 64])
def test_the_peak_is_what_was_allocated(mib):
    done = subprocess.run([sys.executable, "-c", PEAK, str(mib)], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == pytest.approx(mib, abs=1.5)


@linux
def test_a_child_that_fails_says_why():
    with pytest.raises(RuntimeError, match="memory: ZeroDivisionError: division by zero"):
        in_child(lambda: 1 / 0)


@linux
def test_a_child_that_dies_is_noticed():
    import os

    with pytest.raises(RuntimeError, match="memory: the child ended with status"):
        in_child(lambda: os._exit(3))


@linux
def test_cold_warm_and_peak_of_a_backend_from_a_file(tmp_path):
    path = tmp_path / "hungry.py"
    path.write_text(BACKEND)
    with use(toys.core_alone()) as registry:
        registry.load_file(path)
        candidate = backends(["hungry"])[0][1]
        figures = fresh.measure(candidate, [Case("lif", (3, 1, 8)), Case("lif", (4, 1, 8))], 0)
    assert figures.problem == ""
    keys = {(shape, measure) for shape in ("3,1,8", "4,1,8") for measure in (FORWARD, TRAINING)}
    assert set(figures.cold_ms) == set(figures.warm_ms) == set(figures.peak_mib) == keys
    first = ("3,1,8", FORWARD)
    assert figures.cold_ms[first] >= 3000  # it slept
    assert figures.warm_ms[first] < figures.cold_ms[first]
    assert all(figures.cold_ms[key] < figures.cold_ms[first] for key in keys - {first})
    assert all(value == pytest.approx(20, abs=2) for value in figures.peak_mib.values())
    assert figures.load_cold_ms > 0
    assert figures.load_warm_ms > 0


def test_a_backend_of_this_process_alone_is_named_as_such():
    with use(toys.core_alone()):
        register("backend", "right", toys.Right)
        figures = fresh.measure(backends(["right"])[0][1], [Case("lif", (2, 1, 3))], 0)
    assert "no backend 'right'" in figures.problem
    assert not figures.cold_ms


@linux
def test_a_failure_without_a_text_ends_the_child_too():
    """A child that went on would return to the caller a second time."""

    class Mute(Exception):
        def __str__(self):
            raise ValueError("no text")

    def fail():
        raise Mute

    with pytest.raises(RuntimeError, match="memory: the child ended with status"):
        in_child(fail)


def test_a_process_that_ends_without_an_answer_is_a_problem(monkeypatch):
    """As where a candidate calls `os._exit(0)`."""
    ended = subprocess.CompletedProcess([], 0, stdout="", stderr="")
    monkeypatch.setattr(fresh.subprocess, "run", lambda *args, **options: ended)
    peak, problem = fresh.measure_net("linear", "torch", CPU)
    assert peak is None
    assert problem == "a fresh process ended without an answer"

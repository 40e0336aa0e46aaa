"""The floor is counted, not measured: bytes of a pass over bytes per second of a copy."""

import pytest
import torch

from spikecore.bench.cases import FORWARD, TRAINING, Case
from spikecore.bench.floor import Bandwidth, bytes_per_step, copies
from tests.bench import toys


@pytest.mark.parametrize(
    ("dtype", "forward", "training"),
    [(torch.float32, 8, 20), (torch.float64, 16, 40), (torch.float16, 4, 10), (torch.bfloat16, 4, 10)],
)
def test_bytes_of_a_step(dtype, forward, training):
    assert bytes_per_step(FORWARD, dtype) == forward
    assert bytes_per_step(TRAINING, dtype) == training


def test_a_recorded_state_is_written_and_its_gradient_read_in_the_dtype_of_the_state():
    assert bytes_per_step(FORWARD, torch.float32, num_recorded=1) == 12
    assert bytes_per_step(TRAINING, torch.float32, num_recorded=2) == 36
    assert bytes_per_step(FORWARD, torch.bfloat16, num_recorded=1) == 8


def test_the_best_copy_of_the_same_size_gives_the_floor():
    case = Case("lif", (4, 2, 1000))
    bandwidth = Bandwidth()
    assert bandwidth.floor_s(case, FORWARD) is None
    bandwidth.add(case.num_bytes, [0.004, 0.002, 0.008])  # 32 kB read and written in 2 ms: 32 MB/s
    bandwidth.add(case.num_bytes, [0.003])
    bandwidth.add(case.num_bytes * 8, [1e-6])  # another size is another bandwidth
    assert bandwidth.of(case.num_bytes) == pytest.approx(32e6)
    assert bandwidth.floor_s(case, FORWARD) == pytest.approx(0.002)
    assert bandwidth.floor_s(case, TRAINING) == pytest.approx(0.005)


def test_a_backends_own_copy_takes_part():
    case = Case("lif", (4, 2, 10))
    copied = []

    class Own(toys.Right):
        def stream_copy(self, destination, source):
            copied.append((destination.shape, destination.dtype, torch.equal(destination, source)))
            destination.copy_(source)

    runs = copies(case, [("right", Own()), ("plain", toys.Right())])
    assert list(runs) == ["copy_", "right.stream_copy", "plain.stream_copy"]
    for run in runs.values():
        run()
    assert copied == [(torch.Size((4, 2, 10)), torch.float32, True)]

"""The checks that core offers to every backend, for each way of keeping what the gradient needs."""

import pytest
import torch

from spikecore.nn import LIF, ConvBNNeuron
from spikecore.testing import BackendSuite


class TestCPU(BackendSuite):
    component = "cpu"


class TestFromInput(BackendSuite):
    component = "cpu"
    options = {"keep": "input"}  # noqa: RUF012


class TestFromDistance(BackendSuite):
    component = "cpu"
    options = {"keep": "distance"}  # noqa: RUF012


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_the_block_of_convolution_and_norm_is_fused_and_agrees(dtype):
    torch.manual_seed(0)
    x = torch.randn(4, 3, 2, 8, 8, dtype=dtype)
    blocks = [
        ConvBNNeuron(torch.nn.Conv2d(2, 5, 3), torch.nn.BatchNorm2d(5), LIF(backend=backend, tau=3.0)).to(dtype)
        for backend in ("cpu", "torch")
    ]
    blocks[1].load_state_dict(blocks[0].state_dict())
    results = []
    for block in blocks:
        given = x.clone().requires_grad_()
        out = block(given)
        (out * torch.linspace(-1, 1, out.numel(), dtype=dtype).reshape(out.shape)).sum().backward()
        results.append([out, given.grad, *(parameter.grad for parameter in block.parameters())])
    choice = blocks[0].neuron.choose_backend(x.device, dtype, affine=True)
    assert (choice.backend, choice.reason) == ("cpu", "backend 'cpu' offers affine_neuron")
    tolerance = 1e-4 if dtype == torch.float32 else 1e-10
    for ours, right in zip(*results, strict=True):
        torch.testing.assert_close(ours, right, rtol=tolerance, atol=tolerance)

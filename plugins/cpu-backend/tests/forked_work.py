"""What processes do in the tests of forks, in a module that spawned ones can import."""

import hashlib
import os

import torch

from spikecore.backends.selection import backend_named
from spikecore.nn import LIF

SHAPE = (16, 4, 3, 2000)


def make():
    return LIF(backend="cpu", tau=[1.5, 2.0, 3.0], learnable=("tau",))


def inputs(num_steps=SHAPE[0]):
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(num_steps, *SHAPE[1:], generator=generator) for _ in range(2)]


def bits(neuron, x, weights):
    """Everything that a forward and a backward pass give, as one hash."""
    given = x.detach().requires_grad_()
    out = neuron(given)
    grads = torch.autograd.grad(out, [given, neuron.param_tau], weights)
    digest = hashlib.sha256()
    for tensor in (out.detach(), *grads):
        digest.update(tensor.numpy().tobytes())
    return digest.digest()


def num_workers():
    return backend_named("cpu").runtime.library.sc_num_workers()


class Spikes(torch.utils.data.Dataset):
    """Samples that a neuron has worked on; each also says which process did it, and on how many workers of the pool."""

    def __len__(self):
        return 6

    def __getitem__(self, index):
        x, weights = inputs()
        digest = bits(make(), x * (index + 1), weights)
        return torch.tensor(list(digest), dtype=torch.uint8), os.getpid(), num_workers()


def two_threads(index):
    torch.set_num_threads(2)

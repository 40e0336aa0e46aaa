"""Channels-last steps on this backend: nothing is copied, and every value has the bits of the contiguous format."""

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from spikecore.nn import IF, LIF, ConvBNNeuron, get_state, streaming

CHANNELS = 37  # neither a whole number of tiles nor a part of one
PER_CHANNEL = {"tau": torch.linspace(1.5, 5.0, CHANNELS).tolist(), "learnable": ("tau", "v_threshold")}
CASES = {
    "numbers": (LIF, {"tau": 3.0}),
    "soft": (IF, {"reset": "soft"}),
    "per channel": (LIF, PER_CHANNEL),
}
SHAPES = {"small": (4, 2, CHANNELS, 3, 2), "large": (6, 3, CHANNELS, 21, 19), "volume": (3, 2, CHANNELS, 3, 4, 5)}
COPIES = {"aten::copy_", "aten::clone", "aten::contiguous", "aten::_to_copy", "aten::cat", "aten::stack"}


def sequence(*shape, dtype=torch.float32):
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return (drawn * 2 + 0.5).to(dtype)


def channels_last(x):
    moved = x.movedim(2, -1).contiguous().movedim(-1, 2)
    assert not moved.is_contiguous()
    return moved


def outcome(neuron, x):
    given = x.detach().requires_grad_()
    with streaming(neuron):
        out = neuron(given)
        last = get_state(neuron)[""]["v"]
        sequence = neuron.recorded["v"]
    total = (out * x.detach()).sum() + last.sum() + (sequence * x.detach()).sum()
    gradients = torch.autograd.grad(total, [given, *neuron.parameters()])
    return [out, last, sequence, gradients[0]], gradients[1:]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_equal_bits(case, shape, dtype):
    cls, options = case
    x = sequence(*shape, dtype=dtype)
    neuron = cls(backend="cpu", record=("v",), **options)
    if dtype == torch.float64:
        neuron = neuron.double()
    values, params = outcome(neuron, channels_last(x))
    right, right_params = outcome(neuron, x)
    assert 0.05 < values[0].float().mean() < 0.95
    for ours, theirs in zip(values, right, strict=True):
        assert torch.equal(ours, theirs)
        moved = ours.movedim(2, -1) if ours.dim() == len(shape) else ours.movedim(1, -1)
        assert moved.is_contiguous()
    torch.testing.assert_close(params, right_params, rtol=1e-5, atol=1e-4)  # the same sums in another order


@pytest.mark.parametrize("num_channels", [1, 3, 64, 255, 256, 257, 1000, 2048, 2049, 5000])
def test_sums_of_channels_that_alternate(num_channels):
    """Fewer channels than a block has lanes, as many, and more."""
    taus = torch.linspace(1.5, 5.0, num_channels).tolist()
    x = sequence(3, 9000 // num_channels + 3, num_channels, dtype=torch.float64)
    gradients = []
    for backend in ("cpu", "torch"):
        neuron = LIF(backend=backend, tau=taus, v_threshold=[0.7] * num_channels, learnable=("tau", "v_threshold"))
        neuron.double()(x).sum().backward()
        gradients.append([param.grad for param in neuron.parameters()])
    assert gradients[1][0].any()
    torch.testing.assert_close(gradients[0], gradients[1])


def test_their_bits_do_not_depend_on_the_threads():
    x = channels_last(sequence(*SHAPES["large"]))
    neuron, gradients = LIF(backend="cpu", **PER_CHANNEL), []
    for num_threads in (1, 2):
        before = torch.get_num_threads()
        torch.set_num_threads(num_threads)
        try:
            gradients.append(torch.autograd.grad(neuron(x).sum(), list(neuron.parameters())))
        finally:
            torch.set_num_threads(before)
    for one, two in zip(*gradients, strict=True):
        assert torch.equal(one, two)


def copies(call):
    """Names of torch's operations in a call that move data from one tensor to another."""
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        call()
    names = [event.name for event in seen.events()]
    assert any(name.startswith("aten::") for name in names)  # it looks
    return [name for name in names if name in COPIES]


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("options", [{}, PER_CHANNEL], ids=["numbers", "per channel"])
@pytest.mark.parametrize("step_mode", ["multi", "single"])
def test_nothing_is_copied(shape, options, step_mode):
    x = channels_last(sequence(*shape))
    x = x if step_mode == "multi" else x[0]
    neuron = LIF(backend="cpu", step_mode=step_mode, **options)
    with torch.no_grad():
        neuron(x)  # compiled, and with a state to go on from in single-step mode
        assert not copies(lambda: neuron(x))
    given = x.clone().requires_grad_()
    arriving = torch.ones_like(x)
    neuron(given).backward(arriving)
    given.grad = None
    if step_mode == "multi":
        assert not copies(lambda: torch.autograd.grad(neuron(given), given, arriving))


def test_a_copy_would_be_seen():
    x = channels_last(sequence(*SHAPES["small"]))
    assert "aten::copy_" in copies(lambda: LIF(backend="cpu")(x[..., ::2]))


def test_a_block_keeps_it():
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(3, CHANNELS, 3, padding=1)
    block = ConvBNNeuron(conv, torch.nn.BatchNorm2d(CHANNELS), LIF(backend="cpu", v_threshold=0.5)).double()
    x, results = sequence(4, 2, 3, 9, 8, dtype=torch.float64), []
    for given in (channels_last(x).requires_grad_(), x.requires_grad_()):
        out = block(given)
        assert out.any()
        results.append([out, *torch.autograd.grad((out * out.detach().cumsum(0)).sum(), [given, *block.parameters()])])
    assert block.choose(x.device, x.dtype).backend == "cpu"
    torch.testing.assert_close(results[0], results[1])
    assert results[0][0].movedim(2, -1).is_contiguous()


def test_transforms_and_compilers():
    x = channels_last(sequence(*SHAPES["small"]))
    neuron = LIF(backend="cpu", **PER_CHANNEL)
    want = neuron(x)
    compiled = torch.compile(neuron, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        assert torch.equal(compiled(x), want)
    given = x.clone().requires_grad_()
    out = compiled(given)
    assert torch.equal(out, want)
    assert out.movedim(2, -1).is_contiguous()
    (gradient,) = torch.autograd.grad((out * x).sum(), given)
    torch.testing.assert_close(gradient, torch.func.grad(lambda values: (neuron(values) * x).sum())(x))
    pair = torch.stack([x, x.flip(0)])
    assert torch.equal(torch.func.vmap(neuron)(pair), torch.stack([neuron(x), neuron(x.flip(0))]))

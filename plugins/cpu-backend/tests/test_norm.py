"""Batch norm and neuron in one call: against torch's norm and the plain loop, whatever the shape and the threads."""

import gc

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spikecore.backends.kit import NormCall
from spikecore.backends.selection import backend_named
from spikecore.errors import BackendError
from spikecore.nn import (
    IF,
    LIF,
    ConvBNNeuron,
    CubaLIF,
    LinearBNNeuron,
    ParametricLIF,
    configure_backend,
    get_state,
    streaming,
)
from spikecore.nn.surrogates import Sigmoid
from spikecore.testing.compare import assert_close, assert_same

NEURONS = {
    "if": lambda **o: IF(v_threshold=0.8, reset="soft", **o),
    "lif": lambda **o: LIF(tau=3.0, v_threshold=0.4, **o),
    "learnable": lambda **o: LIF(tau=3.0, v_threshold=0.4, learnable=("tau", "v_threshold"), **o),
    "plif": lambda **o: ParametricLIF(init_tau=2.5, v_threshold=0.4, **o),
    "cuba": lambda **o: CubaLIF(v_threshold=0.3, **o),
}


@pytest.fixture(scope="module", autouse=True)
def together():
    """One call whatever the size; which way `auto` goes is tested in test_norm_choice.py."""
    configure_backend("cpu", norm="together")
    yield
    configure_backend("cpu")


class Nothing(torch.nn.Module):
    """Hands over what a block's layer would give."""

    def forward(self, x):
        return x


def block_of(shape, neuron, backend, dtype=torch.float64, **norm):
    """A block whose layer changes nothing, and scales and shifts that let the neuron fire."""
    channels = shape[2]
    dims = max(len(shape) - 3, 1)
    kind = getattr(torch.nn, f"BatchNorm{dims}d")
    if len(shape) == 3:
        block = LinearBNNeuron(
            torch.nn.Linear(channels, channels), kind(channels, **norm), NEURONS[neuron](backend=backend)
        )
        block.linear = Nothing()
        block.linear.out_features = channels
    else:
        conv = getattr(torch.nn, f"Conv{dims}d")(channels, channels, 1)
        block = ConvBNNeuron(conv, kind(channels, **norm), NEURONS[neuron](backend=backend))
        size = conv.kernel_size
        block.conv = Nothing()
        block.conv.out_channels, block.conv.kernel_size = channels, size
    if block.norm.affine:
        torch.nn.init.uniform_(block.norm.weight, 0.5, 2.0)
        torch.nn.init.uniform_(block.norm.bias, 0.0, 1.0)
    return block.to(dtype)


def everything(block, y):
    """Output, gradients and running statistics of one call."""
    given = y.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    out = block(given)
    weights = torch.linspace(-1, 2, out.numel(), dtype=out.dtype).reshape(out.shape)
    parameters = [*block.norm.parameters(), *block.neuron.parameters()]
    gradients = torch.autograd.grad((out * weights).sum(), [given, *parameters])
    return [out.detach(), *gradients, *(buffer.clone() for buffer in block.norm.buffers())]


def values(shape, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=generator, dtype=torch.float64) * 1.7 + 0.4).to(dtype)


@given(
    st.tuples(st.integers(1, 20), st.integers(1, 5), st.integers(1, 40)),
    st.lists(st.integers(1, 20), max_size=3),
    st.sampled_from(sorted(NEURONS)),
    st.booleans(),
    st.booleans(),
)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_any_shape_in_both_memory_formats(lead, space, neuron, is_last, affine):
    shape = (*lead, *space)
    if torch.Size(shape).numel() < 2 * shape[2]:
        return
    y = values(shape)
    if is_last:
        y = y.movedim(2, -1).contiguous().movedim(-1, 2)
    torch.manual_seed(3)
    ours = block_of(shape, neuron, "cpu", affine=affine)
    theirs = block_of(shape, neuron, "torch", affine=affine)
    theirs.load_state_dict(ours.state_dict())
    assert ours.choose(y.device, y.dtype).backend == "cpu"
    assert_close(everything(ours, y), everything(theirs, y), f"[output, gradients, statistics] of {shape}")


SHAPES = {
    "pieces of one channel": (5, 6, 4, 24, 24),
    "short pieces": (5, 6, 4, 9, 7),
    "long pieces, cut": (3, 2, 3, 70, 71),
    "channels last": (5, 6, 32, 9, 7),
    "channels last, no whole lines": (5, 6, 5, 9, 7),
    "channels last, several blocks, the last one short": (5, 3, 24, 13, 13),
    "linear": (20, 300, 48),
    "as many channels as fit into a block twice": (3, 5, 1024),
}


@pytest.mark.parametrize("case", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_each_way_to_cut_it_and_any_number_of_threads(case, dtype):
    shape = SHAPES[case]
    y = values(shape, dtype)
    if "last" in case:
        y = y.movedim(2, -1).contiguous().movedim(-1, 2)
    torch.manual_seed(3)
    ours = block_of(shape, "learnable", "cpu", dtype)
    theirs = block_of(shape, "learnable", "torch", dtype)
    start = {name: value.clone() for name, value in ours.state_dict().items()}
    theirs.load_state_dict(start)
    threads = torch.get_num_threads()
    results = []
    try:
        for number in (1, 2, 3, 7):
            torch.set_num_threads(number)
            ours.load_state_dict(start)
            results.append(everything(ours, y))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert_same(other, results[0], "with another number of threads")
    assert 0.02 < results[0][0].mean() < 0.98
    right = everything(theirs, y)
    flips = int((results[0][0] != right[0]).sum())
    assert flips == 0, f"{flips} spikes differ"
    distances = [
        float((a.double() - b.double()).norm() / b.double().norm())
        for a, b in zip(results[0][1:], right[1:], strict=True)
    ]
    assert max(distances) < (3e-6 if dtype == torch.float32 else 1e-12), distances


def test_gradients_are_the_numeric_ones():
    """A spike is flat: in a smooth surrogate's place, out is its primitive, and differences see the true gradient."""
    shape = (3, 2, 3, 4)
    neuron = LIF(backend="cpu", tau=3.0, v_threshold=0.4, surrogate=Sigmoid(alpha=2.0, spiking=False))
    block = block_of(shape, "lif", "cpu")
    block.neuron = neuron
    y = values(shape).requires_grad_()

    def call(y, weight, bias):
        return torch.func.functional_call(block, {"norm.weight": weight, "norm.bias": bias}, (y,))

    backend = type(backend_named("cpu"))
    calls, original = [], backend.norm_neuron_grad
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backend, "norm_neuron_grad", lambda *a: (calls.append(1), original(*a))[1])
        weight, bias = (p.detach().clone().requires_grad_() for p in (block.norm.weight, block.norm.bias))
        assert torch.autograd.gradcheck(call, (y, weight, bias), nondet_tol=0.0)
    assert calls, "the gradient came from somewhere else"


@pytest.mark.parametrize("offset", [0.0, 300.0, -1e4])
def test_statistics_far_from_zero(offset):
    y = values((4, 8, 16, 8, 8), torch.float32) + torch.tensor(offset)
    block = block_of(y.shape, "lif", "cpu", torch.float32, momentum=1.0)
    block(y)
    var, mean = torch.var_mean(y.double(), (0, 1, 3, 4))
    torch.testing.assert_close(block.norm.running_mean, mean.float(), rtol=2e-7, atol=1e-7)
    torch.testing.assert_close(block.norm.running_var, var.float(), rtol=3e-6, atol=0)


def test_running_statistics_are_torch_s():
    for options in ({}, {"momentum": None}, {"momentum": 0.3}, {"track_running_stats": False}):
        block = block_of((4, 3, 6, 5, 5), "lif", "cpu", torch.float32, **options)
        norm = torch.nn.BatchNorm2d(6, **options)
        for seed in range(4):
            y = values((4, 3, 6, 5, 5), torch.float32, seed)
            block(y)
            norm(y.flatten(0, 1))
        assert dict(block.norm.named_buffers()).keys() == dict(norm.named_buffers()).keys()
        for name, value in norm.named_buffers():
            torch.testing.assert_close(getattr(block.norm, name), value, rtol=2e-7, atol=1e-7)


def test_nan_and_infinity_stay_in_their_channel():
    y = values((4, 3, 5, 6, 6))
    clean = block_of(y.shape, "lif", "cpu")
    right = clean(y)
    for value in (torch.nan, torch.inf):
        wrong = y.clone()
        wrong[0, 0, 1, 0, 0] = wrong[2, 1, 3, 2, 1] = value
        block = block_of(y.shape, "lif", "cpu")
        block.load_state_dict(clean.state_dict())
        out = block(wrong)
        assert_same(out[:, :, [0, 2, 4]], right[:, :, [0, 2, 4]], "the other channels")
        assert not block.norm.running_var[[1, 3]].isfinite().any()
        assert block.norm.running_var[[0, 2, 4]].isfinite().all()


def test_streaming_trains_over_chunks():
    shape = (6, 3, 4, 20, 20)
    y = values(shape)
    results = []
    for backend in ("cpu", "torch"):
        torch.manual_seed(1)
        block = block_of(shape, "learnable", backend)
        given = y.clone().requires_grad_()
        with streaming(block):
            outs = [block(given[:2]), block(given[2:])]
            state = get_state(block)["neuron"]["v"]
            total = sum((out * (index + 1)).sum() for index, out in enumerate(outs)) + state.square().sum()
        parameters = [*block.norm.parameters(), *block.neuron.parameters()]
        results.append([*outs, state.detach(), *torch.autograd.grad(total, [given, *parameters])])
    assert_close(results[0], results[1], "[outputs, state, gradients] of two chunks")


def test_a_sequence_too_long_for_its_states_runs_one_by_one(monkeypatch):
    from spikecore_cpu_backend import tuning

    monkeypatch.setattr(tuning, "second_level_cache", lambda: 64)
    shape = (30, 2, 3)
    ours, theirs = (block_of(shape, "lif", name) for name in ("cpu", "torch"))
    theirs.load_state_dict(ours.state_dict())
    backend = backend_named("cpu")
    key = ours.neuron.program().key
    y = values(shape)
    results = everything(ours, y)
    state = torch.zeros(shape[1:], dtype=torch.float64)
    assert backend.norm_neuron(NormCall(key, y, None, None, 1e-5, [state], []), False, True) is None
    assert_close(results, everything(theirs, y), "[output, gradients, statistics]")


@pytest.mark.parametrize(
    ("channels", "is_taken"), [(20, True), (24, True), (66, True), (1024, True), (1000, False), (3000, False)]
)
def test_channels_last_blocks_hold_whole_rows_of_channels_or_none_is_made(channels, is_taken, monkeypatch):
    from spikecore_cpu_backend import tuning

    monkeypatch.setattr(tuning, "second_level_cache", lambda: 1 << 20)
    tiles = tuning.norm_tiles(4, 1600, channels, 1, num_states=1, real_bytes=4)
    assert (tiles is not None) == is_taken
    if tiles is not None:
        assert tiles.block % channels == 0
        assert tiles.block * 4 % tuning.LINE == 0
    y = values((3, 5, channels), torch.float32)
    block = block_of(y.shape, "lif", "cpu", torch.float32)
    call = NormCall(block.neuron.program().key, y, None, None, 1e-5, [torch.zeros(5, channels)], [])
    results = backend_named("cpu").norm_neuron(call, False, True)
    assert (results is not None) == is_taken


def test_more_channels_than_a_block_holds_run_one_by_one():
    shape = (3, 5, 3000)
    ours, theirs = (block_of(shape, "learnable", name) for name in ("cpu", "torch"))
    theirs.load_state_dict(ours.state_dict())
    y = values(shape)
    assert_close(everything(ours, y), everything(theirs, y), "[output, gradients, statistics]")


def test_several_gradients_at_once_and_twice():
    shape = (4, 3, 3, 5, 5)
    results = []
    for backend in ("cpu", "torch"):
        torch.manual_seed(2)
        block, y = block_of(shape, "lif", backend), values(shape).requires_grad_()
        out = block(y)
        grads = torch.stack([torch.ones_like(out), out.detach() * 2 - 1])
        inputs = [y, block.norm.weight]
        one = torch.autograd.grad(out, inputs, grads[1], retain_graph=True)

        def pull(grad, out=out, inputs=inputs):
            return torch.autograd.grad(out, inputs, grad, retain_graph=True)

        mapped = torch.func.vmap(pull)(grads)
        assert_close([value[1] for value in mapped], list(one), "the second of two gradients at once")
        results.append(mapped)
    assert_close(list(results[0]), list(results[1]), "batched gradients")
    block, y = block_of(shape, "lif", "cpu"), values(shape).requires_grad_()
    (first,) = torch.autograd.grad(block(y).sum(), y, create_graph=True)
    with pytest.raises(Exception, match="second derivatives of a neuron on backend 'cpu'"):
        first.sum().backward()
    out = block(y)
    with pytest.raises(BackendError, match=r"it takes those of torch\.func\.vmap"):
        torch.autograd.grad(out, y, torch.ones(2, *out.shape), is_grads_batched=True)


def test_nothing_is_kept_but_what_the_gradient_needs():
    shape = (8, 4, 16, 32, 32)
    block, y = block_of(shape, "lif", "cpu", torch.float32), values(shape, torch.float32).requires_grad_()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: (kept.append(tensor), tensor)[1], lambda tensor: tensor
    ):
        out = block(y)
    large = {tensor.data_ptr() for tensor in kept if tensor.numel() == y.numel()}
    assert large == {y.data_ptr()}, "more than y is kept for the backward pass"
    del out
    gc.collect()

"""Channels-last in, channels-last out: neurons, blocks and layers keep format and bits, and copy nothing."""

import pytest
import torch
from torch import nn as torch_nn

from spikecore import nn
from spikecore.backends import memory_format
from spikecore.backends.reference import TorchBackend
from spikecore.interfaces.backend import BackendCapabilities
from spikecore.registry import Blocking, Registry, use

SPACE = {1: (9,), 2: (6, 5), 3: (4, 3, 5)}
STEPS, BATCH, CHANNELS = 5, 3, 4
PER_CHANNEL = {"tau": [1.5, 2.0, 3.0, 4.0], "learnable": ("tau", "v_reset"), "v_reset": [0.1, 0.2, -0.1, 0.3]}
OPTIONS = {"numbers": {"tau": 3.0}, "per channel": PER_CHANNEL, "soft": {"reset": "soft", "detach_reset": True}}


class Spying(TorchBackend):
    """The interpreter of core; notes which memory it is given, and whether it is in order."""

    capabilities = BackendCapabilities(priority=9, affine_neuron=True)

    def __init__(self):
        super().__init__()
        self.inputs, self.is_strict = [], True

    def run(self, key, x, states, params, save, carry):
        for tensor in (x[:1], *states) if self.is_strict else ():
            assert tensor.is_contiguous() or not any(tensor.stride()), f"given strides {tensor.stride()}"
        self.inputs.append([tensor.data_ptr() for tensor in (x, *states)])
        return super().run(key, x, states, params, save, carry)


@pytest.fixture(autouse=True)
def spy():
    registry, spying = Registry(blocking=Blocking()), Spying()

    def make():
        return spying

    make.api_version, make.capabilities, make.Config = Spying.api_version, Spying.capabilities, Spying.Config
    registry.register("backend", "spy", make)
    with use(registry):
        yield spying


backends = pytest.mark.parametrize("backend", ["torch", "spy"])
spatial = pytest.mark.parametrize("space", SPACE.values(), ids=lambda space: f"{len(space)}d")


def sequence(space, steps=STEPS, seed=0):
    drawn = torch.randn(steps, BATCH, CHANNELS, *space, generator=torch.Generator().manual_seed(seed))
    return drawn * 2 + 0.5


def channels_last(x):
    """The same values; each step `[B, C, ...]` with the channels innermost."""
    moved = x.movedim(2, -1).contiguous().movedim(-1, 2)
    assert not moved.is_contiguous()
    return moved


def assert_channels_last(x):
    dense = x.movedim(2, -1)
    assert dense.is_contiguous(), f"strides {x.stride()} of {tuple(x.shape)}"
    folded = x.flatten(0, 1)  # a view, and torch agrees
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    if folded.dim() in formats:
        assert folded.is_contiguous(memory_format=formats[folded.dim()])


def outcome(neuron, x, weights):
    """Output, recorded potential, gradients of x and of the parameters."""
    given = (x.clone().requires_grad_() * 1.0).contiguous() if x.is_contiguous() else x.detach().requires_grad_() * 1.0
    out = neuron(given)
    recorded = neuron.recorded["v"]
    total = (out * weights).sum() + (recorded * weights.flip(0)).sum()
    gradients = torch.autograd.grad(total, [given, *neuron.parameters()])
    return out.detach(), recorded.detach(), *gradients


@backends
@spatial
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_sequence_keeps_the_format_and_the_bits(backend, space, options):
    x, weights = sequence(space), sequence(space, seed=1)
    neuron = nn.LIF(backend=backend, record=("v",), **options)
    out, recorded, gradient, *params = outcome(neuron, channels_last(x), weights)
    want_out, want_recorded, want_gradient, *want_params = outcome(neuron, x, weights)
    assert 0.05 < out.mean() < 0.95  # it fires, and not always
    for ours, theirs in ((out, want_out), (recorded, want_recorded), (gradient, want_gradient)):
        assert_channels_last(ours)
        assert theirs.is_contiguous()
        assert torch.equal(ours, theirs)
    torch.testing.assert_close(params, want_params)  # the same sums in another order


@backends
@spatial
def test_single_steps_and_streaming_keep_it(backend, space):
    x = sequence(space)
    want = nn.LIF(backend=backend, **PER_CHANNEL)(x)
    single = nn.LIF(backend=backend, step_mode="single", record=("v",), **PER_CHANNEL)
    for step, right in zip(channels_last(x), want, strict=True):
        out = single(step)
        assert torch.equal(out, right)
        for value in (out, nn.get_state(single)[""]["v"], single.recorded["v"][0]):
            assert_channels_last(value.unsqueeze(0))
    multi = nn.LIF(backend=backend, **PER_CHANNEL)
    with nn.streaming(multi):
        parts = [multi(part) for part in channels_last(x).split(2)]
        assert_channels_last(nn.get_state(multi)[""]["v"].unsqueeze(0))
    for part in parts:
        assert_channels_last(part)
    assert torch.equal(torch.cat(parts), want)


@backends
def test_functional_keeps_it(backend):
    net = nn.LIF(backend=backend, **PER_CHANNEL)
    x = sequence(SPACE[2])
    step, initial = nn.functional(net)
    params = dict(net.named_parameters()) | dict(net.named_buffers())
    out, state = step(params, channels_last(x), initial(channels_last(x)))
    assert_channels_last(out)
    assert_channels_last(state[""]["v"].unsqueeze(0))
    assert torch.equal(out, net(x))


def test_a_backend_reads_the_input_where_it_is(spy):
    x = channels_last(sequence(SPACE[2]))
    neuron = nn.LIF(backend="spy", record=("v",), **PER_CHANNEL)
    with nn.streaming(neuron):
        neuron(x)
        kept = nn.get_state(neuron)[""]["v"]
        neuron(x)
    assert spy.inputs[0][0] == x.data_ptr()
    assert spy.inputs[1] == [x.data_ptr(), kept.data_ptr()]
    single = nn.LIF(backend="spy", step_mode="single")
    single(x[0])
    kept = nn.get_state(single)[""]["v"]
    single(x[1])
    assert spy.inputs[3] == [x[1].data_ptr(), kept.data_ptr()]


@pytest.mark.parametrize("backend", ["spy"])
def test_steps_that_repeat_or_are_apart_are_read_where_they_are(spy, backend):
    image = channels_last(sequence(SPACE[2]))[0]
    apart = channels_last(sequence(SPACE[2], steps=2 * STEPS))[::2]
    for x in (image.expand(STEPS, *image.shape), apart, apart[:1]):
        out = nn.LIF(backend=backend)(x)
        assert spy.inputs[-1][0] == x.data_ptr()
        assert_channels_last(out)
        assert torch.equal(out, nn.LIF(backend="torch")(x.contiguous()))


@backends
def test_other_strides_give_a_contiguous_output(spy, backend):
    spy.is_strict = False
    x = sequence((6, 10))
    strided = {
        "holes": x[..., ::2],
        "holes between channels": channels_last(x)[:, :, ::2],
        "height and width exchanged": x.transpose(-1, -2),
        "batch before time": x.transpose(0, 1),
    }
    for name, given in strided.items():
        assert not memory_format.is_channels_last(given, 1), name
        out = nn.LIF(backend=backend)(given)
        assert torch.equal(out, nn.LIF(backend=backend)(given.contiguous())), name
        assert out.is_contiguous() or backend == "torch", name


@backends
@pytest.mark.parametrize("shape", [(0, 3, 4, 6, 5), (5, 0, 4, 6, 5), (5, 3, 1, 6, 5), (5, 3, 4, 1, 1), (1, 1, 4, 6, 5)])
def test_degenerate_shapes(backend, shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 2
    given = x.movedim(2, -1).contiguous().movedim(-1, 2).requires_grad_()
    out = nn.LIF(backend=backend)(given)
    out.sum().backward()
    assert torch.equal(out, nn.LIF(backend=backend)(x))
    if out.numel():
        assert out.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)
    assert given.grad.shape == x.shape


@backends
def test_half_precision_keeps_it(backend):
    x = sequence(SPACE[2]).bfloat16()
    out = nn.LIF(backend=backend)(channels_last(x))
    assert out.dtype == torch.bfloat16
    assert_channels_last(out)
    assert torch.equal(out, nn.LIF(backend=backend)(x))


@backends
def test_a_state_in_the_other_format_is_understood(spy, backend):
    spy.is_strict = False
    x = sequence(SPACE[2])
    neuron = nn.LIF(backend=backend, **PER_CHANNEL)
    want = neuron(x)
    for first, second in ((x, channels_last(x)), (channels_last(x), x)):
        with nn.streaming(neuron):
            out = torch.cat([neuron(first[:2]), neuron(second[2:])])
        assert torch.equal(out, want)


@backends
def test_the_output_may_be_changed_in_place(backend):
    x = channels_last(sequence(SPACE[2])).requires_grad_()
    nn.LIF(backend=backend)(x).mul_(3.0).sum().backward()
    (want,) = torch.autograd.grad((nn.LIF(backend=backend)(x) * 3.0).sum(), x)
    assert torch.equal(x.grad, want)


@backends
def test_transforms_and_compilers(backend):
    x = channels_last(sequence(SPACE[2]))
    neuron = nn.LIF(backend=backend, **PER_CHANNEL)
    want = neuron(x)

    def loss(given):
        return (neuron(given) * x).sum()

    (gradient,) = torch.autograd.grad(loss(given := x.clone().requires_grad_()), given)
    compiled = torch.compile(neuron, backend="aot_eager", fullgraph=True)
    for run in (compiled, lambda given: torch.func.vmap(neuron, in_dims=3, out_dims=3)(given.unsqueeze(3)).squeeze(3)):
        given = x.clone().requires_grad_()
        out = run(given)
        assert torch.equal(out, want)
        torch.testing.assert_close(torch.autograd.grad((out * x).sum(), given)[0], gradient)
    assert_channels_last(compiled(x))
    torch.testing.assert_close(torch.func.grad(loss)(x), gradient)
    pair = torch.stack([x, x.flip(0)])
    mapped = torch.func.vmap(torch.func.grad(loss))(pair)
    torch.testing.assert_close(mapped[0], gradient)
    torch.testing.assert_close(mapped[1], torch.func.grad(loss)(pair[1]))


# Blocks and layers.


@backends
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("step_mode", ["multi", "single"])
@pytest.mark.parametrize("dims", SPACE)
def test_a_block_keeps_it(spy, backend, training, step_mode, dims):
    torch.manual_seed(0)
    conv = getattr(torch_nn, f"Conv{dims}d")(CHANNELS, 6, 3, padding=1, bias=False)
    norm = getattr(torch_nn, f"BatchNorm{dims}d")(6)
    block = nn.ConvBNNeuron(conv, norm, nn.LIF(backend=backend, step_mode=step_mode, v_threshold=0.4)).double()
    x = sequence(SPACE[dims]).double()
    x = x if step_mode == "multi" else x[0]
    with torch.no_grad():
        block(x)  # running statistics that are not the first ones
    block.train(training)
    nn.reset_state(block)
    results = []
    last = channels_last(x if step_mode == "multi" else x.unsqueeze(0)).reshape_as(x)
    buffers = {name: value.clone() for name, value in block.named_buffers()}
    for given in (last.clone().requires_grad_(), x.clone().requires_grad_()):
        block.load_state_dict(buffers, strict=False)
        nn.reset_state(block)
        out = block(given * 1.0)
        assert out.any()
        results.append([out, *torch.autograd.grad((out * out.detach().cumsum(0)).sum(), [given, *block.parameters()])])
    torch.testing.assert_close(results[0], results[1])
    if dims == 2:  # torch's other convolutions give a contiguous output for doubles, whatever the input
        assert_channels_last(results[0][0] if step_mode == "multi" else results[0][0].unsqueeze(0))


class Looks(torch_nn.Module):
    """Gives the input back and notes where it was."""

    def forward(self, x):
        self.place, self.strides = x.data_ptr(), x.stride()
        return x * 2


def test_folding_time_copies_nothing():
    looks, x = Looks(), channels_last(sequence(SPACE[2]))
    out = nn.fold_time(looks)(x)
    assert looks.place == x.data_ptr()
    assert looks.strides == x.flatten(0, 1).stride()
    assert_channels_last(out)
    nn.fold_time(looks)(image := x[0].expand(STEPS, *x[0].shape))  # has to be written out, in its format
    assert looks.strides == x.flatten(0, 1).stride()
    assert looks.place != image.data_ptr()


LAYERS = {
    "Conv2d": lambda: nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1),
    "BatchNorm2d": lambda: nn.BatchNorm2d(CHANNELS),
    "GroupNorm": lambda: nn.GroupNorm(2, CHANNELS),
    "MaxPool2d": lambda: nn.MaxPool2d(2),
    "AvgPool2d": lambda: nn.AvgPool2d(2),
    "AdaptiveAvgPool2d": lambda: nn.AdaptiveAvgPool2d(2),
    "AdaptiveMaxPool2d": lambda: nn.AdaptiveMaxPool2d(2),
    "Upsample": lambda: nn.Upsample(scale_factor=2),
    "Dropout": lambda: nn.Dropout(0.4),
    "Dropout2d": lambda: nn.Dropout2d(0.4),
    "recurrent": lambda: nn.ElementwiseRecurrent(nn.LIF(backend="spy")),
    "recurrent reference": lambda: nn.ElementwiseRecurrent(nn.LIF(backend="torch")),
    "net": lambda: nn.Sequential(nn.Conv2d(CHANNELS, 6, 3), nn.BatchNorm2d(6), nn.LIF(backend="spy"), nn.MaxPool2d(2)),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("step_mode", ["multi", "single"])
def test_a_layer_keeps_it(name, step_mode):
    x, results = sequence((8, 6)), []
    for given in (channels_last(x), x):
        torch.manual_seed(3)  # dropout draws the same mask
        layer = LAYERS[name]()
        nn.set_step_mode(layer, step_mode)
        given = (given if step_mode == "multi" else given[0]).requires_grad_() * 1.0
        out = layer(given)
        assert out.any()
        arriving = torch.empty_like(out).copy_(out.detach().cumsum(0))  # as a layer behind it would send it
        results.append([out, *torch.autograd.grad(out, given, arriving)])
    torch.testing.assert_close(results[0], results[1])
    for value in results[0]:
        assert_channels_last(value if step_mode == "multi" else value.unsqueeze(0))


def test_the_kept_mask_of_dropout_has_the_format():
    dropout = nn.Dropout(0.5)
    with nn.streaming(dropout):
        dropout(channels_last(sequence(SPACE[2])))
        assert_channels_last(nn.get_state(dropout)[""]["mask"].unsqueeze(0))

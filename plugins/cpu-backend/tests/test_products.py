"""Spike products by events: what they may not depend on, when they run, and what happens where they cannot."""

import copy
import json
import os
import signal
import stat

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from spikecore_cpu_backend import products as module
from spikecore_cpu_backend.crossover import RATES, Crossovers, crossing
from torch import nn
from torch.nn import functional

import spikecore
from spikecore.backends import products
from spikecore.backends.products import product
from spikecore.backends.selection import backend_named
from spikecore.backends.spike_bits import note_bits
from spikecore.errors import BackendError
from spikecore.interfaces import ProductGeometry
from spikecore.nn import (
    LIF,
    BatchNorm2d,
    Conv2d,
    ConvBNNeuron,
    Linear,
    MaxPool2d,
    Sequential,
    configure_backend,
    set_products,
)
from spikecore.registry import create
from spikecore.testing.permissions import heed_permissions

LINEAR = ProductGeometry("linear")


def spikes(*shape, rate=0.2, seed=0):
    return (torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < rate).float()


def whole(*shape, seed=1):
    """Integers over 4: all sums are exact."""
    return torch.randint(-8, 9, shape, generator=torch.Generator().manual_seed(seed)).float() / 4


def by_events(geometry, x, weight, bias=None):
    y, choice = product("event", geometry, x, weight, bias)
    assert (choice.path, choice.backend) == ("event", "cpu"), choice
    return y


@pytest.mark.parametrize("weight_last", [False, True])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (1, 1), (1, 2)])
@settings(max_examples=20, deadline=None)
@given(
    batch=st.integers(1, 4), channels=st.integers(1, 100), outputs=st.integers(1, 70), height=st.integers(1, 20),
    width=st.integers(1, 40), padding=st.integers(0, 2), rate=st.floats(0, 1), last=st.booleans(),
)  # fmt: skip
def test_convolutions_equal_torch(
    batch, channels, outputs, height, width, kernel, stride, padding, rate, last, weight_last
):
    padding = padding if kernel == 3 else 0
    if min(height, width) + 2 * padding < kernel:
        return
    form = torch.channels_last if last else torch.contiguous_format
    x = spikes(batch, channels, height, width, rate=rate).contiguous(memory_format=form)
    weight, bias = whole(outputs, channels, kernel, kernel), whole(outputs, seed=2)
    if weight_last:
        weight = weight.contiguous(memory_format=torch.channels_last)
    weight.requires_grad_()
    geometry = ProductGeometry("conv2d", (stride, stride), (padding, padding))
    y = by_events(geometry, x, weight, bias)
    right = functional.conv2d(x.double(), weight.detach().double(), bias.double(), stride, padding)
    assert torch.equal(y.double(), right)
    grad = whole(*y.shape, seed=3)
    (ours,) = torch.autograd.grad(y, weight, grad)
    assert kernel == 1 or channels == 1 or ours.stride() == weight.stride(), "the optimizer would copy the gradient"
    wide = weight.detach().double().requires_grad_()
    y = functional.conv2d(x.double(), wide, None, stride, padding)
    assert torch.equal(ours.double(), torch.autograd.grad(y, wide, grad.double())[0])


@settings(max_examples=30, deadline=None)
@given(rows=st.integers(1, 300), channels=st.integers(1, 300), outputs=st.integers(1, 150), rate=st.floats(0, 1))
def test_linear_maps_equal_torch(rows, channels, outputs, rate):
    x, weight, bias = spikes(rows, channels, rate=rate), whole(outputs, channels).requires_grad_(), whole(outputs)
    x[::3] = 1.0  # full lists beside those that are not
    y = by_events(LINEAR, x, weight, bias)
    assert torch.equal(y.double(), functional.linear(x.double(), weight.detach().double(), bias.double()))
    grad = whole(*y.shape, seed=3)
    assert torch.equal(torch.autograd.grad(y, weight, grad)[0].double(), grad.double().t() @ x.double())


def views_of(weight):
    """The same values in other places of memory, as slices, turned and expanded tensors have them."""
    wide = torch.full((2 * weight.shape[0], weight.shape[1] + 3, *weight.shape[2:]), torch.nan)
    wide[::2, 2:-1] = weight
    yield wide[::2, 2:-1]
    if weight.dim() == 4:
        last = wide.contiguous(memory_format=torch.channels_last)
        yield last[::2, 2:-1]
        yield weight.permute(2, 0, 3, 1).contiguous().permute(1, 3, 0, 2)
    else:
        yield weight.t().contiguous().t()
    yield weight[:1].expand(weight.shape)


@pytest.mark.parametrize("kernel", [0, 1, 3])
def test_weights_that_are_views_are_read_as_they_are(kernel):
    if kernel:
        geometry = ProductGeometry("conv2d", padding=(kernel // 2, kernel // 2))
        x, weight = spikes(2, 40, 6, 5).contiguous(memory_format=torch.channels_last), whole(20, 40, kernel, kernel)
    else:
        geometry, x, weight = LINEAR, spikes(30, 40), whole(20, 40)
    for view in views_of(weight):
        view = view.detach().requires_grad_()
        y = by_events(geometry, x, view)
        right = functional.conv2d(x, view, None, 1, kernel // 2) if kernel else functional.linear(x, view)
        assert torch.equal(y, right), view.stride()
        grad = whole(*y.shape, seed=5)
        assert torch.equal(*(torch.autograd.grad(out, view, grad)[0] for out in (y, right))), view.stride()


@pytest.mark.parametrize("rate", [0.05, 0.5])
@pytest.mark.parametrize(
    "geometry",
    [
        ProductGeometry("conv2d", padding=(1, 1)),
        ProductGeometry("conv2d", (2, 2), (1, 1)),
        ProductGeometry("conv2d"),
        LINEAR,
    ],
    ids=str,
)
def test_no_bit_depends_on_tiles_threads_or_segments(geometry, rate, monkeypatch):
    draw = torch.Generator().manual_seed(0)
    if geometry == LINEAR:
        x, weight = spikes(1365, 200, rate=rate), torch.randn(150, 200, generator=draw)
    else:
        kernel = 3 if geometry.padding[0] else 1
        x = spikes(5, 40, 13, 21, rate=rate).contiguous(memory_format=torch.channels_last)
        weight = torch.randn(50, 40, kernel, kernel, generator=draw)
    weight.requires_grad_()
    shape = by_events(geometry, x, weight).shape
    grad = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    threads, results = torch.get_num_threads(), []
    for tile, grad_bytes, list_words, number in (
        (512, 22 << 10, 1 << 21, 1),
        (1, 1 << 10, 1, 1),
        (100, 9000, 99999, 3),
    ):
        monkeypatch.setattr(module, "TILE_POSITIONS", tile)
        monkeypatch.setattr(module, "GRAD_BYTES", grad_bytes)
        monkeypatch.setattr(module, "LIST_WORDS", list_words)
        try:
            torch.set_num_threads(number)
            y = by_events(geometry, x, weight)
            results.append((y, torch.autograd.grad(y, weight, grad)[0]))
        finally:
            torch.set_num_threads(threads)
    for y, gradient in results[1:]:
        assert torch.equal(y, results[0][0])
        assert torch.equal(gradient, results[0][1])


def test_wide_images_and_long_rows():
    for shape in ((1, 2, 3, 3000), (1, 3, 300, 4)):
        x, weight = spikes(*shape), whole(5, shape[1], 3, 3).requires_grad_()
        y = by_events(ProductGeometry("conv2d", padding=(1, 1)), x, weight)
        right = functional.conv2d(x, weight, None, 1, 1)
        assert torch.equal(y, right)
        grad = whole(*y.shape)
        assert torch.equal(*(torch.autograd.grad(out, weight, grad)[0] for out in (y, right)))


@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 1), (3, 2)])
def test_the_widest_images_and_wider_ones(kernel, stride):
    geometry = ProductGeometry("conv2d", (stride, stride), (kernel // 2, kernel // 2))
    weight = whole(4, 3, kernel, kernel).requires_grad_()
    for width, path in ((module.WIDEST, "event"), (module.WIDEST + 1, "dense")):
        x = spikes(1, 3, kernel, width)
        y, choice = product("event", geometry, x, weight, None)
        assert choice.path == path, choice
        if path == "dense":
            assert f"no kernel for images of more than {module.WIDEST} columns" in choice.reason
        right = functional.conv2d(x, weight, None, stride, kernel // 2)
        assert torch.equal(y, right)
        grad = whole(*y.shape)
        assert torch.equal(*(torch.autograd.grad(out, weight, grad)[0] for out in (y, right)))


@pytest.fixture
def measuring(tmp_path, monkeypatch):
    """The backend with figures of its own."""
    monkeypatch.setattr(module, "Crossovers", lambda _, *rest: Crossovers(tmp_path, *rest))

    def configure(**options):
        configure_backend("cpu", **options)
        return tmp_path / "crossovers"

    yield configure
    monkeypatch.undo()
    configure_backend("cpu")


def dense_layer():
    layer = Linear(512, 256)
    return layer, spikes(8, 80, 512, rate=0.1)


def test_the_crossover_is_where_the_times_meet():
    assert crossing(1.0, [2.0, 3.0, 4.0, 5.0]) == 0.0
    assert crossing(9.0, [2.0, 3.0, 4.0, 5.0]) == 1.0
    assert crossing(3.5, [2.0, 3.0, 4.0, 5.0]) == pytest.approx((RATES[1] + RATES[2]) / 2)
    assert crossing(2.25, [2.0, 3.0, 4.0, 5.0]) == pytest.approx(0.75 * RATES[0] + 0.25 * RATES[1])


def test_a_crossover_is_measured_once_and_kept(measuring, monkeypatch):
    folder = measuring()
    layer, x = dense_layer()
    layer(x)
    (file,) = folder.iterdir()
    kept = json.loads(file.read_text())
    assert 0.0 <= kept["crossover"] <= 1.0
    assert "channels=512, outputs=256" in kept["of"]
    assert layer.product.crossover == kept["crossover"]
    file.write_text(json.dumps({**kept, "crossover": 0.99}))
    measuring()
    layer(x)
    assert (layer.product.path, layer.product.crossover) == ("event", 0.99)
    with torch.no_grad():
        layer(x)  # without the gradient of the weight it is another class
    assert len(list(folder.iterdir())) == 2


@pytest.mark.parametrize("content", ["", "{", '{"crossover": 7}', '{"crossover": null}', "[1]", '{"crossover": NaN}'])
def test_a_damaged_figure_is_measured_again(measuring, content):
    folder = measuring()
    layer, x = dense_layer()
    layer(x)
    (file,) = folder.iterdir()
    file.write_text(content)
    measuring()
    layer(x)
    assert 0.0 <= json.loads(file.read_text())["crossover"] <= 1.0


def test_a_folder_that_cannot_be_written_changes_nothing(measuring, tmp_path):
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with heed_permissions():
        folder = measuring()
        layer, x = dense_layer()
        layer(x)
    assert layer.product.crossover is not None
    assert not folder.exists()


def test_a_pinned_crossover_decides(measuring):
    folder = measuring(crossover=0.15)
    layer, _ = dense_layer()
    paths = {}
    for rate in (0.0, 0.1, 0.2, 0.9, 1.0):
        layer(spikes(8, 80, 512, rate=rate))
        paths[rate] = layer.product.path
    assert paths == {0.0: "event", 0.1: "event", 0.2: "dense", 0.9: "dense", 1.0: "dense"}
    assert layer.product.reason == "so many ones are faster densely"
    assert not folder.exists()
    measuring(crossover=0.0)
    layer(spikes(8, 80, 512, rate=0.1))
    assert layer.product.reason == "events are not faster for such shapes"


@pytest.mark.parametrize("rate", [0.13, 0.149, 0.151, 0.17])
def test_the_choice_depends_on_values_alone(measuring, monkeypatch, rate):
    """Not on whether the bits are known already, as they are in a run that goes on and not in one that is resumed."""
    measuring(crossover=0.15)
    layer, _ = dense_layer()
    x = spikes(8, 80, 512, rate=rate)
    layer(x)
    first = layer.product
    for _ in range(2):
        layer(x)
        assert layer.product == first
    note_bits(fresh := x.clone(), packed(fresh))
    layer(fresh)
    assert layer.product == first
    assert rate not in (0.13, 0.17) or first.path == ("event" if rate < 0.15 else "dense")


def packed(x):
    return backend_named("cpu").pack(x.view(-1, x.shape[-1]))


def test_nothing_is_packed_only_to_run_densely(measuring, monkeypatch):
    measuring(crossover=0.15)
    monkeypatch.setattr(module.Products, "pack", lambda *_: pytest.fail("packed"))
    layer, _ = dense_layer()
    for x in (spikes(8, 80, 512, rate=0.17), spikes(8, 80, 512, rate=0.1) * 0.5):
        layer(x)
        assert layer.product.path == "dense"
    measuring(crossover=0.0)
    monkeypatch.setattr(module.Products, "sample", lambda *_: pytest.fail("looked at"))
    layer(spikes(8, 80, 512, rate=0.1))


@pytest.mark.parametrize(
    ("layer", "shape", "reason"),
    [
        (Conv2d(8, 8, 3, groups=2), (2, 4, 8, 40, 40), "no kernel for 2 groups"),
        (Conv2d(8, 8, 3, dilation=2), (2, 4, 8, 40, 40), "no kernel for a dilation"),
        (Conv2d(8, 8, 5), (2, 4, 8, 40, 40), "no kernel for a convolution of 5×5"),
        (Conv2d(8, 8, 3, stride=3), (2, 4, 8, 40, 40), "no kernel for stride (3, 3)"),
        (Conv2d(8, 8, 3, padding=3), (2, 4, 8, 40, 40), "no kernel for padding (3, 3)"),
        (Conv2d(8, 8, 1, padding=1), (2, 4, 8, 40, 40), "no kernel for padding (1, 1)"),
        (Linear(8, 8), (2, 4, 8), "too small to pay"),
        (Linear(8, 8), (0, 4, 8), "nothing to multiply"),
        (Linear(8, 8).double(), (2, 4, 8), "kernels are for float32, x is torch.float64 and the weight torch.float64"),
    ],
)
def test_what_has_no_kernel_runs_densely_with_the_reason(layer, shape, reason):
    x = spikes(*shape).to(layer.weight.dtype)
    y = layer(x)
    assert (layer.product.path, layer.product.reason) == ("dense", reason)
    set_products(layer, "dense")
    assert torch.equal(y, layer(x))


def test_kernels_that_do_not_compile_leave_the_dense_product(monkeypatch):
    monkeypatch.setattr(module, "products_source", lambda: "this is no C")
    backend = create("backend", "cpu")
    outcome = backend.product(LINEAR, spikes(64, 512), whole(512, 512), None, False, False)
    assert outcome.y is None
    assert outcome.reason.startswith("the kernels do not compile: ")
    with pytest.raises(BackendError):
        backend.product_grad(LINEAR, [], (64, 512), whole(64, 512), whole(512, 512))


def test_a_child_process_multiplies_too():
    x, weight = spikes(64, 512), whole(512, 512)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        right = by_events(LINEAR, x, weight)
        child = os.fork()
        if not child:
            signal.alarm(120)  # a child that hangs is killed
            os._exit(0 if torch.equal(by_events(LINEAR, x, weight), right) else 3)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        torch.set_num_threads(threads)


def test_no_spike_changes_in_a_net():
    """Three blocks, trained a few steps: the net by events and the dense one fire alike at every step."""
    torch.manual_seed(0)
    blocks = [ConvBNNeuron(nn.Conv2d(c, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), LIF()) for c in (32, 32, 32)]
    net = Sequential(*blocks, MaxPool2d(2), nn.Flatten(2), Linear(32 * 64, 10))
    with torch.no_grad():
        for block in blocks:
            block.norm.bias.fill_(0.3)
    x = spikes(4, 2, 32, 16, 16, rate=0.1)
    outs, grads = [], []
    for mode in ("event", "dense"):
        set_products(net, mode)
        net.zero_grad()
        seen = []

        def note(block, args, out, seen=seen):
            seen.append(out.detach())

        hooks = [block.register_forward_hook(note) for block in blocks]
        net(x).sum().backward()
        for hook in hooks:
            hook.remove()
        assert {block.product.path for block in blocks} == {mode}
        outs.append(torch.stack(seen))
        grads.append([parameter.grad.clone() for parameter in net.parameters()])
    assert 0.02 < float(outs[0].mean()) < 0.6
    assert torch.equal(*outs)
    for ours, theirs in zip(*grads, strict=True):
        assert float((ours - theirs).norm()) <= 1e-4 * float(theirs.norm()) + 1e-4
    assert "ConvBNNeuron multiplies 'dense'" in spikecore.explain(net)


@pytest.fixture
def together():
    """Norm and neuron in one call at any size."""
    configure_backend("cpu", norm="together")
    yield
    configure_backend("cpu")


@pytest.mark.usefixtures("together")
def test_a_stack_keeps_two_fifths_of_what_its_parts_keep():
    """Of an element of a block: the convolution's output and a bit; one by one, normed values and float spikes too."""
    blocks, parts = [], []
    for _ in range(3):
        conv, norm = nn.Conv2d(32, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32)
        blocks.append(ConvBNNeuron(conv, norm, LIF(), products="event"))
        parts += [Conv2d(32, 32, 3, padding=1, bias=False, products="dense"), BatchNorm2d(32), LIF()]
    x = spikes(4, 4, 32, 16, 16, rate=0.1)
    kept = [kept_bytes(Sequential(*layers), x) / (3 * x.numel()) for layers in (parts, blocks)]
    assert kept[0] == pytest.approx((12 * 3 - 4) / 3, rel=0.02)  # without x itself, which belongs to the caller
    assert kept[1] == pytest.approx(4 + 1 / 8, rel=0.02)


def kept_bytes(net, x):
    """Of the tensors that autograd keeps, each memory once, without parameters and x."""
    storages = {}

    def note(tensor):
        storages[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        net(x)
    own = {tensor.untyped_storage()._cdata for tensor in (x, *net.parameters())}
    return sum(tensor.untyped_storage().nbytes() for key, tensor in storages.items() if key not in own)


@pytest.fixture
def planes(monkeypatch):
    """What `_planes_are_faster` answered."""
    answers, original = [], products._planes_are_faster
    monkeypatch.setattr(products, "_planes_are_faster", lambda *a: (answers.append(original(*a)), answers[-1])[1])
    return answers


LAST = torch.channels_last


@pytest.mark.parametrize("weight_last", [False, True])
@pytest.mark.parametrize(
    ("channels", "side", "kernel", "stride", "by_planes"),
    [(256, 4, 3, 1, True), (256, 2, 3, 2, True), (256, 5, 3, 1, False), (728, 4, 1, 1, False), (64, 4, 3, 1, False)],
)
def test_the_gradient_of_x_is_torch_s_in_the_faster_format(
    channels, side, kernel, stride, by_planes, weight_last, planes
):
    weight = torch.randn(channels, channels, kernel, kernel, generator=torch.Generator().manual_seed(0))
    if weight_last:
        weight = weight.contiguous(memory_format=LAST)
    gradients = []
    for form in (torch.contiguous_format, LAST):
        x = spikes(3, channels, side, side).contiguous(memory_format=form).requires_grad_()
        y = by_events(ProductGeometry("conv2d", (stride, stride), (kernel // 2, kernel // 2)), x, weight)
        grad = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).contiguous(memory_format=form)
        gradients += torch.autograd.grad(y, x, grad)
    assert planes == [by_planes], "asked where channels are last alone"
    assert gradients[1].stride() == x.stride()
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-3)
    right = torch.nn.grad.conv2d_input(x.shape, weight.double(), grad.double(), stride, kernel // 2)
    torch.testing.assert_close(gradients[1].double(), right, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("weight_last", [False, True])
def test_what_is_no_spikes_runs_in_the_faster_format_and_keeps_its_own(weight_last, planes):
    layer = torch.nn.Conv2d(256, 256, 3, padding=1)
    if weight_last:
        layer.to(memory_format=LAST)
    x = torch.randn(8, 256, 4, 4, generator=torch.Generator().manual_seed(0)).contiguous(memory_format=LAST)
    x.requires_grad_()
    results = []
    for choose in ("auto", "dense"):
        y, choice = product(choose, ProductGeometry("conv2d", padding=(1, 1)), x, layer.weight, layer.bias)
        assert (choice.path, choice.by_shape, y.stride()) == ("dense", False, x.stride())
        gradients = torch.autograd.grad(y.square().sum(), [x, layer.weight, layer.bias])
        results.append([y.detach(), *gradients])
    assert planes == [True]
    for ours, right in zip(*results, strict=True):
        torch.testing.assert_close(ours, right, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("batch", [1, 8])
def test_the_first_call_has_the_bits_of_all_later_ones(batch):
    layer = Conv2d(512, 512, 3, padding=1, step_mode="single")
    x = torch.randn(batch, 512, 4, 4).contiguous(memory_format=LAST)
    outs = [layer(x) for _ in range(3)]
    assert layer.product.by_shape == (batch == 1), layer.product
    assert torch.equal(outs[0], outs[1])
    assert torch.equal(outs[1], outs[2])


@pytest.mark.parametrize("norm", ["auto", "together"])
def test_another_default_device_changes_nothing(norm, tmp_path, compiled_once):
    configure_backend("cpu", norm=norm, cache_dir=str(tmp_path))
    torch.manual_seed(0)
    block = ConvBNNeuron(nn.Conv2d(64, 64, 3, padding=1), nn.BatchNorm2d(64), LIF())
    layer, x, rows = Linear(512, 256), spikes(4, 4, 64, 16, 16), spikes(8, 80, 512, rate=0.1)
    wanted = copy.deepcopy(block)(x), layer(rows)
    configure_backend("cpu", norm=norm, cache_dir=str(tmp_path / "new"))  # what is measured is measured again
    try:
        with torch.device("meta"):
            got = block(x), layer(rows)
            got[0].sum().backward()
    finally:
        configure_backend("cpu")
    for ours, right in zip(got, wanted, strict=True):
        torch.testing.assert_close(ours, right)
    assert block.conv.weight.grad.device.type == "cpu"

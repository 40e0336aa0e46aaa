"""The front of spike products: which backend is asked, what falls back to dense, gradients, layers and blocks."""

import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import spikecore
from spikecore.backends.products import dense_product, product
from spikecore.errors import BackendError, OptionError
from spikecore.interfaces.backend import BackendCapabilities
from spikecore.interfaces.products import LINEAR, ProductGeometry, SpikeProduct
from spikecore.nn import LIF, Conv2d, ConvBNNeuron, Linear, LinearBNNeuron, Sequential, set_products, set_step_mode
from spikecore.registry import registry, use
from spikecore.run import provenance
from tests.conformance.test_planted_products import ToyProducts

CROSSOVER = 0.4
TOO_SMALL = 2
"""Outputs of a layer that is refused by its shape."""


class Counting(ToyProducts):
    """Runs by events up to a crossover, and counts its calls."""

    capabilities = BackendCapabilities(priority=9, spike_products=("conv2d", "linear"))
    calls: list[str] = []  # noqa: RUF012

    def product(self, geometry, x, weight, bias, always, save):
        self.calls.append("product")
        if weight.shape[0] == TOO_SMALL:
            return SpikeProduct(None, reason="too small", by_shape=True)
        rate = float(x.double().mean())
        if rate > CROSSOVER and not always:
            return SpikeProduct(None, rate=rate, crossover=CROSSOVER, reason="too many ones")
        return super().product(geometry, x, weight, bias, always, save)

    def product_grad(self, *arguments):
        self.calls.append("product_grad")
        return super().product_grad(*arguments)


@pytest.fixture
def calls():
    own = registry().without(())
    own.register("backend", "counting", Counting)
    Counting.calls.clear()
    torch.manual_seed(0)
    with use(own):
        yield Counting.calls


def spikes(*shape, rate=0.2, seed=0):
    return (torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < rate).float()


def weight_of(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(1)).requires_grad_()


def test_a_layer_runs_by_events_and_says_so(calls):
    layer = Conv2d(3, 4, 3, padding=1)
    x = spikes(5, 2, 3, 8, 8).requires_grad_()
    y = layer(x)
    assert layer.product.path == "event"
    assert layer.product.backend == "counting"
    assert layer.product.rate == pytest.approx(float(x.detach().mean()))
    y.sum().backward()
    assert calls == ["product", "product_grad"]
    twin = copy.deepcopy(layer)
    twin.products = "dense"
    twin.zero_grad()
    again = x.detach().clone().requires_grad_()
    right = twin(again)
    right.sum().backward()
    assert calls == ["product", "product_grad"]
    assert str(twin.product) == "dense on torch: asked for"
    torch.testing.assert_close(y, right)
    for ours, theirs in (
        (x.grad, again.grad),
        (layer.weight.grad, twin.weight.grad),
        (layer.bias.grad, twin.bias.grad),
    ):
        torch.testing.assert_close(ours, theirs)
    assert "Conv2d multiplies 'auto': event on counting, rate 0." in spikecore.explain(layer)


@pytest.mark.parametrize(
    ("x", "reason"),
    [
        (0.5 * spikes(2, 3, 3, 8, 8), "not spikes"),
        (torch.full((2, 3, 3, 8, 8), torch.nan), "not spikes"),
        (torch.ones(2, 3, 3, 8, 8), "too many ones"),
        (torch.ones(2, 0, 3, 8, 8), "no kernel"),
    ],
)
def test_what_is_not_for_events_runs_densely_with_the_reason(calls, x, reason):
    layer = Conv2d(3, 4, 3)
    y = layer(x)
    assert (layer.product.path, layer.product.backend, layer.product.reason) == ("dense", "torch", reason)
    right = torch.stack([nn.functional.conv2d(step, layer.weight, layer.bias) for step in x])
    torch.testing.assert_close(y, right, equal_nan=True)


def test_values_that_appear_in_the_middle_of_training_are_seen(calls):
    layer = Linear(6, 3)
    paths = []
    for x in (spikes(4, 2, 6), spikes(4, 2, 6) * 1.5, spikes(4, 2, 6)):
        layer.zero_grad()
        layer(x).sum().backward()
        torch.testing.assert_close(layer.weight.grad, x.sum((0, 1)).expand(3, 6))
        paths.append(layer.product.path)
    assert paths == ["event", "dense", "event"]


def test_event_has_no_crossover(calls):
    layer = Linear(6, 3, products="event")
    layer(torch.ones(2, 2, 6))
    assert layer.product.path == "event"
    set_products(layer, "auto")
    layer(torch.ones(2, 2, 6))
    assert (layer.product.path, layer.product.crossover) == ("dense", CROSSOVER)


def test_without_a_backend_layers_run_densely():
    with use(registry().without(())) as own:
        names = [entry.name for entry in own.components("backend") if entry.name != "torch"]
        layer = Linear(6, 3)
        layer(spikes(4, 2, 6))
    if not names:
        assert "no backend with spike products is installed" in str(layer.product)


def test_only_spikes_by_their_bits_are_kept(calls):
    layer = Conv2d(3, 4, 3)
    x = spikes(5, 2, 3, 8, 8)
    sizes = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append((t.dtype, t.numel())) or t, lambda t: t):
        layer(x)
    assert (torch.float32, x.numel()) not in sizes
    assert (torch.uint8, x.numel()) in sizes


def test_the_dense_path_passes_gradcheck(calls):
    for geometry, x, weight in (
        (ProductGeometry("conv2d", padding=(1, 1)), spikes(2, 2, 4, 4).double(), weight_of(3, 2, 3, 3).double()),
        (LINEAR, spikes(2, 3, 5).double(), weight_of(2, 5).double()),
    ):
        inputs = (x.requires_grad_(), weight.detach().requires_grad_())
        assert torch.autograd.gradcheck(lambda *t, g=geometry: product("auto", g, *t, None)[0], inputs)


def test_a_second_derivative_is_refused_and_the_dense_path_has_it(calls):
    layer = Linear(6, 3)
    x = spikes(4, 2, 6).requires_grad_()
    (grad,) = torch.autograd.grad(layer(x).pow(2).sum(), x, create_graph=True)
    with pytest.raises(BackendError, match="products='dense'"):
        grad.sum().backward()
    layer.products = "dense"
    (grad,) = torch.autograd.grad(layer(x).pow(2).sum(), x, create_graph=True)
    grad.sum().backward()


def gradients_of(y, given):
    """Of y, for one gradient of it; for `torch.func.vmap` to take many."""
    return lambda grad: torch.autograd.grad(y, given, grad, retain_graph=True)


@pytest.mark.parametrize(
    ("make", "x"),
    [(lambda: Conv2d(3, 4, 3, padding=1), spikes(5, 2, 3, 8, 8)), (lambda: Linear(6, 3), spikes(5, 2, 6))],
)
def test_several_gradients_at_once_are_those_one_by_one(calls, make, x):
    layer = make()
    y = layer(x.requires_grad_())
    assert layer.product.path == "event"
    given = (x, layer.weight, layer.bias)
    grads = weight_of(2, 3, *y.shape).detach()
    flat = [gradients_of(y, given)(grad) for grad in grads.flatten(0, 1)]
    right = [torch.stack(parts).unflatten(0, (2, 3)) for parts in zip(*flat, strict=True)]
    calls.clear()
    mapped = torch.func.vmap(torch.func.vmap(gradients_of(y, given), in_dims=-1), in_dims=1)
    moved = grads.movedim((0, 1), (1, -1))  # [..., 3] for each of the outer two
    for ours, theirs in zip(mapped(moved), right, strict=True):
        torch.testing.assert_close(ours, theirs)
    assert calls == ["product_grad"] * 6
    (of_bias,) = torch.func.vmap(gradients_of(y, (layer.bias,)))(grads[0])
    torch.testing.assert_close(of_bias, right[2][0])


def test_several_gradients_of_one_input_alone(calls):
    layer, x = Linear(6, 3, bias=False), spikes(5, 2, 6)
    layer.half_gradient = True
    y = layer(x.requires_grad_())
    grads = weight_of(4, *y.shape).detach()
    for one in (x, layer.weight):
        pull = gradients_of(y, (one,))
        (ours,) = torch.func.vmap(pull)(grads)
        assert torch.equal(ours, torch.stack([pull(grad)[0] for grad in grads]))
        (none,) = torch.func.vmap(pull)(grads[:0])
        assert none.shape == (0, *one.shape)


def test_a_gradient_without_memory_is_zeros(calls):
    """A kernel would read where there is nothing."""
    layer, x = Linear(6, 3), spikes(5, 2, 6).requires_grad_()
    y = layer(x)
    found = gradients_of(y, (x, layer.weight, layer.bias))(torch._efficientzerotensor(y.shape))
    assert calls == ["product", "product_grad"]
    assert all(not grad.any() for grad in found)
    negated = torch.ones(y.shape, dtype=torch.complex64).mul(1j).conj().imag
    assert negated.is_neg()
    found = gradients_of(y, (x, layer.weight, layer.bias))(negated)
    for ours, theirs in zip(found, gradients_of(y, (x, layer.weight, layer.bias))(-torch.ones(y.shape)), strict=True):
        assert torch.equal(ours, theirs)


def test_gradients_in_autograds_own_batches_are_refused(calls):
    layer, neuron = Linear(6, 3), LIF(backend="counting")
    x = spikes(5, 2, 6).requires_grad_()
    for y in (layer(x), neuron(2 * x)):
        with pytest.raises(BackendError, match=r"it takes those of torch\.func\.vmap"):
            torch.autograd.grad(y, x, torch.ones(2, *y.shape), is_grads_batched=True)


def test_transforms_compilers_and_autocast_see_the_dense_operators(calls):
    layer = Linear(6, 3)
    x = spikes(5, 4, 2, 6)
    mapped = torch.func.vmap(layer)(x)
    assert "transform" in str(layer.product)
    torch.testing.assert_close(mapped, torch.stack([layer(one) for one in x]))
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x[0]).dtype == torch.bfloat16
    assert "autocast" in str(layer.product)
    calls.clear()
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x[0]), layer(x[0]))
    assert calls == ["product"]  # of the plain call


@pytest.mark.parametrize("mode", ["multi", "single"])
def test_blocks_multiply_by_events(calls, mode):
    blocks = [
        (ConvBNNeuron(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), LIF(backend="torch")), spikes(4, 5, 3, 8, 8)),
        (LinearBNNeuron(nn.Linear(6, 4), nn.BatchNorm1d(4), LIF(backend="torch")), spikes(4, 5, 6)),
    ]
    for block, x in blocks:
        dense = copy.deepcopy(block)
        set_products(dense, "dense")
        results = []
        for net in (block, dense):
            set_step_mode(net, mode)
            with torch.no_grad():
                net.norm.bias.fill_(1.0)
            out = net(x if mode == "multi" else x[0])
            out.sum().backward()
            results.append([out, *(parameter.grad for parameter in net.parameters())])
        assert results[0][0].any()
        torch.testing.assert_close(results[0], results[1], rtol=1e-3, atol=1e-4)  # the norm's gradients cancel
        assert block.product.path == "event"
        assert block.eval().fold().products == "auto"
    assert blocks[0][0].products == "auto"
    assert ConvBNNeuron(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), LIF(), products="dense").products == "dense"


def test_a_hooked_or_changed_layer_in_a_block_runs_as_a_module(calls):
    block = ConvBNNeuron(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), LIF(backend="torch"))
    seen = []
    block.conv.register_forward_hook(lambda module, args, out: seen.append(out.shape))
    block(spikes(4, 5, 3, 8, 8))
    assert seen
    assert calls == []


def test_padding_by_name_is_a_number_where_it_can_be(calls):
    x = spikes(2, 3, 3, 8, 8)
    for padding in ("same", "valid"):
        layer = Conv2d(3, 4, 3, padding=padding)
        assert layer(x).shape[-1] == (8 if padding == "same" else 6)
        assert layer.product.path == "event"
    for layer in (Conv2d(3, 4, 2, padding="same"), Conv2d(3, 4, 3, padding=1, padding_mode="circular")):
        layer(x)
        assert "padding" in layer.product.reason


def test_options_and_copies(calls):
    with pytest.raises(OptionError, match="products must be 'auto', 'dense' or 'event', got 'sparse'"):
        Conv2d(3, 4, 3, products="sparse")
    with pytest.raises(OptionError, match="got 'fast'"):
        set_products(Linear(2, 3), "fast")
    layer = Linear(6, 3, products="event", half_gradient=True)
    layer(spikes(4, 2, 6))
    assert "products='event', half_gradient=True" in repr(layer)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert twin.products == "event"
        torch.testing.assert_close(twin(spikes(4, 2, 6)), layer(spikes(4, 2, 6)))
    assert list(layer.state_dict()) == ["weight", "bias"]


def test_the_half_gradient_is_that_of_bfloat16(calls):
    x = spikes(4, 2, 3, 8, 8).requires_grad_()
    layers = [Conv2d(3, 16, 3, half_gradient=half) for half in (True, False)]
    layers[1].load_state_dict(layers[0].state_dict())
    grads = [torch.autograd.grad(layer(x).pow(2).sum(), (x, layer.weight)) for layer in layers]
    error = float((grads[0][0] - grads[1][0]).norm() / grads[1][0].norm())
    assert 1e-5 < error < 1e-2
    assert grads[0][0].dtype == torch.float32
    torch.testing.assert_close(grads[0][1], grads[1][1])


def test_a_net_trains_alike(calls):
    torch.manual_seed(0)
    net = Sequential(
        Conv2d(2, 4, 3, padding=1), LIF(backend="torch", v_threshold=0.3), nn.Flatten(2), Linear(4 * 36, 3)
    )
    twin = copy.deepcopy(net)
    set_products(twin, "dense")
    x = spikes(4, 3, 2, 6, 6)
    losses = []
    for model in (net, twin):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            loss = (model(x).mean(0) - 1).pow(2).mean()
            loss.backward()
            optimizer.step()
            losses.append(float(loss))
    assert losses[:3] == pytest.approx(losses[3:], rel=1e-5)
    assert calls.count("product") == 6


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.tuples(*[st.integers(1, 9)] * 3), stride=st.integers(1, 3), padding=st.integers(0, 3),
    kernel=st.integers(1, 4), rate=st.floats(0, 1),
)  # fmt: skip
def test_any_shape_equals_the_dense_product(sizes, stride, padding, kernel, rate):
    channels, height, width = sizes
    if min(height, width) + 2 * padding < kernel:
        return
    with use(registry().without(())) as own:
        own.register("backend", "counting", Counting)
        geometry = ProductGeometry("conv2d", (stride, stride), (padding, padding))
        x = spikes(2, channels, height, width, rate=rate)
        weight = weight_of(3, channels, kernel, kernel)
        y, choice = product("event", geometry, x, weight, None)
        assert choice.path == "event"
        torch.testing.assert_close(y, dense_product(geometry, x, weight, None))


@pytest.mark.parametrize("shape", [(6,), (2, 6), (3, 2, 6)])
def test_the_gradient_of_a_bias_is_a_sum_over_rows(calls, shape):
    """Of one row alone it is the row: torch's sum over no axes would be one over all."""
    x, weight, bias = spikes(*shape, rate=0.5), weight_of(4, 6), weight_of(4)
    factors = torch.arange(1.0, 5.0)
    y, choice = product("event", LINEAR, x, weight, bias)
    assert choice.path == "event"
    ours = torch.autograd.grad((y * factors).sum(), (weight, bias))
    theirs = torch.autograd.grad((dense_product(LINEAR, x, weight, bias) * factors).sum(), (weight, bias))
    torch.testing.assert_close(ours, theirs)


def small_layers():
    conv = nn.Conv2d(3, TOO_SMALL, 3)
    return [
        (Linear(6, TOO_SMALL), spikes(4, 2, 6)),
        (Conv2d(3, TOO_SMALL, 3), spikes(4, 2, 3, 6, 6)),
        (ConvBNNeuron(conv, nn.BatchNorm2d(TOO_SMALL), LIF(backend="torch")), spikes(4, 2, 3, 6, 6)),
    ]


@pytest.mark.parametrize("which", range(3))
def test_a_backend_is_asked_once_about_what_its_shape_rules_out(calls, which):
    layer, x = small_layers()[which]
    dense = copy.deepcopy(layer)
    set_products(dense, "dense")
    for _ in range(3):
        assert torch.equal(layer(x), dense(x))
        assert (layer.product.path, layer.product.reason) == ("dense", "too small")
    assert calls == ["product"]
    for other in (x[:1], x[:, :1], x[:1], x):  # of another shape once each
        layer(other)
    assert calls == ["product"] * 3
    layer.double()(x.double())
    assert calls == ["product"] * 4
    layer.float()
    for module in (layer, *layer.modules()):
        if isinstance(module, nn.Linear | nn.Conv2d):
            module.weight = nn.Parameter(torch.cat([module.weight, module.weight]))
            module.bias = nn.Parameter(torch.cat([module.bias, module.bias]))
            break
    if not isinstance(layer, ConvBNNeuron):
        layer(x)
        assert layer.product.path == "event", "a layer that has grown is still refused"
    before = len(calls)
    set_products(dense, "event")
    for _ in range(2):
        dense(x)
    assert len(calls) == before + 2, "`event` is no `auto`"
    assert pickle.loads(pickle.dumps(dense)).products == "event"


def test_what_values_ruled_out_is_asked_about_again(calls):
    layer = Linear(6, 3)
    for _ in range(3):
        layer(torch.ones(4, 2, 6))
        layer(spikes(4, 2, 6) * 0.5)
    assert len(calls) == 6


def test_another_backend_is_asked_again(calls):
    layer, x = small_layers()[0]
    layer(x)
    spikecore.nn.configure_backend("counting")
    layer(x)
    assert calls == ["product"] * 2


def test_explain_and_the_record_tell_shapes_and_reasons(calls):
    net = Sequential(
        Conv2d(3, 4, 3, stride=2, padding=1), nn.Flatten(2), Linear(64, TOO_SMALL), Linear(TOO_SMALL, 5), Linear(5, 5)
    )
    set_products(net[4], "dense")
    net(spikes(4, 2, 3, 8, 8))
    net(spikes(4, 1, 3, 8, 8))
    text = spikecore.explain(net)
    assert "conv 3×3 3 → 4, stride 2×2 of 4×3×8×8" in text
    assert "before: event on counting, rate" in text
    assert "linear 64 → 2 of 4×64" in text
    assert (
        "products of the last call: 1 by events, 1 dense (too small), 1 dense (not spikes), 1 dense (asked for)" in text
    )
    reasons = {name: record.reason for name, record in provenance.backends(net).items()}
    assert reasons["0"].count("before:") == 1
    assert reasons["2"].startswith("dense on torch: too small (linear 64 → 2 of 4×64)")
    last = spikes(4, 2, 3, 8, 8).movedim(2, -1).contiguous().movedim(-1, 2)
    layer = Conv2d(3, 3, 3, groups=3)
    layer(last)
    assert str(layer.product.shape) == "conv 3×3 3 → 3, groups 3 of 8×3×8×8, channels last"
    assert "has not run yet" in spikecore.explain(Linear(5, 5))


def test_only_the_last_few_shapes_are_remembered(calls):
    layer, _ = small_layers()[0]
    for batch in range(1, 20):
        layer(spikes(4, batch, 6))
    assert len(layer.choices) == 4
    assert layer.choices[0] is layer.product
    assert len(layer._declined) == 4
    set_products(layer, "auto")
    assert layer.choices == []

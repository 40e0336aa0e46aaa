"""Each recipe against its paper's formula, on layers made by hand and on whole nets."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from spikecore import nn as snn
from spikecore.errors import ConversionError
from spikecore.nn import set_step_mode, trace_net
from spikecore_ann2snn import (
    QCFS,
    Ann2SNN,
    FewSpikeReLU,
    SpikingLeakyReLU,
    SpikingReLU,
    TemporalDifference,
    with_quantized_relus,
)
from spikecore_ann2snn.calibration import Balancing, Largest, Percentile

from .nets import Everything, OverwrittenSkip, QuantizedResNet, RunModel, TransformerBlock, mean_output, settled


def images(count=64, channels=1, size=8, seed=3, dtype=torch.float32):
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def convert(net, x, **options):
    return Ann2SNN(**{"T": (16,), **options}).convert(net, x[:1], x.split(32))


def test_a_neuron_fires_as_often_as_the_formula_says():
    threshold, num_steps = torch.tensor([0.75, 2.0]), 10
    x = torch.tensor([[-0.4, 0.93], [0.31, 1.9], [0.74, 3.7], [5.0, 0.05]])
    for initial in (0.0, 0.5):
        out = mean_output(SpikingReLU(threshold, initial), x, num_steps)
        wanted = threshold * (num_steps * x / threshold + initial).floor().clamp(0, num_steps) / num_steps
        torch.testing.assert_close(out, wanted)
        assert (out > 0).any()
        assert (out < threshold).any()


def test_thresholds_of_largest_and_percentile_are_those_of_numpy():
    values = torch.randn(4, 6, 5, 30, generator=torch.Generator().manual_seed(0)).relu() * torch.arange(1, 7).reshape(
        6, 1, 1
    )
    batches = [values[:1] * 0.1, values[1:2], values[2:]]
    for per in ("layer", "channel"):
        rows = torch.cat(batches).movedim(1, 0).flatten(1)
        rows = rows.reshape(1, -1) if per == "layer" else rows
        for observer, wanted in (
            (Largest(per, 0.8), 0.8 * rows.amax(1)),
            (Percentile(per, 99.0), torch.quantile(rows, 0.99, dim=1)),
            (Percentile(per, 60.0), torch.quantile(rows, 0.6, dim=1)),
        ):
            for batch in batches:
                observer.see(batch)
            got = observer.threshold()
            # Of a histogram: within a bin of its range, the width of which is 1 / 4096 of the largest value at most,
            # and of the two samples between which numpy interpolates.
            torch.testing.assert_close(got, wanted.squeeze(), rtol=0.02, atol=0.02)
            assert got.dim() == (0 if per == "layer" else 1)


def test_a_percentile_does_not_depend_on_how_the_data_are_cut():
    values = torch.rand(64, 3, 4, 4, generator=torch.Generator().manual_seed(1)) ** 4
    results = []
    for size in (1, 7, 64):
        observer = Percentile("channel", 90.0)
        for batch in values.split(size):
            observer.see(batch)
        results.append(observer.threshold())
    torch.testing.assert_close(results[0], results[2], rtol=2e-3, atol=1e-3)
    torch.testing.assert_close(results[1], results[2], rtol=2e-3, atol=1e-3)


def test_balancing_per_layer_suits_the_most_active_channel():
    """The mean over all channels would hardly see the one that is active: θ stays below a tenth of what that needs."""
    values = torch.rand(256, 20, 4, generator=torch.Generator().manual_seed(0))
    values[:, 1:] *= 0.01
    observers = {per: Balancing(per, updates=16) for per in ("layer", "channel")}
    for observer in observers.values():
        for batch in values.split(64):
            observer.see(batch)
    thresholds = observers["channel"].threshold()
    assert thresholds[0] > 50 * thresholds[1:].max()
    assert observers["layer"].threshold().dim() == 0
    assert observers["layer"].threshold() == thresholds[0] > 0.8


def test_balancing_is_the_formula():
    values = torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(0)).relu()
    observer, theta = Balancing("channel", updates=2), torch.zeros(2)
    for batch in values.split(1):
        observer.see(batch)
        for _ in range(2):
            theta = theta + 2 * (batch - theta.reshape(1, 2, 1)).relu().mean((0, 2))
    torch.testing.assert_close(observer.threshold(), theta)
    # The step goes down the gradient of the squared error of the clip.
    point = torch.tensor(0.4, requires_grad=True)
    ((values - values.clamp(max=point)) ** 2).mean().backward()
    torch.testing.assert_close(-point.grad, 2 * (values - 0.4).relu().mean())


def clipped(net, x, thresholds):
    """What the net gives where every rectifier is clipped at its threshold."""
    graph = trace_net(net)

    def call(node, args, kwargs):
        value = graph.call(node, args, kwargs)
        if node.name not in thresholds:
            return value
        threshold = thresholds[node.name]
        return torch.minimum(value, threshold.reshape(-1, *([1] * (value.dim() - 2))) if threshold.dim() else threshold)

    with torch.no_grad():
        return graph.run(x, call=call)


@pytest.mark.parametrize(
    ("recipe", "per", "fold"),
    [
        ("max", "layer", True),
        ("max", "channel", False),
        ("percentile", "channel", True),
        ("threshold_balancing", "channel", True),
    ],
)
def test_a_net_with_everything_follows_the_given_one(recipe, per, fold):
    net, x = settled(Everything()), images()
    made, report = convert(net, x, recipe=recipe, per=per, fold=fold, percentile=100.0, T=(64,))
    # Balancing clips on purpose, above all in channels that are rarely active: so does the reference.
    thresholds = {layer.name: torch.tensor(layer.threshold) for layer in report.layers if layer.threshold is not None}
    right = clipped(net, x, thresholds)

    def error():
        return float((mean_output(made, x, 128) - right).norm() / (right - right.mean(0)).norm())

    assert error() < 0.1
    if recipe == "max":
        with torch.no_grad():
            torch.testing.assert_close(right, net(x))
        weights = dict(made.named_parameters())
        for name, factor in (("conv1.weight", 1.2), ("conv2.weight", -1.0), ("up.bias", 1.2), ("fc2.weight", 1.2)):
            with torch.no_grad():
                weights[name].mul_(factor)
                assert error() > 0.12, name
                weights[name].div_(factor)
    assert {layer.name for layer in report.layers} == {node.name for node in trace_net(net).layers}
    neurons = [layer for layer in report.layers if layer.threshold is not None]
    assert len(neurons) == 5
    assert all(layer.correlation[-1] > (0.6 if recipe == "threshold_balancing" else 0.99) for layer in neurons)
    assert all(layer.rate > 0.02 for layer in neurons)
    assert report.numbers["SynOps of the new net, T = 64"] > 0


def test_folding_thresholds_changes_nothing_but_rounding():
    net, x = settled(Everything().double()), images(dtype=torch.float64)
    plain, _ = convert(net, x, fold=False)
    folded, report = convert(net, x, fold=True)
    kinds = [type(part) for part in folded.modules()]
    assert kinds.count(SpikingReLU) < [type(part) for part in plain.modules()].count(SpikingReLU)
    assert "folded into the weights" in next(layer.reason for layer in report.layers if layer.name == "relu_")
    assert isinstance(folded.get_submodule("relu_"), snn.IF)
    # An odd initial potential: no sum lands on a threshold by chance.
    a, b = mean_output(plain, x, 24), mean_output(folded, x, 24)
    assert float(((a - b).abs() < 1e-9).double().mean()) > 0.99
    assert a.std() > 0.01


def test_a_plain_chain_becomes_layers_and_plain_neurons():
    net = settled(
        nn.Sequential(
            nn.Conv2d(1, 4, 3),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.AvgPool2d(2),
            nn.Flatten(),
            nn.Linear(36, 8),
            nn.ReLU(),
            nn.Linear(8, 3),
        )
    )
    made, _ = convert(net, images())
    kinds = {type(part) for part in made.modules()}
    assert SpikingReLU not in kinds
    assert snn.IF in kinds
    x = images()
    with torch.no_grad():
        right = net(x)
    assert float((mean_output(made, x, 128) - right).norm() / (right - right.mean(0)).norm()) < 0.1


def test_norms_are_folded_exactly():
    for layer, norm, x in (
        (nn.Conv2d(4, 6, 3, groups=2, bias=False), nn.BatchNorm2d(6), images(2, 4)),
        (nn.ConvTranspose2d(4, 6, 3, groups=2), nn.BatchNorm2d(6), images(2, 4)),
        (nn.Linear(8, 5), nn.BatchNorm1d(5), images(2)[:, 0, 0]),
    ):
        net = settled(nn.Sequential(layer, norm))
        made, report = Ann2SNN(recipe="temporal_difference").convert(net, x)
        assert report.layers[1].reason == "folded into 0"
        with torch.no_grad():
            torch.testing.assert_close(mean_output(made, x, 3), net(x))
        assert not any(isinstance(part, nn.BatchNorm2d | nn.BatchNorm1d) for part in made.modules())


def test_a_norm_that_cannot_be_folded_is_an_affine_map():
    net = settled(nn.Sequential(nn.AvgPool2d(2), nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(16, 3)))
    x = images(4)
    made, report = Ann2SNN(recipe="temporal_difference").convert(net, x)
    assert report.layers[1].reason == "scale and shift per channel"
    with torch.no_grad():
        torch.testing.assert_close(mean_output(made.train(), x, 2), net(x))


def test_what_an_in_place_relu_overwrites_is_overwritten():
    net, x = settled(OverwrittenSkip()), torch.rand(16, 6, generator=torch.Generator().manual_seed(0))
    made, _ = convert(net, x, recipe="max", updates=64)
    with torch.no_grad():
        right = net(x)
        torch.testing.assert_close(mean_output(made, x, 512), right, atol=0.03, rtol=0)
        unrectified = net.fc2(net.fc1(x).relu()) + net.fc1(x)
    assert (unrectified - right).abs().max() > 0.2


def test_max_pooling_by_sums_is_exact_and_gives_spikes():
    pool = nn.Sequential(SpikingReLU(torch.tensor(0.7)), TemporalDifference(nn.MaxPool2d(2), [True], True))
    x = torch.rand(9, 2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    spikes = pool[0](x)
    out = pool(x)
    torch.testing.assert_close(out.sum(0), F.max_pool2d(spikes.sum(0), 2))
    assert sorted(set(out.flatten().mul(1000).round().tolist())) == [0.0, 700.0]


def test_pooling_may_be_replaced():
    net, x = (
        settled(nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(27, 3))),
        images(),
    )
    made, report = convert(net, x, recipe="max", max_pool="average")
    assert isinstance(made.get_submodule("2"), nn.AvgPool2d)
    assert "by option" in report.layers[2].reason
    with torch.no_grad():
        largest = net(x)
        net[2] = nn.AvgPool2d(2)
        right = net(x)
    torch.testing.assert_close(mean_output(made, x, 256), right, atol=0.01, rtol=0)
    assert (largest - right).abs().max() > 0.1


def test_leaky_relus_are_refused_or_taken_for_relus():
    net, x = settled(nn.Sequential(nn.Linear(8, 8), nn.LeakyReLU(), nn.Linear(8, 3))), images()[:, 0, 0]
    with pytest.raises(Exception, match=r"1 \(LeakyReLU\).*\n?.*negative outputs"):
        convert(net, x)
    for recipe in ("max", "percentile", "threshold_balancing"):
        report = convert(net, x, recipe=recipe, leaky_relu="relu", T=(64,))[1]
        assert "negative slope is left out" in report.layers[1].reason
        assert report.layers[1].correlation[-1] > 0.9


@pytest.mark.parametrize("recipe", ["max", "percentile", "threshold_balancing"])
def test_leaky_relus_with_a_neuron_for_each_sign(recipe):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.third = nn.Linear(8, 12), nn.Linear(12, 8), nn.Linear(8, 3)
            self.leaky = nn.LeakyReLU(0.3)

        def forward(self, x):
            return self.third(F.leaky_relu(self.second(self.leaky(self.first(x))), 0.2))

    net, x = settled(Net()), images()[:, 0, 0] - 0.4
    made, report = convert(net, x, recipe=recipe, leaky_relu="signed", updates=64, T=(64,), percentile=100.0)
    with torch.no_grad():
        right = net(x)
    error = float((mean_output(made, x, 256) - right).norm() / (right - right.mean(0)).norm())
    assert error < (0.05 if recipe != "threshold_balancing" else 0.2)
    without = convert(net, x, recipe=recipe, leaky_relu="relu", updates=64, percentile=100.0)[0]
    assert float((mean_output(without, x, 256) - right).norm() / (right - right.mean(0)).norm()) > 2 * error
    assert [layer.name for layer in report.layers if layer.threshold is not None] == ["leaky", "leaky_relu"]
    assert "-0.3 θ" in report.layers[1].reason
    assert "-0.2 θ" in report.layers[3].reason


def test_a_leaky_neuron_fires_as_often_as_the_formula_says():
    neuron = SpikingLeakyReLU(torch.tensor([0.75, 2.0]), 0.1)
    x = torch.tensor([[-0.4, 0.93], [0.31, -1.9], [0.74, 3.7], [-5.0, 0.05]])
    counts = (10 * x.abs() / neuron.positive.threshold + 0.5).floor().clamp(0, 10)
    wanted = neuron.positive.threshold * counts / 10
    torch.testing.assert_close(mean_output(neuron, x, 10), torch.where(x < 0, -0.1 * wanted, wanted))
    set_step_mode(neuron, "single")
    single = torch.stack([neuron(x).detach() for _ in range(10)]).mean(0)
    torch.testing.assert_close(single, torch.where(x < 0, -0.1 * wanted, wanted))


def test_nets_of_runs_are_taken_apart():
    net = settled(RunModel())
    set_step_mode(net, "single")
    x = images(64, 1, 6)
    made, report = convert(net, x, updates=64)
    outcomes = {layer.name: layer.outcome for layer in report.layers}
    assert outcomes["first"] == "kept"
    assert outcomes["first.module.1"] == outcomes["block.norm"] == outcomes["block.neuron"] == "became"
    with torch.no_grad():
        right = net(x)
    assert float((mean_output(made, x, 128) - right).norm() / (right - right.mean(0)).norm()) < 0.1


def test_a_block_at_two_places_is_taken_apart_at_both():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = snn.fold_time(nn.Sequential(nn.Linear(6, 6), nn.ReLU()))
            self.second, self.head = self.first, nn.Linear(6, 3)

        def forward(self, x):
            return self.head(self.second(self.first(x)))

    net, x = settled(Twice()), torch.rand(32, 6, generator=torch.Generator().manual_seed(0))
    set_step_mode(net, "single")
    made, report = convert(net, x, recipe="max")
    assert sum(layer.threshold is not None for layer in report.layers) == 2
    with torch.no_grad():
        torch.testing.assert_close(mean_output(made, x, 512), net(x), atol=0.02, rtol=0)


def test_qcfs_is_the_formula_and_its_gradients_those_of_the_paper():
    x = torch.linspace(-1, 3, 101, dtype=torch.float64).reshape(-1, 1).requires_grad_()
    theta, levels = 1.5, 4
    neuron = QCFS(levels=levels, v_threshold=theta, step_mode="single").double()
    out = neuron(x)
    wanted = theta * torch.clamp((x.detach() * levels / theta + 0.5).floor() / levels, 0, 1)
    torch.testing.assert_close(out.detach(), wanted)
    (gradient,) = torch.autograd.grad(out.sum(), x, retain_graph=True)
    inside = (wanted > 0) & (wanted < theta)
    assert (gradient[inside] == 1).all()
    assert (gradient[(x < -0.2) | (x > 1.8)] == 0).all()
    (of_theta,) = torch.autograd.grad(out[x > 1.8].sum(), neuron.param_v_threshold)
    assert float(of_theta) == int((x > 1.8).sum())
    out = neuron(x)
    for place in (40, 52, 55):  # the error of rounding, over θ
        (of_theta,) = torch.autograd.grad(out[place], neuron.param_v_threshold, retain_graph=True)
        assert bool(inside[place])
        assert float(of_theta) == pytest.approx(float((out[place] - x[place]) / theta))


def test_a_qcfs_layer_converts_without_loss_at_as_many_steps_as_levels():
    net = nn.Sequential(nn.Linear(4, 6), QCFS(levels=8, v_threshold=0.9, step_mode="single"))
    settled(net)
    x = torch.rand(50, 4, generator=torch.Generator().manual_seed(0))
    made, report = Ann2SNN(recipe="qcfs", T=(8,)).convert(net, x)
    with torch.no_grad():
        right = net(x)
    torch.testing.assert_close(mean_output(made, x, 8), right)
    assert len(right.unique()) == 9
    assert report.layers[1].threshold == pytest.approx(0.9)


def test_relus_become_quantized_ones_to_train_on():
    net = settled(Everything())
    quantized = with_quantized_relus(net.train(), levels=4, v_threshold=2.0)
    assert quantized.training
    x = images(8)
    quantized(x).square().sum().backward()
    relus = [part for part in quantized.modules() if isinstance(part, QCFS)]
    assert len(relus) == 5
    assert all(part.param_v_threshold.grad is not None for part in relus)
    made, _ = Ann2SNN(recipe="qcfs", T=(4,)).convert(quantized.eval(), x)
    assert mean_output(made, x, 4).shape == (8, 4)


@pytest.mark.parametrize("num_steps", [8, 11])
def test_few_spikes_compute_what_the_quantized_net_computes(num_steps):
    net = settled(QuantizedResNet(levels=8).double())
    x = images(6, 3, 6, dtype=torch.float64)
    made, report = Ann2SNN(recipe="few_spike", T=(8,), measure=6).convert(net, x, [x])
    with torch.no_grad():
        right = net(x)
    torch.testing.assert_close(mean_output(made, x, num_steps), right, atol=1e-10, rtol=0)
    assert right.std() > 0.05
    neurons = [layer for layer in report.layers if layer.threshold is not None]
    assert all(layer.correlation[-1] > 0.9999 and layer.rate > 0.01 for layer in neurons)
    few = next(part for part in made.modules() if isinstance(part, FewSpikeReLU))
    spikes = few(torch.rand(num_steps, 2, 6, 4, 4, dtype=torch.float64))
    assert len(spikes.unique()) == 2


def test_a_few_spike_neuron_counts_as_the_formula_says():
    neuron = FewSpikeReLU(torch.tensor([1.0, 2.0]), 4)
    x = torch.randn(6, 50, 2, generator=torch.Generator().manual_seed(0)) + 0.5
    out = neuron(x)
    count = torch.floor(4 * x.mean(0) / neuron.threshold + 0.5).clamp(0, 4)
    torch.testing.assert_close((out > 0).sum(0).float(), count)
    torch.testing.assert_close(out.mean(0), count * neuron.threshold / 4)
    with pytest.raises(Exception, match=r"needs T >= 4"):
        neuron(x[:3])


@pytest.mark.parametrize(
    "net",
    [
        TransformerBlock(),
        nn.TransformerEncoderLayer(16, 2, 24, batch_first=True, norm_first=True, activation="gelu"),
        nn.TransformerEncoderLayer(16, 4, 24, batch_first=True),
    ],
    ids=["block", "norm first", "norm last"],
)
def test_transformers_are_exact_at_every_step(net):
    torch.manual_seed(0)
    net = net.eval()
    x = torch.randn(3, 8, 16)
    made, report = Ann2SNN(recipe="temporal_difference", T=(5,)).convert(net, x, [x])
    with torch.no_grad():
        right = net(x)
        out = made(x.expand(12, *x.shape))
    for num_steps in (1, 4, 12):
        torch.testing.assert_close(out[:num_steps].mean(0), right, atol=1e-4, rtol=0)
    became = report.names("became")
    assert len(became) >= 3
    assert all(layer.correlation[-1] > 0.9999 for layer in report.layers if layer.correlation)


def test_temporal_differences_compute_the_function_of_the_mean():
    class Product(nn.Module):
        def forward(self, a, b, weight):
            return torch.softmax(a @ b, -1) * weight, None

    a, b = (torch.randn(7, 3, 4, 4, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    weight = torch.rand(4)
    module = TemporalDifference(Product(), [True, True, False])
    out, nothing = module(a, b, weight)
    assert nothing is None
    for steps in range(1, 8):
        wanted = torch.softmax(a[:steps].mean(0) @ b[:steps].mean(0), -1) * weight
        torch.testing.assert_close(out[:steps].mean(0), wanted)
    set_step_mode(module, "single")
    single = torch.stack([module(p, q, weight)[0] for p, q in zip(a, b, strict=True)])
    torch.testing.assert_close(single, out)
    with snn.streaming(module):
        set_step_mode(module, "multi")
        pieces = [module(a[:3], b[:3], weight)[0], module(a[3:], b[3:], weight)[0]]
    torch.testing.assert_close(torch.cat(pieces), out)
    assert module(a[:0], b[:0], weight)[0].shape == (0, 3, 4, 4)


def test_a_weight_as_long_as_time_and_batch_together_stays_a_weight():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight, self.bias = nn.Parameter(torch.rand(6)), nn.Parameter(torch.rand(6))

        def forward(self, x):
            return F.layer_norm(x, (6,), self.weight, self.bias)

    net, x = Scaled().eval(), torch.rand(2, 6)
    made, _ = Ann2SNN(recipe="temporal_difference").convert(net, x)
    with torch.no_grad():
        torch.testing.assert_close(mean_output(made, x, 3), net(x), atol=1e-5, rtol=0)  # T * B = 6


def test_a_converted_net_trains_on_and_is_copied():
    net, x = settled(Everything()), images(16)
    made, _ = convert(net, x)
    made.train()
    optimizer = torch.optim.Adam(made.parameters(), 0.003)
    target = torch.arange(16) % 4
    losses = []
    for _ in range(12):
        loss = F.cross_entropy(made(x.expand(8, *x.shape)).mean(0), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.97 * losses[0]
    again = copy.deepcopy(made)
    torch.testing.assert_close(mean_output(again.eval(), x, 4), mean_output(made.eval(), x, 4))


class Query(nn.Module):
    """Learned queries, expanded to the size of the batch, look at the tokens `[B, N, 8]`."""

    def __init__(self, is_function):
        super().__init__()
        self.query = nn.Parameter(torch.randn(1, 2, 8))
        self.norm, self.attention = nn.LayerNorm(8), nn.MultiheadAttention(8, 2, batch_first=True)
        self.is_function = is_function

    def forward(self, x):
        query = self.norm(self.query.expand(x.shape[0], -1, -1))
        if self.is_function:
            return F.scaled_dot_product_attention(query, x, x)[:, 0]
        return self.attention(query, x, x, need_weights=False)[0][:, 0]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Query(False),
        lambda: Query(True),
        lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2),
        lambda: nn.Sequential(
            nn.TransformerEncoder(
                nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True, activation="gelu"),
                2,
                norm=nn.LayerNorm(8),
                enable_nested_tensor=False,
            ),
            nn.Linear(8, 3),
        ),
    ],
)
def test_queries_and_encoders_are_exact_at_every_step(make):
    torch.manual_seed(0)
    net, x = make().eval(), torch.randn(3, 5, 8)
    made, _ = Ann2SNN(recipe="temporal_difference", T=(4,)).convert(net, x[:1])
    with torch.no_grad():
        for num_steps in (1, 3):
            torch.testing.assert_close(mean_output(made, x, num_steps), net(x), atol=1e-5, rtol=1e-4)


def test_functional_max_pooling_may_be_replaced_too():
    class Pooled(nn.Module):
        def __init__(self, pool):
            super().__init__()
            self.conv, self.pool = nn.Conv2d(1, 2, 3), pool

        def forward(self, x):
            return self.pool(self.conv(x).relu(), 2)

    torch.manual_seed(0)
    net, x = Pooled(F.max_pool2d), images()
    made, _ = convert(net, x, recipe="max", max_pool="average")
    with torch.no_grad():
        net.pool = F.avg_pool2d
        torch.testing.assert_close(mean_output(made, x, 256), net(x), atol=0.01, rtol=0)


@pytest.mark.parametrize("recipe", ["qcfs", "few_spike"])
def test_a_trained_threshold_below_zero_is_no_neurons(recipe):
    net = nn.Sequential(nn.Linear(4, 4), QCFS(step_mode="single"))
    with torch.no_grad():
        net[1].param_v_threshold.fill_(-0.5)
    with pytest.raises(ConversionError, match=r"trained threshold is -0.5.*above 0"):
        Ann2SNN(recipe=recipe).convert(net, torch.rand(2, 4))

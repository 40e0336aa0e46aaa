"""What becomes of a net: thresholds, biases, pools, norms, weights that do not fit; and what is refused."""

from collections import OrderedDict

import h5py
import numpy as np
import pytest
import torch
from loihi import loihi

from spikecore import nn
from spikecore.analysis import record_spikes
from spikecore.errors import ConversionError
from spikecore.interfaces import Artefact, QuantizedLayer
from spikecore.testing.small_nets import settle_weights
from spikecore_deploy_lava import Lava, LoihiLIF
from spikecore_deploy_lava.files import write_network
from spikecore_deploy_lava.network import Layer, Network, Population, Synapses
from spikecore_deploy_lava.planning import planned


def spikes_in(shape, seed=0, num_steps=16, batch=3):
    """`[T, B, *shape]`."""
    return torch.randint(0, 2, (num_steps, batch, *shape), generator=torch.Generator().manual_seed(seed)).float()


def chain(*parts, seed=0):
    return settle_weights(torch.nn.Sequential(*parts), seed, -40, 60)


def deployed(net, x, path, **options):
    deployer = Lava(**options)
    artefact = deployer.export(net, x, path)
    return artefact, deployer.simulate(artefact, x), deployer.trace(artefact, x)


def assert_same_spikes(net, x, path):
    """Net and network agree in every spike; some fire, some do not."""
    out, spikes = record_spikes(net, x)
    artefact, got, traced = deployed(net, x, path)
    assert list(traced) == list(spikes)
    for name, right in spikes.items():
        assert 0.02 < float(right.mean()) < 0.98, name
        assert torch.equal(traced[name], right), name
    torch.testing.assert_close(got, out, rtol=1e-6, atol=1e-6)
    return artefact


def refusals(net, x):
    return [record for record in Lava().check(net, x) if record.outcome == "refused"]


@pytest.mark.parametrize("fires", ["at", "above"])
def test_sums_that_land_on_the_threshold(fires, tmp_path):
    """IF of whole sums: exactly the net's, although Lava fires above the threshold only."""
    net = chain(torch.nn.Linear(4, 8), nn.IF(fires=fires, v_threshold=0.5, backend="torch"))
    with torch.no_grad():
        net[0].weight.copy_((net[0].weight * 4).round() / 4)
        net[0].bias.zero_()
    x = spikes_in((4,))
    other = chain(torch.nn.Linear(4, 8), nn.IF(fires="at" if fires == "above" else "above", v_threshold=0.5))
    other.load_state_dict(net.state_dict())
    assert not torch.equal(net(x), other(x))
    assert_same_spikes(net, x, tmp_path / "net")
    vth = planned(net, x, "fixed_pt").network.layers[0].population.vth
    level = (
        0.5
        / 0.25
        * planned(net, x, "fixed_pt").network.layers[0].synapses.weight.max()
        / int((net[0].weight * 4).max())
    )
    assert vth == level - (fires == "at")


def test_the_network_is_what_the_integers_give(tmp_path):
    """Against the equations in 64-bit integers, with decays that are rounded: layer for layer."""
    net = chain(
        torch.nn.Linear(5, 7, bias=False),
        nn.CubaLIF(c_decay=0.3, v_decay=0.9, v_threshold=1.5, backend="torch"),
        torch.nn.Linear(7, 4),
        nn.LIF(tau=3.0, v_threshold=0.4, backend="torch"),
    )
    x = spikes_in((5,), num_steps=30)
    artefact, out, traced = deployed(net, x, tmp_path / "net")
    network = planned(net, x, "fixed_pt").network
    given = x.numpy().astype(np.int64)
    for layer, (name, spikes) in zip(network.layers, traced.items(), strict=True):
        population = layer.population
        assert layer.name == name
        weight, bias = layer.synapses.weight.astype(np.int64), layer.bias.astype(np.int64)
        assert weight.min() < 0 < weight.max() <= 254
        assert not (weight % 2).any()  # of both signs: the lowest bit is cut off
        sums = given @ weight.T
        for sample in range(x.shape[1]):
            # As many steps of bias come first as there are synapses on the way.
            early = np.zeros((network.lag(network.layers.index(layer)), sums.shape[-1]), np.int64)
            run = np.concatenate([early, sums[:, sample]])
            right = loihi(
                run, int(population.du), int(population.dv), int(population.vth), bias, population.v.astype(np.int64)
            )[0]
            assert np.array_equal(right[len(early) :], spikes[:, sample].numpy())
            assert not right[: len(early)].any()
        assert 0.05 < float(spikes.mean()) < 0.95
        given = spikes.numpy().astype(np.int64)
    assert torch.equal(out, traced["3"])


def test_a_bias_does_not_act_before_spikes_arrive(tmp_path):
    """Three layers with biases: the potentials that Lava starts from undo the steps that come too early."""
    parts = []
    for _ in range(3):
        parts += [torch.nn.Linear(6, 6), nn.LIF(tau=2.0, v_threshold=0.375, backend="torch")]
    net = chain(*parts)
    x = spikes_in((6,), num_steps=24)
    network = planned(net, x, "fixed_pt").network
    assert all(layer.population.v.any() for layer in network.layers)
    artefact, out, traced = deployed(net, x, tmp_path / "net")
    _, spikes = record_spikes(net, x)
    for name, right in spikes.items():
        assert float((traced[name] != right).float().mean()) < 0.02
    # The weights are exact; potentials that decay are rounded on Loihi, not in the net.
    assert [record.outcome for record in artefact.mapping] == ["mapped", "approximated"] * 3
    assert not any("bias" in record.reason for record in artefact.mapping)


def test_a_bias_too_large_for_that_is_told(tmp_path):
    net = chain(torch.nn.Linear(4, 4), nn.IF(backend="torch"), torch.nn.Linear(4, 4), nn.IF(backend="torch"))
    with torch.no_grad():
        net[2].bias.fill_(-3.0)
    third = torch.nn.Sequential(*net, torch.nn.Linear(4, 4), nn.IF(backend="torch"))
    settle_weights(third[4:], 3)
    with torch.no_grad():
        third[4].bias.fill_(-3.0)
    record = planned(third, spikes_in((4,)), "fixed_pt").records[-1]
    assert record.outcome == "approximated"
    assert "3 steps before spikes arrive" in record.reason


@pytest.mark.parametrize("pool", [nn.AvgPool2d(2), nn.SumPool2d(2), torch.nn.AdaptiveAvgPool2d(4)], ids=str)
def test_pools_become_weights(pool, tmp_path):
    """Of a convolution and of a matrix; groups, stride, padding and dilation stay right."""
    fold = nn.fold_time(pool) if type(pool) is torch.nn.AdaptiveAvgPool2d else pool
    net = chain(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.IF(v_threshold=0.75, backend="torch"),
        fold,
        nn.Conv2d(4, 6, 2, stride=2, padding=1, dilation=2, groups=2),
        nn.IF(v_threshold=0.5, backend="torch"),
        nn.Flatten(),
        torch.nn.Linear(24, 3),
    )
    if isinstance(pool, nn.SumPool2d):
        net[4] = nn.IF(v_threshold=2.0, backend="torch")
    artefact = assert_same_spikes(net, spikes_in((2, 8, 8)), tmp_path / "net")
    assert [record.outcome for record in artefact.mapping][2] == "folded"


def test_a_pool_before_a_matrix_drops_its_rest(tmp_path):
    net = chain(
        nn.Conv2d(1, 3, 3, padding=1),
        nn.IF(v_threshold=0.75, backend="torch"),
        nn.AvgPool2d(2),
        nn.Flatten(),
        torch.nn.Linear(12, 4),
        nn.IF(v_threshold=0.25, backend="torch"),
    )
    assert_same_spikes(net, spikes_in((1, 5, 5)), tmp_path / "net")


def test_norms_are_folded(tmp_path):
    net = chain(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.IF(v_threshold=0.5, backend="torch"))
    with torch.no_grad():
        net[1].eps = 0.0
        net[1].running_mean.fill_(0.25)
        net[1].running_var.fill_(4.0)
        net[1].weight.fill_(2.0)
        net[1].bias.fill_(0.125)
    assert_same_spikes(net, spikes_in((1, 5, 5)), tmp_path / "net")


def test_an_image_is_flattened_at_the_input(tmp_path):
    net = chain(nn.Flatten(), torch.nn.Linear(12, 5), nn.IF(backend="torch"))
    artefact = assert_same_spikes(net, spikes_in((2, 2, 3)), tmp_path / "net")
    with h5py.File(artefact.path / "network.net") as file:
        assert file["layer/0/shape"][()].tolist() == [12]


def test_loihi_lif_is_exported_as_it_is(tmp_path):
    """Spikes equal; u, v and the numbers of the neuron are those of the network."""
    neuron = LoihiLIF(du=1023, dv=512, v_threshold=2.0, bias=(0.25, -0.5, 0.0, 0.125), scale=64, backend="torch")
    net = chain(torch.nn.Linear(5, 4, bias=False), neuron)
    with torch.no_grad():
        net[0].weight.copy_((net[0].weight * 32).round() / 32)
    assert_same_spikes(net, spikes_in((5,), num_steps=40), tmp_path / "net")
    layer = planned(net, spikes_in((5,)), "fixed_pt").network.layers[0]
    assert (layer.population.du, layer.population.dv, layer.population.vth) == (1023, 512, 128)
    assert layer.bias.tolist() == [16, -32, 0, 8]
    assert np.array_equal(layer.synapses.weight, (net[0].weight.detach() * 64).numpy())


def test_saturating_weights_are_counted():
    net = chain(torch.nn.Linear(4, 3, bias=False), LoihiLIF(scale=64, backend="torch"))
    with torch.no_grad():
        net[0].weight.fill_(0.5)
        net[0].weight[0, 0], net[0].weight[1, 2], net[0].weight[2, 1] = 5.0, -7.0, 3 / 64
    record = Lava().check(net, spikes_in((4,)))[1]
    assert record.outcome == "approximated"
    assert "3 of 12 weights" in record.reason
    assert "2 of them saturate" in record.reason


def test_records_of_quantization_are_used():
    """With one scale; of one for each channel the weights are rounded anew, and that is said."""
    net = chain(torch.nn.Linear(4, 3, bias=False), nn.LIF(v_threshold=0.5, backend="torch"))
    values = torch.tensor([[100, -3, 55, 7], [-128, 1, 0, 99], [5, 5, 5, -90]], dtype=torch.int8)
    scale = torch.tensor(0.01)
    record = QuantizedLayer(values, scale, torch.zeros((), dtype=torch.int32), 8)
    with torch.no_grad():
        net[0].weight.copy_(record.dequantize())
    nn.quantized.attach(net[0], record)
    layer = planned(net, spikes_in((4,)), "fixed_pt").network.layers[0]
    assert np.array_equal(layer.synapses.weight, 2 * values.numpy().astype(float))
    assert Lava().check(net, spikes_in((4,)))[0].outcome == "mapped"
    quantized = QuantizedLayer(values, scale.expand(3).contiguous(), torch.zeros(3, dtype=torch.int32), 8, axis=0)
    nn.quantized.attach(net[0], quantized)
    record = Lava().check(net, spikes_in((4,)))[0]
    assert record.outcome == "approximated"
    assert "scale for each channel" in record.reason


NETS = {
    "soft": (lambda: nn.LIF(reset="soft"), "subtracts", "hard"),
    "reset": (lambda: nn.LIF(v_reset=-0.5, v_leak=0.0), "v_reset is -0.5", "v_reset=0"),
    "leak": (lambda: nn.LIF(v_leak=0.25), "v_leak", "v_leak=0"),
    "per channel": (lambda: nn.LIF(tau=(2.0, 3.0, 4.0)), "3 different values", "one value for the layer"),
    "slow": (lambda: nn.LIF(tau=20_000.0), "less than 1/4096", "time constant"),
    "threshold": (lambda: nn.IF(v_threshold=1e6), "0 to 131071", "scale"),
    "negative": (lambda: nn.IF(v_threshold=-1.0), "0 to 131071", "scale"),
    "far": (lambda: nn.IF(v_init=-1e5), "24 bits", "nearer"),
    "current": (lambda: nn.CubaLIF(c_decay=0.5), "bias", "bias=False"),
    "endless": (lambda: nn.CubaLIF(c_decay=1.0), "loses 0", "decay"),
    "unknown": (lambda: nn.Leaky(), "no Leaky", "LoihiLIF"),
}


@pytest.mark.parametrize(("make", "reason", "cure"), NETS.values(), ids=NETS)
def test_what_the_chip_cannot_do_is_refused(make, reason, cure, tmp_path):
    net = chain(torch.nn.Linear(4, 3), make())
    (record,) = refusals(net, spikes_in((4,)))
    assert record.name == "1"
    assert reason in record.reason
    assert cure in record.cure
    with pytest.raises(ConversionError, match="refuses 1 of 2"):
        Lava().export(net, spikes_in((4,)), tmp_path / "net")
    assert not list(tmp_path.iterdir())


def test_layers_that_are_refused():
    x = spikes_in((1, 6, 6))
    for layer, word in (
        (nn.MaxPool2d(2), "no MaxPool2d"),
        (nn.AvgPool2d(3, stride=1), "windows"),
        (nn.Conv2d(1, 2, 3), "no neuron between"),
        (nn.Conv2d(1, 2, 3, padding_mode="circular", padding=1), "circular"),
    ):
        parts = [nn.Conv2d(1, 1, 1)] if word == "no neuron between" else [nn.Conv2d(1, 1, 1), nn.IF()]
        net = chain(*parts, layer, nn.IF())
        assert any(word in record.reason for record in refusals(net, x)), word
    assert "whole numbers" in refusals(chain(torch.nn.Linear(2, 2), nn.IF()), torch.full((3, 1, 2), 0.3))[0].reason
    broken = torch.nn.Sequential(torch.nn.Linear(2, 2), nn.IF())
    torch.nn.init.constant_(broken[0].weight, float("nan"))
    assert "not finite" in refusals(broken, spikes_in((2,)))[0].reason


def test_counts_may_be_sent(tmp_path):
    """Graded inputs: whole numbers above 1, and below 0."""
    net = chain(torch.nn.Linear(3, 6), nn.IF(v_threshold=2.0, backend="torch"))
    x = torch.randint(-2, 6, (20, 2, 3), generator=torch.Generator().manual_seed(0)).float()
    assert_same_spikes(net, x, tmp_path / "net")


def test_floating_point(tmp_path):
    """Doubles: the spikes of the net in doubles."""
    torch.manual_seed(1)
    parts = OrderedDict(
        first=torch.nn.Linear(5, 7),
        hidden=nn.LIF(tau=3.0, v_threshold=0.3, backend="torch"),
        second=torch.nn.Linear(7, 4),
        out=nn.LIF(tau=1.7, v_threshold=0.2, backend="torch"),
    )
    net = torch.nn.Sequential(parts).eval()
    with torch.no_grad():
        net.second.bias.mul_(0.1)
    x = spikes_in((5,), num_steps=40)
    _, spikes = record_spikes(net, x)
    _, _, traced = deployed(net, x, tmp_path / "net", precision="floating_pt")
    for name, right in spikes.items():
        assert 0.05 < float(right.mean()) < 0.95
        assert torch.equal(traced[name], right)
    assert not (tmp_path / "net" / "network.net").exists()


def test_a_net_without_operators_is_refused():
    (record,) = refusals(torch.nn.Sequential(), spikes_in((3,)))
    assert "neither the spikes" in record.reason


DECAYS = {
    "of the potential": (lambda: nn.LIF(tau=4.0, decay_input=False, backend="torch"), True),
    "of the current": (lambda: nn.CubaLIF(c_decay=0.75, v_decay=1.0, v_threshold=2.0, backend="torch"), True),
    "none": (lambda: nn.IF(backend="torch"), False),
    "nothing is left": (lambda: nn.CubaLIF(c_decay=0.0, v_decay=1.0, v_threshold=2.0, backend="torch"), False),
}


@pytest.mark.parametrize(("neuron", "is_rounded"), DECAYS.values(), ids=DECAYS)
def test_decays_that_a_register_holds_are_rounded_and_that_is_told(neuron, is_rounded, tmp_path):
    """3/4 is a decay of 12 bits, but what is left of a state is cut to whole numbers at every step."""
    net = torch.nn.Sequential(torch.nn.Linear(8, 8, bias=False), neuron()).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():  # few values, so that many potentials land on the threshold
        net[0].weight.copy_(torch.randint(-2, 4, (8, 8), generator=generator) / 8)
    x = spikes_in((8,), num_steps=100)
    artefact, _, traced = deployed(net, x, tmp_path / "net")
    right = record_spikes(net, x)[1]["1"]
    assert 0.02 < float(right.mean()) < 0.98
    assert torch.equal(traced["1"], right) is not is_rounded
    assert artefact.mapping[0].outcome == "mapped"
    assert artefact.mapping[1].outcome == ("approximated" if is_rounded else "mapped")
    assert artefact.mapping[1].reason.startswith("decays are rounded towards zero" if is_rounded else "")


LOOPS = {
    "lateral": lambda neuron: nn.LateralRecurrent(neuron, 6),
    "lateral with bias": lambda neuron: nn.LateralRecurrent(neuron, torch.nn.Linear(6, 6)),
    "added": nn.ElementwiseRecurrent,
}


@pytest.mark.parametrize("loop", LOOPS.values(), ids=LOOPS)
def test_loops_take_the_spikes_of_the_step_before(loop, tmp_path):
    """Between two layers, so that there is a lag; the net of the files computes the same."""
    parts = OrderedDict(first=torch.nn.Linear(4, 6, bias=False), rec=loop(nn.IF(v_threshold=0.75, backend="torch")))
    parts |= {"last": torch.nn.Linear(6, 3, bias=False), "out": nn.IF(v_threshold=1.5, backend="torch")}
    net, x = chain_of(parts), spikes_in((4,), num_steps=24)
    out, spikes = record_spikes(net, x)
    without = record_spikes(torch.nn.Sequential(net.first, net.rec.module, net.last, net.out), x)[1]
    assert not torch.equal(spikes["rec.module"], without["1"])
    artefact = assert_same_spikes(net, x, tmp_path / "net")
    names = [record.name for record in artefact.mapping]
    assert names == ["first", "rec.module", "rec.lateral" if "lateral" in str(names) else "rec.feedback", "last", "out"]
    assert {record.outcome for record in artefact.mapping} == {"mapped"}
    loaded = Lava().load(artefact.path)
    assert torch.equal(loaded(x), out)
    again = Lava().export(loaded, x, tmp_path / "again")
    assert torch.equal(Lava().simulate(again, x), out)
    assert not (artefact.path / "network.net").exists()
    assert any("takes its own spikes" in note for note in artefact.notes)


def chain_of(parts, seed=0):
    return settle_weights(torch.nn.Sequential(parts), seed, -40, 60)


def behind_a_matrix(part):
    return torch.nn.Sequential(torch.nn.Linear(4, 4), part)


def test_a_loop_with_decays_is_near(tmp_path):
    """Both matrices have one scale of 8 bits; weights that are no multiples are rounded, and that is said."""
    neuron = nn.CubaLIF(c_decay=0.5, v_decay=0.75, v_threshold=1.5, backend="torch")
    parts = OrderedDict(first=torch.nn.Linear(4, 6, bias=False), rec=nn.LateralRecurrent(neuron, 6))
    net, x = chain_of(parts), spikes_in((4,), num_steps=24)
    assert_same_spikes(net, x, tmp_path / "net")
    with torch.no_grad():
        net.rec.lateral.weight.mul_(1.01)
    artefact, _, traced = deployed(net, x, tmp_path / "rounded")
    assert [record.outcome for record in artefact.mapping] == ["approximated"] * 3
    assert "decays are rounded towards zero" in artefact.mapping[1].reason
    right = record_spikes(net, x)[1]["rec.module"]
    assert float((traced["rec.module"] != right).float().mean()) < 0.05


@pytest.mark.parametrize(
    ("net", "shape", "word"),
    [
        (lambda: nn.LateralRecurrent(nn.IF(), 4), (4,), "Linear before it"),
        (
            lambda: torch.nn.Sequential(torch.nn.Linear(4, 4), nn.LinearRecurrent(nn.IF(), 4, 4)),
            (4,),
            "LateralRecurrent",
        ),
        (lambda: torch.nn.Sequential(torch.nn.Linear(4, 4), nn.LateralRecurrent(nn.Leaky(), 4)), (4,), "single neuron"),
        (
            lambda: torch.nn.Sequential(nn.Conv2d(1, 1, 1), nn.LateralRecurrent(nn.IF(), torch.nn.Conv2d(1, 1, 1))),
            (1, 3, 3),
            "Linear before it",
        ),
        (lambda: torch.nn.Sequential(nn.Conv1d(2, 3, 3), nn.IF()), (2, 8), r"[C, 1, L]"),
    ],
)
def test_other_loops_and_conv1d_are_refused_with_a_cure(net, shape, word):
    assert word in refusals(torch.nn.Sequential(net()).eval(), spikes_in(shape))[0].cure


def test_the_cure_for_conv1d(tmp_path):
    net = chain(nn.Conv2d(2, 3, (1, 3)), nn.IF(v_threshold=0.75, backend="torch"))
    assert_same_spikes(net, spikes_in((2, 1, 8)), tmp_path / "net")


def test_sums_beyond_24_bits_are_not_rounded(tmp_path):
    """float32 would make 2^24 + 1 an even number; a readout gives sums as they are."""
    layer = Layer("sums", -1, (1,), Synapses(np.array([[1.0, 3.0]])), np.zeros(1), None)
    (tmp_path / "net").mkdir()
    write_network(Network("fixed_pt", (2,), (layer,)), tmp_path / "net")
    x = torch.tensor([[[2.0**24, 7.0]]], dtype=torch.float64)
    assert Lava().simulate(Artefact(tmp_path / "net"), x).item() == 2**24 + 21


def test_sums_beyond_24_bits_wrap_as_integers_do(tmp_path):
    """Counts of hundreds, and decays that leave odd numbers behind."""
    rng = np.random.default_rng(0)
    population = Population(1000.0, 700.0, 90_000.0, np.zeros(1))
    weight = rng.integers(-128, 128, (16, 24)) * 2.0
    layer = Layer("only", -1, (16,), Synapses(weight), np.zeros(16), population)
    (tmp_path / "net").mkdir()
    write_network(Network("fixed_pt", (24,), (layer,)), tmp_path / "net")
    x = torch.from_numpy(rng.integers(0, 400, (60, 1, 24))).float()
    sums = (x.numpy().astype(np.int64) @ weight.T.astype(np.int64))[:, 0]
    assert np.abs(sums).max() > 2**18
    right = loihi(sums, 1000, 700, 90_000)[0]
    assert 0.02 < right.mean() < 0.98
    assert np.array_equal(Lava().trace(Artefact(tmp_path / "net"), x)["only"][:, 0].numpy(), right)


def test_counts_whose_sums_wrap_are_told():
    net = chain(torch.nn.Linear(4, 3, bias=False), nn.IF(v_threshold=900.0, backend="torch"))
    counts = 2000 * spikes_in((4,))
    assert "inputs of 2000 arrive at once" in planned(net, counts, "fixed_pt").notes[0]
    assert not planned(net, spikes_in((4,)), "fixed_pt").notes

"""ann2snn beside spikingjelly's converter, on the same net and data."""

import pytest
import torch
from torch import nn

pytest.importorskip("spikecore_ann2snn")
ann2snn = pytest.importorskip("spikingjelly.activation_based.ann2snn")

from spikecore_ann2snn import Ann2SNN  # noqa: E402
from spikecore_ann2snn.quantize import straight_through  # noqa: E402


def net():
    torch.manual_seed(0)
    made = nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Conv2d(6, 8, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32, 10),
        nn.ReLU(),
        nn.Linear(10, 3),
    )
    with torch.no_grad():
        made[1].running_mean.uniform_(-0.2, 0.2)
        made[1].running_var.uniform_(0.5, 1.5)
    return made.eval()


def theirs(recipe):
    from spikingjelly.activation_based import functional

    made = ann2snn.FXConverter(recipe).convert(net())

    def run(x, num_steps):
        functional.reset_net(made)
        with torch.no_grad():
            return torch.stack([made(x) for _ in range(num_steps)])

    return run


@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("Max", {"recipe": "max", "per": "layer"}),
        (0.6, {"recipe": "max", "per": "layer", "scale": 0.6}),
        ("99.9%", {"recipe": "percentile", "per": "layer"}),
    ],
)
def test_rate_coding(mode, options):
    """The same thresholds; the output of every step differs in few values, by a spike that rounding moves."""
    x = torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    labels = torch.zeros(64, dtype=torch.long)
    run = theirs(ann2snn.RateCodingRecipe([(x, labels)], mode=mode))
    ours, _ = Ann2SNN(v_init=0.0, fold=False, T=(8,), measure=0, **options).convert(net(), x[:1], [x])
    with torch.no_grad():
        out = ours(x.expand(32, *x.shape))
    right = run(x, 32)
    assert out.std() > 0.01
    if mode == "99.9%":  # ours is of a histogram
        assert float((out.mean(0) - right.mean(0)).abs().mean()) < 0.02 * float(right.mean(0).std())
    else:
        assert float(((out - right).abs() > 1e-4).double().mean()) < 0.01


def test_local_threshold_balancing():
    """One update for each batch, as theirs, from half a threshold. The first layer has their thresholds; later ones are
    found from the given net's activations here, and from those of the clipped layers before there."""
    x = torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    batches = [(part, torch.zeros(8, dtype=torch.long)) for part in x.split(8)]
    run = theirs(ann2snn.LocalThresholdBalancingRecipe(batches))
    ours, report = Ann2SNN(recipe="threshold_balancing", updates=1, fold=False, T=(8,), measure=0).convert(
        net(), x[:1], x.split(8)
    )
    made = ann2snn.FXConverter(ann2snn.LocalThresholdBalancingRecipe(batches)).convert(net())
    first = made.get_submodule("ltb_spiking_0.scaler1").scale.flatten()
    fires = first > 1e-5  # a silent channel has 1e-6 there, the layer's largest threshold here
    assert int(fires.sum()) == 4
    torch.testing.assert_close(torch.tensor(report.layers[2].threshold)[fires], first[fires])
    with torch.no_grad():
        out = ours(x.expand(32, *x.shape))
    right = run(x, 32)
    assert out.std() > 0.01
    assert float((out.mean(0) - right.mean(0)).abs().mean()) < 0.02 * float(right.mean(0).std())


def test_straight_through_functions():
    from spikingjelly.activation_based import quantize

    x = torch.randn(100, generator=torch.Generator().manual_seed(0))
    for ours, right in (
        (straight_through.round(x), quantize.round(x)),
        (straight_through.ceil(x), quantize.ceil(x)),
        (straight_through.floor(x), quantize.floor(x)),
        (straight_through.clamp(x, -0.5, 0.7), quantize.clamp(x, -0.5, 0.7)),
        (straight_through.step(x, 0.3), quantize.step_quantize(x, 0.3)),
        (straight_through.k_bit(x.sigmoid(), 3), quantize.k_bit_quantize(x.sigmoid(), 3)),
        (
            straight_through.affine_k_bit(x.sigmoid(), 3, 2.0, -1.0),
            quantize.affine_k_bit_quantize(x.sigmoid(), 3, torch.tensor(2.0), torch.tensor(-1.0)),
        ),
    ):
        torch.testing.assert_close(ours, right)

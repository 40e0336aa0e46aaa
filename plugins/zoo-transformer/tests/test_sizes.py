"""Parameters and MACs of every model, counted on the meta device, against published numbers.

The papers' millions of parameters hold biases that norms make useless, which we leave out: ours are at most 0.7 % less
or more. MACs follow from the shapes.
"""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from spikecore import create, nn
from spikecore.registry import registry

ENTRIES = registry().components("model")
OURS = sorted(entry.name for entry in ENTRIES if entry.target.startswith("spikecore_zoo_transformer."))
# millions of parameters, as the papers give them
PAPERS = {
    "spikformer_8_384": 16.81,
    "spikformer_6_512": 23.37,
    "spikformer_8_512": 29.68,
    "spikformer_10_512": 36.01,
    "spikformer_8_768": 66.34,
    "spikformer_2_384": 5.76,
    "spikformer_4_256": 4.15,
    "spikformer_4_384": 9.32,
    "spikformer_2_256": 2.57,
    "sdt_8_384": 16.81,
    "sdt_6_512": 23.37,
    "sdt_8_512": 29.68,
    "sdt_10_512": 36.01,
    "sdt_8_768": 66.34,
    "sdt_2_512": 10.28,
    "qkformer_10_384": 16.47,
    "qkformer_10_512": 29.08,
    "qkformer_10_768": 64.96,
    "qkformer_4_384": 6.74,
}
SPIKINGJELLY = {"spikformer_ti": 4_400_392, "spikformer_s": 13_244_824}


def count(name, input_shape, num_outputs):
    """Parameters, and MACs of one sample in one step."""
    with torch.device("meta"):
        net = create("model", name, lambda: nn.LIF(backend="torch"), input_shape, num_outputs).eval()
        nn.set_step_mode(net, "single")
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            net(torch.empty(1, *input_shape))
    return sum(parameter.numel() for parameter in net.parameters()), counter.get_total_flops() // 2


def test_the_tables_hold_every_model():
    assert sorted([*PAPERS, *SPIKINGJELLY]) == OURS


@pytest.mark.parametrize("name", OURS)
def test_parameters_and_macs(name):
    info = registry().load("model", name).info
    assert count(name, info.input_shape, info.num_outputs) == (info.parameters, info.macs)
    if name in SPIKINGJELLY:
        assert info.parameters == SPIKINGJELLY[name]
    else:
        assert info.parameters == pytest.approx(PAPERS[name] * 1e6, rel=0.007)


def test_spikformer_by_hand():
    """Spikformer-8-384 at 224²: 196 tokens of 12 heads of 32 channels."""
    dim, depth, tokens, width = 384, 8, 196, 32
    channels = (3, 48, 96, 192, 384)
    sides = (224, 112, 56, 28)
    stem = sum(9 * channels[i] * channels[i + 1] * sides[i] ** 2 for i in range(4))
    position = 9 * dim * dim * tokens
    linear = 12 * dim * dim * tokens * depth
    attention = 2 * tokens * width * dim * depth  # Q (Kᵀ V), the cheaper order
    assert registry().load("model", "spikformer_8_384").info.macs == (stem + position + linear + attention + dim * 1000)

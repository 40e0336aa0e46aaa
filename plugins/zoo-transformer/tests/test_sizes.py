"""Parameters and MACs of every model, counted on the meta device, against formulas and published numbers.

The formulas below follow from the papers' shapes and know nothing of the code. The papers' millions are those of nets
that have biases where a norm follows, which it makes useless and we leave out: in the projection of the attention (d)
and in both layers of the MLP (r d and d for a ratio r, mostly 4), 2 d + r d for each block of d channels. With them
ours are the papers', to one in the last digit that is printed (some were cut, some rounded: 8_384 and 10_512 of
Spikformer cannot both be either).
"""

import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from spikecore import create, nn
from spikecore.registry import registry

ENTRIES = registry().components("model")
OURS = sorted(entry.name for entry in ENTRIES if entry.target.startswith("spikecore_zoo_transformer."))
# millions of parameters in the papers, and of how many classes where it is not what `info` is for
PAPERS = {
    "spikformer_8_384": (16.81, None),
    "spikformer_6_512": (23.37, None),
    "spikformer_8_512": (29.68, None),
    "spikformer_10_512": (36.01, None),
    "spikformer_8_768": (66.34, None),
    "spikformer_2_384": (5.76, None),
    "spikformer_4_256": (4.15, None),
    "spikformer_4_384": (9.32, None),
    "spikformer_2_256": (2.57, None),
    "sdt_8_384": (16.81, None),
    "sdt_6_512": (23.37, None),
    "sdt_8_512": (29.68, None),
    "sdt_10_512": (36.01, None),
    "sdt_8_768": (66.34, None),
    "sdt_2_512": (10.28, 100),
    "sdt_2_256": (2.57, None),
    "qkformer_10_384": (16.47, None),
    "qkformer_10_512": (29.08, None),
    "qkformer_10_768": (64.96, None),
    "qkformer_4_384": (6.74, 100),
    "qkformer_2_256": (1.50, None),
}
SPIKINGJELLY = ("spikformer_ti", "spikformer_s")
"""Without published numbers: what its own nets have (`tests/peers/test_zoo_transformer.py` compares these)."""


def count(name, input_shape, num_outputs):
    """Parameters, and MACs of one sample in one step."""
    with torch.device("meta"):
        net = create("model", name, lambda: nn.LIF(backend="torch"), input_shape, num_outputs).eval()
        nn.set_step_mode(net, "single")
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            net(torch.empty(1, *input_shape))
    return sum(parameter.numel() for parameter in net.parameters()), counter.get_total_flops() // 2


def conv(size, channels, out, places):
    """Parameters of a convolution without bias and its norm, and MACs of the convolution."""
    weights = size * size * channels * out
    return weights + 2 * out, weights * places


def add(*pairs):
    return tuple(sum(values) for values in zip(*pairs, strict=True))


def block(dim, tokens, heads, num_projections, has_products, ratio=4):
    """Query, key, value and projection, or one fewer; the MLP; products of attention in the cheaper order."""
    layers = [conv(1, dim, dim, tokens)] * num_projections + [
        conv(1, dim, ratio * dim, tokens),
        conv(1, ratio * dim, dim, tokens),
    ]
    products = 2 * dim * tokens * min(tokens, dim // heads) if has_products else 0
    return add(*layers, (0, products))


def one_grid(name, config, shape, classes):
    """Spikformer and Spike-driven Transformer: four convolutions, one for the places, blocks on one grid."""
    dim = config.dim
    side, num_poolings = shape[1], int(math.log2(config.patch_size))
    channels, parts = shape[0], []
    for stage in range(4):
        out = dim >> (3 - stage)
        parts.append(conv(3, channels, out, side**2))
        side //= 2 if stage >= 4 - num_poolings else 1
        channels = out
    parts.append(conv(3, dim, dim, side**2))
    is_spikformer = name.startswith("spikformer")
    heads = config.heads if is_spikformer else 1
    parts += [block(dim, side**2, heads, 4, is_spikformer)] * config.depth
    return add(*parts, ((dim + 1) * classes, dim * classes))


def three_grids(name, config, shape, classes):
    """QKFormer: patches of two convolutions and a shortcut before each stage, of one in the first for small images."""
    is_small = config.first_patch == 1
    side, channels = shape[1], config.dim // 8
    parts = [conv(3, shape[0], channels, side**2)]
    side //= 1 if is_small else 2
    for stage, depth in enumerate(config.depths):
        dim = config.dim >> (2 - stage)
        pooled = side if is_small and stage == 0 else side // 2
        parts += [conv(3, channels, dim, side**2), conv(1, channels, dim, pooled**2)]
        if not is_small:
            parts.append(conv(3, dim, dim, pooled**2))
        elif stage:
            parts.append(conv(3, dim, dim, side**2))  # pooling comes behind it
        side, channels = pooled, dim
        parts += [block(dim, side**2, config.heads, 4 if stage == 2 else 3, stage == 2)] * depth
    return add(*parts, ((channels + 1) * classes, channels * classes))


def two_grids(config, shape, classes):
    """QKFormer for events: two convolutions, then two and a shortcut of stride 4; the second stage as ever."""
    dim, side = config.dim, shape[1]
    parts = [conv(3, shape[0], dim // 16, side**2), conv(3, dim // 16, dim // 8, side**2)]
    side //= 2  # the convolutions come before their poolings
    parts += [conv(3, dim // 8, dim // 4, side**2), conv(3, dim // 4, dim // 2, (side // 2) ** 2)]
    parts.append(conv(1, dim // 8, dim // 2, (side // 4) ** 2))
    side //= 4
    parts += [block(dim // 2, side**2, config.heads, 3, False, config.mlp_ratio)] * config.depths[0]
    parts += [conv(3, dim // 2, dim, side**2), conv(3, dim, dim, side**2), conv(1, dim // 2, dim, (side // 2) ** 2)]
    side //= 2
    parts += [block(dim, side**2, config.heads, 4, True, config.mlp_ratio)] * config.depths[1]
    return add(*parts, ((dim + 1) * classes, dim * classes))


def formula_of(name, config, shape, classes):
    """`(parameters, macs)` of a model by name."""
    if name == "qkformer_2_256":
        return two_grids(config, shape, classes)
    return (three_grids if name.startswith("qkformer") else one_grid)(name, config, shape, classes)


def channels_of_stages(name, config):
    """`(channels, number of blocks)` of every stage."""
    if not name.startswith("qkformer"):
        return [(config.dim, config.depth)]
    last = len(config.depths) - 1
    return [(config.dim >> (last - stage), depth) for stage, depth in enumerate(config.depths)]


def test_the_tables_hold_every_model():
    assert sorted([*PAPERS, *SPIKINGJELLY]) == OURS


@pytest.mark.parametrize("name", OURS)
def test_parameters_and_macs(name):
    """What the code has, what `spike info` shows and the formula are equal; the paper's millions follow."""
    cls = registry().load("model", name)
    info, config = cls.info, cls.Config()
    expected = formula_of(name, config, info.input_shape, info.num_outputs)
    assert (info.parameters, info.macs) == expected
    assert count(name, info.input_shape, info.num_outputs) == expected
    if name in SPIKINGJELLY:
        return
    millions, classes = PAPERS[name]
    parameters, _ = formula_of(name, config, info.input_shape, classes or info.num_outputs)
    biases = sum((2 + config.mlp_ratio) * dim * depth for dim, depth in channels_of_stages(name, config))
    assert abs(parameters + biases - millions * 1e6) < 0.01e6

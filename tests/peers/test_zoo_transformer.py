"""Spikformer against spikingjelly's, with weights copied through the key map."""

import pytest
import torch

from spikecore import nn
from tests.peers.compare import require
from tests.peers.zoo import assert_equal_nets, settle_quickly, their_models

zoo = pytest.importorskip("spikecore_zoo_transformer")
sj_neuron = require("spikingjelly.activation_based.neuron")
sj_surrogate = require("spikingjelly.activation_based.surrogate")
spikformer = their_models("spikformer")

T, B, CLASSES = 4, 3, 7
THRESHOLD = 0.3


def lif(v_threshold=THRESHOLD):
    return nn.LIF(tau=1.5, v_threshold=v_threshold, detach_reset=True, surrogate=nn.Sigmoid(alpha=3.0), backend="torch")


@pytest.mark.parametrize(("image_size", "has_half_threshold"), [(32, False), (64, True), (64, False), (112, True)])
def test_spikformer(image_size, has_half_threshold):
    """With 4, 16 and 49 tokens of heads of 16 channels, so in both orders of the products.

    Theirs halves the threshold of the attention. Ours doubles what that neuron takes, which gives the same spikes;
    with a neuron of half the threshold, as here too, the gradients are equal as well.
    """
    torch.manual_seed(0)
    options = {"depth": 2, "dim": 64, "heads": 4, "pool_first": True}
    scale = 0.125 if has_half_threshold else 0.25
    ours = zoo.spikformer.Spikformer(lif, (3, image_size, image_size), CLASSES, **options, attention_scale=scale)
    theirs = spikformer.Spikformer(
        T=T,
        img_size_h=image_size,
        img_size_w=image_size,
        num_classes=CLASSES,
        embed_dims=64,
        num_heads=4,
        depths=2,
        detach_reset=True,
    )
    for name, part in theirs.named_modules():
        if isinstance(part, sj_neuron.LIFNode):
            part.v_threshold = THRESHOLD / 2 if name.endswith("attn_lif") else THRESHOLD
            part.tau = 1.5  # their attention does not take the net's option
            part.surrogate_function = sj_surrogate.Sigmoid(alpha=3.0)
    for value in theirs.state_dict().values():
        if value.dim() == 1:
            value.add_(torch.rand_like(value) * 0.4)
    settle_quickly(ours, theirs)
    ours.load_state_dict(ours.import_weights("spikingjelly", theirs.state_dict()))
    if has_half_threshold:
        for block in ours.blocks:
            block.attention.neuron = lif(THRESHOLD / 2)
    x = torch.rand(T, B, 3, image_size, image_size, generator=torch.Generator().manual_seed(1)) * 2
    assert_equal_nets(ours, theirs, x, (sj_neuron.LIFNode,), gradients=has_half_threshold)

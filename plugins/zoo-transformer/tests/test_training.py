"""A few steps of training lower the loss on handwritten digits, for each family."""

import pytest
import torch

from spikecore import create, nn

NUM_STEPS, NUM_UPDATES = 4, 30
FALL = 0.7
FAMILIES = {
    "spikformer_4_384": (8, {"depth": 1, "dim": 32, "heads": 2, "patch_size": 2}),
    "sdt_2_512": (8, {"depth": 1, "dim": 32, "patch_size": 2}),
    "qkformer_4_384": (8, {"depths": (1, 1, 1), "dim": 32, "heads": 2}),
    "qkformer_2_256": (32, {"dim": 32, "heads": 2}),
}


def batch(size):
    """The first 64 training images `[T, B, 1, size, size]`, each pixel repeated, and their labels."""
    split = create("dataset", "digits").split("train")
    samples = [split[index] for index in range(64)]
    images = torch.stack([image for image, _ in samples])
    images = images.repeat_interleave(size // 8, -1).repeat_interleave(size // 8, -2)
    return images.expand(NUM_STEPS, *images.shape), torch.tensor([int(label) for _, label in samples])


@pytest.mark.parametrize("name", FAMILIES)
def test_the_loss_falls(name):
    size, options = FAMILIES[name]
    torch.manual_seed(0)
    net = create(
        "model", name, lambda: nn.LIF(tau=1.5, v_threshold=0.5, backend="torch"), (1, size, size), 10, **options
    )
    x, labels = batch(size)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    losses = []
    for _ in range(NUM_UPDATES):
        loss = torch.nn.functional.cross_entropy(net(x).mean(0), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < FALL * losses[0], f"{losses[0]} to {losses[-1]}"

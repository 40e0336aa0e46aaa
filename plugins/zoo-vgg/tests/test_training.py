"""A few steps of training lower the loss on handwritten digits, for each family."""

import pytest
import torch

from spikecore import create, nn

NUM_STEPS, NUM_UPDATES = 4, 30
FALL = 0.7
FAMILIES = {
    "spiking_vgg11_bn": (32, {"width": 4, "grid": 1, "hidden": 32, "dropout": 0.0}),
    "vgg_cifar10_dvs": (16, {"width": 4}),
    "ottt_spiking_vggws": (8, {"width": 4, "gain": 4.0}),
    "plif_mnist": (8, {"channels": 16, "hidden": 64, "dropout": 0.0}),
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
        loss = torch.nn.functional.cross_entropy(net(x).sum(0), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < FALL * losses[0], f"{losses[0]} to {losses[-1]}"

# python examples/train_digits.py
"""A spiking net in plain PyTorch: your own loop, an optimizer of torch, neurons of spikecore."""

import torch

from spikecore import create, nn

torch.manual_seed(0)
digits = create("dataset", "digits")
train, test = digits.split("train"), digits.split("test")

# Plain torch layers take any leading axes where they can; layers of spikecore.nn fold time, [T, B, ...] → [T * B, ...].
net = nn.Sequential(
    nn.Conv2d(1, 16, 3, padding=1, bias=False),
    nn.BatchNorm2d(16),
    nn.LIF(tau=2.0),
    nn.AvgPool2d(2),
    nn.Flatten(),
    nn.Linear(16 * 4 * 4, 10),
)
optimizer = torch.optim.AdamW(net.parameters(), lr=0.01)
encoder = create("encoder", "poisson", num_steps=4)


def logits(images: torch.Tensor) -> torch.Tensor:
    """Mean over time of the output currents, `[B, 1, 8, 8]` → `[B, 10]`."""
    return net(encoder(images)).mean(0)


for epoch in range(10):
    net.train()
    for batch in torch.randperm(len(train)).split(64):
        loss = torch.nn.functional.cross_entropy(logits(train.images[batch]), train.labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    net.eval()
    with torch.no_grad():
        accuracy = (logits(test.images).argmax(1) == test.labels).float().mean()
    print(f"epoch {epoch + 1:2d}  loss {loss.item():.3f}  test accuracy {accuracy.item():.1%}")

assert accuracy > 0.9

# python examples/lightning_digits.py
"""A net of spikecore trained by Lightning: it is a torch module, and keeps no state between calls.

Needs Lightning: pip install lightning.
"""

import lightning
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from spikecore import create, nn


class Digits(lightning.LightningModule):
    """Direct encoding, two layers of LIF neurons, mean over time of the output currents."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Direct(num_steps=4)
        self.net = nn.Sequential(
            torch.nn.Flatten(2), nn.Linear(64, 128), nn.LIF(tau=1.5), nn.Linear(128, 64), nn.LIF(), nn.Linear(64, 10)
        )
        self.right, self.seen = 0, 0

    def forward(self, images: Tensor) -> Tensor:
        """`[B, 1, 8, 8]` → scores `[B, 10]`."""
        scores: Tensor = self.net(self.encoder(images)).mean(0)
        return scores

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        """The loss of a batch."""
        images, labels = batch
        return torch.nn.functional.cross_entropy(self(images), labels)

    def test_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        """Count right answers."""
        images, labels = batch
        self.right += int((self(images).argmax(1) == labels).sum())
        self.seen += len(labels)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """As for any module."""
        return torch.optim.AdamW(self.parameters(), lr=0.005)


def loader(name: str) -> DataLoader:
    """Batches of a split."""
    split = create("dataset", "digits").split(name)
    return DataLoader(TensorDataset(split.images, split.labels), batch_size=64, shuffle=name == "train")


lightning.seed_everything(0, verbose=False)
model = Digits()
trainer = lightning.Trainer(
    max_epochs=8, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False
)
trainer.fit(model, loader("train"))
trainer.test(model, loader("test"), verbose=False)
print(f"test accuracy {model.right / model.seen:.1%}")

assert model.right / model.seen > 0.9

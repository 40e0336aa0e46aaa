"""UCI handwritten digits, shipped with the package: 1797 images of 8×8, values 0 to 16.

Attribution: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository,
1998, https://doi.org/10.24432/C50P49, licence CC BY 4.0 (the test half of the original data, as distributed widely).
"""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from spikecore.errors import DatasetError, OptionError
from spikecore.interfaces.component import Configurable, Range, make_config
from spikecore.interfaces.dataset import DatasetCapabilities, DatasetInfo

FILE = "digits.csv.gz"
SHA256 = "09f66e6debdee2cd2b5ae59e0d6abbb73fc2b0e0185d2e1957e9ebb51e23aa22"


class Digits(Configurable):
    """Images `[1, 8, 8]`, float32 in 0 .. 1; a stratified, seeded split."""

    api_version: ClassVar[int] = 2
    capabilities: ClassVar[DatasetCapabilities] = DatasetCapabilities(embedded=True)
    info: ClassVar[DatasetInfo] = DatasetInfo(
        title="Optical Recognition of Handwritten Digits (UCI)",
        classes=tuple("0123456789"),
        sample_shape=(1, 8, 8),
        licence="CC BY 4.0",
        citation="E. Alpaydin and C. Kaynak, UCI Machine Learning Repository, 1998, https://doi.org/10.24432/C50P49",
        homepage="https://archive.ics.uci.edu/dataset/80",
        notes="The file does not say who wrote which digit, so one writer's digits are in both splits: accuracy is "
        "higher than on unseen writers, and no figure here compares with one on the original split.",
    )
    num_outputs: ClassVar[int] = 10
    sample_shape: ClassVar[tuple[int, ...]] = (1, 8, 8)
    is_sequence: ClassVar[bool] = False
    splits: ClassVar[tuple[str, ...]] = ("train", "test")

    @dataclass(frozen=True)
    class Config:
        """
        Args:
            test_share: share of each class that goes to the test split.
            split_seed: which samples these are.
        """

        test_share: Annotated[float, Range(gt=0.0, lt=1.0)] = 0.2
        split_seed: Annotated[int, Range(ge=0)] = 0

    def __init__(self, **options: Any) -> None:
        self.config = make_config(type(self), options)

    def split(self, name: str) -> _Split:
        """The samples of `train` or `test`."""
        if name not in self.splits:
            raise OptionError(f"digits has the splits {', '.join(self.splits)}; got {name!r}")
        images, labels = _read()
        generator = np.random.default_rng(self.config.split_seed)
        chosen: list[int] = []
        for label in range(self.num_outputs):
            own = generator.permutation(np.flatnonzero(labels.numpy() == label))
            cut = round(len(own) * self.config.test_share)
            chosen += own[:cut].tolist() if name == "test" else own[cut:].tolist()
        index = torch.tensor(sorted(chosen))
        return _Split(images[index], labels[index])


@dataclass(frozen=True)
class _Split:
    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        # A copy: a transform that works in place must not change what the next epoch reads.
        return self.images[index].clone(), int(self.labels[index])


@cache
def _read() -> tuple[Tensor, Tensor]:
    raw = files("spikecore.datasets").joinpath(FILE).read_bytes()
    if hashlib.sha256(raw).hexdigest() != SHA256:
        raise DatasetError(f"{FILE} in the installed package is damaged: reinstall spikecore")
    table = np.loadtxt(gzip.decompress(raw).decode().splitlines(), delimiter=",")
    images = torch.from_numpy(table[:, :-1] / 16).float().view(-1, 1, 8, 8)
    return images, torch.from_numpy(table[:, -1]).long()

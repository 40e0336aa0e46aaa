"""What `transforms` and `augment` of a dataset may name."""

from spikecore.datasets import CutMix, Mixup
from spikecore_datasets_vision.colour import ColourJitter
from spikecore_datasets_vision.rand_augment import RandAugment
from spikecore_datasets_vision.torchvision_bridge import Torchvision
from spikecore_datasets_vision.transforms import (
    Crop,
    Pad,
    RandomCrop,
    RandomErasing,
    RandomFlip,
    RandomResizedCrop,
    Resize,
)

TRANSFORMS: dict[str, type] = {kind.name: kind for kind in (Resize, Pad, Crop)}
AUGMENTS: dict[str, type] = {
    kind.name: kind
    for kind in (
        RandomCrop,
        RandomResizedCrop,
        RandomFlip,
        ColourJitter,
        RandAugment,
        RandomErasing,
        Torchvision,
        Mixup,
        CutMix,
    )
}

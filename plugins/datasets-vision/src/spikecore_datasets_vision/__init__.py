"""Images for spikecore: well-known datasets, folders of images, transforms."""

from spikecore_datasets_vision.dataset import ImageDataset, Images, Stored
from spikecore_datasets_vision.idx import read_idx

__all__ = ["ImageDataset", "Images", "Stored", "read_idx"]

"""Dataset: named splits of samples `(x, label)`.

x       static `[C, H, W]`, or a sequence `[T, C, H, W]` when `is_sequence`; a tensor, float32 or uint8
label   int in 0 .. num_classes - 1
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class DatasetCapabilities:
    """What a dataset promises.

    Args:
        embedded: needs no download.
        variable_length: sequences differ in T; `collate` pads them and gives a mask.
    """

    embedded: bool = False
    variable_length: bool = False


@dataclass(frozen=True)
class DataFile:
    """A file that the authors of a dataset give out.

    Args:
        name: its file name.
        urls: where it can be had, best first; none where a person has to fetch it.
        size: bytes.
        md5, sha256: digests in hex, as the authors or other users of the data record them; "" where nobody states one.
    """

    name: str
    urls: tuple[str, ...] = ()
    size: int | None = None
    md5: str = ""
    sha256: str = ""


@dataclass(frozen=True)
class DatasetInfo:
    """What a user should know before using the data; shown by `spike info dataset NAME`.

    Args:
        title: full name.
        classes: class names, in label order.
        sample_shape: shape of one x; None for an axis that varies.
        licence: licence of the data.
        citation: how to cite it.
        homepage: where it comes from.
        notes: limits, known defects.
        sensor_size: `(H, W)` of the sensor, for event data; `(1, W)` for a cochlea.
        num_samples: split → number of samples, as published.
        files: what is downloaded, with the digests it is checked against.
        manual: where to get the files and where to put them, where a download needs a person.
        unverified: what of all this nobody has held against the source.
    """

    title: str
    classes: tuple[str, ...]
    sample_shape: tuple[int | None, ...]
    licence: str
    citation: str
    homepage: str = ""
    notes: str = ""
    sensor_size: tuple[int, int] | None = None
    num_samples: tuple[tuple[str, int], ...] = ()
    files: tuple[DataFile, ...] = ()
    manual: str = ""
    unverified: tuple[str, ...] = ()


class Batch(NamedTuple):
    """Samples put together.

    Args:
        x: `[B, ...]` for static samples, `[T, B, ...]` for sequences.
        label: `[B]`, int64; or shares of the classes `[B, num_classes]`, which cross entropy takes as well.
        mask: bool `[T, B]`, True where a step belongs to its sample; None where all do. Losses and readouts leave other
            steps out; a layer that looks over the batch (batch normalisation) sees them.
    """

    x: Tensor
    label: Tensor
    mask: Tensor | None = None


@runtime_checkable
class Split(Protocol):
    """One split: a map-style torch dataset; the same index gives the same sample, and it pickles to workers.

    Five more members are optional. `collate(samples, generator) -> Batch` puts samples together where stacking does not
    do: lengths that differ, or samples that are mixed; it draws from the generator, or not at all where that is None.
    `set_epoch(epoch)` makes the augmentation of that epoch the one that indexing gives, also in workers that a
    DataLoader started before and keeps. `__getitems__(indices)` gives a list of samples, the same as one by one, where
    reading them at once is faster; a DataLoader asks for it too. `batches(batch_size, generator)` gives a list with the
    indices of each batch of an epoch, all of them once, where random ones do not do. `unnormalised(x)` undoes the
    normalisation of a sample's values, for pictures.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[Tensor, int]: ...


@runtime_checkable
class Dataset(Protocol):
    """What callers rely on. Constructing one touches no file beyond what `info` needs."""

    api_version: ClassVar[int]
    Config: ClassVar[type]
    capabilities: ClassVar[DatasetCapabilities]
    config: Any

    @property
    def info(self) -> DatasetInfo: ...

    @property
    def num_classes(self) -> int: ...

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of one step of one sample, without T: `[C, H, W]`."""

    @property
    def is_sequence(self) -> bool:
        """True when x has a leading time axis."""

    @property
    def splits(self) -> tuple[str, ...]:
        """`("train", "test")` at least; disjoint, and the same for the same Config."""

    def split(self, name: str) -> Split:
        """The named split; prepares (downloads, verifies, converts) on first use."""

"""Dataset: named splits of samples `(x, label)`.

x       static `[C, H, W]`, a tensor of float32 or uint8, which encoders read as value / 255; or a sequence
        `[T, C, H, W]` when `is_sequence`, of float32. Without T all have the shape `sample_shape`.
label   what `capabilities.target` says:

target      label of a sample                                     of a batch
class       int in 0 .. num_outputs - 1                           int64 [B]
value       float tensor [num_outputs, ...]                       [B, num_outputs, ...]
sequence    float tensor [T, num_outputs, ...], or int64 [T],     [T, B, num_outputs, ...], or [T, B]
            a class in 0 .. num_outputs - 1 for each step
items       tensor [N, ...], N items of its own (boxes)           a list of B tensors, never stacked
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

from spikecore.errors import ContractError

if TYPE_CHECKING:
    from torch import Tensor

TargetKind = Literal["class", "value", "sequence", "items"]


@dataclass(frozen=True)
class DatasetCapabilities:
    """What a dataset promises.

    Args:
        embedded: needs no download.
        variable_length: sequences differ in T; `collate` pads them and gives a mask.
        target: what a label is; see the table above.
        same_samples: options that leave the same samples in each split, and only change how these are read
            (`transforms`, `cache`, a directory whose files are verified). `spike eval --set` may change them without
            being asked whether samples that were trained on may come into the test split.
    """

    embedded: bool = False
    variable_length: bool = False
    target: TargetKind = "class"
    same_samples: tuple[str, ...] = ()


@dataclass(frozen=True)
class DataFile:
    """A file that the authors of a dataset publish.

    Args:
        name: its file name.
        urls: where to download it, best first; none if it must be downloaded manually.
        size: bytes.
        md5, sha256: digests in hex, as the authors or other users of the data record them; "" if none is published.
        unpacked_bytes: what it unpacks to at most, where that is published or follows from its format; None for the
            limit of `spikecore.datasets.Limits`.
    """

    name: str
    urls: tuple[str, ...] = ()
    size: int | None = None
    md5: str = ""
    sha256: str = ""
    unpacked_bytes: int | None = None


@dataclass(frozen=True)
class DatasetInfo:
    """What a user should know before using the data; shown by `spike info dataset NAME`.

    Args:
        title: full name.
        classes: names of the classes, in label order; of values, their names (`("x", "y")`), or none.
        sample_shape: shape of one x; None for an axis that varies.
        licence: licence of the data.
        citation: how to cite it.
        homepage: where it comes from.
        notes: limits, known defects.
        sensor_size: `(H, W)` of the sensor, for event data; `(1, W)` for a cochlea.
        num_samples: split → number of samples, as published.
        files: what is downloaded, with the digests it is checked against.
        manual: where to get the files and where to put them, if they must be downloaded manually.
        unverified: which of these facts have not been checked against the source.
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


@dataclass(frozen=True)
class Target:
    """What the labels of some samples are.

    Args:
        kind: see the table above.
        num_outputs: the number of classes or of values.
    """

    kind: TargetKind
    num_outputs: int


class Batch(NamedTuple):
    """Samples put together.

    Args:
        x: `[B, ...]` for static samples, `[T, B, ...]` for sequences.
        label: see the table above. Of classes also shares `[B, num_outputs]`, which cross entropy takes as well.
        mask: bool `[T, B]`, True where a step belongs to its sample; None where all do. Losses and readouts leave other
            steps out; a layer that looks over the batch (batch normalisation) sees them.
    """

    x: Tensor
    label: Tensor | list[Tensor]
    mask: Tensor | None = None

    @property
    def stacked(self) -> Tensor:
        """The labels as one tensor.

        Raises:
            ContractError: they are items, which are not stacked.
        """
        if isinstance(self.label, list):
            raise ContractError("the labels of this batch are items, a list of tensors: read batch.label one by one")
        return self.label


@runtime_checkable
class Split(Protocol):
    """One split: a map-style torch dataset; the same index gives the same sample, and it pickles to workers.

    More members are optional.

    * `labels`: the labels of all samples, int64 `[N]`, known without reading a sample; of classes only.
    * `collate(samples, generator) -> Batch` puts samples together where stacking does not do: lengths that differ, or
      samples that are mixed; it draws from the generator, or not at all where that is None.
    * `set_epoch(epoch)` makes the augmentation of that epoch the one that indexing gives, also in workers that a
      DataLoader started before and keeps.
    * `unaugmented() -> Split`: the same samples, in the same order, as they are where a net is evaluated: without
      augmentation and mixing. A split that augments has it.
    * `__getitems__(indices)` gives a list of samples, the same as one by one, where reading them at once is faster; a
      DataLoader asks for it too.
    * `batches(batch_size, generator, indices=None)` gives a list with the indices of each batch of an epoch, where
      random ones do not do: each of `indices` once, or each sample where that is None.
    * `unnormalised(x)` undoes the normalisation of a sample's values, for pictures.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[Tensor, int | Tensor]: ...


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
    def num_outputs(self) -> int:
        """How many outputs a net needs: the number of classes; of values, their number; 1 or more."""

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of one step of one sample, without T: `[C, H, W]`."""

    @property
    def is_sequence(self) -> bool:
        """True when x has a leading time axis."""

    @property
    def splits(self) -> tuple[str, ...]:
        """`("train", "test")` at least, `val` where the authors give one; disjoint, the same for the same Config."""

    def split(self, name: str) -> Split:
        """The named split; prepares (downloads, verifies, converts) on first use.

        A dry run calls it too, inside `spikecore.datasets.offline`: `spikecore.datasets.fetch` downloads nothing then.
        A dataset that downloads by other means asks `spikecore.datasets.is_offline()` before it does.

        Raises:
            NotDownloadedError: files are missing, inside `offline`; nothing was fetched.
        """

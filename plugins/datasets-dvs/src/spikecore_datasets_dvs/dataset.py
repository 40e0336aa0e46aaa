"""The base of every event dataset: recordings → transforms → representation → cache → samples `[T, C, H, W]`.

A dataset says where its recordings are and how one is read; everything else is here.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from spikecore.datasets import Epoch, data_dir, mix_batch, subset
from spikecore.errors import DatasetError, OptionError
from spikecore.interfaces import (
    Batch,
    Configurable,
    DatasetCapabilities,
    DatasetInfo,
    OneOf,
    Range,
    TargetKind,
    make_config,
)
from spikecore_datasets_dvs.broken import Skipped, readable
from spikecore_datasets_dvs.cache import FrameCache, build
from spikecore_datasets_dvs.collate import BucketSampler, Sample, pad_collate
from spikecore_datasets_dvs.events import Events
from spikecore_datasets_dvs.representations import Frames, Representation, Sensor
from spikecore_datasets_dvs.transforms import EventCutMix, Transform, apply

REPRESENTATION = OneOf("event_representation", Representation, hint="wrap a function of your own: Custom(function)")
"""For the option `representation`."""
CACHE_VERSION = 5
"""Raised when a formula or a reader changes, so that no old result is taken for a new one."""


@dataclass(frozen=True)
class Recording:
    """Where the events of one sample are.

    Args:
        path: of its file, relative to the dataset's directory.
        label: class.
        subject: who was recorded, where that is known.
        start_us, stop_us: the part of the file; a `stop_us` of -1 means all of it.
        item: number within the file, where it holds several.
        first_event, stop_event: the part of these events, by number; a `stop_event` of -1 means all of them.
    """

    path: str
    label: int
    subject: str = ""
    start_us: int = 0
    stop_us: int = -1
    item: int = -1
    first_event: int = 0
    stop_event: int = -1


class EventDataset(Configurable):
    """Base of event datasets; subclasses give `info`, `prepare`, `recordings` and `read`."""

    api_version: ClassVar[int] = 2
    capabilities: ClassVar[DatasetCapabilities] = DatasetCapabilities(
        same_samples=("representation", "transforms", "augment", "cache", "bucket", "num_workers")
    )
    info: ClassVar[DatasetInfo]
    name: ClassVar[str]
    """The registered name; also that of its directory."""
    splits: ClassVar[tuple[str, ...]] = ("train", "test")
    is_sequence: ClassVar[bool] = True

    @dataclass(frozen=True)
    class Config:
        """
        Args:
            root: directory of the files; "" is `$SPIKECORE_DATA` (or the cache directory) with the dataset's name.
            representation: what a recording becomes: `frames`, `fixed_duration`, `binary`, `voxel_grid`,
                `time_surface`, `units`, `windows`, `bina_rep`, `averaged_time_surface`.
            transforms: the same for every sample: `crop`, `downsample`, `flip`, `denoise`, `refractory`, `crop_time`,
                `time_skew`, `hot_pixels`, `drop_pixels`, `decimate`, `merge_polarities`, `integrate`, `differentiate`.
            augment: random, for the training split: `random_crop`, `random_flip`, `drop_events`, `spatial_jitter`,
                `time_jitter`, `uniform_noise`, `random_temporal_delete`, `event_cutmix`.
            cache: keep integrated samples on the disk; false integrates on the fly, as does a representation of your
                own without a version.
            bucket: batches of the training split hold recordings of similar length, sorted within pools of so many
                batches; 0 leaves them to chance. Without a cache every recording is read once for it.
            num_workers: processes that fill the cache; 0 uses this one.
            broken: what to do with recordings that cannot be read: an `error`, or `skip` them; `split.skipped` lists
                them with the reasons. Every recording is then read once more before the first use.
            share: part of each class that is used.
            seed: of the split, of the choice of that part, and of the augmentation.
        """

        root: str = ""
        representation: Annotated[Any, REPRESENTATION] = Frames()  # noqa: RUF009
        transforms: Annotated[tuple[Any, ...], OneOf("event_transform")] = ()
        augment: Annotated[tuple[Any, ...], OneOf("event_augment")] = ()
        cache: bool = True
        bucket: Annotated[int, Range(ge=0, le=100_000)] = 0
        num_workers: Annotated[int, Range(ge=0, le=256)] = 0
        broken: Literal["error", "skip"] = "error"
        share: Annotated[float, Range(gt=0.0, le=1.0)] = 1.0
        seed: Annotated[int, Range(ge=0, lt=2**32)] = 0

    def __init__(self, **options: Any) -> None:
        self.config = make_config(type(self), options)
        self._check()
        if self.config.representation.is_variable:
            self.capabilities = dataclasses.replace(self.capabilities, variable_length=True)  # type: ignore[misc]

    def _check(self) -> None:
        self.sample_shape  # noqa: B018  a crop larger than the sensor shows here

    @classmethod
    def idle_options(cls, config: Any) -> Iterable[tuple[str, str]]:
        """Processes fill a cache, and there may be none."""
        if not config.cache:
            yield "num_workers", "with cache = false there is no cache to fill"

    @property
    def num_outputs(self) -> int:
        """Number of labels."""
        return len(self.info.classes)

    @property
    def sensor_size(self) -> Sensor:
        """`(H, W)` of the recordings as they are read."""
        assert self.info.sensor_size is not None
        return self.info.sensor_size

    @property
    def frame_size(self) -> Sensor:
        """`(H, W)` behind the transforms."""
        test = self._size_behind(self.config.transforms, self.sensor_size)
        train = self._size_behind(self.config.augment, test)
        if train != test:
            raise OptionError(
                f"{self.name}: recordings of the training split are {train} behind 'augment', those of the test split "
                f"{test}: name the size in 'transforms', with a crop; 'augment' may move the picture, as in "
                '{name="random_crop", padding=4}'
            )
        return test

    def _size_behind(self, transforms: Sequence[Transform], size: Sensor) -> Sensor:
        for transform in transforms:
            size = transform.size(size)
        return size

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of one step of one sample."""
        shape: tuple[int, ...] = self.config.representation.step_shape(self.frame_size)
        return shape

    @property
    def directory(self) -> Path:
        """Where its files are, or go."""
        return Path(self.config.root).expanduser() if self.config.root else data_dir() / self.name

    def prepare(self) -> Path:
        """Bring the recordings to the disk; returns the directory that `recordings` and `read` take."""
        return self.directory

    def recordings(self, directory: Path) -> dict[str, list[Recording]]:
        """All recordings, by split; the same order every time."""
        raise NotImplementedError

    def read(self, directory: Path, recording: Recording) -> Events:
        """The events of one recording."""
        raise NotImplementedError

    def integrate(self, directory: Path, recording: Recording) -> np.ndarray:
        """What the cache keeps of a recording: `[T, *shape]`, before any augmentation."""
        events, size = self.transformed(directory, recording)
        frames: np.ndarray = self.config.representation(events, size)
        return frames

    def transformed(self, directory: Path, recording: Recording) -> tuple[Events, Sensor]:
        """The events of a recording behind `transforms`, and their `(H, W)`."""
        events, size, rng = self.read(directory, recording), self.sensor_size, np.random.default_rng(0)
        for transform in self.config.transforms:  # here, so that no caller holds on to what came before
            events, size = transform(events, size, rng), transform.size(size)
        return events, size

    def identity(self, directory: Path, path: str) -> bytes:
        """Changes when the file does; part of the cache's key."""
        try:
            status = (directory / path).stat()
        except OSError as error:
            raise DatasetError(f"{directory / path}: is missing; it was there when the dataset was listed") from error
        return f"{status.st_size} {status.st_mtime_ns}".encode()

    def reading_options(self) -> Any:
        """What else decides what `read` gives, as JSON data; part of the cache's key."""
        return None

    def split(self, name: str) -> EventSplit:
        """The named split; prepares the files and the cache on first use."""
        if name not in self.splits:
            raise OptionError(f"{self.name} has the splits {', '.join(self.splits)}; got {name!r}")
        directory = self.prepare()
        chosen = self.recordings(directory)[name]
        if self.config.share < 1:
            chosen = subset(chosen, self.config.share, self.config.seed)
        skipped: list[Skipped] = []
        if self.config.broken == "skip":
            chosen, skipped = readable(self, directory, chosen, name)
        if not chosen:
            raise DatasetError(f"{directory}: holds no recordings for the split {name!r} of {self.name}")
        split = EventSplit(self, name, directory, chosen, is_augmented=name == "train")
        split.skipped = skipped
        return split

    def label(self, directory: Path, recording: Recording) -> int | Tensor:
        """The label of a recording: its class, or what `capabilities.target` says."""
        return recording.label


class EventSplit:
    """Samples `(x, label)`: x float32 `[T, *sample_shape]`.

    Args:
        dataset: it reads the recordings.
        name: of the split.
        directory: of the files.
        recordings: the samples, in order.
        is_augmented: by `augment`.
    """

    def __init__(
        self,
        dataset: EventDataset,
        name: str,
        directory: Path,
        recordings: Sequence[Recording],
        is_augmented: bool = False,
    ) -> None:
        self.dataset, self.name, self.directory, self.recordings = dataset, name, directory, recordings
        config = dataset.config
        self.skipped: list[Skipped] = []
        self.augment = config.augment if is_augmented else ()
        self._epoch = Epoch()
        self.mix = next((item for item in self.augment if isinstance(item, EventCutMix)), None)
        # What is drawn anew before the integration cannot be kept, nor what may change without a sign.
        is_certain = config.representation.key is not None
        is_cached = config.cache and is_certain and all(item.level != "events" for item in self.augment)
        self.cache: FrameCache | None = self._cache() if is_cached else None
        target = dataset.capabilities.target
        self.collate = partial(_collate, mix=self.mix, num_classes=dataset.num_outputs, target=target)
        if config.bucket and name == "train":
            self.batches = self._batches

    def __len__(self) -> int:
        return len(self.recordings)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        index %= len(self)
        rng = self._rng(index)
        frames = self.cache[index] if self.cache is not None else self._augmented(index, rng)
        for item in self.augment:
            if item.level == "frames":
                frames = item(frames, rng)
        label = self.dataset.label(self.directory, self.recordings[index])
        return Sample.of(torch.from_numpy(np.array(frames, dtype=np.float32)), label)

    @cached_property
    def labels(self) -> Tensor:
        """All classes, without reading a sample."""
        if self.dataset.capabilities.target != "class":
            raise AttributeError(f"{self.dataset.name} has no classes but {self.dataset.capabilities.target}")
        return torch.tensor([recording.label for recording in self.recordings])

    def num_steps(self, index: int) -> int:
        """T of a sample; without reading it where it is cached."""
        return self.cache.num_steps(index) if self.cache is not None else len(self[index][0])

    def _batches(
        self, batch_size: int, generator: torch.Generator, indices: Sequence[int] | None = None
    ) -> list[list[int]]:
        chosen = range(len(self)) if indices is None else indices
        lengths = [self._lengths[index] for index in chosen]
        drawn = BucketSampler(lengths, batch_size, generator, self.dataset.config.bucket)
        return [[chosen[place] for place in batch] for batch in drawn]

    @cached_property
    def _lengths(self) -> list[int]:
        """Before any augmentation: the same in every epoch, so that a run that goes on has the same batches."""
        cache = self.cache
        count = (lambda index: len(self._integrate(index))) if cache is None else cache.num_steps
        return [count(index) for index in range(len(self))]

    def events(self, index: int) -> tuple[Events, Sensor]:
        """The events of a sample behind the transforms that are the same every time, and their `(H, W)`."""
        return self.dataset.transformed(self.directory, self.recordings[index])

    def unaugmented(self) -> EventSplit:
        """The same samples without `augment`."""
        return EventSplit(self.dataset, self.name, self.directory, self.recordings)

    def set_epoch(self, epoch: int) -> None:
        """The augmentation of this epoch is the one that indexing gives."""
        self._epoch.number = epoch

    def _rng(self, index: int) -> np.random.Generator:
        return np.random.default_rng([self.dataset.config.seed, self._epoch.number, index])

    def _integrate(self, index: int) -> np.ndarray:
        return self.dataset.integrate(self.directory, self.recordings[index])

    def _augmented(self, index: int, rng: np.random.Generator) -> np.ndarray:
        if all(item.level != "events" for item in self.augment):
            return self._integrate(index)
        events, size = apply(self.augment, *self.events(index), rng)
        frames: np.ndarray = self.dataset.config.representation(events, size)
        return frames

    def _cache(self) -> FrameCache:
        directory = data_dir() / self.dataset.name / "cache" / f"{self.name}-{self._key()}"
        return build(
            directory,
            len(self),
            self._integrate,
            self.dataset.sample_shape,
            num_workers=self.dataset.config.num_workers,
            label=f"{self.dataset.name} {self.name}",
        )

    def _key(self) -> str:
        """Everything that decides what the cache holds."""
        config = self.dataset.config
        parts = {
            "version": CACHE_VERSION,
            "dataset": self.dataset.name,
            "sensor_size": [int(side) for side in self.dataset.info.sensor_size or ()],
            "shape": self.dataset.sample_shape,
            "reading": self.dataset.reading_options(),
            "representation": [config.representation.name, config.representation.key],
            "transforms": [[item.name, dataclasses.asdict(item)] for item in config.transforms],
            "directory": str(self.directory.resolve()),
        }
        digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode())
        stats: dict[str, bytes] = {}
        for recording in self.recordings:
            if recording.path not in stats:
                stats[recording.path] = self.dataset.identity(self.directory, recording.path)
            digest.update(repr(dataclasses.astuple(recording)).encode() + stats[recording.path])
        return digest.hexdigest()[:20]


def _collate(
    samples: Sequence[tuple[Tensor, int | Tensor]],
    generator: torch.Generator | None = None,
    *,
    mix: EventCutMix | None,
    num_classes: int,
    target: TargetKind = "class",
) -> Batch:
    """Pads, and mixes where there is a generator."""
    batch = pad_collate(samples, target=target)
    if mix is None or generator is None or len(samples) < 2:
        return batch
    return mix_batch(batch, [mix], num_classes, True, generator)

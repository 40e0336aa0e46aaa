"""`tonic:<Name>`: every dataset of Tonic that has one label per recording, through spikecore's representations.

Tonic is GPL-3, and heavy: it is an extra (`pip install spikecore-datasets-dvs[tonic]`), imported when one of these is
used and never otherwise. Its own rules for downloads hold.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from spikecore.datasets import is_offline, split_per_class
from spikecore.errors import DatasetError, NotDownloadedError, PluginUnavailable
from spikecore.interfaces import DatasetInfo
from spikecore_datasets_dvs.columns import from_structured
from spikecore_datasets_dvs.dataset import EventDataset, Recording
from spikecore_datasets_dvs.events import Events
from spikecore_datasets_dvs.reading import Reading
from spikecore_datasets_dvs.representations import Sensor

NAMES = (
    *("ASLDVS", "CIFAR10DVS", "DAVISDATA", "DSEC", "DVSGesture", "DVSLip", "EBSSA", "MVSEC", "NCALTECH101", "NERDD"),
    *("NMNIST", "NTIDIGITS18", "POKERDVS", "SHD", "SMNIST", "SSC", "ThreeET_Eyetracking", "TUMVIE", "VPR"),
)


IN_MICROSECONDS = Reading(unit="us")
"""Tonic's convention for all of its datasets."""
THEIRS = {"val": "valid"}
"""Split → what Tonic calls it, where that is another name."""


class TonicDataset(EventDataset):
    """A dataset of Tonic; its recordings with one label each, split as Tonic splits them, else nine to one, seeded.

    Raises:
        PluginUnavailable: Tonic is not installed.
        DatasetError: recordings of this dataset have no single label.
    """

    tonic_name: ClassVar[str]

    @dataclass(frozen=True)
    class Config(EventDataset.Config):
        """
        Args:
            root: Tonic's `save_to`; "" takes `$SPIKECORE_DATA` with `tonic`.
            height, width: of the sensor, for the datasets for which Tonic does not say.
        """

        height: int = 0
        width: int = 0

    def _check(self) -> None:
        if find_spec("tonic") is None:
            raise PluginUnavailable("Tonic is not installed", "pip install 'spikecore-datasets-dvs[tonic]'")
        super()._check()

    @cached_property
    def theirs(self) -> Any:
        """Tonic's class."""
        return getattr(importlib.import_module("tonic.datasets"), self.tonic_name)

    @property
    def sensor_size(self) -> Sensor:
        """`(H, W)`: as configured, else as Tonic says."""
        if self.config.height and self.config.width:
            return self.config.height, self.config.width
        size = getattr(self.theirs, "sensor_size", None)
        if size is None:
            raise DatasetError(f"Tonic does not say how large the sensor of {self.tonic_name} is: set height and width")
        return int(size[1]), int(size[0])

    @cached_property
    def info(self) -> DatasetInfo:  # type: ignore[override]
        """What Tonic says about it."""
        classes = getattr(self.theirs, "classes", None) or self._classes_on_disk()
        return DatasetInfo(
            title=f"{self.tonic_name}, through Tonic",
            classes=tuple(name.decode() if isinstance(name, bytes) else str(name) for name in classes),
            sample_shape=(None, *self.sample_shape),
            licence="see Tonic's page of this dataset",
            citation="G. Lenz et al., Tonic: event-based datasets and transformations, "
            "https://doi.org/10.5281/zenodo.5079802; and the authors of the data",
            homepage=f"https://tonic.readthedocs.io/en/latest/generated/tonic.datasets.{self.tonic_name}.html",
            sensor_size=self.sensor_size,
            unverified=("what Tonic says is passed on",),
        )

    def _classes_on_disk(self) -> list[Any]:
        """What Tonic finds in the files: names of classes (as of SHD), or the labels themselves."""
        named = getattr(next(iter(self._parts.values())), "classes", None)
        if named is not None:
            return list(named)
        labels = {target for part in self._parts.values() for target in self._targets(part)}
        if not labels or not all(isinstance(label, int | str | np.integer) for label in labels):
            raise DatasetError(f"recordings of Tonic's {self.tonic_name} have no single label: not a classification")
        return sorted(labels)

    @property
    def _save_to(self) -> Path:
        return self.directory if self.config.root else self.directory.parent / "tonic"

    @cached_property
    def _parts(self) -> dict[str, Any]:
        """Tonic's objects, by split; one for both where Tonic has no split."""
        save_to = str(self._save_to)
        if is_offline() and not Path(save_to, self.tonic_name).is_dir():  # Tonic would download it
            raise NotDownloadedError(f"Tonic's {self.tonic_name} is not below {save_to}", save_to)
        parameters = inspect.signature(self.theirs.__init__).parameters
        try:
            if "train" in parameters:
                return {name: self.theirs(save_to=save_to, train=name == "train") for name in self.splits}
            if "split" in parameters:
                return {name: self.theirs(save_to=save_to, split=THEIRS.get(name, name)) for name in self.splits}
            return {"all": self.theirs(save_to=save_to)}
        except TypeError as error:  # it wants the name of a recording, as the odometry datasets do
            raise DatasetError(f"Tonic's {self.tonic_name} is no dataset for classification: {error}") from error
        except Exception as error:  # Tonic, h5py and the like raise what they like
            raise DatasetError(f"Tonic cannot read {self.tonic_name} below {save_to}: {error!r}") from error

    def _label(self, target: Any) -> int:
        if isinstance(target, int | np.integer) and 0 <= target < self.num_outputs:
            return int(target)
        if str(target) in self.info.classes:
            return self.info.classes.index(str(target))
        raise DatasetError(f"recordings of Tonic's {self.tonic_name} have no single label; one has {target!r}")

    def recordings(self, directory: Path) -> dict[str, list[Recording]]:
        by_split = {
            name: [Recording(name, self._label(target), item=i) for i, target in enumerate(self._targets(part))]
            for name, part in self._parts.items()
        }
        if "all" not in by_split:
            return by_split
        return dict(zip(self.splits, split_per_class(by_split["all"], 0.1, self.config.seed), strict=True))

    def _targets(self, part: Any) -> Iterator[Any]:
        targets = getattr(part, "targets", None)
        yield from targets if targets else (part[i][1] for i in range(len(part)))

    def read(self, directory: Path, recording: Recording) -> Events:
        events, _ = self._parts[recording.path][recording.item]
        if "y" not in (events.dtype.names or ()):
            wide = np.zeros(len(events), [("t", "i8"), ("x", "i8"), ("y", "i8"), ("p", "i8")])
            for name in ("t", "x", "p"):
                wide[name] = events[name]
            events = wide
        return from_structured(events, f"Tonic's {self.tonic_name}, {recording.item}", IN_MICROSECONDS)

    def identity(self, directory: Path, path: str) -> bytes:
        """Tonic's version, and the files that it reads."""
        return f"tonic {importlib.import_module('tonic').__version__} {self._files}".encode()

    @cached_property
    def _files(self) -> str:
        digest = hashlib.sha256()
        for path in sorted((self._save_to / self.tonic_name).rglob("*")):
            status = path.stat()
            digest.update(f"{path} {status.st_size} {status.st_mtime_ns}\n".encode())
        return digest.hexdigest()


def _made(name: str) -> type[TonicDataset]:
    body: dict[str, Any] = {
        "tonic_name": name,
        "name": f"tonic-{name.lower()}",
        "__module__": __name__,
        "__doc__": f"Tonic's {name}.",
    }
    if name == "SSC":
        body["splits"] = ("train", "val", "test")
    return type(name, (TonicDataset,), body)


_CLASSES = {name: _made(name) for name in NAMES}
globals().update(_CLASSES)

"""Anyone's recordings: one directory per class.

root/left/a.raw   root/left/b.raw   root/right/…               split per class or by subject, seeded
root/train/left/… root/test/left/…                             split as it stands

[dataset]
name = "event-folder"
root = "recordings"
sensor_size = [720, 1280]
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from spikecore.datasets import check_filled, class_names, labelled_files, split_by_subject, split_per_class, tops
from spikecore.errors import DatasetError
from spikecore.interfaces import DatasetInfo, Range
from spikecore_datasets_dvs.dataset import EventDataset, Recording
from spikecore_datasets_dvs.events import Events
from spikecore_datasets_dvs.formats import FORMATS, SUFFIXES, read_events
from spikecore_datasets_dvs.representations import Sensor


def by_class(
    directory: Path, classes: tuple[str, ...], pattern: str = "*", root: Path | None = None
) -> list[Recording]:
    """The files of each class's directory, in order.

    Args:
        directory: holds a directory per class.
        classes: their names, in label order.
        pattern: of the files.
        root: what paths are relative to; `directory` by default.

    Raises:
        DatasetError: the directory is missing, or one in it is no class.
    """
    return [
        Recording(file.relative_to(root or directory).as_posix(), label)
        for file, label in labelled_files(directory, classes, pattern)
    ]


class EventFolder(EventDataset):
    """Recordings in a directory per class, in any of the formats that are read here.

    Raises:
        DatasetError: the directory does not exist, a class has no recordings, or is in the test split only.
    """

    name: ClassVar[str] = "event-folder"

    @dataclass(frozen=True)
    class Config(EventDataset.Config):
        """
        Args:
            root: directory with one directory per class, or with `train` and `test` that hold these.
            sensor_size: H and W.
            form: file format; `auto` goes by suffix and content.
            aedat2_layout: of the addresses in AEDAT 2.0; `auto`: that of the chip which the file's header names.
            test_share: share of each class (or of the subjects) that goes to the test split.
            subject_pattern: regular expression with one group, found in a file name: the subject, which then is in one
                split only; "" splits per class.
        """

        sensor_size: tuple[int, ...] = (0, 0)
        form: Literal["auto", "aedat2", "aedat3", "aedat4", "atis", "dat", "evt", "npz", "npy", "hdf5"] = "auto"
        aedat2_layout: Literal["auto", "dvs128", "davis"] = "auto"
        test_share: Annotated[float, Range(gt=0.0, lt=1.0)] = 0.2
        subject_pattern: str = ""

    @classmethod
    def option_problems(cls, config: Any) -> Iterable[tuple[str, str]]:
        """A directory and the sensor's size have to be given; a pattern must have a group."""
        size = config.sensor_size
        if len(size) != 2 or not all(0 < side < 1 << 16 for side in size):
            yield "sensor_size", f"must be [H, W], as in [180, 240]; got {list(size)}"
        if not config.root:
            yield "root", "must name a directory with one directory per class"
        try:
            groups = re.compile(config.subject_pattern).groups
        except re.error as error:
            yield "subject_pattern", f"is no regular expression: {error}"
        else:
            if config.subject_pattern and groups != 1:
                yield "subject_pattern", f"must have one group, it has {groups}"

    @property
    def sensor_size(self) -> Sensor:
        """`(H, W)` as configured."""
        height, width = self.config.sensor_size
        return height, width

    @cached_property
    def info(self) -> DatasetInfo:  # type: ignore[override]
        """What the directory shows."""
        classes = class_names(tops(self.directory, self.splits))
        if not classes:
            raise DatasetError(f"{self.directory}: holds no directories; one per class is expected")
        return DatasetInfo(
            title=f"Recordings in {self.directory}",
            classes=classes,
            sample_shape=(None, *self.sample_shape),
            licence="that of the files",
            citation="that of the recordings",
            sensor_size=self.sensor_size,
        )

    def recordings(self, directory: Path) -> dict[str, list[Recording]]:
        parts = tops(self.directory, self.splits)
        found = [self._within(top, directory) for top in parts]
        if not any(found):
            raise DatasetError(f"{directory}: holds no recordings (suffixes: {', '.join(self._suffixes)})")
        labels = [{recording.label for recording in part} for part in found]
        what = f"recordings (suffixes: {', '.join(self._suffixes)})"
        check_filled(list(zip(parts, labels, strict=True)), self.info.classes, what)
        if len(parts) == 2:
            return dict(zip(self.splits, found, strict=True))
        config = self.config
        cut = split_by_subject if config.subject_pattern else split_per_class
        return dict(zip(self.splits, cut(found[0], config.test_share, config.seed), strict=True))

    @property
    def _suffixes(self) -> tuple[str, ...]:
        return tuple(SUFFIXES if self.config.form == "auto" else FORMATS[self.config.form].suffixes)

    def _within(self, top: Path, root: Path) -> list[Recording]:
        kept = []
        for recording in by_class(top, self.info.classes, root=root):
            path = Path(recording.path)
            if path.suffix.lower() not in self._suffixes:
                continue
            if pattern := self.config.subject_pattern:
                match = re.search(pattern, path.name)
                if match is None:
                    raise DatasetError(f"{root / path}: subject_pattern {pattern!r} finds no subject in this name")
                recording = Recording(recording.path, recording.label, match.group(1))
            kept.append(recording)
        return kept

    def read(self, directory: Path, recording: Recording) -> Events:
        config = self.config
        return read_events(directory / recording.path, config.form, self.sensor_size, config.aedat2_layout)

    def reading_options(self) -> Any:
        return [self.config.form, self.config.aedat2_layout]

"""Anyone's recordings: one directory per class, or a table of labels.

root/left/a.raw   root/left/b.raw   root/right/…               split per class or by subject, seeded
root/train/left/… root/val/left/…   root/test/left/…           split as it stands
root/labels.csv   root/monday.aedat4 …                         parts of long recordings: see `label_table`

[dataset]
name = "event-folder"
root = "recordings"
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np

from spikecore.datasets import (
    check_filled,
    class_names,
    is_class,
    labelled_files,
    split_by_subject,
    split_directories,
    split_per_class,
)
from spikecore.errors import DatasetError
from spikecore.interfaces import DatasetInfo, OneOf, Range
from spikecore_datasets_dvs.copies import check_no_copies
from spikecore_datasets_dvs.dataset import EventDataset, Recording
from spikecore_datasets_dvs.events import Events
from spikecore_datasets_dvs.formats import FORMATS, SUFFIXES, read_file, stated
from spikecore_datasets_dvs.label_table import Row, check_disjoint, read_table
from spikecore_datasets_dvs.reading import Reading, problems
from spikecore_datasets_dvs.representations import Sensor
from spikecore_datasets_dvs.slices import Slices

Splits = dict[str, list[Recording]]
LEAST_PAUSE_US = 1000
"""How far a part of a table may always reach beyond the events."""
ONLY_BY_NAME = ("text",)
"""Formats whose suffixes notes and lists have too: their files are recordings only where `form` says so."""


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
    """Recordings in a directory per class, or parts of recordings by a table, in any of the formats that are read here.

    Raises:
        DatasetError: the directory does not exist, a class has no recordings, or is in the test split only, or a file
            would be passed over or read twice.
    """

    name: ClassVar[str] = "event-folder"

    @dataclass(frozen=True)
    class Config(EventDataset.Config):
        """
        Args:
            root: directory with one directory per class, or with `train`, `test` (and `val`) that hold these.
            sensor_size: H and W; `auto`: as the headers of the recordings state it.
            form: file format (`spike info format` lists them); `auto` goes by content and suffix, but takes no text.
            aedat2_layout: of the addresses in AEDAT 2.0: `dvs128`, `davis`, `dvxplorer`, `dvs640`; `auto`: that of the
                chip which the file's header names.
            stream: which of several recordings in one file: stream of AEDAT 4, path in HDF5, topic of a ROS bag.
            columns: order of the columns of an array `[N, 4]` or of a text without a heading, as in `txyp`.
            names: own names of the columns, as in `t=stamp, x=col, y=row, p=sign`.
            unit: of times, where the file does not state it: `s`, `ms`, `us`, `ns`.
            on_values: values of polarity that mean ON, where they are not 0 and 1, or -1 and 1.
            allow_empty: take recordings (and parts that a table names) without a single event.
            classes: their names in label order; () takes all directories (or labels of the table) in alphabetical
                order.
            labels: a table of labels in `root`, CSV with the columns file, start_us, stop_us, label; "" goes by
                directories.
            labels_beyond: what to do with a part that the table names and that reaches beyond the first or the last
                event of its recording: an `error`, or `cut` it there.
            duplicates: what to do with files of equal content in two splits: an `error`, or `warn` of them.
            slices: samples that are parts of a recording: `by_time`, `by_count`, `by_time_bins`, `by_count_bins`, at
                most one.
            test_share: share of each class (or of the subjects) that goes to the test split.
            subject_pattern: regular expression with one group, found in a file name: the subject, which then is in one
                split only; "" splits per class.
        """

        sensor_size: Literal["auto"] | tuple[int, ...] = "auto"
        form: str = "auto"
        aedat2_layout: Literal["auto", "dvs128", "davis", "dvxplorer", "dvs640"] = "auto"
        stream: str = ""
        columns: str = ""
        names: str = ""
        unit: Literal["auto", "s", "ms", "us", "ns"] = "auto"
        on_values: tuple[int, ...] = ()
        allow_empty: bool = False
        classes: tuple[str, ...] = ()
        labels: str = ""
        labels_beyond: Literal["error", "cut"] = "error"
        duplicates: Literal["error", "warn"] = "error"
        slices: Annotated[tuple[Any, ...], OneOf("event_slices", Slices)] = ()
        test_share: Annotated[float, Range(gt=0.0, lt=1.0)] = 0.2
        subject_pattern: str = ""

    @classmethod
    def option_problems(cls, config: Any) -> Iterable[tuple[str, str]]:
        """A directory has to be given; a size must be one, and a pattern must have a group."""
        size = config.sensor_size
        if size != "auto" and (len(size) != 2 or not all(0 < side < 1 << 16 for side in size)):
            yield "sensor_size", f"must be 'auto' or [H, W], as in [180, 240]; got {list(size)}"
        if not config.root:
            yield "root", "must name a directory with one directory per class"
        if config.form not in ("auto", *FORMATS):
            yield "form", f"must be one of {', '.join(map(repr, ('auto', *FORMATS)))}; got {config.form!r}"
        options = {name: getattr(config, name) for name in ("columns", "names", "unit", "aedat2_layout")}
        yield from problems(options)
        if len(config.slices) > 1:
            yield "slices", f"must name one way at most; got {len(config.slices)}"
        if len(set(config.classes)) < len(config.classes):
            yield "classes", f"must name each class once; got {list(config.classes)}"
        try:
            groups = re.compile(config.subject_pattern).groups
        except re.error as error:
            yield "subject_pattern", f"is no regular expression: {error}"
        else:
            if config.subject_pattern and groups != 1:
                yield "subject_pattern", f"must have one group, it has {groups}"

    def _check(self) -> None:
        if self.config.sensor_size != "auto":
            super()._check()

    @property
    def splits(self) -> tuple[str, ...]:  # type: ignore[override]
        """`train` and `test`; `val` too where the directory or the table has it."""
        if not self.directory.is_dir():
            return ("train", "test")  # `split` says that it is missing
        named = {row.split for row in self._table} if self.config.labels else set(self._halves)
        return ("train", "val", "test") if "val" in named else ("train", "test")

    @cached_property
    def _halves(self) -> dict[str, Path]:
        return split_directories(self.directory)

    @cached_property
    def _table(self) -> list[Row]:
        return read_table(self.directory / self.config.labels)

    @cached_property
    def reading(self) -> Reading:
        """How its files are read."""
        config = self.config
        return Reading(
            form=config.form,
            sensor_size=None if config.sensor_size == "auto" else (config.sensor_size[0], config.sensor_size[1]),
            aedat2_layout=config.aedat2_layout,
            stream=config.stream,
            columns=config.columns,
            names=config.names,
            unit=config.unit,
            on_values=config.on_values,
            allow_empty=config.allow_empty,
        )

    @property
    def sensor_size(self) -> Sensor:
        """`(H, W)` as configured, or as the headers state it."""
        return self.reading.sensor_size or self._stated_size

    @cached_property
    def _stated_size(self) -> Sensor:
        """What all recordings state; they are opened once, their events are not read."""
        sizes: dict[Sensor, str] = {}
        broken: list[DatasetError] = []
        for recordings in self._found.values():
            for path in dict.fromkeys(recording.path for recording in recordings):
                try:
                    own = stated(self.directory / path, self.reading)
                except DatasetError as error:
                    if self.config.broken == "error":
                        raise
                    broken.append(error)  # `broken.readable` leaves the recording out, and lists it
                    continue
                if own.sensor_size is None:
                    raise DatasetError(
                        f"{self.directory / path}: does not state the size of its sensor ({own.variant}): give it, as "
                        "in sensor_size = [180, 240]"
                    )
                sizes.setdefault(own.sensor_size, path)
        if broken and not sizes:
            raise DatasetError(f"{self.directory}: no recording can be read; the first: {broken[0]}") from broken[0]
        if len(sizes) != 1:
            stated_sizes = ", ".join(f"{path} {list(size)}" for size, path in sizes.items())
            raise DatasetError(
                f"{self.directory}: recordings state different sizes of the sensor, H and W: {stated_sizes}; give the "
                "largest as sensor_size, or keep them apart"
            )
        return next(iter(sizes))

    @cached_property
    def info(self) -> DatasetInfo:  # type: ignore[override]
        """What the directory shows."""
        mapping = ", ".join(f"{label} = {name}" for label, name in enumerate(self.class_names[:100]))
        return DatasetInfo(
            title=f"Recordings in {self.directory}",
            classes=self.class_names,
            sample_shape=(None, *self.sample_shape),
            licence="that of the files",
            citation="that of the recordings",
            notes=f"labels: {mapping}",
            sensor_size=self.sensor_size,
        )

    @property
    def num_outputs(self) -> int:
        """Number of labels."""
        return len(self.class_names)

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in label order."""
        if self.config.labels:
            there = tuple(sorted({row.label for row in self._table}))
            where = f"{self.directory / self.config.labels}: has the labels"
        else:
            there = class_names(list(self._halves.values()) or [self.directory])
            where = f"{self.directory}: has the directories"
        if not there:
            raise DatasetError(
                f"{self.directory}: holds no directories; one per class is expected (for a single recording: "
                "spike view FILE)"
            )
        wanted: tuple[str, ...] = self.config.classes
        if wanted and set(wanted) != set(there):
            raise DatasetError(
                f"{where} {', '.join(there)}; 'classes' names {', '.join(wanted)}: name each of them once"
            )
        return wanted or there

    def recordings(self, directory: Path) -> Splits:
        return self._cut if self.config.slices else self._found

    @cached_property
    def _found(self) -> Splits:
        """The recordings of each split, before they are cut into slices."""
        splits = self._by_table() if self.config.labels else self._by_directory()
        paths = {name: [self.directory / recording.path for recording in part] for name, part in splits.items()}
        check_no_copies(paths, self.config.duplicates)
        return splits

    def _by_directory(self) -> Splits:
        parts = list(self._halves.values()) or [self.directory]
        classes = self.class_names
        parts_read = [self._within(top) for top in parts]
        if not any(parts_read):
            self._explain_none(parts)
        labels = [{recording.label for recording in part} for part in parts_read]
        for top, there in zip(parts, labels, strict=True):
            self._explain_deeper(top, [name for label, name in enumerate(classes) if label not in there])
        what = f"recordings (suffixes: {', '.join(self._suffixes)})"
        check_filled(list(zip(parts, labels, strict=True)), classes, what)
        if self._halves:
            return dict(zip(self._halves, parts_read, strict=True))
        return self._divided(parts_read[0])

    def _divided(self, recordings: list[Recording]) -> Splits:
        config = self.config
        has_subjects = bool(config.subject_pattern) or any(recording.subject for recording in recordings)
        cut = split_by_subject if has_subjects else split_per_class
        return dict(zip(("train", "test"), cut(recordings, config.test_share, config.seed), strict=True))

    def _by_table(self) -> Splits:
        classes, rows = self.class_names, self._table
        for row in rows:
            if not row.path.is_file():
                raise DatasetError(
                    f"{self.directory / self.config.labels}: line {row.line} names {row.path}, which is missing"
                )
        recordings = [
            Recording(
                row.path.relative_to(self.directory).as_posix(),
                classes.index(row.label),
                row.subject or self._subject(row.path),
                row.start_us,
                row.stop_us,
                item=row.line,  # two rows may name the same part
            )
            for row in rows
        ]
        if any(row.split for row in rows):
            splits: Splits = {name: [] for name in self.splits}
            for row, recording in zip(rows, recordings, strict=True):
                splits[row.split].append(recording)
        else:
            splits = self._divided(recordings)
        split_of = {recording.item: name for name, part in splits.items() for recording in part}
        check_disjoint(rows, [split_of[row.line] for row in rows])
        return splits

    @cached_property
    def _cut(self) -> Splits:
        """The slices of all recordings; each is read once, since nothing else tells how long it is."""
        (slices,) = self.config.slices
        cut: Splits = {}
        for name, recordings in self._found.items():
            cut[name] = []
            for recording in recordings:
                cut[name] += self._slices_of(recording, slices)
            whole, left = ({recording.label for recording in part} for part in (recordings, cut[name]))
            if lost := sorted(whole - left):
                raise DatasetError(
                    f"{self.directory}: every recording of class {self.class_names[lost[0]]!r} in the split "
                    f"{name!r} is shorter than one slice of {slices}: choose shorter ones, or "
                    f"include_incomplete without overlap"
                )
        return cut

    def _slices_of(self, recording: Recording, slices: Slices) -> list[Recording]:
        """A recording that cannot be read stays whole where such are skipped: `broken.readable` lists it."""
        try:
            events = self._part(self.directory, recording)
        except DatasetError:
            if self.config.broken == "error":
                raise
            return [recording]
        bounds = slices(events).tolist()
        if bounds and all(first == stop for first, stop in bounds):
            raise DatasetError(
                f"{self.directory / recording.path}: none of its {len(bounds)} slices holds an event: it has "
                f"{len(events)} events in {events.duration_us} µs, too few for {slices}"
            )
        return [replace(recording, first_event=first, stop_event=stop) for first, stop in bounds]

    @property
    def _suffixes(self) -> tuple[str, ...]:
        if self.config.form != "auto":
            return tuple(FORMATS[self.config.form].suffixes)
        texts = {suffix for name in ONLY_BY_NAME for suffix in FORMATS[name].suffixes}
        return tuple(suffix for suffix in SUFFIXES if suffix not in texts)

    def _within(self, top: Path) -> list[Recording]:
        kept = []
        forms: dict[Path, list[str]] = defaultdict(list)
        for recording in by_class(top, self.class_names, root=self.directory):
            path = Path(recording.path)
            if path.suffix.lower() in self._suffixes:
                forms[path.with_suffix("")].append(path.suffix)
                kept.append(replace(recording, subject=self._subject(path)))
        if twice := next((stem for stem, suffixes in forms.items() if len(suffixes) > 1), None):
            raise DatasetError(
                f"{self.directory / twice}: is there as {' and '.join(forms[twice])}: the same name in two formats "
                "would be two samples of one recording; name the format with 'form', or remove one of them"
            )
        return kept

    def _subject(self, path: Path) -> str:
        pattern = self.config.subject_pattern
        if not pattern:
            return ""
        match = re.search(pattern, path.name)
        if match is None:
            raise DatasetError(f"{path}: subject_pattern {pattern!r} finds no subject in this name")
        return match.group(1)

    def _explain_none(self, parts: list[Path]) -> None:
        """Say why there are no recordings at all."""
        for top in parts:
            self._explain_deeper(top, self.class_names)
        there = {path.suffix.lower() for top in parts for path in top.glob("*/*") if path.is_file()}
        texts = sorted(there & {suffix for name in ONLY_BY_NAME for suffix in FORMATS[name].suffixes})
        advice = f'; it has {", ".join(texts)} files: form = "text" reads them' if texts else ""
        raise DatasetError(f"{self.directory}: holds no recordings (suffixes: {', '.join(self._suffixes)}){advice}")

    def _explain_deeper(self, top: Path, classes: Iterable[str]) -> None:
        """Say that the recordings of a class lie one level deeper, where they do."""
        for name in classes:
            inner = [path for path in sorted((top / name).glob("*")) if is_class(path)]
            for folder in inner:
                if any(path.suffix.lower() in self._suffixes for path in folder.iterdir()):
                    raise DatasetError(
                        f"{top}: class {name!r} has no recordings, but {folder} has: they lie one level deeper than "
                        "expected (root/class/recording); move them up, or name them in a table of labels"
                    )

    def read(self, directory: Path, recording: Recording) -> Events:
        events = self._part(directory, recording)
        return events if recording.stop_event < 0 else events[recording.first_event : recording.stop_event]

    def _part(self, directory: Path, recording: Recording) -> Events:
        """The recording, or the part that the table names."""
        path = directory / recording.path
        events = self._whole(path)
        if recording.stop_us < 0:
            return events
        first, last = (int(events.t[0]), int(events.t[-1])) if len(events) else (0, -1)
        if recording.stop_us <= first or recording.start_us > last:
            raise DatasetError(
                f"{self._line(recording)}: {path}: the part from {recording.start_us} to {recording.stop_us} µs "
                "is not in the recording, which "
                f"goes from {first} to {last} µs: do the table and the recording count from the same moment, in the "
                "same unit?"
            )
        if self.config.labels_beyond == "error":
            self._check_covered(path, recording, events)
        start, stop = np.searchsorted(events.t, (recording.start_us, recording.stop_us))
        if start == stop and not self.config.allow_empty:
            raise DatasetError(
                f"{self._line(recording)}: {path} has no event from {recording.start_us} to {recording.stop_us} µs; "
                "leave the line out, or take parts without events with allow_empty = true"
            )
        return events[int(start) : int(stop)]

    def _check_covered(self, path: Path, recording: Recording, events: Events) -> None:
        """A part lies within its recording, but for what no event tells: a pause before the first, after the last.

        A pause is as long as the longest between two events of the recording, and a millisecond at least: times in
        tables are rounded.

        Raises:
            DatasetError: it reaches further.
        """
        first, last = int(events.t[0]), int(events.t[-1])
        pause = max(self._longest_pause, LEAST_PAUSE_US)
        missing = max(first - recording.start_us, recording.stop_us - (last + 1))
        if missing > pause:
            raise DatasetError(
                f"{self._line(recording)}: names {recording.start_us} to {recording.stop_us} µs, and the events of "
                f"{path} go from {first} to {last} µs: {missing} µs of the part are not recorded. Correct the line, or "
                'take what is there with labels_beyond = "cut"'
            )

    def _line(self, recording: Recording) -> str:
        return f"{self.directory / self.config.labels}: line {recording.item}"

    def _whole(self, path: Path) -> Events:
        """The last recording is kept: its parts are asked for one after the other."""
        kept: tuple[Path, Events] | None = self.__dict__.get("_kept")
        if kept is None or kept[0] != path:
            events = read_file(path, replace(self.reading, sensor_size=self.sensor_size))
            if not (self.config.slices or self.config.labels):
                return events
            self.__dict__["_kept"] = kept = (path, events)
            self._longest_pause = int(np.diff(events.t).max()) if len(events) > 1 else 0
        return kept[1]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_kept"}

    def reading_options(self) -> Any:
        config = self.config
        names = (
            "form",
            "aedat2_layout",
            "stream",
            "columns",
            "names",
            "unit",
            "on_values",
            "allow_empty",
            "labels_beyond",
        )
        return {name: getattr(config, name) for name in names}

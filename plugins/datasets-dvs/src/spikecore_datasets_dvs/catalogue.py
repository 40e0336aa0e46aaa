"""The well-known event datasets: how the authors' files are laid out and read.

A class names its declaration and says which files are whose recordings; the base does the rest.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np

from spikecore.datasets import split_by_subject, split_per_class
from spikecore.errors import DatasetError
from spikecore.interfaces import Range
from spikecore_datasets_dvs import declarations, pickled
from spikecore_datasets_dvs.dataset import REPRESENTATION, EventDataset, Recording
from spikecore_datasets_dvs.events import Events, Unit, check_inside, in_order, make_events
from spikecore_datasets_dvs.folder import by_class
from spikecore_datasets_dvs.formats import read_events, reading_errors
from spikecore_datasets_dvs.formats.arrays import read_npz
from spikecore_datasets_dvs.formats.hdf5 import check_chunks, open_file, sound, whole
from spikecore_datasets_dvs.formats.mat import read_mat
from spikecore_datasets_dvs.named import NamedDataset, below, numbered, table, text, the_directory
from spikecore_datasets_dvs.representations import Units

Splits = dict[str, list[Recording]]
SACCADE_US = 100_000
"""Duration of one of the three saccades of N-MNIST."""


class NMNIST(NamedDataset):
    """N-MNIST; the authors' split."""

    name: ClassVar[str] = "n-mnist"
    info = declarations.N_MNIST
    present: ClassVar[tuple[str, ...]] = ("**/Train/*/*.bin",)

    @dataclass(frozen=True)
    class Config(NamedDataset.Config):
        """
        Args:
            first_saccade_only: take only the first of the three saccades: t < 100 ms.
        """

        first_saccade_only: bool = False

    def recordings(self, directory: Path) -> Splits:
        halves = {name: the_directory(directory, name.capitalize()) for name in self.splits}
        classes = self.info.classes
        return self.counted({name: by_class(top, classes, "*.bin", directory) for name, top in halves.items()})

    def read(self, directory: Path, recording: Recording) -> Events:
        events = super().read(directory, recording)
        if self.config.first_saccade_only:
            events = events[: int(np.searchsorted(events.t, SACCADE_US))]
        return events

    def reading_options(self) -> Any:
        return {"first_saccade_only": self.config.first_saccade_only}


class Shared(NamedDataset):
    """Base of datasets without a split of their own."""

    @dataclass(frozen=True)
    class Config(NamedDataset.Config):
        """
        Args:
            test_share: share of each class in the test split; `seed` says which.
        """

        test_share: Annotated[float, Range(gt=0.0, lt=1.0)] = 0.1

    def divided(self, recordings: list[Recording]) -> Splits:
        """A seeded split per class."""
        self.counted({"all": recordings})
        return dict(
            zip(self.splits, split_per_class(recordings, self.config.test_share, self.config.seed), strict=True)
        )


class NCaltech101(Shared):
    """N-Caltech101; a seeded split per class."""

    name: ClassVar[str] = "n-caltech101"
    info = declarations.N_CALTECH101
    present: ClassVar[tuple[str, ...]] = ("**/Caltech101/*/*.bin",)
    nested: ClassVar[bool] = True

    def recordings(self, directory: Path) -> Splits:
        top = the_directory(directory, "Caltech101", depth=6)
        return self.divided(by_class(top, self.info.classes, "*.bin", directory))


class CIFAR10DVS(NamedDataset):
    """CIFAR10-DVS; a tenth of each class is the test split."""

    name: ClassVar[str] = "cifar10-dvs"
    info = declarations.CIFAR10_DVS
    present: ClassVar[tuple[str, ...]] = ("**/airplane/*.aedat", "**/airplane/*.aedat4")
    repacks = declarations.CIFAR10_DVS_TONIC

    @dataclass(frozen=True)
    class Config(NamedDataset.Config):
        """
        Args:
            test: the recordings 0 to 99 of each class, the last hundred, or a seeded choice.
        """

        test: Literal["first", "last", "random"] = "first"

    def recordings(self, directory: Path) -> Splits:
        by_split: Splits = {"train": [], "test": []}
        for label, name in enumerate(self.info.classes):
            top = the_directory(directory, name)
            own = [
                Recording(path.relative_to(directory).as_posix(), label)
                for path in top.iterdir()
                if path.suffix in (".aedat", ".aedat4") and path.name[0] != "."
            ]
            own = numbered(own)
            if self.config.test == "random":
                train, test = split_per_class(own, 0.1, self.config.seed)
            else:
                tenth = len(own) // 10
                first = self.config.test == "first"
                train, test = (
                    (own[tenth:], own[:tenth]) if first else (own[: len(own) - tenth], own[len(own) - tenth :])
                )
            by_split["train"] += train
            by_split["test"] += test
        return self.counted(by_split)

    def read(self, directory: Path, recording: Recording) -> Events:
        path = directory / recording.path
        if path.suffix == ".aedat4":
            return super().read(directory, recording)
        raw = read_events(path, "aedat2", self.sensor_size, aedat2_layout="dvs128")
        return raw.replace(x=raw.y, y=raw.x)  # the sensor stood on its side


class DVS128Gesture(NamedDataset):
    """DVS128 Gesture; the authors' split, one sample per trial."""

    name: ClassVar[str] = "dvs128-gesture"
    info = declarations.DVS128_GESTURE
    present: ClassVar[tuple[str, ...]] = ("**/trials_to_train.txt", "**/ibmGestureTrain/*/*.npy")
    repacks = declarations.DVS128_GESTURE_TONIC

    def recordings(self, directory: Path) -> Splits:
        if lists := sorted(directory.rglob("trials_to_train.txt")):
            top = lists[0].parent
            return self.counted({name: self._trials(top, f"trials_to_{name}.txt", directory) for name in self.splits})
        tops = {name: the_directory(directory, f"ibmGesture{name.capitalize()}") for name in self.splits}
        return {name: self._repacked(top, directory) for name, top in tops.items()}  # how many, nobody states

    def _trials(self, top: Path, name: str, root: Path) -> list[Recording]:
        recordings: list[Recording] = []
        for file in text(top / name, "list of the split").split():
            whole = below(top, file, top / name)
            labels, path = below(top, file.replace(".aedat", "_labels.csv"), top / name), whole.relative_to(root)
            subject = file.partition("_")[0]
            rows = self._rows(labels)
            recordings += [Recording(path.as_posix(), label, subject, start, stop) for label, start, stop in rows]
        return recordings

    def _rows(self, path: Path) -> list[tuple[int, int, int]]:
        try:
            rows = list(csv.reader(text(path, "file of labels").splitlines()))
        except csv.Error as error:
            raise DatasetError(f"{path}: cannot be read: {error}; get the archive again") from error
        heading = rows[0] if rows else []
        if not heading or heading[0].strip().isdigit():
            raise DatasetError(f"{path}: line 1 is {heading}; a heading was expected (class, start, end)")
        return [self._row(path, number, row) for number, row in enumerate(rows[1:], 2) if row]

    def _row(self, path: Path, number: int, row: list[str]) -> tuple[int, int, int]:
        try:
            label, start, stop = (int(cell) for cell in row)
        except ValueError as error:
            raise DatasetError(f"{path}: line {number} is {row}; class, start and end were expected") from error
        if not 1 <= label <= self.num_outputs:
            raise DatasetError(f"{path}: line {number} has the unknown class {label}; 1 to 11 were expected")
        if start < 0:
            raise DatasetError(f"{path}: line {number} starts at {start} µs; at least 0 was expected")
        if stop <= start:
            raise DatasetError(f"{path}: line {number} ends at {stop} µs, not behind its start at {start}")
        return label - 1, start, stop

    def _repacked(self, top: Path, root: Path) -> list[Recording]:
        recordings = []
        for path in sorted(top.glob("*/*.npy")):
            if not path.stem.isdigit() or int(path.stem) >= self.num_outputs:
                raise DatasetError(f"{path}: is of an unknown class; 0.npy to 10.npy were expected")
            recordings.append(
                Recording(path.relative_to(root).as_posix(), int(path.stem), path.parent.name.partition("_")[0])
            )
        return recordings

    def read(self, directory: Path, recording: Recording) -> Events:
        path = directory / recording.path
        if path.suffix == ".npy":
            return read_events(path, "npy", self.sensor_size, columns="xypt", unit="ms")
        events = self._whole(path)
        first, last = (int(events.t[0]), int(events.t[-1])) if len(events) else (0, -1)
        if recording.stop_us <= first or recording.start_us > last:
            raise DatasetError(
                f"{path}: the trial from {recording.start_us} to {recording.stop_us} µs is not in the recording, which "
                f"goes from {first} to {last} µs: labels and recording do not belong together; get the archive again"
            )
        start, stop = np.searchsorted(events.t, (recording.start_us, recording.stop_us))
        return events[int(start) : int(stop)]

    def _whole(self, path: Path) -> Events:
        """The last recording is kept: its dozen trials are asked for one after the other."""
        kept: tuple[Path, Events] | None = self.__dict__.get("_kept")
        if kept is None or kept[0] != path:
            self.__dict__["_kept"] = kept = (path, read_events(path, "aedat3", self.sensor_size))
        return kept[1]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_kept"}


class ASLDVS(Shared):
    """ASL-DVS; a seeded split per class."""

    name: ClassVar[str] = "asl-dvs"
    info = declarations.ASL_DVS
    present: ClassVar[tuple[str, ...]] = ("**/a/*.mat",)
    nested: ClassVar[bool] = True

    def recordings(self, directory: Path) -> Splits:
        sequences: list[Recording] = []
        for label, name in enumerate(self.info.classes):
            top = the_directory(directory, name, depth=5)
            paths = sorted(path for path in top.glob("*.mat") if path.name[0] != ".")
            sequences += [Recording(path.relative_to(directory).as_posix(), label) for path in paths]
        return self.divided(sequences)

    def read(self, directory: Path, recording: Recording) -> Events:
        path = directory / recording.path
        with reading_errors(path):
            ts, x, y, pol = read_mat(path, ("ts", "x", "y", "pol"))
        events = check_inside(make_events(ts, x, y, pol, str(path)), self.sensor_size, str(path))
        return events.replace(x=np.uint16(239) - events.x, y=np.uint16(179) - events.y)


class _NAVGesture(Shared):
    """Base of the two parts of NAV Gesture; subjects are divided, seeded."""

    present: ClassVar[tuple[str, ...]] = ("**/*.dat",)
    nested: ClassVar[bool] = True

    @dataclass(frozen=True)
    class Config(Shared.Config):
        """
        Args:
            test_share: share of the subjects in the test split; `seed` says who.
        """

        test_share: Annotated[float, Range(gt=0.0, lt=1.0)] = 0.2

    def recordings(self, directory: Path) -> Splits:
        recordings = []
        for path in sorted(directory.rglob("*.dat")):
            parts = path.relative_to(directory).parts
            if any(part.startswith((".", "__MACOSX")) for part in parts):
                continue
            words = re.split(r"[_\-. ]", path.stem.lower())
            label = next((declarations.NAV.index(word) for word in words if word in declarations.NAV), None)
            if label is None:
                raise DatasetError(f"{path}: its name holds none of the gestures {' '.join(declarations.NAV)}")
            recordings.append(Recording("/".join(parts), label, words[0]))
        return dict(
            zip(self.splits, split_by_subject(recordings, self.config.test_share, self.config.seed), strict=True)
        )

    def read(self, directory: Path, recording: Recording) -> Events:
        events = super().read(directory, recording)
        return events.replace(y=np.uint16(239) - events.y)


class NAVGestureWalk(_NAVGesture):
    """NAV Gesture, walking; subjects are divided, seeded."""

    name: ClassVar[str] = "nav-gesture-walk"
    info = declarations.NAV_WALK


class NAVGestureSit(_NAVGesture):
    """NAV Gesture, sitting; subjects are divided, seeded."""

    name: ClassVar[str] = "nav-gesture-sit"
    info = declarations.NAV_SIT


class ESImageNet(NamedDataset):
    """ES-ImageNet; the authors' validation part is the test split."""

    name: ClassVar[str] = "es-imagenet"
    info = declarations.ES_IMAGENET
    present: ClassVar[tuple[str, ...]] = ("**/train/class0/*.npz",)

    def recordings(self, directory: Path) -> Splits:
        top = the_directory(directory, "train").parent
        val = the_directory(top, "val")
        labels = next(
            (path for path in (top / "vallabel.txt", val / "vallabel.txt") if path.is_file()), top / "vallabel.txt"
        )
        test = [
            Recording(below(val, name, labels).relative_to(directory).as_posix(), label)
            for name, label in table(labels, self.num_outputs)
        ]
        return {"train": by_class(top / "train", self.info.classes, "*.npz", directory), "test": test}

    def read(self, directory: Path, recording: Recording) -> Events:
        path = directory / recording.path
        with reading_errors(path):
            arrays = read_npz(path)
        if missing := {"pos", "neg"} - set(arrays):
            raise DatasetError(f"{path}: lacks the array {min(missing)!r}; it has {', '.join(arrays)}")
        halves = []
        for name, polarity in (("neg", 0), ("pos", 1)):
            rows = arrays[name]
            if rows.ndim != 2 or rows.shape[1] < 3:
                raise DatasetError(f"{path}: {name} has the shape {rows.shape}; [N, 3] (x, y, t) was expected")
            halves.append((rows[:, 2], rows[:, 0], rows[:, 1], np.full(len(rows), polarity)))
        columns = (np.concatenate(pair) for pair in zip(*halves, strict=True))
        return check_inside(make_events(*columns, source=str(path)), self.sensor_size, str(path))


class HARDVS(NamedDataset):
    """HARDVS; the authors' split."""

    name: ClassVar[str] = "hardvs"
    info = declarations.HARDVS
    splits: ClassVar[tuple[str, ...]] = ("train", "test", "val")
    present: ClassVar[tuple[str, ...]] = ("**/action_001/**/*.npz",)
    unit: ClassVar[Unit | Literal["auto"]] = "us"
    nested: ClassVar[bool] = True

    def recordings(self, directory: Path) -> Splits:
        files = {path.stem: path for path in directory.rglob("*.npz") if path.name[0] != "."}
        by_split: Splits = {}
        for name in self.splits:
            by_split[name] = []
            for file, label in table(self._labels(directory, f"{name}_label.txt"), self.num_outputs):
                path = files.get(Path(file).stem if file.endswith(".npz") else Path(file).name)
                if path is None:
                    raise DatasetError(f"{directory}: {name}_label.txt names {file}, which is not there")
                by_split[name].append(Recording(path.relative_to(directory).as_posix(), label))
        return by_split

    def _labels(self, directory: Path, name: str) -> Path:
        candidates = [self.directory / name, *sorted(directory.rglob(name))]
        return next((path for path in candidates if path.is_file()), self.directory / name)


class Bullying10K(NamedDataset):
    """Bullying10K; every fifth recording of a class is in the test split."""

    name: ClassVar[str] = "bullying10k"
    info = declarations.BULLYING10K
    present: ClassVar[tuple[str, ...]] = ("**/handshake/**/*.npy",)

    def recordings(self, directory: Path) -> Splits:
        by_split: Splits = {"train": [], "test": []}
        for label, name in enumerate(self.info.classes):
            top = the_directory(directory, name)
            paths = sorted(path for path in top.rglob("*.npy") if path.name[0] != ".")
            for i, path in enumerate(paths):
                split = "test" if i % 5 == 0 else "train"
                by_split[split].append(Recording(path.relative_to(directory).as_posix(), label))
        return by_split

    def read(self, directory: Path, recording: Recording) -> Events:
        path = directory / recording.path
        with reading_errors(path):
            return check_inside(pickled.read(path), self.sensor_size, str(path))


class DVSLip(NamedDataset):
    """DVS-Lip; the authors' split, by speaker."""

    name: ClassVar[str] = "dvs-lip"
    info = declarations.DVS_LIP
    present: ClassVar[tuple[str, ...]] = ("**/DVS-Lip/train/*/*.npy",)
    unit: ClassVar[Unit | Literal["auto"]] = "us"

    def recordings(self, directory: Path) -> Splits:
        top = the_directory(directory, "DVS-Lip")
        classes = self.info.classes
        return self.counted({name: by_class(top / name, classes, "*.npy", directory) for name in self.splits})


FILE_NAMES = {"val": "valid"}
"""Split → its name in the authors' file names, where that is another."""


class _Heidelberg(NamedDataset):
    """Base of SHD and SSC: one HDF5 file per split."""

    prefix: ClassVar[str]

    @dataclass(frozen=True)
    class Config(NamedDataset.Config):
        """
        Args:
            representation: what a recording becomes; `units` gives `[T, 700]`.
        """

        representation: Annotated[Any, REPRESENTATION] = Units()  # noqa: RUF009

    def recordings(self, directory: Path) -> Splits:
        return self.counted({name: self._within(directory, FILE_NAMES.get(name, name)) for name in self.splits})

    def _within(self, directory: Path, split: str) -> list[Recording]:
        name = f"{self.prefix}_{split}.h5"
        paths = sorted(path for path in directory.rglob(name) if path.is_file())
        if not paths:
            raise DatasetError(f"{directory}: holds no {name}; get the archives again")
        path = paths[0]
        with open_file(path) as file, sound(path):
            labels, speakers = whole(file["labels"], str(path)), file.get("extra/speaker")
            speakers = whole(speakers, str(path)) if speakers is not None else [""] * len(labels)
            numbers = [len(file[f"spikes/{name}"]) for name in ("times", "units")]
        labels = labels.astype(int).tolist()
        if {len(speakers), *numbers} != {len(labels)}:
            raise DatasetError(
                f"{path}: is damaged: it holds {len(labels)} labels, {len(speakers)} speakers, "
                f"{numbers[0]} rows of times and {numbers[1]} of units"
            )
        if wrong := [label for label in labels if not 0 <= label < self.num_outputs]:
            raise DatasetError(f"{path}: has the unknown class {wrong[0]}; there are {self.num_outputs}")
        where = path.relative_to(directory).as_posix()
        return [
            Recording(where, label, str(speaker), item=i)
            for i, (label, speaker) in enumerate(zip(labels, speakers, strict=True))
        ]

    def read(self, directory: Path, recording: Recording) -> Events:
        path = directory / recording.path
        with reading_errors(path), sound(path, f"recording {recording.item}"):
            spikes = self._file(path)["spikes"]
            times = np.asarray(self._row(spikes["times"], recording.item, path), np.float64)
            units = self._row(spikes["units"], recording.item, path)
        ones = np.ones(len(times), np.uint8)
        events = make_events(np.rint(times * 1e6), units, np.zeros(len(units)), ones, str(path))
        return check_inside(in_order(events), self.sensor_size, str(path))

    def _row(self, rows: Any, item: int, path: Path) -> np.ndarray:
        check_chunks(rows, str(path))
        return np.asarray(rows[item])

    def _file(self, path: Path) -> Any:
        import os

        key = (os.getpid(), path)  # a file that a parent process opened must not be shared
        if key not in self._files:
            self._files[key] = open_file(path)
        return self._files[key]

    @cached_property
    def _files(self) -> dict[tuple[int, Path], Any]:
        return {}

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_files"}


class SHD(_Heidelberg):
    """Spiking Heidelberg Digits; the authors' split, with a part of the training split for validation on request."""

    name: ClassVar[str] = "shd"
    info = declarations.SHD
    prefix: ClassVar[str] = "shd"
    present: ClassVar[tuple[str, ...]] = ("**/shd_train.h5",)

    @dataclass(frozen=True)
    class Config(_Heidelberg.Config):
        """
        Args:
            val_share: share of the training split that becomes the split `val`; `seed` says which. 0: there is none.
            val_by: the share is one of each class, or of the speakers, who then are in one split only.
        """

        val_share: Annotated[float, Range(ge=0.0, lt=1.0)] = 0.0
        val_by: Literal["class", "speaker"] = "class"

    @classmethod
    def idle_options(cls, config: Any) -> Iterable[tuple[str, str]]:
        """Who is in it does not matter to a validation split that is not there."""
        yield from super().idle_options(config)
        if not config.val_share:
            yield "val_by", "with val_share = 0 there is no validation split"

    @property
    def splits(self) -> tuple[str, ...]:  # type: ignore[override]
        """`train` and `test`, and `val` where there is a `val_share`."""
        return ("train", "val", "test") if self.config.val_share else ("train", "test")

    def recordings(self, directory: Path) -> Splits:
        by_split = self.counted({name: self._within(directory, name) for name in ("train", "test")})
        if not self.config.val_share:
            return by_split
        cut = split_by_subject if self.config.val_by == "speaker" else split_per_class
        train, val = cut(by_split["train"], self.config.val_share, self.config.seed)
        return {"train": train, "val": val, "test": by_split["test"]}


class SSC(_Heidelberg):
    """Spiking Speech Commands; the authors' split."""

    name: ClassVar[str] = "ssc"
    info = declarations.SSC
    prefix: ClassVar[str] = "ssc"
    splits: ClassVar[tuple[str, ...]] = ("train", "val", "test")
    present: ClassVar[tuple[str, ...]] = ("**/ssc_train.h5",)


ALL: tuple[type[EventDataset], ...] = (
    *(NMNIST, NCaltech101, CIFAR10DVS, DVS128Gesture, ASLDVS, NAVGestureWalk, NAVGestureSit),
    *(ESImageNet, HARDVS, Bullying10K, DVSLip, SHD, SSC),
)

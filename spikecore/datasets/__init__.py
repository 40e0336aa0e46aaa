"""What datasets are built from: fetching, unpacking and caching, splits, folders of files, and mixing of samples."""

from spikecore.datasets.downloads import is_offline, offline
from spikecore.datasets.epochs import Epoch
from spikecore.datasets.folders import check_filled, class_names, is_class, labelled_files, split_directories, tops
from spikecore.datasets.mixing import CutMix, Mix, Mixup, mix_batch
from spikecore.datasets.splits import split_by_subject, split_per_class, subset
from spikecore.datasets.store import (
    DataFile,
    Limits,
    Member,
    data_dir,
    extract,
    fetch,
    lock,
    make_directory,
    matches,
    sync,
    unpack,
    verify,
    write_aside,
    writing,
)

__all__ = [
    "CutMix",
    "DataFile",
    "Epoch",
    "Limits",
    "Member",
    "Mix",
    "Mixup",
    "check_filled",
    "class_names",
    "data_dir",
    "extract",
    "fetch",
    "is_class",
    "is_offline",
    "labelled_files",
    "lock",
    "make_directory",
    "matches",
    "mix_batch",
    "offline",
    "split_by_subject",
    "split_directories",
    "split_per_class",
    "subset",
    "sync",
    "tops",
    "unpack",
    "verify",
    "write_aside",
    "writing",
]

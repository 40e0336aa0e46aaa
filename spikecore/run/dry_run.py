"""`spike run --dry-run`: builds all that a run would train, and downloads nothing.

Where the files of a dataset are not here, or a part of the run would connect to a server by means of its own, it says
what would be fetched and what could not be checked for that reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from spikecore.datasets.downloads import offline
from spikecore.errors import NotDownloadedError
from spikecore.interfaces.dataset import DataFile, DatasetInfo
from spikecore.registry import build, use
from spikecore.run.build import prepare
from spikecore.run.config import Resolved
from spikecore.run.restore import SavedRun
from spikecore.run.text import bytes_text, count_text


def inspect(resolved: Resolved) -> str:
    """What a new run would train."""
    try:
        with _offline():
            return f"sound: {prepare(resolved)}"
    except NotDownloadedError as error:
        unchecked = f"{_data_text(resolved)}, and the net that is built for them"
        return "\n".join([*_plan(resolved, error), _unchecked_text(unchecked)])


def inspect_resume(directory: str | Path, checkpoint: str, overrides: Sequence[str]) -> str:
    """Where a run would go on."""
    saved = SavedRun.open(Path(directory))
    resolved = saved.resolve(overrides)
    try:
        with _offline():
            prepared = prepare(resolved, loaded_bytes=saved.weight_bytes)
            saved.refuse_other_samples(prepared)
            since = saved.resumable(checkpoint, prepared)
    except NotDownloadedError as error:
        unchecked = f"{_data_text(resolved)}, and whether the checkpoint fits the net and the metrics"
        return "\n".join([*_plan(resolved, error), _unchecked_text(unchecked)])
    if saved.is_done(checkpoint, overrides):
        return "sound: finished already, nothing is left to do"
    return f"sound: would go on from {since.name if since else 'the seed'}"


@contextmanager
def _offline() -> Iterator[None]:
    """Nothing is downloaded inside. An error that a refused connection caused is raised as what it is.

    Raises:
        NotDownloadedError: a file is not here, or a connection was refused.
    """
    with offline() as refused:
        try:
            yield
        except NotDownloadedError:
            raise
        except Exception as error:
            if not refused:
                raise
            text = f"a connection to {refused[0]} was refused, since a dry run downloads nothing ({error})"
            raise NotDownloadedError(text) from error


def _data_text(resolved: Resolved) -> str:
    return "the files of the dataset, its splits" if "dataset" in resolved.names else "the parts that are not here"


def _unchecked_text(unchecked: str) -> str:
    return f"sound so far: the configuration and the options of every component\nnot checked: {unchecked}"


def _plan(resolved: Resolved, error: NotDownloadedError) -> list[str]:
    """What a run would fetch."""
    starts = [f"{table} starts from the weights {weights!r}" for table, weights in resolved.weights.items()]
    if "dataset" not in resolved.names:  # the trainer itself, or its environment, wanted to connect
        return [*starts, f"a part of this run is not here: {error}"]
    name, directory = resolved.names["dataset"], Path(error.directory)
    with use(resolved.registry):
        info: DatasetInfo = build("dataset", name, resolved.tables["dataset"]).info
    missing = [file for file in info.files if not (directory / file.name).is_file()]
    if not missing or not error.directory:  # the dataset fetches what its info does not list
        return [*starts, f"dataset {name!r} is not here: {error}"]
    here = [file.name for file in info.files if file not in missing]
    known = sum(file.size or 0 for file in missing)
    size = f", {bytes_text(known)}" if known else ""
    if known and any(file.size is None for file in missing):
        size += " and more"
    lines = [*starts, f"dataset {name!r} is not here: a run would fetch {count_text(len(missing), 'file')}{size}"]
    lines += [f"  {_file_text(file)}" for file in missing]
    lines.append(f"into {directory}" + (f", where {', '.join(here)} is already" if here else ""))
    return lines


def _file_text(file: DataFile) -> str:
    size = bytes_text(file.size) if file.size is not None else "size unknown"
    return f"{file.name}  {size}  {' or '.join(file.urls)}"

"""One row per measurement, with everything needed to interpret it later, as CSV and JSON."""

from __future__ import annotations

import csv
import importlib.metadata
import io
import math
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spikecore.errors import ConfigError, RunError
from spikecore.files import write_file
from spikecore.processor import processor_name
from spikecore.version import __version__

if TYPE_CHECKING:
    from spikecore.bench.timing import Times

OK = "ok"
FAILED = "failed"
UNSUPPORTED = "unsupported"
UNAVAILABLE = "unavailable"


@dataclass
class Row:
    """One candidate, one measure, one shape; figures that do not apply are None.

    Args:
        subject: `lif`, or the name of a net.
        shape: `T,B,N`.
        measure: `forward`, `forward+backward`, `single step`, `training step`.
        candidate: who.
        version: of its distribution.
        kind: `backend`, `peer`, `bound`.
        status: `ok`; `failed`: the gate or the call; `unsupported`: not this case; `unavailable`: not here.
        compared: what the gate found.
        reason: why the status is not `ok`, or why a figure is missing.
        wall_ms_p10, wall_ms, wall_ms_p90: percentiles of one call (10, 50, 90).
        cpu_ms: median CPU time of one call, all threads.
        rounds, repeats: samples, and calls per sample.
        times_faster: median of eager over this median.
        floor_ms: the least time, by the bytes of the measure.
        times_floor: this median over it.
        copy_gb_s: the best copy of a tensor of this size, both ways.
        ps_per_byte: median over the bytes that must move.
        per_byte_of_lif: the same, relative to LIF on this candidate.
        peak_mib: memory at the peak of one call.
        first_call_ms: the first call in the process that did the timing.
        first_cold_ms, first_warm_ms: first use in a fresh process, cache empty or filled.
        load_cold_ms, load_warm_ms: loading the plugin or library before that.
        rate: outputs per element-step of the reference.
    """

    subject: str
    shape: str
    measure: str
    candidate: str
    version: str = ""
    kind: str = "backend"
    device: str = "cpu"
    dtype: str = "float32"
    status: str = OK
    compared: str = ""
    reason: str = ""
    wall_ms_p10: float | None = None
    wall_ms: float | None = None
    wall_ms_p90: float | None = None
    cpu_ms: float | None = None
    rounds: int | None = None
    repeats: int | None = None
    times_faster: float | None = None
    floor_ms: float | None = None
    times_floor: float | None = None
    copy_gb_s: float | None = None
    ps_per_byte: float | None = None
    per_byte_of_lif: float | None = None
    peak_mib: float | None = None
    first_call_ms: float | None = None
    first_cold_ms: float | None = None
    first_warm_ms: float | None = None
    load_cold_ms: float | None = None
    load_warm_ms: float | None = None
    rate: float | None = None


COLUMNS = tuple(field.name for field in fields(Row))


def fill(rows: Mapping[str, Row], times: Mapping[str, Times], reference: str) -> None:
    """Put times into rows; `times_faster` is relative to the candidate named `reference`."""
    for name, timed in times.items():
        row = rows[name]
        if timed.error:
            row.status, row.reason = FAILED, timed.error
        if timed.error or not timed.samples:
            continue
        row.wall_ms_p10, row.wall_ms, row.wall_ms_p90 = (timed.wall_ms(percent) for percent in (10, 50, 90))
        row.cpu_ms, row.rounds, row.repeats = timed.cpu_ms(), len(timed.samples), timed.repeats
        row.first_call_ms = 1000 * timed.first_s
    base = rows[reference].wall_ms if reference in rows else None
    for row in rows.values():
        if base is not None and row.wall_ms:
            row.times_faster = base / row.wall_ms


def environment(num_threads: int, device: str = "cpu") -> dict[str, Any]:
    """Machine and versions, which are the same for every row."""
    return {
        "date": f"{datetime.now(timezone.utc):%Y-%m-%d}",
        "device_name": device_name(device),
        "threads": num_threads,
        "load_average": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in ("torch", "numpy")},
        "spikecore": __version__,
        **_git_state(),
    }


def device_name(device: str = "cpu") -> str:
    """The processor's, or the accelerator's."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(device)
    return processor_name()


def _git_state() -> dict[str, str]:
    """Commit of the source tree that runs, and whether it has changes that are in no commit."""
    here = Path(__file__).parent

    def ask(*words: str) -> str | None:
        try:
            result = subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return result.stdout.strip() if result.returncode == 0 else None

    commit = ask("rev-parse", "HEAD")
    changes = ask("status", "--porcelain", "--untracked-files=no", "--", str(here.parent))
    if commit is None:
        state = ""
    elif changes is None:
        state = "unknown"
    else:
        state = "changed" if changes else "clean"
    return {"git_commit": commit or "", "git_state": state}


def round_value(value: Any) -> Any:
    """Five significant digits: more would be noise."""
    return float(f"{value:.5g}") if isinstance(value, float) and math.isfinite(value) else value


def as_records(rows: Iterable[Row], common: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows as plain dictionaries, each with the common columns."""
    lines = []
    for row in rows:
        rounded = {name: round_value(value) for name, value in asdict(row).items()}
        lines.append({**rounded, **common})
    return lines


def check_writable(path: str | Path) -> None:
    """Check that a file can be written, before minutes of measuring.

    Raises:
        ConfigError: the file cannot be written.
    """
    aside = Path(path).with_name(Path(path).name + ".partial")
    try:
        aside.parent.mkdir(parents=True, exist_ok=True)
        aside.touch()
        aside.unlink()
    except OSError as error:
        raise ConfigError(f"--csv {path}: cannot be written: {error}") from error


def write_csv(path: str | Path, records: Sequence[Mapping[str, Any]], columns: Sequence[str] = ()) -> None:
    """Write a CSV under a temporary name, and rename it once it is complete.

    Args:
        path: the file.
        records: one dictionary per line, all with the same keys.
        columns: the header, where there may be no record.

    Raises:
        RunError: it cannot be written.
    """
    path = Path(path)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(records[0]) if records else list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, text.getvalue())
    except OSError as error:
        raise RunError(f"{path}: cannot be written: {error}; the measurement is lost, name another file") from error

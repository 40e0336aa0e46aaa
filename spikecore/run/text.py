"""Numbers and times as people read them."""

from __future__ import annotations

from collections.abc import Mapping

from spikecore.errors import SpikeError

SPLIT_NAMES = {"train": "training", "val": "validation", "test": "test"}
"""The splits in the order in which they are shown."""


def value_text(name: str, value: float) -> str:
    """A metric."""
    return f"{value:.2%}" if "accuracy" in name else f"{value:.4g}"


def aligned_value_text(name: str, value: float) -> str:
    """A metric in a column of them: four decimals, and four digits where these would be zeros."""
    if "accuracy" in name:
        return f"{value:.2%}"
    return f"{value:.4g}" if 0 < abs(value) < 0.001 else f"{value:.4f}"


def seconds_text(seconds: float) -> str:
    """A duration: `12.3 s`, `1 min 20 s`, `3 h 04 min`."""
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def clock_text(seconds: float) -> str:
    """A duration in few characters: `0:12`, `1:20`, `3:04:05`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def rate_text(rate: float) -> str:
    """A number per second."""
    return f"{rate:.0f}" if rate >= 100 else f"{rate:.3g}"


def count_text(count: int, noun: str, plural: str = "") -> str:
    """`1 thread`, `2 threads`; `2 batches`, where the plural is another."""
    return f"{count} {noun}" if count == 1 else f"{count} {plural or noun + 's'}"


def samples_text(num_samples: Mapping[str, int]) -> str:
    """`809 training, 90 validation, 898 test samples`; `no samples` where there are no splits."""
    parts = [f"{num_samples[split]} {SPLIT_NAMES[split]}" for split in SPLIT_NAMES if split in num_samples]
    return f"{', '.join(parts) or 'no'} samples"


def other_labels(before: Mapping[str, str], here: Mapping[str, str]) -> str:
    """The splits whose checksums of labels differ: `'train', 'test'`."""
    names = [name for name in SPLIT_NAMES if before.get(name) != here.get(name)]
    return ", ".join(map(repr, names))


def reason_text(error: Exception) -> str:
    """What an error says; with its type, where the text alone would not tell (`KeyError: 'a'`)."""
    return str(error) if isinstance(error, SpikeError) else f"{type(error).__name__}: {error}"


def bytes_text(size: int) -> str:
    """A file size in decimal units, to three digits: `999 B`, `1.23 MB`."""
    if size < 1000:
        return f"{size} B"
    value, unit = size / 1000, "kB"
    for larger in ("MB", "GB", "TB"):
        if value < 999.5:  # what is above would be rounded to 1e+03
            break
        value, unit = value / 1000, larger
    return f"{value:.3g} {unit}"

"""`profile.json`: what `spike profile RUN_DIR` measured, kept beside the run for its report."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spikecore.analysis import page
from spikecore.analysis.operations import ENERGY_MODELS, Operations
from spikecore.analysis.operations_page import operations_section
from spikecore.documents import parse_json
from spikecore.files import read_file, write_file
from spikecore.run.typed import from_plain

FILE = "profile.json"
MOST_BYTES = 1 << 26


@dataclass(frozen=True)
class Profile:
    """What was measured.

    Args:
        source: configuration or directory.
        weights: checkpoint, or that they are untrained.
        samples: that were counted.
        device: that the times are of.
        operations: of the net.
        ann: of the artificial net of the same shape, for one step; None where there is none.
        ann_note: why there is none, or what it was given.
    """

    source: str
    weights: str
    samples: str
    device: str
    operations: Operations
    ann: Operations | None
    ann_note: str

    @property
    def remark(self) -> str:
        """What the numbers are of."""
        return f"{self.samples}, weights: {self.weights}, times on {self.device}. {self.ann_note}."

    def to_plain(self) -> dict[str, Any]:
        """Plain JSON data."""
        models = {name: {**vars(model)} for name, model in ENERGY_MODELS.items()}
        ann = None if self.ann is None else self.ann.to_plain()
        return {
            "schema": 1,
            **vars(self),
            "operations": self.operations.to_plain(),
            "ann": ann,
            "energy_models": models,
        }


def keep(directory: Path, profile: Profile) -> None:
    """Put a profile into a run directory, in place of an earlier one.

    Raises:
        OSError: it cannot be written.
    """
    write_file(directory / FILE, json.dumps(dataclasses.asdict(profile), indent=1))


def section(directory: Path) -> list[str]:
    """The part of the report with the profile that was kept; nothing where there is none."""
    path = directory / FILE
    if not path.is_file():
        return []
    try:
        plain = parse_json(read_file(path, MOST_BYTES), most_bytes=MOST_BYTES)
        kept: Profile = from_plain(Profile, plain)
        parts = [*operations_section(kept.operations, kept.ann), page.note(kept.remark)]
    except Exception as error:  # whatever is in the file, the rest of the report is made
        again = f"`spike profile {directory}` measures again"
        parts = [page.note(f"{FILE} is damaged: {type(error).__name__}: {error}; {again}")]
    return [page.section("Cost", *parts)]

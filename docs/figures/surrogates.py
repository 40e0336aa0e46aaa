"""Draws every surrogate of the core at its default options; `make docs` runs it.

    python docs/figures/surrogates.py [FOLDER]

Writes FOLDER/NAME.svg, by default into docs/figures/surrogates. The same versions of spikecore and matplotlib write the
same bytes.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib

from spikecore.analysis import surrogate_curves
from spikecore.registry import components, create

STYLE = {"svg.fonttype": "none", "svg.hashsalt": "spikecore", "font.size": 9}


def draw(folder: Path) -> list[Path]:
    """The files written."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name in sorted(entry.name for entry in components("surrogate") if entry.plugin.id == "core"):
        path = folder / f"{name}.svg"
        with matplotlib.rc_context(STYLE):
            figure = surrogate_curves(create("surrogate", name))
            figure.savefig(path, metadata={"Date": None, "Creator": "spikecore", "Title": f"surrogate {name}"})
        paths.append(path)
    return paths


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "surrogates"
    for written in draw(target):
        print(written)

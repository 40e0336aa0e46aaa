"""Distributions made on the spot: discovery reads metadata on a path, so its tests put such metadata there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from spikecore.registry import Blocking, Registry


def fake_distribution(
    directory: Path,
    name: str,
    entry_points: Mapping[str, Mapping[str, str]],
    *,
    version: str = "1.0",
    requires: tuple[str, ...] = (),
    modules: Mapping[str, str] | None = None,
) -> Path:
    """Install a distribution into `directory`: METADATA, entry points and modules, as an installer writes them.

    Args:
        directory: where it goes; put it on `sys.path` (or PYTHONPATH) to have it found.
        name: the distribution's name.
        entry_points: group → name → target.
        version: its version.
        requires: its `Requires-Dist` lines.
        modules: file name (`mine.py`) → source text.

    Returns:
        `directory`.
    """
    info = directory / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", f"Summary: the test plugin {name}"]
    lines += [f"Requires-Dist: {requirement}" for requirement in requires]
    info.joinpath("METADATA").write_text("\n".join(lines) + "\n\n")  # the headers end with an empty line
    text = ""
    for group, points in entry_points.items():
        text += f"[{group}]\n" + "".join(f"{key} = {target}\n" for key, target in points.items())
    info.joinpath("entry_points.txt").write_text(text)
    for file, source in (modules or {}).items():
        directory.joinpath(file).write_text(source)
    return directory


def isolated_registry() -> Registry:
    """A registry that refuses discovery: it knows only what is registered in it."""
    return Registry(path=(), blocking=Blocking())

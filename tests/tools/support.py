"""`make support`: writes docs/reference/support.md, what each plugin needs and where it is tested, from plugins/*."""

from __future__ import annotations

from pathlib import Path

from packaging.requirements import Requirement

from spikecore.kinds import KINDS
from spikecore.registry.catalogue import known
from tests.suites.places import ROOT, plugins
from tests.suites.table import OTHER_PYTHONS, suites
from tests.tools.release import project

FILE = ROOT / "docs/reference/support.md"
HEAD = """# Support matrix

Written by `make support` from `plugins/*`; a test compares. Each plugin is tested alone with core, in an environment
without the other plugins (`make test`), and all of them together (`make check`, where they are also built, installed
from wheels, and loaded on the lowest versions that they declare). Tests that need a device or an optional package
that is missing are skipped, with the reason.

| plugin | version | core | Python | components | needs | extras | alone with core | all together |
|---|---|---|---|---|---|---|---|---|
"""
TAIL = """
Linux on x86-64 is tested, with the versions in `constraints.txt`. Listing, configuration and the registry need no
torch; they are also tested on Python {pythons}. Other systems are not tested.
"""


def row(plugin: Path) -> str:
    """The line of a plugin."""
    meta = project(plugin)
    requirements = [Requirement(line) for line in meta["dependencies"]]
    core = next(str(requirement.specifier) for requirement in requirements if requirement.name == "spikecore")
    needs = sorted(f"{r.name}{r.specifier}" for r in requirements if r.name not in ("spikecore", "torch"))
    extras = sorted(name for name in meta.get("optional-dependencies", {}) if name != "testing")
    number = sum(owner == plugin.name and kind in KINDS for (kind, _), owner in known().items())
    alone = f"plugin-{plugin.name}"
    assert alone in suites(), f"{plugin.name} has no suite of its own"
    cells = [
        f"[{plugin.name}](../../plugins/{plugin.name}/README.md)",
        meta["version"],
        f"`{core}`",
        meta["requires-python"],
        str(number),
        ", ".join(needs) or "–",
        ", ".join(extras) or "–",
        f"`{alone}`",
        "`check-wheels` `check-integration`",
    ]
    return f"| {' | '.join(cells)} |"


def generated() -> str:
    """The text of the page."""
    return HEAD + "\n".join(map(row, plugins())) + "\n" + TAIL.format(pythons=", ".join(OTHER_PYTHONS))


if __name__ == "__main__":
    FILE.write_text(generated(), encoding="utf-8")

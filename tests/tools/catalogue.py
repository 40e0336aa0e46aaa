"""`make catalogue`: writes spikecore/registry/known.json from the pyproject.toml of core and of every plugin."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from spikecore.registry.catalogue import CORE_ID
from spikecore.registry.metadata import GROUPS, kind_and_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "spikecore/registry/known.json"


def components(project: Path) -> set[str]:
    """`KIND:NAME` of what a distribution's entry points offer; commands and choices count, hook modules do not."""
    tables = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    offered = set()
    for group, points in tables.get("entry-points", {}).items():
        if GROUPS.get(group, "plugin") != "plugin":
            offered |= {":".join(kind_and_name(group, name)) for name in points}
    return offered


def generated(root: Path = ROOT) -> str:
    """The text of known.json: one line per component, sorted, so that two branches that add one each can be merged."""
    owners = dict.fromkeys(components(root), CORE_ID)
    for project in sorted(path.parent for path in root.glob("plugins/*/pyproject.toml")):
        for component in components(project):
            if component in owners:
                raise SystemExit(f"{component} is offered by {owners[component]} and by {project.name}: rename one")
            owners[component] = project.name
    return json.dumps(owners, indent=0, sort_keys=True, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FILE.write_text(generated(), encoding="utf-8")

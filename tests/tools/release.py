"""`make release`: builds and checks what would be published, and stops short of publishing.

    python -m tests.tools.release [--out DIR]

Of core and each plugin it builds the sdist, and the wheel from the sdist, so that a file missing from the sdist is
missing from the wheel too. Then it looks inside: licence, `py.typed`, every file of data, entry points, the heading of
the version in the change log. At the end it prints what a person does to publish.
"""

from __future__ import annotations

import argparse
import configparser
import email
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from packaging.requirements import Requirement

from tests.suites.environments import call, remove_left_overs
from tests.suites.places import BUILD, ROOT, plugins

NOT_IN_WHEELS = ("__pycache__",)
FLOOR_FREE = ("torch",)
"""Its floor is a matter of hardware and of the tests on it: it is not installed at its floor here."""


def project(source: Path) -> dict[str, Any]:
    """The table `project` of a pyproject.toml."""
    loaded: dict[str, Any] = tomllib.loads((source / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return loaded


def build(sources: list[Path], out: Path) -> None:
    """Build sdist and wheel of each source into a new directory."""
    shutil.rmtree(out, ignore_errors=True)
    for source in sources:
        call(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, source)
    remove_left_overs()


def problems(source: Path, out: Path) -> Iterator[str]:
    """What is wrong with the built files of a source; nothing where all is right."""
    meta = project(source)
    stem = f"{meta['name'].replace('-', '_')}-{meta['version']}"
    wheels, sdist = sorted(out.glob(f"{stem}-*.whl")), out / f"{stem}.tar.gz"
    if len(wheels) != 1 or not sdist.is_file():
        yield f"{stem}: expected one wheel and one sdist in {out}, got {[path.name for path in out.glob(f'{stem}*')]}"
        return
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    yield from (
        f"{sdist.name}: lacks {name}" for name in ("LICENSE", "README.md", "pyproject.toml") if name not in inside
    )
    with zipfile.ZipFile(wheels[0]) as archive:
        names = set(archive.namelist())
        info = f"{stem}.dist-info"
        metadata = email.message_from_bytes(archive.read(f"{info}/METADATA"))
        points = archive.read(f"{info}/entry_points.txt").decode() if f"{info}/entry_points.txt" in names else ""
    wheel = wheels[0].name
    if f"{info}/licenses/LICENSE" not in names:
        yield f"{wheel}: lacks its licence"
    if metadata["License-Expression"] != meta["license"]:
        yield f"{wheel}: expected the licence {meta['license']}, got {metadata['License-Expression']}"
    yield from (f"{wheel}: lacks {name}" for name in sorted(packaged(source) - names))
    if not any(name.endswith("/py.typed") for name in names):
        yield f"{wheel}: lacks py.typed"
    if entry_points(points) != declared_entry_points(meta):
        yield f"{wheel}: its entry points are not those of {source.name}/pyproject.toml"
    if not changes_of(source, meta["version"]):
        yield f"{source.name}/CHANGELOG.md: has no heading with the version {meta['version']}"


def packaged(source: Path) -> set[str]:
    """The files under version control that belong into the wheel, as the wheel names them."""
    root = source / "src" if (source / "src").is_dir() else source
    listed = subprocess.run(
        ["git", "ls-files", "."], cwd=root, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    package = project(source)["name"].replace("-", "_")
    return {name for name in listed if name.startswith(f"{package}/")}


def entry_points(text: str) -> dict[str, dict[str, str]]:
    """Group → name → target of an entry_points.txt."""
    parser = configparser.ConfigParser(delimiters=("=",), interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # names are case-sensitive
    parser.read_string(text)
    return {group: dict(parser[group]) for group in parser.sections()}


def declared_entry_points(meta: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Group → name → target of a pyproject.toml."""
    groups = {name: dict(points) for name, points in meta.get("entry-points", {}).items()}
    if meta.get("scripts"):
        groups["console_scripts"] = dict(meta["scripts"])
    return groups


def changes_of(source: Path, version: str) -> bool:
    """Whether the change log has a heading for a version."""
    lines = (source / "CHANGELOG.md").read_text(encoding="utf-8").splitlines()
    return any(line.startswith("#") and version in line for line in lines)


def floors() -> dict[str, str]:
    """The lowest versions of what core and the plugins require, the highest where several name one; not torch's."""
    lowest: dict[str, str] = {}
    for source in (ROOT, *plugins()):
        for line in project(source)["dependencies"]:
            requirement = Requirement(line)
            own = requirement.name.startswith("spikecore") or requirement.name in FLOOR_FREE
            if own or (requirement.marker and not requirement.marker.evaluate()):
                continue
            (floor,) = (part.version for part in requirement.specifier if part.operator in (">=", "=="))
            known = lowest.get(requirement.name)
            if known is None or _numbers(floor) > _numbers(known):
                lowest[requirement.name] = floor
    return lowest


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def main() -> None:
    """Build, check, and say what is left to a person."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=BUILD / "release")
    out = parser.parse_args().out
    sources = [ROOT, *plugins()]
    build(sources, out)
    wrong = [problem for source in sources for problem in problems(source, out)]
    if wrong:
        raise SystemExit("not ready:\n" + "\n".join(wrong))
    print(f"{len(list(out.iterdir()))} files in {out} are complete. Nothing was published.\n")
    print("To publish: make check passes on this commit; tag it; upload core first, then the plugins.")
    print("Names to reserve first, see docs/how-to/release.md:")
    print("\n".join(f"  {project(source)['name']}" for source in sources))


if __name__ == "__main__":
    main()

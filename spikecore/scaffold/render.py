"""From templates to a package on disk, whole or not at all.

`templates/common/` is every plugin's; `templates/<kind>/` holds its component and the test of that.
A template's path is the path of what it becomes, without `.tmpl`; `$name` in paths and texts is replaced, `$$` is `$`.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from spikecore.errors import OptionError
from spikecore.kinds import KINDS
from spikecore.scaffold.names import Names, names_for
from spikecore.version import __version__

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

SUFFIX = ".tmpl"


def render(name: str, kind: str, destination: Path, core: str = "") -> Path:
    """Write the plugin `name` with one component of `kind` into a new directory `destination/name`.

    Args:
        name: lower-case words joined by '-'.
        kind: of its component.
        destination: where its directory is made.
        core: where its continuous integration gets spikecore: a path, a wheel or a URL; "" leaves that to the
            repository's variable.

    Returns:
        The new directory.

    Raises:
        UnknownComponentError: no such kind.
        OptionError: the name or `core` cannot be used, the directory is not empty, or cannot be written.
    """
    names = names_for(name, kind)
    target = destination / names.folder
    _refuse_occupied(target)
    _refuse_index(core)
    values = {**_values(names, kind), "core": core}
    try:
        destination.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{names.folder}-", dir=destination) as aside:
            whole = Path(aside) / names.folder
            for path, text in render_templates(values, kind):
                file = whole / path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text, encoding="utf-8")
            whole.chmod(0o755)
            with contextlib.suppress(FileNotFoundError):
                target.rmdir()  # fails where something was put into it meanwhile
            whole.rename(target)
    except OSError as error:
        raise OptionError(f"--dest {destination}: cannot be written: {error}") from error
    return target


def render_templates(values: Mapping[str, str], kind: str) -> Iterator[tuple[Path, str]]:
    """Path, relative to the plugin, and text of every file."""
    templates = files("spikecore.scaffold").joinpath("templates")
    for folder in ("common", kind):
        for path, template in _walk(templates.joinpath(folder), Path()):
            name = Template(str(path)).substitute(values).removesuffix(SUFFIX)
            yield Path(name), Template(template.read_text(encoding="utf-8")).substitute(values)


def _walk(folder: Traversable, path: Path) -> Iterator[tuple[Path, Traversable]]:
    for item in sorted(folder.iterdir(), key=lambda item: item.name):
        if item.is_dir():
            yield from _walk(item, path / item.name)
        elif item.name.endswith(SUFFIX):
            yield path / item.name, item


def _refuse_occupied(target: Path) -> None:
    try:
        if target.is_symlink() or (target.exists() and (not target.is_dir() or any(target.iterdir()))):
            raise OptionError(f"{target} exists and is not an empty directory: choose another name or --dest")
    except OSError as error:
        raise OptionError(f"{target}: cannot be read: {error}") from error


def _refuse_index(core: str) -> None:
    """A name or a version would be looked up on the public index, where the name spikecore is not ours."""
    is_place = "/" in core or core.endswith(".whl")
    if core and not (is_place and core.isprintable() and not set(core) & set("'\"`$\\")):
        raise OptionError(
            f"--core {core}: expected a path, a wheel or a URL, such as ../spikecore or "
            "git+https://HOST/spikecore@v0.1.0, without quotes, '$' and '\\'; a name is not looked up on an index"
        )


def _values(names: Names, kind: str) -> dict[str, str]:
    major, minor = (int(part) for part in __version__.split(".")[:2])
    # Before 1.0 a minor version may change contracts.
    above = f"{major}.{minor + 1}" if major == 0 else f"{major + 1}"
    words = " ".join(names.folder.split("-"))
    return {
        **asdict(names),
        "kind": kind,
        "group": KINDS[kind].group,
        "suite": KINDS[kind].suite.partition(":")[2],
        "suite_module": KINDS[kind].suite.partition(":")[0],
        "title": words[0].upper() + words[1:],
        "core_range": f">={major}.{minor},<{above}",
        "dot": ".",  # so that no template is a hidden file, which packaging tools may leave out
    }

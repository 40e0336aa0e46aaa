"""`prove`: run a component's suite from Python, as `spike test` does."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from spikecore.errors import (
    DatasetError,
    OptionError,
    PluginError,
    PluginUnavailable,
    SpikeError,
    UnknownComponentError,
)
from spikecore.interfaces.component import make_config
from spikecore.kinds import KINDS
from spikecore.registry import registry
from spikecore.registry.loading import unmet_requirements
from spikecore.registry.metadata import normalise

REQUIRED = ("pytest>=8", "hypothesis>=6.100")
INSTALL = "pip install 'spikecore[testing]'"
COLLECTED = "spikecore.testing.test_components"
INTERRUPTED = 2


def prove(kind: str, name: str, options: Mapping[str, Any] | None = None, *, quiet: bool = True) -> dict[str, Any]:
    """Run every check of the kind's suite on one component, in a pytest session of its own within this process.

    Args:
        kind: of the component.
        name: under which it is registered.
        options: fields of its `Config`.
        quiet: pytest prints nothing.

    Returns:
        The report; see `spikecore.testing.report`.

    Raises:
        PluginError: there is no such component, or it cannot be used here.
        OptionError: it does not have these options, or needs more.
        PluginUnavailable: the component cannot be used here (a backend: none of its devices is here); or pytest or
            hypothesis is missing, and the message holds the line that installs them.
    """
    registry().find(kind, name)
    if missing := [requirement for requirement, _ in unmet_requirements(REQUIRED)]:
        raise PluginUnavailable(f"testing {kind} {name!r} needs {' and '.join(missing)}, not installed here", INSTALL)
    component = registry().load(kind, name)
    if missing := [option for option in required_options(component) if option not in (options or {})]:
        settings = " ".join(f"--set {option}=…" for option in missing)
        raise OptionError(f"{kind} {name!r} cannot be made without options: spike test {kind}:{name} {settings}")
    if options:
        make_config(component, options)  # wrong options are the caller's fault, not the component's
    import pytest

    from spikecore.testing import pytest_plugin
    from spikecore.testing.suite import suite_for

    if obstacle := suite_for(kind, name, options)().obstacle():
        raise PluginUnavailable(f"{obstacle}; nothing was checked")

    folder = Path(__file__).parent
    show = ["-p", "no:terminal"] if quiet else ["-q", "-rsfEx", "--tb=short", "--no-header"]
    off = ["-p", "no:cacheprovider", "-p", "no:faulthandler"]
    place = ["-c", os.devnull, "--rootdir", str(folder), str(folder / "test_components.py")]
    with _alone(), pytest_plugin.with_options(kind, name, options or {}):
        code = pytest.main([*show, *off, *place, "--spike-component", f"{kind}:{name}"], plugins=[pytest_plugin])
        suite = pytest_plugin.made(kind, name)
    if code == INTERRUPTED and suite is not None:
        raise KeyboardInterrupt
    if suite is None:
        raise SpikeError(f"pytest could not collect the suite of {kind} {name!r} (its exit status is {int(code)})")
    from spikecore.testing.report import report

    return report(suite)


@dataclasses.dataclass(frozen=True)
class Proof:
    """What became of one component in `prove_all`.

    Args:
        kind, name: of the component; the name is qualified where another plugin has the same.
        report: of its suite; None where nothing was checked.
        obstacle: why nothing was checked, or "".
    """

    kind: str
    name: str
    report: dict[str, Any] | None
    obstacle: str = ""


def prove_all(plugin: str | None = None) -> Iterator[Proof]:
    """Prove every installed component, one by one, with default options.

    Args:
        plugin: only those of this plugin, by id or distribution.

    Raises:
        UnknownComponentError: no such plugin is installed.
        PluginUnavailable: pytest or hypothesis is missing.
    """
    entries = [entry for entry in registry().components() if entry.kind in KINDS]
    if plugin is not None:
        wanted = normalise(plugin)
        known = {name for entry in entries for name in (entry.plugin.id, entry.plugin.distribution)}
        if wanted not in map(normalise, known):
            raise UnknownComponentError(f"no plugin {plugin!r} offers components: there are {', '.join(sorted(known))}")
        entries = [e for e in entries if wanted in (normalise(e.plugin.id), normalise(e.plugin.distribution))]
    for entry in entries:
        name = entry.name if entry.status == "ok" else entry.qualified
        try:
            _refuse_downloads(entry.kind, name)
            yield Proof(entry.kind, name, prove(entry.kind, name))
        except (PluginError, OptionError, DatasetError) as error:
            if isinstance(error, PluginUnavailable) and error.hint == INSTALL:
                raise
            yield Proof(entry.kind, name, None, str(error))


def _refuse_downloads(kind: str, name: str) -> None:
    """Checking all components must not download gigabytes unasked."""
    if kind == "dataset" and not registry().load(kind, name).capabilities.embedded:
        raise DatasetError(f"its files may have to be downloaded; spike test dataset:{name} does so")


def required_options(component: Any) -> list[str]:
    """The fields of its `Config` that have no default."""
    absent = dataclasses.MISSING
    fields = dataclasses.fields(component.Config)
    return [field.name for field in fields if field.default is absent and field.default_factory is absent]


@contextmanager
def _alone() -> Iterator[None]:
    """Inside, pytest loads no other plugin and reads no options from the environment: the same checks everywhere."""
    changed = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": "", "PYTEST_PLUGINS": ""}
    before = {name: os.environ.get(name) for name in changed}
    os.environ.update(changed)
    sys.modules.pop(COLLECTED, None)  # it was made for other components
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

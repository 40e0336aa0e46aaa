"""The pytest plugin `spikecore`: options that name components, and the reports of the suites that ran.

It is imported in every pytest session where spikecore is installed, so nothing heavy is imported here: the suites,
torch and all else come when a component is named.

    pytest --pyargs spikecore.testing --spike-component neuron:lif --spike-report reports
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.register_assert_rewrite("spikecore.testing.suites", "spikecore.testing.suite")

_chosen: list[tuple[str, str]] = []
_options: dict[tuple[str, str], Mapping[str, Any]] = {}
_made: dict[tuple[str, str], Any] = {}


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--spike-component` and `--spike-report`."""
    group = parser.getgroup("spikecore", "conformance of spikecore components")
    group.addoption(
        "--spike-component",
        metavar="KIND:NAME",
        action="append",
        default=[],
        help="A component that `--pyargs spikecore.testing` proves. Repeatable.",
    )
    group.addoption(
        "--spike-report",
        metavar="DIR",
        help="Write KIND-NAME.json of each suite that ran (-2: the second).",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Note the components, before anything is collected."""
    _chosen.clear()
    _made.clear()
    for text in config.getoption("--spike-component"):
        kind, colon, name = text.partition(":")
        if not (kind and colon and name):
            raise pytest.UsageError(f"--spike-component {text}: expected KIND:NAME, as in neuron:lif")
        _chosen.append((kind, name))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Checks marked `long` are made for the first suite of each kind and distribution, and for those asked for by name.

    `SPIKE_FULL=1` has them made for all.
    """
    if "spikecore.testing.suite" not in sys.modules:
        return
    from spikecore.testing.suite import Suite

    suites = dict.fromkeys(getattr(item, "cls", None) for item in items)
    taken: set[tuple[str, str]] = set()
    for suite in suites:
        if not (isinstance(suite, type) and issubclass(suite, Suite) and suite.component):
            continue
        source = suite.kind, _distribution(suite)
        is_named = suite in _made.values()
        suite.is_long_run = is_named or source not in taken or os.environ.get("SPIKE_FULL", "") not in ("", "0")
        taken.add(source)


def _distribution(suite: Any) -> str:
    """Of the suite's component; the test file, where the component is registered only while its tests run."""
    from spikecore.errors import PluginError
    from spikecore.registry import registry

    try:
        return registry().find(suite.kind, suite.component).plugin.distribution
    except PluginError:
        return str(suite.__module__)


def make_suites() -> dict[str, Any]:
    """Class name → suite of each component named with `--spike-component`."""
    from spikecore.testing.suite import suite_for

    for kind, name in _chosen:
        _made[kind, name] = suite_for(kind, name, _options.get((kind, name)))
    return {suite.__name__: suite for suite in _made.values()}


def made(kind: str, name: str) -> Any:
    """The suite of a component, once it was collected; None before."""
    return _made.get((kind, name))


@contextmanager
def with_options(kind: str, name: str, options: Mapping[str, Any]) -> Iterator[None]:
    """Inside, the component is made with these options."""
    _options[kind, name] = options
    try:
        yield
    finally:
        del _options[kind, name]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the reports."""
    directory = session.config.getoption("--spike-report")
    if directory:
        num_written: dict[str, int] = {}
        for report in _reports(session):
            name = f"{report['kind']}-{report['name']}"
            number = num_written[name] = num_written.get(name, 0) + 1
            path = Path(directory, f"{name}.json" if number == 1 else f"{name}-{number}.json")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """One line per conformance suite; `prove` gives its own."""
    if _options:
        return
    session = terminalreporter._session
    lines = [_summary(report) for report in _reports(session)] if session is not None else []
    if lines:
        terminalreporter.section("conformance")
        for line in lines:
            terminalreporter.write_line(line)


def _summary(report: dict[str, Any]) -> str:
    from spikecore.testing.report import summary

    return summary(report)


def _reports(session: pytest.Session) -> Iterator[dict[str, Any]]:
    """Of the suites among the session's items; where none was collected the suites are not even imported."""
    if "spikecore.testing.suite" not in sys.modules:
        return
    from spikecore.errors import PluginError
    from spikecore.testing.report import report
    from spikecore.testing.suite import Suite

    classes = dict.fromkeys(getattr(item, "cls", None) for item in getattr(session, "items", ()))
    for cls in classes:
        if isinstance(cls, type) and issubclass(cls, Suite) and cls.outcomes:
            try:
                yield report(cls)
            except PluginError:
                continue  # its component came from a registry that is no longer in use

"""Pages of the reference that are generated: one per plugin and one per component, in the words of `spike info`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from spikecore.cli.describe import Description, Section, describe
from spikecore.errors import SpikeError
from spikecore.kinds import KINDS
from spikecore.registry import Entry, Plugin, components, plugins
from spikecore.registry.catalogue import CORE_ID
from spikecore.registry.summaries import summary
from tests.suites.places import FULL, ROOT
from tests.tools import conformance
from tests.tools.site.markup import definitions, inline, literal, rst


def title(text: str, line: str = "=") -> list[str]:
    """A heading."""
    return [text, line * (len(text) + 2), ""]


def page_name(entry: Entry) -> str:
    """The file of a component's page, without its ending."""
    return f"{entry.kind}-{entry.name}".replace(":", "-").replace("_", "-")


def write(folder: Path) -> None:
    """Write all pages.

    Args:
        folder: of the generated pages.
    """
    own = [plugin for plugin in plugins() if plugin.source in ("core", "installed")]
    entries = [entry for entry in components() if entry.plugin in own and entry.status == "ok"]
    (folder / "plugins").mkdir(parents=True)
    (folder / "components").mkdir()
    for plugin in own:
        mine = [entry for entry in entries if entry.plugin == plugin]
        _save(folder / "plugins" / f"{plugin.id}.rst", _plugin_page(plugin, mine))
    for entry in entries:
        _save(folder / "components" / f"{page_name(entry)}.rst", _component_page(entry))
    _save(folder / "plugins/index.rst", _list_of_plugins(own, entries))
    _save(folder / "components/index.rst", _list_of_components(entries))


def _save(path: Path, lines: Iterator[str]) -> None:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _toctree(names: list[str], *options: str) -> Iterator[str]:
    yield from ("", ".. toctree::", *(f"    {option}" for option in (":maxdepth: 1", *options)), "")
    yield from (f"    {name}" for name in names)
    yield ""


def _list_of_plugins(own: list[Plugin], entries: list[Entry]) -> Iterator[str]:
    yield from title("Plugins")
    yield "What the plugins of this repository offer, read from their metadata."
    yield ""
    for plugin in own:
        number = sum(entry.plugin == plugin for entry in entries)
        yield from (f":doc:`{plugin.id} <{plugin.id}>`", f"    {inline(plugin.summary)} · components: {number}", "")
    yield from _toctree([plugin.id for plugin in own], ":hidden:")


def _list_of_components(entries: list[Entry]) -> Iterator[str]:
    yield from title("Components")
    yield "Every component that core and the plugins of this repository offer, with its options, their defaults and its"
    yield "capabilities. ``spike info KIND NAME`` shows the same in a terminal."
    yield ""
    for kind in KINDS:
        those = [entry for entry in entries if entry.kind == kind]
        if those:
            yield from title(kind, "-")
            yield from _entries(those, "")


def _entries(entries: list[Entry], folder: str) -> Iterator[str]:
    for entry in entries:
        yield f":doc:`{entry.name} <{folder}{page_name(entry)}>`"
        yield f"    {inline(summary(entry.target)) or entry.plugin.id}"
        yield ""


def _plugin_page(plugin: Plugin, entries: list[Entry]) -> Iterator[str]:
    yield from title(plugin.id)
    yield inline(plugin.summary)
    yield ""
    needs = [line for line in plugin.requires if "extra ==" not in line]
    extras = [line for line in plugin.requires if "extra ==" in line]
    yield from definitions(
        [
            ("distribution", f"``{plugin.distribution}`` {plugin.version}"),
            ("needs", ", ".join(f"``{line}``" for line in needs)),
            ("extras", ", ".join(map(_extra, extras))),
        ]
    )
    for kind in KINDS:
        those = [entry for entry in entries if entry.kind == kind]
        if those:
            yield from title(kind, "-")
            yield from _entries(those, "../components/")
    readme = ROOT / "plugins" / plugin.id / "README.md"
    if readme.is_file():
        yield from title("Guide", "-")
        more = sorted(page.stem for page in (readme.parent / "docs").glob("*.md"))
        yield from _toctree([f"/plugins/{plugin.id}/README", *(f"/plugins/{plugin.id}/docs/{name}" for name in more)])


def _extra(line: str) -> str:
    """`onnx>=1.16; extra == "onnx"` as the name of the extra and what it installs."""
    requirement, _, marker = line.partition(";")
    name = marker.split("extra ==")[1].split("'" if "'" in marker else '"')[1]
    return f"``{name}`` (``{requirement.strip()}``)"


def _component_page(entry: Entry) -> Iterator[str]:
    # Not in the menu at the side, which would have hundreds of lines on every page: reached from the lists.
    yield from (":orphan:", "")
    yield from title(f"{entry.kind} {entry.name}")
    try:
        described = describe(entry.kind, entry.name)
    except SpikeError as error:  # what this machine lacks, such as a GPU's compiler
        yield f"From :doc:`../plugins/{entry.plugin.id}`. It could not be loaded where these pages were made:"
        yield from literal(str(error).splitlines())
        return
    yield f"From :doc:`../plugins/{entry.plugin.id}` · ``{entry.target}``" + _version(described)
    yield ""
    yield from rst(described.text)
    for section in described.sections:
        yield from title(section.title, "-")
        yield from _section(section)
        if section.title == "options" and described.remarks:
            yield from rst(described.remarks)
    yield from title("conformance", "-")
    yield from _conformance(entry)


def _conformance(entry: Entry) -> Iterator[str]:
    """What the suite of its kind executed, from the committed table."""
    suite = "core" if entry.plugin.id == CORE_ID else f"plugin-{entry.plugin.id}"
    page = ":doc:`The checks of its kind </docs/reference/conformance>`"
    checks = f"{page} run with ``spike test {entry.kind}:{entry.name}``."
    result = conformance.table().get((entry.kind, entry.name))
    if result is None:
        reason = conformance.unproved(entry.plugin.id).get((entry.kind, entry.name))
        if reason is None:
            yield f"No result is recorded on this page. The suite ``{suite}`` of ``make test`` runs its checks."
            yield checks
        else:
            yield f"It {reason}, so ``make test`` does not run its checks. {checks}"
        return
    where = f"the suite ``{result.suite}`` of ``make test``"
    if result.suite == conformance.BY_HAND:
        where = "``spike test``"
    elif result.is_full:
        where = f"the suite ``{result.suite.removesuffix(FULL)}`` of ``make test-full``"
    yield f"**{result.executed} checks executed, {result.failed} failed**, {result.not_applicable} not applicable to"
    yield f"its capabilities or to the machine; at least {result.minimum} are needed. Executed by {where} on"
    yield f"``{result.distribution}`` {result.version}, api_version {result.api_version}."
    if result.long_elsewhere:
        yield f"Long checks, which ran for another component of its kind and plugin: {result.long_elsewhere}."
    if result.version != entry.plugin.version:
        yield f"The version here is {entry.plugin.version}."
    if options := json.loads(result.options):
        made = ", ".join(f"{name}={value}" for name, value in options.items())
        yield from ("", f"Options: ``{made}``.")
    yield from ("", checks)


def _version(described: Description) -> str:
    return "" if described.api_version is None else f" · api_version {described.api_version}"


def _section(section: Section) -> Iterator[str]:
    if not section.options:
        yield from literal(section.lines or ("none",))
        return
    for option in section.options:
        default = "required" if option.default is None else f"default ``{option.default}``"
        yield from definitions(
            [(f"``{option.name}`` : {inline(option.type)} · {default}", inline(" ".join(option.text)))]
        )

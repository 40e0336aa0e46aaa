"""The checks of every suite as a page: `python -m spikecore.testing.catalogue > docs/reference/conformance.md`."""

from __future__ import annotations

import importlib
from collections.abc import Iterator

from spikecore.kinds import KINDS
from spikecore.testing.suite import Suite

HEAD = """# The checks of the conformance suites

`spike test KIND:NAME` runs these checks. The column *applies to* names the capabilities that a check depends on; if one
is missing, the check is skipped and the reason names it. Checks marked *long* run for one component of each kind and
plugin in pytest, and for every component with `SPIKE_FULL=1`. A component fails if fewer checks than the minimum were
executed. See [how to use them](../how-to/prove-a-plugin.md). Datasets of published files are checked
[on small files of the same format](../how-to/prove-a-plugin.md#datasets-that-are-downloaded), which
`prepare(data)` of the test class writes.

`python -m spikecore.testing.catalogue` writes this page; a test compares it with the code.
"""


def suite_of(kind: str) -> type[Suite]:
    """The suite of a kind."""
    module, _, name = KINDS[kind].suite.partition(":")
    suite: type[Suite] = getattr(importlib.import_module(module), name)
    return suite


def page() -> str:
    """The whole page, in Markdown."""
    lines = [HEAD]
    for kind in sorted(KINDS):
        lines += _section(kind)
    return "\n".join(lines)


def _section(kind: str) -> Iterator[str]:
    suite = suite_of(kind)
    versions = ", ".join(map(str, sorted(KINDS[kind].api_versions)))
    yield f"## {kind}\n"
    count = f"{len(suite.checks())} checks, at least {suite.minimum} executed"
    yield f"`{KINDS[kind].suite}`, api_version {versions}: {count}.\n"
    yield "| check | what it shows | applies to |"
    yield "|---|---|---|"
    for name, check in suite.checks().items():
        text = " ".join((check.__doc__ or "").split()).replace("|", "\\|")
        needs = [str(need) for need in getattr(check, "needs", ())]
        if (first := getattr(check, "since", 1)) > 1:
            needs.append(f"api_version {first}")
        if getattr(check, "long", False):
            needs.append("*long*")
        yield f"| `{name}` | {text} | {', '.join(needs) or 'all'} |"
    yield ""


if __name__ == "__main__":
    print(page(), end="")

"""The examples of the how-to pages run, and print what they say."""

import contextlib
import io
import re
from pathlib import Path

import pytest

from spikecore.registry import Blocking, Registry, use
from spikecore.testing.proving import prove

FOLDER = Path(__file__).parents[2] / "docs/how-to"
PAGES = [FOLDER / f"{name}.md" for name in ("look-inside-a-net", "write-a-deployer")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_runs_from_top_to_bottom(page):
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    assert blocks
    names, out = {"__name__": page.stem}, io.StringIO()
    with contextlib.redirect_stdout(out):
        for number, block in enumerate(blocks):
            exec(compile(block, f"{page.name}, block {number}", "exec"), names)
    said = [
        line.split("  # ")[1].strip() for block in blocks for line in block.splitlines() if re.match(r"print.*# ", line)
    ]
    printed = out.getvalue().splitlines()
    assert said
    assert [line for line in said if line not in printed] == []


def test_the_deployer_of_the_page_passes_its_suite():
    blocks = re.findall(r"```python\n(.*?)```", (FOLDER / "write-a-deployer.md").read_text("utf-8"), re.DOTALL)
    names = {"__name__": "page"}
    for block in blocks[:2]:
        exec(block, names)
    with use(Registry(blocking=Blocking())) as registry:
        registry.register("deployer", "my-chip", names["Chip"])
        report = prove("deployer", "my-chip")
    bad = {check["name"]: check["reason"] for check in report["checks"] if check["outcome"] == "failed"}
    assert bad == {}
    assert report["ok"]


def test_the_pages_are_there():
    assert all(page.is_file() for page in PAGES)

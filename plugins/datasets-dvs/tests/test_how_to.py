"""The how-to page about event data: its Python runs and prints what it says; its options are those that there are."""

import re
from pathlib import Path

from spikecore_datasets_dvs.reading import Reading

PAGE = Path(__file__).parents[3] / "docs/how-to/use-event-data.md"


def test_the_examples_run(embedded, capsys):
    page = PAGE.read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, PAGE.name, "exec"), {"__name__": "page"})
    said = [line.split("  # ")[1] for block in blocks for line in block.splitlines() if "print(" in line]
    assert capsys.readouterr().out.splitlines() == said


def test_every_option_of_reading_is_described():
    rows = set(re.findall(r"^\| `(\w+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE))
    assert rows == set(Reading.__dataclass_fields__) - {"form"}

"""The tutorials run from top to bottom, in an empty directory, and print what they say.

Of a page, Python blocks run one after another in one namespace, and lines of consoles run as commands. A block whose
first line is `# NAME.py` or `# NAME.toml` is what the reader saves: it is written to that file, or added to it.
"""

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from spikecore.registry import Blocking, Registry, use

PAGES = sorted((Path(__file__).parents[2] / "docs/tutorials").glob("*.md"))
BLOCK = re.compile(r"^```(python|toml|console)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
FILE = re.compile(r"# ([\w.]+\.(?:py|toml))\n")
PROGRAMS = {"spike": ["-m", "spikecore"], "torchrun": ["-m", "torch.distributed.run"]}


def save(block):
    with Path(FILE.match(block).group(1)).open("a", encoding="utf-8") as file:
        file.write(block + "\n")


def call(line):
    program, *arguments = shlex.split(line, comments=True)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "SPIKECORE_DATA": str(Path("data").resolve())}
    command = [sys.executable, *PROGRAMS[program], *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_tutorial_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPIKECORE_DATA", str(tmp_path / "data"))
    blocks = BLOCK.findall(page.read_text(encoding="utf-8"))
    names, out = {"__name__": "tutorial"}, io.StringIO()
    expected = []
    with use(Registry(blocking=Blocking())), contextlib.redirect_stdout(out):
        for number, (language, block) in enumerate(blocks):
            if FILE.match(block):
                save(block)
            elif language == "console":
                for line in block.splitlines():
                    call(line)
            else:
                assert language == "python", f"block {number} of {page.name} is neither run nor saved"
                exec(compile(block, f"{page.name}, block {number}", "exec"), names)
                lines = [line for line in block.splitlines() if re.match(r"\s*print.*  # ", line)]
                expected += [line.split("  # ")[1].strip() for line in lines]
    printed = iter(out.getvalue().splitlines())
    assert expected
    # In this order, other lines between them.
    missing = [line for line in expected if line not in printed]
    assert missing == [], out.getvalue()


def test_no_tutorial_is_missing_from_the_table_of_contents():
    contents = (PAGES[0].parents[1] / "index.md").read_text(encoding="utf-8")
    assert len(PAGES) >= 10
    assert [page.stem for page in PAGES if f"\ntutorials/{page.stem}\n" not in contents] == []

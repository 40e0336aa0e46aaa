"""Follows a page word by word: its fenced blocks run from top to bottom, in the current directory.

    python follow.py PAGE.md CLONE

Python blocks run one after another in one namespace, and consoles in a shell. A block whose first line is `# NAME.py`
or `# NAME.toml` is what the reader saves: it is written to that file, or added to it. A console that installs
`./plugins/NAME` runs in CLONE, as the page says. Lines `print(...)  # text` must print that text, in this order. A
command followed by `# prints TEXT` must print TEXT, whatever the spaces in it; one followed by
`# status N, prints TEXT` must also end with that status.

It needs nothing but Python: it runs in the environment of the reader.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
FILE = re.compile(r"# ([\w.]+\.(?:py|toml))\n")
PRINTED = re.compile(r"\s*print.*  # ")
EXPECTED = re.compile(r"(?P<command>.*?)\s+# (?:status (?P<status>\d+), )?prints (?P<text>.+)")
INSTALLS = re.compile(r"pip install '?\./plugins/")
EXCERPT = "[project.entry-points."
"""What begins so is a part of a larger file of the reader's, which is not theirs to run."""


class Block(NamedTuple):
    """One fenced block.

    Args:
        language: behind the fence.
        text: between the fences.
    """

    language: str
    text: str

    @property
    def file(self) -> str | None:
        """Where the reader saves it."""
        match = FILE.match(self.text)
        return match and match.group(1)


def blocks(page: Path) -> list[Block]:
    """The blocks of a page that a reader runs or saves.

    Raises:
        ValueError: a block is of a language for which neither is clear.
    """
    result = []
    for language, text in FENCE.findall(page.read_text(encoding="utf-8")):
        block = Block(language, text)
        if text.startswith(EXCERPT):
            continue
        if block.file is None and language not in ("console", "python"):
            raise ValueError(f"{page.name}: a block is neither run nor saved:\n{text}")
        result.append(block)
    return result


def save(block: Block) -> None:
    """As the reader would."""
    with Path(str(block.file)).open("a", encoding="utf-8") as file:
        file.write(block.text + "\n")


def call(lines: str, clone: Path) -> None:
    """Run a console, line by line; a line that ends with a backslash goes on in the next one."""
    for line in lines.replace("\\\n", " ").splitlines():
        expected = EXPECTED.fullmatch(line)
        command = expected["command"] if expected else line
        place = clone if INSTALLS.match(command) else Path.cwd()
        shell = ["bash", "-e", "-o", "pipefail", "-c", command]
        done = subprocess.run(
            shell, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300
        )
        sys.stderr.write(f"{command}\n{done.stdout}\n")
        status = int(expected["status"] or 0) if expected else 0
        if done.returncode != status:
            sys.exit(f"status {done.returncode} of:\n{command}")
        if expected and " ".join(expected["text"].split()) not in " ".join(done.stdout.split()):
            sys.exit(f"expected {expected['text']!r} from:\n{command}")


def follow(page: Path, clone: Path) -> None:
    """Follow a page; what it does not do as it says ends this process."""
    names: dict[str, object] = {"__name__": "tutorial"}
    out = io.StringIO()
    expected = []
    for number, block in enumerate(blocks(page)):
        if block.file is not None:
            save(block)
        elif block.language == "console":
            call(block.text, clone)
        else:
            with contextlib.redirect_stdout(out):
                exec(compile(block.text, f"{page.name}, block {number}", "exec"), names)
            lines = [line for line in block.text.splitlines() if PRINTED.match(line)]
            expected += [line.split("  # ")[1].strip() for line in lines]
    printed = iter(out.getvalue().splitlines())
    missing = [line for line in expected if line not in printed]  # in this order, other lines between them
    if missing or not expected:
        sys.exit(f"expected the lines {missing or 'of at least one print(...)  # text'}, printed was\n{out.getvalue()}")


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    follow(Path(sys.argv[1]), Path(sys.argv[2]))

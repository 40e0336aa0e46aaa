"""`make doors`: writes tests/tools/doors.txt, the names that core's public doors export.

The doors are those of `.importlinter`: what plugins may import from. A change of the file is a change of the public
interface, seen in the review.
"""

from __future__ import annotations

import configparser
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FILE = Path(__file__).with_name("doors.txt")


def doors() -> list[str]:
    """The doors that exist."""
    config = configparser.ConfigParser()
    config.read(ROOT / ".importlinter")
    names = config["importlinter:contract:plugins"]["doors"].split()
    return [name for name in names if find_spec(name) is not None]


def exported(door: str) -> list[str]:
    """The names that a door exports: those of `__all__`; a door without it exports nothing."""
    return sorted(getattr(import_module(door), "__all__", ()))


def generated() -> str:
    """The text of doors.txt: one exported name per line."""
    return "".join(f"{door} {name}\n" for door in doors() for name in exported(door))


if __name__ == "__main__":
    FILE.write_text(generated(), encoding="utf-8")

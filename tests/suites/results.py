"""What each suite left: its counts, times and verdict, one JSON file per suite."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.suites.places import RESULTS

COUNTS = ("passed", "failed", "skipped")


@dataclass
class Result:
    """One suite.

    Args:
        name: of the suite.
        ok: everything passed, and something ran.
        reason: why it is not ok, or why it was skipped.
        counts: tests by outcome.
        setup_cpu_s: CPU time that making its environment took; the budget does not cover it.
        cpu_s: CPU time of the tests, children included.
        wall_s: from start to end.
        budget_s: the most CPU time that the tests may take; None where no budget applies.
    """

    name: str
    ok: bool
    reason: str = ""
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTS, 0))
    setup_cpu_s: float = 0.0
    cpu_s: float = 0.0
    wall_s: float = 0.0
    budget_s: float | None = None

    def is_past_budget(self) -> bool:
        """The tests took more CPU time than they may."""
        return self.budget_s is not None and self.cpu_s > self.budget_s

    def write(self, directory: Path = RESULTS) -> None:
        """Keep it for the closing report."""
        directory.mkdir(parents=True, exist_ok=True)
        directory.joinpath(f"{self.name}.json").write_text(json.dumps(asdict(self)))


def read(name: str, directory: Path = RESULTS) -> Result | None:
    """The result of a suite; None when it left none."""
    path = directory / f"{name}.json"
    return Result(**json.loads(path.read_text())) if path.is_file() else None


def clear(names: Iterable[str], directory: Path = RESULTS) -> None:
    """Forget earlier results, so that none is taken for one of today."""
    for name in names:
        directory.joinpath(f"{name}.json").unlink(missing_ok=True)

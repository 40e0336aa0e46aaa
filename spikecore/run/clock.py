"""Where the time of a run went: named parts that add up to the total."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

TOTAL, OTHER = "total", "other"


class Clock:
    """Runs from when it is made. A part inside another one counts as its own, and not as the outer one's too."""

    def __init__(self) -> None:
        self._parts: dict[str, float] = {}
        self._began = time.perf_counter()
        self._earlier = 0.0
        """What earlier processes of the run spent."""
        self._inner = 0.0
        """Seconds in parts that ended inside the one that is open now."""

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Count the time inside under `part`."""
        outer, self._inner = self._inner, 0.0
        start = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - start
            self._parts[part] = self._parts.get(part, 0.0) + spent - self._inner
            self._inner = outer + spent

    def of(self, part: str) -> float:
        """Seconds in a part so far."""
        return self._parts.get(part, 0.0)

    def times(self) -> dict[str, float]:
        """Seconds by part, the rest as `other`, and `total`, which is their sum."""
        total = self._earlier + time.perf_counter() - self._began
        named = sum(self._parts.values())
        return {**self._parts, OTHER: max(0.0, total - named), TOTAL: max(total, named)}

    def add(self, times: Mapping[str, float]) -> None:
        """Count what an earlier process of the run spent, as its `times` said."""
        for part, seconds in times.items():
            if part not in (TOTAL, OTHER):
                self._parts[part] = self._parts.get(part, 0.0) + seconds
        self._earlier += times.get(TOTAL, 0.0)

"""Loads plugins in subprocesses with a timeout, so that one that crashes, hangs or exits does no harm.

A subprocess loads many components. If it dies, the component that was loading is to blame, and a new subprocess
continues with the others.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import IO, Any

from spikecore.errors import PluginError, PluginUnavailable
from spikecore.registry.blocking import Blocking
from spikecore.registry.hookspecs import DoctorCheck
from spikecore.registry.scan import Entry

TIMEOUT_S = 120.0
FOREIGN_LINE = "it wrote to the descriptor on which its process answers; plugins must leave that alone"
MOST_BYTES, MOST_OF_A_LINE = 1 << 26, 1 << 12
CHECKS = -1
"""The index under which a subprocess reports the plugin's own checks."""


@dataclass(frozen=True)
class Probe:
    """The outcome for one component.

    Args:
        status: `ok`, `unavailable` or `broken`.
        reason: why it is not `ok`.
        seconds: how long loading took; for the first component of a plugin this includes the plugin's imports.
    """

    status: str
    reason: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Findings:
    """The results: one `Probe` per entry, and the plugin's own checks."""

    probes: list[Probe]
    checks: list[DoctorCheck]


def probe(entries: Sequence[Entry], blocking: Blocking, *, plugin: str = "", timeout_s: float = TIMEOUT_S) -> Findings:
    """Load the entries of one or more plugins in subprocesses.

    Args:
        entries: what to load.
        blocking: the plugins that stay blocked there too.
        plugin: id of the plugin whose `spike_doctor_checks` are run as well.
        timeout_s: seconds that one subprocess may take.
    """
    results: dict[int, Probe] = {}
    checks: list[DoctorCheck] = []
    waiting = [index for index, entry in enumerate(entries) if entry.status in ("ok", "ambiguous", "shadowed")]
    asks_checks = bool(plugin)
    while waiting or asks_checks:
        wanted = [[index, entries[index].kind, entries[index].qualified] for index in waiting]
        answers, end = _call({"wanted": wanted, "plugin": plugin if asks_checks else ""}, blocking, timeout_s)
        num_before = len(waiting) + asks_checks
        started: int | None = None  # what was loading when the next line came
        for answer in answers:
            # A line of ours is about something that was asked for. Whoever was loading then wrote any other.
            about = CHECKS if answer is None else answer.get("index", answer.get("start", CHECKS))
            if answer is None or about not in (*waiting, CHECKS):
                if started == CHECKS:
                    checks, asks_checks = [DoctorCheck("doctor checks", "broken", FOREIGN_LINE)], False
                elif started is not None:
                    results[started] = Probe("broken", FOREIGN_LINE)
                continue
            if "probe" in answer:
                results.setdefault(answer["index"], Probe(**answer["probe"]))
            if "checks" in answer and asks_checks:
                checks = [DoctorCheck(**check) for check in answer["checks"]]
                asks_checks = False
            started = answer.get("start")
        if started == CHECKS and asks_checks:
            checks, asks_checks = [DoctorCheck("doctor checks", "broken", end)], False
        elif started is not None and started != CHECKS:
            results.setdefault(started, Probe("broken", end))
        left = [index for index in waiting if index not in results]
        if len(left) + asks_checks == num_before:
            # It died before the first component, so none of them in particular is to blame: all are.
            results |= {index: Probe("broken", end) for index in left}
            left, asks_checks = [], False
        waiting = left
    kept = [Probe(entry.status, entry.reason) for entry in entries]
    return Findings([results.get(index, kept[index]) for index in range(len(entries))], checks)


def _call(question: dict[str, Any], blocking: Blocking, timeout_s: float) -> tuple[list[dict[str, Any] | None], str]:
    """The answers, with None for each line that is none, and how the process ended."""
    command = [sys.executable, "-m", "spikecore.registry.probe"]
    environment = {**os.environ, **blocking.environment()}
    # Files, not pipes: a child that a plugin leaves behind would hold a pipe open, and be waited for.
    with tempfile.TemporaryFile() as asked, tempfile.TemporaryFile() as answers, tempfile.TemporaryFile() as errors:
        asked.write(json.dumps(question).encode())
        asked.seek(0)
        process = subprocess.Popen(
            command, env=environment, stdin=asked, stdout=answers, stderr=errors, start_new_session=True
        )
        try:
            process.wait(timeout_s)
            end = f"the process ended with status {process.returncode}"
            if process.returncode < 0:
                end = f"the process was killed by signal {-process.returncode}"
            end = ": ".join([end, *_last_line(errors)])
        except subprocess.TimeoutExpired:
            end = f"did not load within {timeout_s:g} s"
        finally:
            _end(process)
        answers.seek(0)
        return _lines(answers.read(MOST_BYTES)), end


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process, and where there are sessions all that it left behind."""
    if sys.platform == "win32":
        process.kill()
    else:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _last_line(errors: IO[bytes]) -> list[str]:
    size = errors.seek(0, os.SEEK_END)
    errors.seek(max(0, size - MOST_OF_A_LINE))
    return errors.read().decode(errors="replace").strip().splitlines()[-1:]


def _lines(output: bytes) -> list[dict[str, Any] | None]:
    return [_parsed(line) for line in output.splitlines(keepends=True) if line.endswith(b"\n")]


def _parsed(line: bytes) -> dict[str, Any] | None:
    """An answer, if the line is one that this module writes."""
    try:
        value = json.loads(line)
        if not isinstance(value, dict):
            return None
        if "probe" in value:
            Probe(**value["probe"])
            return value if isinstance(value["index"], int) else None
        if "checks" in value:
            for check in value["checks"]:
                DoctorCheck(**check)
            return value
        return value if isinstance(value["start"], int) else None
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def _answer() -> None:
    """The subprocess. Answers go to the original standard output, whatever plugins print goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def tell(**answer: Any) -> None:
        print(json.dumps(answer), file=answers, flush=True)

    question = json.load(sys.stdin)
    from spikecore.registry import registry

    for index, kind, name in question["wanted"]:
        tell(start=index)
        tell(index=index, probe=asdict(_load(kind, name)))
    if question["plugin"]:
        from spikecore.registry.manager import Hooks

        tell(start=CHECKS)
        tell(checks=_checks(lambda: Hooks(registry(), only=question["plugin"])))
    sys.stderr.flush()
    os._exit(0)  # all answers are in: a thread that a plugin left behind is not waited for


def _load(kind: str, name: str) -> Probe:
    from spikecore.registry import registry
    from spikecore.registry.loading import load_target

    start = time.perf_counter()
    status, reason = "ok", ""
    try:
        if kind in ("command", "plugin"):
            entry = next(entry for entry in registry().entries() if (entry.kind, entry.qualified) == (kind, name))
            load_target(entry)
        else:
            registry().load(kind, name)
    except PluginUnavailable as error:
        status, reason = "unavailable", str(error)
    except PluginError as error:
        status, reason = "broken", str(error)
    return Probe(status, reason, time.perf_counter() - start)


def _checks(make: Any) -> list[dict[str, Any]]:
    try:
        hooks = make()
        failures = [DoctorCheck("hooks", "broken", str(error)) for error in hooks.failures.values()]
        return [asdict(check) for check in (*failures, *hooks.doctor_checks())]
    except PluginError as error:
        return [asdict(DoctorCheck("doctor checks", "broken", str(error)))]


if __name__ == "__main__":
    _answer()

"""Attacks on runs, files, caches and load: `make attacks`, or `python -m tests.benchmarks.attacks [ROW ...]`.

Each row makes a number of tries and counts those that ended in another way than docs/explanation/trust.md promises:
other bits, a traceback, a wait. Writes docs/benchmarks/attacks.csv; exits with 1 where a try went wrong. Small disks
are mounted, which takes root on Linux. Takes about 10 minutes on one core.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import gc
import json
import os
import platform
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from click.testing import CliRunner

import spikecore
from spikecore.cli import spike as spike_command
from spikecore.errors import CheckpointError, SpikeError
from spikecore.nn import LIF, functional
from spikecore.run.experiment import load, resume
from spikecore.run.record import sealed
from spikecore.run.report import write_report
from tests.benchmarks.threads import outcome as of_net
from tests.benchmarks.threads import resident_mib
from tests.crashing import KILLED, Server
from tests.run.test_killed import OPTIONS, outcome

ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT / "docs" / "benchmarks" / "attacks.csv"
HEAD = ("row", "attack", "tries", "wrong", "cpu_s", "date", "spikecore", "torch", "python")
SPIKE = [sys.executable, "-m", "spikecore"]
EVERY_STEP = [*OPTIONS, "--set", "run.checkpoint_every_steps=1"]
CONVNET = [
    *("--set", "dataset.test_share=0.3", "--set", "encoder.num_steps=2", "--set", "trainer.epochs=2"),
    *("--set", "run.checkpoint_every_steps=3", "--set", "run.report=false"),
]
Outcomes = Iterator[bool]
"""One for each try: did it end as promised?"""


class Attack(NamedTuple):
    """A row of the table."""

    what: str
    tries: Callable[[Path], Outcomes]


def kill_runs(options: list[str], num_runs: int, most_kills: int, folder: Path) -> Outcomes:
    """Runs that are killed at random calls of functions, and again while they are resumed."""
    dice = random.Random(11)
    with Server(folder) as server:
        whole = server.spike("run", *options, "--out", "whole", count_calls=True)
        wanted = outcome(folder / "whole")
        for number in range(num_runs):
            name = f"r{number}"
            answer = server.spike(
                "run", *options, "--out", name, crash_at_call=dice.randint(1, whole["calls"] * 9 // 10)
            )
            for _ in range(dice.randint(0, most_kills - 1)):
                if answer["status"] == KILLED:
                    at = dice.randint(1, whole["calls"] // 3)
                    answer = server.spike("run", "--resume", name, crash_at_call=at)
            yield finish(server, name, options) and outcome(folder / name) == wanted


def finish(server: Server, name: str, options: list[str]) -> bool:
    """Resumed, or started where nothing had begun."""
    answer = server.spike("run", "--resume", name)
    if answer["status"] == 2:
        shutil.rmtree(server.folder / name, ignore_errors=True)
        answer = server.spike("run", *options, "--out", name)
    return answer["status"] == 0


def signal_runs(folder: Path) -> Outcomes:
    """SIGKILL, SIGTERM and Ctrl-C, also twice, at processes of their own; two for each run."""
    dice = random.Random(5)
    slow = [*EVERY_STEP, "--set", "trainer.epochs=12"]
    with Server(folder) as server:
        server.spike("run", *slow, "--out", "whole")
        wanted = outcome_of_log(folder / "whole")
        for number in range(6):
            name = f"r{number}"
            command = [*slow, "--out", name]
            for _ in range(2):
                interrupt(folder, command, folder / name, dice)
                command = ["--resume", name]
            yield finish(server, name, slow) and outcome_of_log(folder / name) == wanted


def interrupt(folder: Path, command: list[str], directory: Path, dice: random.Random) -> None:
    """Start a process and signal it once it has written a few more checkpoints."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [*SPIKE, "run", *command], cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    goal = newest(directory) + dice.randint(1, 25)
    while process.poll() is None and newest(directory) < goal:
        time.sleep(0.002)
    kinds = [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGINT]
    for kind in dice.choice([[kinds[0]], [kinds[1]], kinds[2:], [kinds[2]]]):
        if process.poll() is None:
            process.send_signal(kind)
    process.wait(120)


def newest(directory: Path) -> int:
    numbers = [int(path.name[11:]) for path in directory.glob("checkpoints/checkpoint-????????")]
    return max(numbers, default=0)


def outcome_of_log(directory: Path) -> tuple[bytes, dict[str, list[float]]]:
    """All lines of metrics and the weights."""
    weights = {name: value.tolist() for name, value in load(directory).state_dict().items()}
    return (directory / "metrics.jsonl").read_bytes(), weights


def full_disks(folder: Path) -> Outcomes:
    """Disks of 4 to 250 KB, and room later."""
    with Server(folder) as server:
        server.spike("run", *OPTIONS, "--out", "whole")
        wanted = outcome(folder / "whole")
        for size in (4, 30, 60, 150, 250):
            disk = folder / f"disk{size}"
            disk.mkdir()
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "none", str(disk)], check=True)
            try:
                answer = server.spike("run", *OPTIONS, "--out", f"{disk}/r")
                explained = answer["status"] in (1, 2) and "No space left on device: free some" in answer["stderr"]
                subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
                name = f"{disk.name}/r"
                yield explained and finish(server, name, OPTIONS) and outcome(folder / name) == wanted
            finally:
                subprocess.run(["umount", "-l", str(disk)], check=True)


def read_only_mount(folder: Path) -> Outcomes:
    """Every command on a run whose disk is mounted read-only."""
    disk = folder / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", str(disk)], check=True)
    try:
        with Server(folder) as server:
            server.spike("run", *OPTIONS, "--out", "other")
            server.spike("run", *OPTIONS, "--out", "disk/r", crash_at=120)
            subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
            for command, reads in (
                (["run", "--resume", "disk/r"], False),
                (["run", *OPTIONS, "--out", "disk/s"], False),
                (["report", "disk/r"], False),
                (["eval", "disk/r"], True),
                (["compare", "disk/r", "other"], True),
            ):
                answer = server.spike(*command)
                explained = "Read-only file system" in answer["stderr"] and answer["status"] in (1, 2)
                yield "Traceback" not in answer["stderr"] and (answer["status"] == 0 if reads else explained)
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def three_in_one(folder: Path) -> Outcomes:
    """Three processes at once in one directory: one of them runs."""
    with Server(folder) as server:
        server.spike("run", *OPTIONS, "--out", "whole")
        wanted = outcome(folder / "whole")
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        for number, is_new in enumerate((True, True, False)):
            name = f"r{number}"
            command = ["--out", name, *OPTIONS]
            if not is_new:
                server.spike("run", *OPTIONS, "--out", name, crash_at=100)
                command = ["--resume", name]
            processes = [
                subprocess.Popen([*SPIKE, "run", *command], cwd=folder, env=environment, stderr=subprocess.DEVNULL)
                for _ in range(3)
            ]
            codes = sorted(process.wait(300) for process in processes)
            # One that came after the end says so: 0 for --resume, 2 for a directory that is not empty.
            yield 0 in codes and set(codes) <= {0, 2} and outcome(folder / name) == wanted


def last_checkpoint(directory: Path) -> Path:
    """The newest whole one."""
    return max(directory.glob("checkpoints/checkpoint-????????"))


class Damaged:
    """Copies of one interrupted run, and what its resumption must give."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with Server(folder) as server:
            server.spike("run", *OPTIONS, "--out", "whole")
            server.spike("run", *OPTIONS, "--out", "cut", crash_at=200)
        self.wanted = outcome_of_log(folder / "whole")
        self.number = 0

    def copy(self) -> Path:
        self.number += 1
        to = self.folder / f"copy{self.number}"
        shutil.copytree(self.folder / "cut", to)
        return to

    def files(self) -> list[Path]:
        """Of a run, as paths below its directory."""
        top = self.folder / "cut"
        last = last_checkpoint(top)
        paths = [top / "run.json", top / "config.toml", top / "metrics.jsonl", *sorted(last.iterdir())]
        return [path.relative_to(top) for path in paths if path.is_file()]

    def is_refused_or_right(self, directory: Path) -> bool:
        try:
            resume(directory)
        except SpikeError:
            return True
        return outcome_of_log(directory) == self.wanted


def flip(path: Path, dice: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    path.write_bytes(data)


def flipped_checkpoints(folder: Path) -> Outcomes:
    dice, damaged = random.Random(1), Damaged(folder)
    directory = damaged.copy()
    # The two others are copies of the record and the configuration, which only a repair reads.
    files = [
        last_checkpoint(directory) / name for name in ("checkpoint.json", "model.safetensors", "state.safetensors")
    ]
    for number in range(63):
        path = files[number % len(files)]
        good = path.read_bytes()
        flip(path, dice)
        try:
            load(directory, "last")
            is_detected = False
        except CheckpointError as error:
            is_detected = "checkpoint-" in str(error)
        yield is_detected
        path.write_bytes(good)
    flip(files[0], dice)
    named = sorted(path.name for path in directory.glob("checkpoints/checkpoint-????????"))[-2]
    resume(directory, checkpoint=named)
    yield outcome_of_log(directory) == damaged.wanted


def flipped_records(folder: Path) -> Outcomes:
    """Damage costs nothing: it is rebuilt, and the run goes on to the same bits."""
    dice, damaged = random.Random(2), Damaged(folder)
    for number in range(36):
        directory = damaged.copy()
        flip(directory / ("run.json", "config.toml", "metrics.jsonl")[number % 3], dice)
        resume(directory)
        yield outcome_of_log(directory) == damaged.wanted
        shutil.rmtree(directory)


def truncate_files(folder: Path) -> Outcomes:
    dice, damaged = random.Random(3), Damaged(folder)
    files = damaged.files()
    for number in range(24):
        directory = damaged.copy()
        path = directory / files[number % len(files)]
        os.truncate(path, dice.randrange(path.stat().st_size))
        yield damaged.is_refused_or_right(directory)
        shutil.rmtree(directory)


def delete_files(folder: Path) -> Outcomes:
    damaged = Damaged(folder)
    for file in damaged.files():
        directory = damaged.copy()
        (directory / file).unlink()
        yield damaged.is_refused_or_right(directory)


def reports_of_damage(folder: Path) -> Outcomes:
    """`report` and `compare`, which read what may be damaged."""
    dice, damaged = random.Random(4), Damaged(folder)
    files = damaged.files()
    for number in range(48):
        directory = damaged.copy()
        path = directory / files[number % len(files)]
        if dice.random() < 0.5:
            flip(path, dice)
        else:
            os.truncate(path, dice.randrange(path.stat().st_size))
        for command in (["report", str(directory)], ["compare", str(directory), str(folder / "whole")]):
            failure = CliRunner().invoke(spike_command, command).exception
            yield failure is None or isinstance(failure, (SystemExit, SpikeError))
        shutil.rmtree(directory)


def hostile_records(folder: Path) -> Outcomes:
    """A tag in place of each string, key and number of a record that is signed again: escaped, or refused."""
    damaged = Damaged(folder)
    directory = damaged.copy()
    plain = json.loads((directory / "run.json").read_text())
    for renames in (False, True):
        for place in leaves(plain):
            changed = json.loads(json.dumps(plain))
            inner = changed
            for key in place[:-1]:
                inner = inner[key]
            if renames and isinstance(inner, dict):
                inner[TAG] = inner.pop(place[-1])
            else:
                inner[place[-1]] = TAG
            (directory / "run.json").write_text(sealed(changed))
            try:
                page = write_report(directory).read_text()
            except SpikeError:
                page = ""
            yield "<svg onload" not in page


TAG = '"><svg onload=alert(1)>\x1b]0;title\x07'


def leaves(value: object, place: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The places of all that is neither a table nor a list."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, (*place, key))
    elif isinstance(value, list):
        for key, inner in enumerate(value):
            yield from leaves(inner, (*place, key))
    elif place != ("record_sha256",):
        yield place


def tests(*paths: str) -> Callable[[Path], Outcomes]:
    """The attacks that are tests: each of them is a try."""

    def run(folder: Path) -> Outcomes:
        log = folder / "log"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={log}", *paths]
        subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
        text = log.read_text()
        num_tests, num_failed, num_errors, num_skipped = (
            int(text.split(f'{name}="')[1].split('"')[0]) for name in ("tests", "failures", "errors", "skipped")
        )
        yield from [True] * (num_tests - num_failed - num_errors - num_skipped)
        yield from [False] * (num_failed + num_errors)

    return run


def load_on_memory(folder: Path) -> Outcomes:
    """Long streams, long and wide sequences, many shapes: equal to one call or to the reference, memory flat."""
    torch.manual_seed(0)
    net, reference = LIF(tau=1.7), LIF(tau=1.7, backend="torch")
    net.backend = "cpu"
    # 10^5 streamed steps
    x = torch.rand(100_000, 1, 4) * 3
    with torch.no_grad():
        wanted = net(x)
        run = functional(net)
        state = None
        steps = []
        before = resident_mib()
        for start in range(0, len(x), 100):
            out, state = run(x[start : start + 100], state)
            steps.append(out)
        yield torch.equal(torch.cat(steps), wanted) and bool(0.02 < wanted.mean() < 0.98)
        yield resident_mib() - before < 16
        yield torch.equal(wanted[:20_000], reference(x[:20_000]))
        wide = torch.rand(2, 1, 1_000_000) * 3
        yield torch.equal(net(wide), reference(wide))
    # 5000 steps of training, then 600 calls of changing T and B
    dense = torch.nn.Sequential(torch.nn.Linear(8, 8), net)
    optimizer = torch.optim.Adam(dense.parameters())
    for number in range(5000):
        if number == 500:
            before = resident_mib()
        optimizer.zero_grad()
        dense(torch.rand(4, 2, 8)).sum().backward()
        optimizer.step()
    gc.collect()
    yield resident_mib() - before < 16
    dice = random.Random(0)
    for _ in range(600):
        x = torch.rand(dice.randint(1, 20), dice.randint(0, 20), 7) * 3
        yield torch.equal(net(x), reference(x))


def forks_while_threads_compute(folder: Path) -> Outcomes:
    net = LIF(tau=1.7, backend="cpu")
    x = torch.rand(6, 5, 64) * 4
    wanted = of_net(net, x)
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            of_net(net, x)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(12):
        torch.set_num_threads(1 + number % 3)
        pid = os.fork()
        if not pid:
            torch.set_num_threads(1 + number % 2)
            os._exit(0 if all(map(torch.equal, of_net(net, x), wanted)) else 1)
        yield os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    torch.set_num_threads(1)
    stop.set()
    for thread in threads:
        thread.join()


def eight_threads(folder: Path) -> Outcomes:
    """`tests/benchmarks/threads.py`; a call is a try, and memory another."""
    command = [sys.executable, "tests/benchmarks/threads.py", "--seconds", "120", "--record"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    words = done.stdout.replace(",", "").split()
    calls, wrong = (int(words[words.index(name) - 1]) for name in ("calls", "wrong"))
    print(done.stdout, end="")
    yield from [True] * (calls - wrong)
    yield from [False] * wrong
    yield done.returncode == 0


ATTACKS = {
    "1a": Attack("SIGKILL at random calls, a checkpoint for each step", lambda f: kill_runs(EVERY_STEP, 8, 4, f)),
    "1b": Attack("SIGKILL, convnet, a checkpoint for every 3 steps", lambda f: kill_runs(CONVNET, 3, 2, f)),
    "1c": Attack("SIGKILL, SIGTERM, Ctrl-C once and twice; two signals a run", signal_runs),
    "1d": Attack("disks of 4 to 250 KB", full_disks),
    "1e": Attack("commands on a read-only mount", read_only_mount),
    "1f": Attack("three processes in one directory", three_in_one),
    "1g": Attack("clocks that move back", tests("tests/run/test_resume.py", "-k", "clocks")),
    "1h": Attack("a flipped bit in a checkpoint; the one before it is named and resumed", flipped_checkpoints),
    "1j": Attack("a flipped bit in run.json, config.toml, metrics.jsonl", flipped_records),
    "1k": Attack("truncated files of a run", truncate_files),
    "1l": Attack("report and compare on damaged runs", reports_of_damage),
    "1m": Attack("missing files of a run", delete_files),
    "3a": Attack("archives", tests("tests/datasets/test_store.py", "tests/datasets/test_bombs.py")),
    "3b": Attack("tags in a signed record", hostile_records),
    "3d": Attack("terminal escapes and look-alikes", tests("tests/torchfree/test_foreign.py")),
    "3e": Attack("kernel caches and compilers", tests("plugins/cpu-backend/tests/test_faults.py")),
    "3f": Attack("links", tests("tests/datasets/test_links.py", "tests/run/test_resume.py", "-k", "link")),
    "3g": Attack("TOML and JSON", tests("tests/torchfree/test_documents.py")),
    "4": Attack("plugins that misbehave", tests("tests/torchfree/test_doctor.py", "tests/torchfree/test_faults.py")),
    "5a": Attack("8 threads on one net for 2 minutes", eight_threads),
    "5b": Attack("long streams, wide layers, many shapes, training", load_on_memory),
    "5c": Attack("forks while 3 threads compute", forks_while_threads_compute),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*", help="only these")
    num_wrong = 0
    torch.set_num_threads(1)
    for name in parser.parse_args().rows or ATTACKS:
        begin = cpu_s()
        with tempfile.TemporaryDirectory(prefix="spikecore-attacks-") as folder:
            outcomes = list(ATTACKS[name].tries(Path(folder)))
        wrong = outcomes.count(False) + (not outcomes)
        num_wrong += wrong
        facts = {"row": name, "attack": ATTACKS[name].what, "tries": len(outcomes), "wrong": wrong}
        rows = read_table()  # now: another process may have measured other rows
        rows[name] = {key: str(value) for key, value in facts.items()} | {
            "cpu_s": f"{cpu_s() - begin:.0f}",
            "date": f"{datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d}",
            "spikecore": spikecore.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        }
        write_table(rows)
        print(", ".join(f"{key} {value}" for key, value in facts.items()), flush=True)
    return int(num_wrong > 0)


def cpu_s() -> float:
    """Of this process and those it started."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def read_table() -> dict[str, dict[str, str]]:
    if not TABLE.is_file():
        return {}
    with TABLE.open(newline="") as file:
        return {row["row"]: row for row in csv.DictReader(file)}


def write_table(rows: dict[str, dict[str, str]]) -> None:
    with TABLE.open("w", newline="") as file:
        writer = csv.DictWriter(file, HEAD, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows[name] for name in ATTACKS if name in rows)


if __name__ == "__main__":
    sys.exit(main())

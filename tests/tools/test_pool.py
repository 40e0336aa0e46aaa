"""The pool of suites: two at a time, one thread unless with a reason, whole outputs, CPU time against budgets."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from tests.suites import pool, running, speed
from tests.suites.pool import Job, Pool
from tests.suites.results import Result, read
from tests.suites.table import Suite

ROOT = Path(__file__).parents[2]
PASSES = "result.ok = True; result.counts['passed'] = 1"


def job(name, results, work="", end=PASSES, **options):
    """A suite that does `work` and leaves a result."""
    code = (
        "import os, sys, time\nfrom pathlib import Path\nfrom tests.suites.results import Result\n"
        f"results = Path({str(results)!r})\nresult = Result({name!r}, False)\n"
        f"{textwrap.dedent(work)}\n{end}\nresult.write(results)\nsys.exit(not result.ok)\n"
    )
    return Job(name, (sys.executable, "-c", code), **options)


def wait_for(file):
    """Until another job has come as far: no clock decides."""
    return f"while not (results / {file!r}).exists(): time.sleep(0.01)"


def test_two_run_at_a_time_with_one_thread_each(tmp_path, capsys):
    # Each waits for the other to start: they end only when they run side by side.
    first = f"(results / 'one').touch(); print('first of one', flush=True)\n{wait_for('two')}\nprint('last of one')"
    second = f"(results / 'two').touch(); print('first of two', flush=True)\n{wait_for('one')}\nprint('last of two')"
    tell = "\nprint('threads', os.environ['OMP_NUM_THREADS'], os.environ['MKL_NUM_THREADS'])"
    assert Pool(tmp_path).run([job("a", tmp_path, first + tell), job("b", tmp_path, second + tell)])
    lines = [line for line in capsys.readouterr().out.splitlines() if line and " starts, " not in line]
    for name, word in (("a", "one"), ("b", "two")):
        start = lines.index(f"=== {name}")  # whole, in one place
        assert lines[start + 1 : start + 4] == [f"first of {word}", f"last of {word}", "threads 1 1"]
        assert lines[start + 4].startswith(f"=== {name}: passed (")


def test_no_third_one_starts(tmp_path):
    """Every job counts how many run while it does."""
    count = """
    (results / f'running-{os.getpid()}').touch()
    (results / f'most-{os.getpid()}').write_text(str(len(list(results.glob('running-*')))))
    time.sleep(0.05)
    (results / f'running-{os.getpid()}').unlink()
    """
    assert Pool(tmp_path).run([job(f"j{index}", tmp_path, count) for index in range(7)])
    assert max(int(path.read_text()) for path in tmp_path.glob("most-*")) <= 2


def test_one_with_a_reason_has_all_threads(tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    asked = "assert 'OMP_NUM_THREADS' not in os.environ"
    assert Pool(tmp_path).run([job("all", tmp_path, asked, all_threads="it counts threads")])
    assert not Pool(tmp_path).run([job("one", tmp_path, asked)])


def test_the_longest_starts_first(tmp_path, monkeypatch):
    monkeypatch.setattr(pool, "WIDTH", 1)  # in turns, to see the order
    order = "with open(results / 'order', 'a') as file: file.write(result.name)"
    jobs = [job(name, tmp_path, order, budget_s=budget) for name, budget in (("a", 30), ("b", 90), ("c", 60))]
    Pool(tmp_path).run(jobs)
    assert tmp_path.joinpath("order").read_text() == "bca"


def test_a_slow_machine_has_more_cpu_time(monkeypatch):
    """The work that is timed burns twice what it takes where budgets are stated, in both processes."""
    monkeypatch.setattr(speed, "REFERENCE_S", 0.2)
    monkeypatch.setattr(speed, "WORK", BURN.format(seconds=0.4))
    assert 1.9 < speed.slowness() < 4
    monkeypatch.setattr(speed, "REFERENCE_S", 100.0)
    assert speed.slowness() == speed.LEAST
    monkeypatch.setattr(speed, "REFERENCE_S", 0.01)
    assert speed.slowness() == speed.MOST


def test_one_that_hangs_is_killed_with_its_children(tmp_path, capsys):
    hang = """
    import subprocess
    child = subprocess.Popen(['sleep', '1000'])
    (results / 'child').write_text(str(child.pid))
    child.wait()
    """
    assert not Pool(tmp_path, wall_limit_s=3.0).run([job("hangs", tmp_path, hang), job("ends", tmp_path)])
    assert "=== hangs: FAILED: killed: it did not end within 3 s" in capsys.readouterr().out
    assert read("ends", tmp_path).ok
    assert has_ended(int(tmp_path.joinpath("child").read_text()))


def test_children_that_outlive_their_suite_are_killed(tmp_path):
    leave = """
    import subprocess
    (results / 'child').write_text(str(subprocess.Popen(['sleep', '1000']).pid))
    """
    assert Pool(tmp_path).run([job("leaves", tmp_path, leave)])
    assert has_ended(int(tmp_path.joinpath("child").read_text()))


def has_ended(pid):
    """Whether a killed process is gone, or only waits for its status to be read, in a while at most."""
    for _ in range(1000):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state in "ZX":
            return True
        time.sleep(0.01)
    return False


BURN = "import time\nwhile time.process_time() < {seconds}: pass"


def test_cpu_time_counts_children_and_not_waiting(tmp_path):
    burn = f"import subprocess\nsubprocess.run([sys.executable, '-c', {BURN.format(seconds=0.6)!r}])"
    assert Pool(tmp_path).run([job("burns", tmp_path, burn), job("waits", tmp_path, "time.sleep(1.5)")])
    burns, waits = read("burns", tmp_path), read("waits", tmp_path)
    assert burns.cpu_s >= 0.6
    assert waits.wall_s >= 1.5
    assert waits.cpu_s < 1.2, "waiting costs no CPU time"


def test_one_past_its_budget_fails_with_its_name(tmp_path):
    burn = BURN.format(seconds=0.5)
    assert not Pool(tmp_path).run([job("greedy", tmp_path, burn, budget_s=0.4), job("modest", tmp_path, budget_s=60)])
    assert read("greedy", tmp_path).is_past_budget()
    assert not read("modest", tmp_path).is_past_budget()
    status, out = closing(tmp_path, "greedy", "modest")
    assert status == 1
    assert "greedy took" in out
    assert "its budget is 0 s" in out
    assert "modest took" not in out
    assert "PAST ITS BUDGET" in out


def test_making_an_environment_is_not_in_the_budget(tmp_path):
    setup = BURN.format(seconds=0.5) + "\nresult.setup_cpu_s = time.process_time()"
    assert Pool(tmp_path).run([job("set-up", tmp_path, setup, budget_s=0.4)])
    assert read("set-up", tmp_path).setup_cpu_s >= 0.5


@pytest.mark.parametrize(
    ("work", "end", "says"),
    [
        ("raise SystemExit(3)", PASSES, "ended with status 3 and left no result"),
        (f"os.kill(os.getpid(), {int(signal.SIGKILL)})", PASSES, "ended with status -9"),
        ("", "result.counts['failed'] = 1; result.reason = 'pytest ended with status 1'", "status 1"),
        ("", "result.ok = True", "nothing was collected"),
    ],
    ids=["dies", "is killed", "fails", "runs nothing"],
)
def test_what_does_not_pass_fails_the_closing_report(tmp_path, work, end, says):
    Pool(tmp_path).run([job("bad", tmp_path, work, end), job("good", tmp_path)])
    status, out = closing(tmp_path, "bad", "good")
    assert status == 1
    assert says in out
    assert "good: 1 passed" in out


def test_a_test_that_hangs_is_named(tmp_path):
    """pytest's limit for one test, on a test that waits outside Python, where no signal wakes it."""
    (tmp_path / "test_hangs.py").write_text(
        "def test_before(): pass\n\n\ndef test_waits(): __import__('time').sleep(60)\n"
    )
    work = f"""
    import subprocess
    options = ["-o", "faulthandler_timeout=0.5", "-o", "faulthandler_exit_on_timeout=true", "-p", "no:cacheprovider"]
    subprocess.run([sys.executable, "-m", "pytest", *options, "-c", "/dev/null", {str(tmp_path / "test_hangs.py")!r}])
    """
    Pool(tmp_path).run([job("hung", tmp_path, work, "result.reason = 'pytest ended with status 1'")])
    assert read("hung", tmp_path).reason == "pytest ended with status 1, in test_waits"


def test_a_test_that_waits_too_long_fails_alone(tmp_path, monkeypatch):
    (tmp_path / "test_waits.py").write_text(
        "import threading\n\n\ndef test_waits(): threading.Event().wait(60)\n\n\ndef test_next(): pass\n"
    )
    monkeypatch.setattr(running, "TEST_LIMIT_S", 0.5)
    monkeypatch.setattr(running, "RESULTS", tmp_path / "results")
    suite = Suite("waits", "test", lambda: Path(sys.executable), (str(tmp_path / "test_waits.py"),), {})
    result = running.run(suite)
    assert not result.ok
    assert result.counts == {"passed": 1, "failed": 1, "skipped": 0}


def test_a_suite_without_result_is_missed(tmp_path):
    assert Pool(tmp_path).run([job("good", tmp_path)])
    assert closing(tmp_path, "good")[0] == 0
    status, out = closing(tmp_path, "good", "forgotten")
    assert status == 1
    assert "forgotten" in out


def test_an_old_result_is_not_taken_for_a_new_one(tmp_path):
    Result("bad", True, counts={"passed": 5, "failed": 0, "skipped": 0}).write(tmp_path)
    assert not Pool(tmp_path).run([job("bad", tmp_path, "raise SystemExit(1)")])
    assert not read("bad", tmp_path).ok


def test_an_interrupt_stops_all_that_runs(tmp_path):
    """Ctrl-C at the pool: its suites and their children die, and what waited never starts."""
    child = f"import subprocess\nsubprocess.run(['sleep', '{os.getpid()}1000'])"
    code = f"""
    import os, signal, sys, threading, time
    sys.path.insert(0, {str(ROOT)!r})
    from pathlib import Path
    from tests.suites.pool import Pool
    from tests.tools.test_pool import job
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for jobs in the background
    results = Path({str(tmp_path)!r})
    work = "(results / ('started-' + result.name)).touch()\\n" + {child!r}
    jobs = [job(f"j{{index}}", results, work) for index in range(4)]
    def interrupt():
        while len(list(results.glob("started-*"))) < 2: time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)
    threading.Thread(target=interrupt).start()
    Pool(results).run(jobs)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, capture_output=True, text=True)
    assert "KeyboardInterrupt" in done.stderr
    assert len(list(tmp_path.glob("started-*"))) == 2
    for _ in range(6000):  # killed, but perhaps not gone yet
        if not runs(f"sleep\0{os.getpid()}1000"):
            break
        time.sleep(0.1)
    assert not runs(f"sleep\0{os.getpid()}1000")


def runs(command):
    """The processes with this command line (a zombie has none)."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            lines.append(path.read_bytes().decode(errors="replace"))
    return [line for line in lines if line.startswith(command)]


def closing(results, *names):
    """Exit status and output of the closing run over these suites."""
    command = [sys.executable, "-m", "pytest", "tests/closing", "-q", "-p", "no:cacheprovider"]
    env = {**os.environ, "SPIKE_RESULTS": str(results), "SPIKE_SUITES": ",".join(names)}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    return done.returncode, done.stdout


def test_results_are_plain_json(tmp_path):
    Result("x", True, setup_cpu_s=1.5).write(tmp_path)
    assert json.loads(tmp_path.joinpath("x.json").read_text())["setup_cpu_s"] == 1.5
    assert read("x", tmp_path) == Result("x", True, setup_cpu_s=1.5)
    assert read("y", tmp_path) is None

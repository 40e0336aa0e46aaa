"""The worker pool by itself: its own code under chosen schedules, under disturbed ones, and under ThreadSanitizer."""

import os
import subprocess
from pathlib import Path

import pytest
import spikecore_cpu_backend
from spikecore_cpu_backend.compiler import compilers

POOL = Path(spikecore_cpu_backend.__file__).parent / "c" / "pool.c"
HERE = Path(__file__).parent
LIMIT_S = 600.0
"""Far more than any of these needs: the machine may stand still for a while."""
IS_FULL = bool(os.environ.get("SPIKE_FULL"))


def build(folder, name, *flags, pool=POOL):
    """A program of this folder with the pool inside; None where these flags do not compile."""
    program = folder / name
    command = [next(compilers()).path, "-O2", "-g", "-std=gnu11", "-pthread", "-Wall", "-Wextra", "-Werror"]
    command += [*flags, f'-DPOOL="{pool}"', f"-I{POOL.parent}", str(HERE / f"{name}.c"), "-o", str(program)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S)
    if flags and done.returncode:
        return None
    assert done.returncode == 0, done.stderr
    return program


def run(program, *arguments, cores=None):
    """Exit status and output; a program that hangs is killed and fails the test."""
    return subprocess.run(
        [str(program), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT_S,
        preexec_fn=(lambda: os.sched_setaffinity(0, cores)) if cores else None,
    )


def test_no_schedule_hangs_or_loses_a_block(tmp_path):
    """Every schedule with at most two preemptions (three take more than a quarter of an hour), and others at random."""
    done = run(build(tmp_path, "pool_schedules"), 2, 500_000 if IS_FULL else 1000)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("schedules with up to 2 preemptions") == 9


FAULTS = {
    "nobody knows that the caller sleeps": ("atomic_store(&caller_sleeps, 1);", "", "nobody can go on"),
    "the last block wakes nobody": ("(&unfinished, 1) == 1", "(&unfinished, 1) == 2", "nobody can go on"),
    "the caller does not wait": ("    wait_for_workers();", "", "before its blocks were done"),
    "the pool is free too early": (
        "    work(NULL);",
        "    work(NULL);\n    pthread_mutex_unlock(&taken);",
        "nobody can go on",
    ),
    "blocks come before their job": (
        "    current_job = job;",
        "    atomic_store(&shares[0].blocks, 1);\n    current_job = job;",
        "a block is done twice",
    ),
    "two take the same block": (
        "if (atomic_compare_exchange_weak(&share->blocks, &seen, left)) return 1;",
        "atomic_store(&share->blocks, left);\n        return 1;",
        "a block is done twice",
    ),
    "others take beyond the end": ("begin : end - 1;", "begin : end;", "a block that there is not"),
    "nobody begins with their own": (
        "index = (own + i) % count;",
        "index = (own + i + 1) % count;",
        "blocks in another order",
    ),
    "shares overlap": ("(num_blocks * i / num_threads)", "(num_blocks * i / num_threads / 2)", "a block is done twice"),
    "nobody takes from others": (
        "    for (int i = 0; i < count; i++) {\n        int index",
        "    for (int i = 0; i < 1; i++) {\n        int index",
        "nobody can go on",
    ),
    "a worker is not let go": ("let_go(&moves[--num_moves], cpu)", "num_moves--", "stays bound to one core"),
    "a worker is not let go in time": ("let_go(&moves[--num_moves], -1)", "num_moves--", "stays bound to one core"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_schedules_find_faults(tmp_path, fault):
    right, wrong, message = FAULTS[fault]
    text = POOL.read_text()
    assert text.count(right) == 1
    pool = tmp_path / "pool.c"
    pool.write_text(text.replace(right, wrong))
    done = run(build(tmp_path, "pool_schedules", "-w", pool=pool), 2, 1000)
    assert done.returncode == 1
    assert message in done.stdout


@pytest.fixture(scope="module", params=["", "-fsanitize=thread"], ids=["plain", "ThreadSanitizer"])
def stress(request, tmp_path_factory):
    program = build(tmp_path_factory.mktemp("pool"), "pool_stress", *filter(None, [request.param]))
    if program is None:
        pytest.skip("the compiler has no ThreadSanitizer")
    if "unexpected memory mapping" in run(program, 0, 1, 0).stdout:
        pytest.skip("ThreadSanitizer does not run on this kernel")
    return program


@pytest.mark.parametrize("is_on_one_core", [False, True], ids=["", "on one core"])
@pytest.mark.parametrize("num_callers", [1, 3])
def test_disturbed_threads(stress, num_callers, is_on_one_core):
    cores = {min(os.sched_getaffinity(0))} if is_on_one_core else None
    done = run(stress, 30 if IS_FULL else 0.5, num_callers, 11, cores=cores)
    assert done.returncode == 0, done.stdout

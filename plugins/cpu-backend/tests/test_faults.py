"""Compilers and caches that misbehave: every fault is answered by compiling again, elsewhere, or by a clear refusal."""

import errno
import multiprocessing
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from spikecore_cpu_backend import CPUBackend, cache, compiler

from spikecore.backends.kit import store
from spikecore.backends.selection import backend_named
from spikecore.errors import BackendError, PluginUnavailable
from spikecore.nn import LIF
from spikecore.registry import Blocking, Registry, use

X = torch.linspace(-1, 3, 60).reshape(5, 3, 4)
RIGHT = LIF(backend="torch")(X)
PROGRAM = LIF().program()


def runs(backend):
    """Does it compute a LIF?"""
    support = backend.supports(PROGRAM, X.device, X.dtype)
    assert support, support.reason
    backend.learn(PROGRAM)
    out = backend.run(PROGRAM.key, X, [torch.zeros(3, 4)], [], False, False)[0]
    return torch.equal(out, RIGHT)


def script(folder, text):
    path = folder / "my cc"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def folder(tmp_path, compiled_once):
    return tmp_path / "with a space" / "kernels"


@pytest.fixture
def compilations(monkeypatch, compiled_once):
    """Counts what is compiled."""
    counted = []
    real = compiler.Compiler.compile
    monkeypatch.setattr(compiler.Compiler, "compile", lambda *args: counted.append(1) or real(*args))
    return counted


def test_the_second_use_compiles_nothing(folder, compilations):
    assert runs(CPUBackend(cache_dir=str(folder)))
    assert len(compilations) == 2  # runtime and kernel
    assert runs(CPUBackend(cache_dir=str(folder)))
    assert len(compilations) == 2
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.parametrize("damage", ["truncated", "empty", "foreign", "flipped", "a folder"])
def test_a_damaged_entry_is_compiled_again(folder, compilations, damage):
    assert runs(CPUBackend(cache_dir=str(folder)))
    for path in folder.glob("*.so"):
        content = path.read_bytes()
        path.unlink()  # not written in place: this process has it mapped
        if damage == "a folder":
            path.mkdir()
            continue
        path.write_bytes(
            {
                "truncated": content[: len(content) // 2],
                "empty": b"",
                "foreign": b"#!/bin/sh\nexit 0\n",
                "flipped": content[:1000] + bytes([content[1000] ^ 255]) + content[1001:],
            }[damage]
        )
    assert runs(CPUBackend(cache_dir=str(folder)))
    assert len(compilations) == 4


def test_a_kernel_under_the_name_of_another_is_not_taken(folder, compilations):
    assert runs(CPUBackend(cache_dir=str(folder)))
    first, second = sorted(folder.glob("*.so"))
    content = first.read_bytes()
    second.unlink()
    second.write_bytes(content)
    assert runs(CPUBackend(cache_dir=str(folder)))
    assert len(compilations) == 3


def test_another_processor_or_compiler_finds_nothing(folder, compilations, monkeypatch):
    assert runs(CPUBackend(cache_dir=str(folder)))
    real = compiler.processor()
    monkeypatch.setattr(compiler, "processor", lambda: f"{real} another")
    assert runs(CPUBackend(cache_dir=str(folder)))
    assert len(compilations) == 4


@pytest.mark.parametrize("fault", ["read-only", "full", "not ours", "a file in its place"])
def test_a_cache_that_takes_nothing(folder, fault, monkeypatch):
    folder.parent.mkdir(parents=True)
    if fault == "a file in its place":
        folder.write_text("")
    elif fault == "not ours":
        folder.mkdir()
        folder.chmod(0o777)
    else:
        number = {"read-only": 30, "full": 28}[fault]  # EROFS, ENOSPC
        real = store.write_with

        def refusing(path, write):
            if path.parent == folder:
                raise OSError(number, os.strerror(number))
            real(path, write)

        monkeypatch.setattr(store, "write_with", refusing)
        with pytest.raises(OSError):
            store.write_with(folder / "a", Path.touch)  # the fault bites
    assert runs(CPUBackend(cache_dir=str(folder)))
    assert not folder.is_dir() or not list(folder.iterdir())


def test_a_disk_that_fills_while_writing_leaves_nothing_behind(folder, monkeypatch):
    def full(descriptor):
        raise OSError(28, "no space left on device")

    monkeypatch.setattr(store.os, "fsync", full)
    with pytest.raises(BackendError, match="no room for a compiled kernel"):
        CPUBackend(cache_dir=str(folder))
    assert not list(folder.iterdir())


def test_no_room_anywhere(folder, monkeypatch):
    monkeypatch.setattr(store, "_store", lambda *args: False)
    with pytest.raises(BackendError, match="no room"):
        CPUBackend(cache_dir=str(folder))


def use_once(folder):
    if not runs(CPUBackend(cache_dir=folder)):
        sys.exit(1)


def test_processes_that_compile_the_same_at_once(folder):
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=use_once, args=(str(folder),)) for _ in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0, 0, 0]
    assert len(list(folder.iterdir())) == 2  # and nothing half-written


def test_a_compiler_that_fails(folder, tmp_path):
    path = script(
        tmp_path, '[ "$1" = --version ] && echo "my cc 1.0" && exit 0; echo "error: no such luck" >&2; exit 3'
    )
    with pytest.raises(BackendError, match=r"my cc failed with exit status 3: error: no such luck"):
        CPUBackend(compiler=path, cache_dir=str(folder))


def is_running(pid):
    """It exists, and is no zombie that nobody has waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_compiler_that_hangs_is_stopped_with_its_children(folder, tmp_path):
    pid = tmp_path / "pid"
    sleeper = f'sleep 100000 & echo $! > "{pid}"; touch "{pid}.written"; wait'
    path = script(tmp_path, f'[ "$1" = --version ] && echo "my cc 1.0" && exit 0; {sleeper}')
    # Half a second may be too short for a shell on a busy machine: then there is no child yet, and longer is tried.
    timeout_s = 0.5
    while not Path(f"{pid}.written").exists():
        with pytest.raises(BackendError, match=rf"did not finish within {timeout_s:g} s"):
            CPUBackend(compiler=path, cache_dir=str(folder), compile_timeout_s=timeout_s)
        timeout_s *= 2
    for _ in range(12_000):  # only a child that was left alone makes this take long
        if not is_running(pid.read_text().strip()):
            break
        time.sleep(0.05)
    assert not is_running(pid.read_text().strip())


def test_a_child_that_left_the_compiler_s_group_is_not_waited_for(folder, tmp_path):
    pid = tmp_path / "pid"
    leaver = (
        f'setsid sh -c \'echo $$ > "{pid}"; exec sleep 100000\' & while ! test -s "{pid}"; do :; done; sleep 100000'
    )
    path = script(tmp_path, f'[ "$1" = --version ] && echo "my cc 1.0" && exit 0; {leaver}')
    timeout_s = 0.5
    while not pid.exists() or not pid.read_text().strip():
        with pytest.raises(BackendError, match=rf"did not finish within {timeout_s:g} s"):
            CPUBackend(compiler=path, cache_dir=str(folder), compile_timeout_s=timeout_s)
        timeout_s *= 2
    left = pid.read_text().strip()
    assert is_running(left), "it was not waited for, and is not the compiler's child any more"
    os.kill(int(left), signal.SIGKILL)


def test_a_compiler_that_hung_is_not_asked_again(folder, tmp_path):
    asked = tmp_path / "asked"
    path = script(tmp_path, f'[ "$1" = --version ] && echo "my cc 1.0" && exit 0; echo x >> "{asked}"; sleep 20')
    kernels = cache.KernelCache(path, folder, 0.5)
    with pytest.raises(BackendError, match=r"did not finish within 0\.5 s"):
        kernels.load("int one;")
    with pytest.raises(BackendError, match=r"did not finish within 0\.5 s.*not asked again"):
        kernels.load("int another;")
    assert asked.read_text().split() == ["x"]


def test_a_pipe_under_a_kernel_s_name_is_not_waited_for(folder, compilations):
    assert runs(CPUBackend(cache_dir=str(folder)))
    for path in folder.glob("*.so"):
        path.unlink()
        os.mkfifo(path)
    assert runs(CPUBackend(cache_dir=str(folder)))
    assert len(compilations) == 4


def test_what_a_compiler_prints_is_made_readable(folder, tmp_path):
    path = script(
        tmp_path, '[ "$1" = --version ] && echo "my cc 1.0" && exit 0; printf "error: \\033[31m\\001\\377"; exit 1'
    )
    with pytest.raises(BackendError) as caught:
        CPUBackend(compiler=path, cache_dir=str(folder))
    assert str(caught.value).isprintable()


def test_a_relative_cache_directory(tmp_path, monkeypatch, compilations):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert runs(CPUBackend(cache_dir="."))
    assert len(compilations) == 2  # the driver and a kernel, once
    assert len(list(tmp_path.glob("*.so"))) == 2


def test_no_temporary_files_for_the_compiler(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(compiler.tempfile, "TemporaryDirectory", full)
    with pytest.raises(BackendError, match=r"no temporary files for the compiler: .*No space left"):
        CPUBackend(cache_dir=str(tmp_path))


def test_auto_passes_over_a_compiler_that_fails(folder, tmp_path):
    path = script(tmp_path, f'echo x >> "{tmp_path}/calls"; [ "$1" = --version ] && echo "my cc" && exit 0; exit 3')

    class Failing(CPUBackend):
        @dataclass(frozen=True)
        class Config(CPUBackend.Config):
            compiler: str = path
            cache_dir: str = str(folder)

    registry = Registry(path=[], blocking=Blocking())
    registry.register("backend", "failing", Failing)
    with use(registry):
        for _ in range(2):
            neuron = LIF()
            assert torch.equal(neuron(X), RIGHT)
            assert neuron.chosen.backend == "torch"
            assert "failing: " in neuron.chosen.reason
            assert "failed with exit status 3" in neuron.chosen.reason
        with pytest.raises(BackendError, match="exit status 3"):
            LIF(backend="failing")(X)
    assert len((tmp_path / "calls").read_text().splitlines()) == 2  # asked once, tried once


def test_a_cc_that_answers_but_does_not_compile_leads_to_the_next(folder, tmp_path, monkeypatch):
    real = shutil.which("gcc") or shutil.which("clang") or shutil.which("cc")
    broken = script(tmp_path, '[ "$1" = --version ] && echo "broken cc" && exit 0; exit 3')
    commands = {"cc": broken, "gcc": real, "clang": None}
    monkeypatch.setattr(compiler.shutil, "which", lambda name: commands.get(name, name))
    backend = CPUBackend(cache_dir=str(folder))
    assert backend.compiler.path == real
    assert runs(backend)
    with pytest.raises(BackendError, match="exit status 3"):  # one that is named is the only one
        CPUBackend(compiler=broken, cache_dir=str(folder))
    commands.update(cc=real, gcc=broken, clang=real)
    backend = CPUBackend(cache_dir=str(folder))  # its runtime comes from the cache
    commands.update(cc=broken, gcc=broken)
    backend.runtime.cache.compiler = next(compiler.compilers())
    assert runs(backend)
    assert backend.compiler.path == real
    (tmp_path / "other").mkdir()
    commands.update(clang=script(tmp_path / "other", '[ "$1" = --version ] && echo "other cc" && exit 0; exit 4'))
    with pytest.raises(BackendError, match=r"exit status 3.*; .*exit status 4"):  # all of them are named
        CPUBackend(cache_dir=str(folder / "another"))


def test_a_compiler_that_makes_no_library(folder, tmp_path):
    path = script(tmp_path, '[ "$1" = --version ] && echo "my cc 1.0"; exit 0')
    with pytest.raises(BackendError, match="failed"):
        CPUBackend(compiler=path, cache_dir=str(folder))


def test_a_path_with_spaces_serves(folder, tmp_path):
    path = script(tmp_path, f'exec {shutil.which("cc") or shutil.which("gcc")} "$@"')
    assert runs(CPUBackend(compiler=path, cache_dir=str(folder)))


def without_compiler(monkeypatch):
    monkeypatch.setattr(compiler.shutil, "which", lambda name: None)


def without_linux(monkeypatch):
    monkeypatch.setattr(compiler.sys, "platform", "darwin")


@pytest.mark.parametrize(
    ("take_away", "message"),
    [(without_compiler, r"no C compiler works here.*apt install gcc"), (without_linux, "needs Linux")],
    ids=["compiler", "linux"],
)
def test_unavailable(monkeypatch, take_away, message):
    take_away(monkeypatch)
    with pytest.raises(PluginUnavailable, match=message):
        CPUBackend()
    registry = Registry(blocking=Blocking())
    with use(registry):
        neuron = LIF()
        assert torch.equal(neuron(X), RIGHT)
        assert neuron.chosen.backend == "torch"
        assert neuron.chosen.reason.startswith("cpu: ")
        with pytest.raises(PluginUnavailable, match=message):
            LIF(backend="cpu")(X)


def test_auto_takes_it_and_says_so():
    with use(Registry(blocking=Blocking())):
        neuron = LIF()
        neuron(X)
        assert neuron.chosen.backend == "cpu"
        with pytest.raises(BackendError, match="runs on cpu, not on meta"):
            LIF(backend="cpu")(X.to("meta"))


def test_wrong_arguments_are_refused_before_they_reach_c():
    neuron = LIF(backend="cpu", tau=[2.0, 3.0, 4.0])
    neuron(X.reshape(5, 1, 3, 4))
    key, backend = neuron.program().key, backend_named("cpu")
    tau, v = torch.tensor([2.0, 3.0, 4.0]), torch.zeros(1, 3, 4)
    x = X.reshape(5, 1, 3, 4)
    for states, params, message in [
        ([v[..., :2]], [tau], "6 elements, a step of x has 12"),
        ([v.double()], [tau], "as torch.float32 on cpu, got torch.float64"),
        ([v], [tau[:2]], "axis 2"),
        ([v], [], "1 states and 1 tensor parameters, got 1 and 0"),
        ([v], [tau.to("meta")], "on meta"),
    ]:
        with pytest.raises(BackendError, match=message):
            backend.run(key, x, states, params, False, False)
    with pytest.raises(BackendError, match="knows no neuron under the key 'nothing'"):
        backend.run("nothing", x, [v], [], False, False)


def test_doctor_names_the_compiler():
    from spikecore_cpu_backend.plugin import spike_doctor_checks

    (check,) = spike_doctor_checks()
    assert check.status == "ok"
    assert check.detail


def test_doctor_names_the_cure(monkeypatch):
    from spikecore_cpu_backend.plugin import spike_doctor_checks

    without_compiler(monkeypatch)
    (check,) = spike_doctor_checks()
    assert check.status == "missing"
    assert "apt install gcc" in check.hint


def test_importing_the_plugin_module_loads_no_torch():
    code = "import sys, spikecore_cpu_backend.plugin; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0

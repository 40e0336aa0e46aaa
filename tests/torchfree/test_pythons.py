"""`find_python`: a real interpreter of a version, whatever else bears its name."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from spikecore.errors import OptionError
from spikecore.pythons import find_python

HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
BASE = Path(getattr(sys, "_base_executable", sys.executable)).resolve()


def program(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def nothing(tmp_path, monkeypatch):
    """No PATH, no pyenv, no home."""
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    monkeypatch.setenv("HOME", str(tmp_path))


def test_dead_shims_and_wrong_versions_are_passed_over(nothing, tmp_path, monkeypatch):
    name = f"python{HERE}"
    program(tmp_path / "dead" / name, "echo 'pyenv: command not found' >&2; exit 127")
    program(tmp_path / "silent" / name, "exit 0")
    program(tmp_path / "old" / name, "echo 2.7; echo /usr/bin/python2.7")
    program(tmp_path / "damaged" / name, "")
    tmp_path.joinpath("damaged", name).write_bytes(b"\x7fELF no program")
    (tmp_path / "folder" / name).mkdir(parents=True)
    program(tmp_path / "plain" / name, "echo 0")
    tmp_path.joinpath("plain", name).chmod(0o644)
    folders = [tmp_path / part for part in ("missing", "dead", "silent", "old", "damaged", "folder", "plain")]
    monkeypatch.setenv("PATH", os.pathsep.join(map(str, folders)))
    assert find_python(HERE) is None
    program(tmp_path / "shim" / name, f'exec {BASE} "$@"')
    monkeypatch.setenv("PATH", os.pathsep.join(map(str, [*folders, tmp_path / "shim"])))
    interpreter = find_python(HERE)
    assert interpreter is not None
    assert tmp_path not in interpreter.parents, "the shim itself is not the interpreter"
    assert subprocess.run([interpreter, "--version"], capture_output=True, text=True).stdout.split()[1].startswith(HERE)


def test_pyenv_is_looked_at_where_path_has_none(nothing, tmp_path):
    program(tmp_path / f"pyenv/versions/{HERE}.0/bin/python{HERE}", "exit 1")
    assert find_python(HERE) is None
    program(tmp_path / f"pyenv/versions/{HERE}.9/bin/python{HERE}", f'exec {BASE} "$@"')
    assert find_python(HERE) is not None


def test_variables_of_the_caller_do_not_reach_the_interpreter(nothing, tmp_path, monkeypatch):
    program(tmp_path / "bin" / f"python{HERE}", f'exec {BASE} "$@"')
    tmp_path.joinpath("sys.py").write_text("raise SystemExit(3)")
    tmp_path.joinpath("site.py").write_text("raise SystemExit(3)")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert find_python(HERE) is not None


def test_one_that_hangs_is_given_up(nothing, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}/bin{os.pathsep}/usr/bin")
    monkeypatch.setattr("spikecore.pythons.ANSWER_TIMEOUT_S", 0.2)
    program(tmp_path / "bin" / "python3.99", "exec sleep 1000")
    assert find_python("3.99") is None


@pytest.mark.parametrize("version", ["3", "3.10.2", "python3.10", "../3.10", "", "3.10\n"])
def test_other_forms_are_refused(version):
    with pytest.raises(OptionError, match=r"expected major\.minor, as in '3\.10', got"):
        find_python(version)

"""Environments share files by hard links; what one environment changes, no other sees."""

import os
import subprocess
import sys

import pytest

from tests.suites import environments
from tests.suites.environments import STAMP, copy_by_links, make_once
from tests.suites.table import ALL_THREADS, BUDGETS_S, suites


@pytest.fixture
def base(tmp_path):
    env = tmp_path / "base"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", env], check=True)
    (env / "bin/tool").write_text(f"#!{env}/bin/python\nimport sys; print(sys.prefix)\n")
    (env / "bin/tool").chmod(0o755)
    (site(env) / "one.py").write_text("VALUE = 1\n")
    (env / STAMP).write_text("base")
    return env


def site(env):
    (path,) = (env / "lib").glob("python*/site-packages")
    return path


def test_a_copy_is_an_environment_of_its_own(base, tmp_path):
    env = tmp_path / "copy"
    copy_by_links(base, env)
    prefix = subprocess.run([env / "bin/python", "-c", "import sys; print(sys.prefix)"], capture_output=True, text=True)
    assert prefix.stdout.strip() == str(env)
    tool = subprocess.run([env / "bin/tool"], capture_output=True, text=True)
    assert tool.stdout.strip() == str(env), "scripts start the copy's Python"
    assert subprocess.run([base / "bin/tool"], capture_output=True, text=True).stdout.strip() == str(base)
    assert os.path.samefile(site(base) / "one.py", site(env) / "one.py"), "one file, two names"
    assert not (env / STAMP).exists()


def test_installing_into_a_copy_leaves_the_base_alone(base, tmp_path):
    """An upgrade as pip does it, in the copy: the base keeps its version."""
    for version in (1, 2):
        project = tmp_path / f"one-{version}"
        project.mkdir()
        project.joinpath("one.py").write_text(f"VALUE = {version}\n")
        text = f'[project]\nname = "one"\nversion = "{version}"\n[build-system]\nrequires = ["setuptools"]\n'
        project.joinpath("pyproject.toml").write_text(text + 'build-backend = "setuptools.build_meta"\n')
    (site(base) / "one.py").unlink()
    install = ["install", "-q", "--no-deps", "--no-index", "--disable-pip-version-check"]
    pip = [sys.executable, "-m", "pip", "--python"]

    def put(env, version):
        wheels = tmp_path / f"wheels-{version}"
        build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-index", "--no-build-isolation"]
        subprocess.run([*build, "-w", wheels, tmp_path / f"one-{version}"], check=True)
        subprocess.run([*pip, env / "bin/python", *install, *wheels.glob("*.whl")], check=True)

    def value(env):
        code = "import one; print(one.VALUE)"
        return subprocess.run([env / "bin/python", "-c", code], capture_output=True, text=True).stdout.strip()

    put(base, 1)
    env = tmp_path / "copy"
    copy_by_links(base, env)
    assert value(base) == value(env) == "1"
    put(env, 2)
    assert (value(base), value(env)) == ("1", "2")


def test_made_once_and_again_when_its_inputs_change(tmp_path, monkeypatch):
    monkeypatch.setattr(environments, "BUILD", tmp_path)
    env, requirements, times = tmp_path / "envs/e", tmp_path / "requirements", []

    def make():
        times.append(1)
        env.mkdir()

    requirements.write_text("a")
    for _ in range(2):
        make_once(env, [requirements, "3.11"], make)
    assert len(times) == 1
    requirements.write_text("b")
    make_once(env, [requirements, "3.11"], make)
    make_once(env, [requirements, "3.12"], make)
    assert len(times) == 3


def test_one_half_made_is_made_again(tmp_path, monkeypatch):
    monkeypatch.setattr(environments, "BUILD", tmp_path)
    env = tmp_path / "envs/e"

    def fails():
        env.mkdir()
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        make_once(env, ["x"], fails)
    make_once(env, ["x"], env.mkdir)
    assert (env / STAMP).is_file()


def test_every_suite_has_a_budget_and_every_budget_a_suite():
    assert set(BUDGETS_S) == set(suites())
    assert set(ALL_THREADS) <= set(suites())
    assert all(ALL_THREADS.values()), "with the reason"


def test_a_build_writes_no_metadata_beside_the_source(tmp_path):
    """Another suite would read it in the place of what is installed."""
    (tmp_path / "src" / "small").mkdir(parents=True)
    (tmp_path / "src" / "small" / "__init__.py").touch()
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "small"\nversion = "1"\n[tool.setuptools.packages.find]\nwhere = ["src"]\n'
    )
    step = "from setuptools import build_meta; build_meta.get_requires_for_build_editable()"
    environments.call(sys.executable, "-c", step, cwd=tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["__init__.py", "pyproject.toml", "small", "src"]

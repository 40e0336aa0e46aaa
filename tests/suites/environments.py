"""Environments in `.build/envs`: made on first use, and again only when what defines them changes.

    torch     torch and its dependencies
    core      torch + core, editable, with what its tests require
    NAME      core + plugins, each a copy of `core` by hard links: no byte of torch is stored or installed twice

Hard links share one file between environments. This is safe because pip and Python never write into an installed
file: they write a new one and rename it. What names its environment (scripts, the stamp) is written anew.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.suites.places import BUILD, ROOT, plugins

PEERS = ("spikingjelly", "snntorch", "norse", "sinabs", "neurobench", "nir", "nirtorch", "h5py", "loguru", "pbr")
"""Other libraries for spiking nets, and what they import."""
EVENT_PEERS = (
    *("tonic", "tqdm", "importRosbag", "expelliarmus", "aedat", "dv-processing"),
    *("faery", "event_stream"),
    *("requests", "urllib3", "idna", "certifi", "charset-normalizer"),
)
"""Tonic, other readers of event files, and what they and the event data of spikingjelly import."""
EXAMPLES = ("optuna", "lightning")
"""Tools that examples work with; they require torch, and take the one that is there."""
TIMEOUT = "pytest-timeout"
"""Ends a test that waits too long; in every environment that runs tests."""
ENVS = BUILD / "envs"
STAMP = ".made-from"


def call(*command: str | Path, cwd: Path = ROOT) -> None:
    """Run a command; its output is seen, its failure ends this suite.

    What setuptools writes about a project while it builds one (`*.egg-info`) goes to a directory of this call. In
    `src`, its default, other suites that run at this moment would read it before the metadata that is installed.
    """
    print("$", *command, flush=True)
    with TemporaryDirectory() as directory:
        own = Path(directory) / "setuptools.cfg"
        own.write_text(f"[egg_info]\negg_base = {directory}\n", encoding="utf-8")
        environment = {**os.environ, "DIST_EXTRA_CONFIG": str(own)}
        subprocess.run([str(part) for part in command], cwd=cwd, check=True, env=environment)


def pip(env: Path, *arguments: str | Path, constraints: Path | None = ROOT / "constraints.txt") -> None:
    """Install into an environment, which needs no pip of its own.

    Projects of this repository are built by the environment's setuptools: an environment for each build would take most
    of the time.

    Args:
        env: its directory.
        arguments: of `pip install`.
        constraints: the file of versions; by default the tested ones, None for any.
    """
    command: list[str | Path] = [sys.executable, "-m", "pip", "--python", env / "bin/python", "install"]
    options: list[str | Path] = ["-q", "--disable-pip-version-check"]
    if "-e" in arguments:
        options.append("--no-build-isolation")
    if constraints is not None:
        options += ["-c", constraints]
    call(*command, *options, *arguments)


@contextmanager
def locked(env: Path) -> Iterator[None]:
    """Two suites that need the same environment make it once."""
    path = BUILD / "locks" / env.name
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def make_once(env: Path, inputs: Sequence[Path | str], make: Callable[[], None]) -> Path:
    """The environment, after `make` unless it was made from the same inputs.

    Args:
        env: its directory.
        inputs: what defines it: files by content, strings as they are.
        make: makes it; `env` does not exist then.
    """
    digest = hashlib.sha256()
    for item in inputs:
        digest.update(item.read_bytes() if isinstance(item, Path) else item.encode())
    with locked(env):
        stamp = env / STAMP
        if stamp.is_file() and stamp.read_text() == digest.hexdigest():
            return env
        shutil.rmtree(env, ignore_errors=True)
        env.parent.mkdir(parents=True, exist_ok=True)
        make()
        stamp.write_text(digest.hexdigest())  # last: an environment half made has no stamp
    return env


def copy_by_links(base: Path, env: Path) -> None:
    """Copy an environment by hard links; scripts start the copy's own Python."""
    shutil.copytree(base, env, symlinks=True, copy_function=os.link, ignore=shutil.ignore_patterns(STAMP))
    for script in (env / "bin").iterdir():
        if script.is_symlink():
            continue
        content = script.read_bytes()
        if os.fsencode(base) in content:
            mode = script.stat().st_mode
            script.unlink()  # writing into it would write into the base
            script.write_bytes(content.replace(os.fsencode(base), os.fsencode(env)))
            script.chmod(mode)


def remove_left_overs() -> None:
    """Delete what a build leaves in the tree: it would be read before the installed metadata, and may be older."""
    for left in (*ROOT.glob("*.egg-info"), *ROOT.glob("plugins/*/src/*.egg-info")):
        shutil.rmtree(left, ignore_errors=True)  # another suite may be doing the same


def torch_base() -> Path:
    """torch and its dependencies, and nothing of ours."""
    env = ENVS / "torch"

    def make() -> None:
        call(sys.executable, "-m", "venv", "--without-pip", env)
        pip(env, "torch", "numpy", "setuptools")

    return make_once(env, [ROOT / "constraints.txt", sys.version], make)


def core_base() -> Path:
    """Core, editable, with what its tests require."""
    base, env = torch_base(), ENVS / "core"

    def make() -> None:
        copy_by_links(base, env)
        pip(env, "-e", f"{ROOT}[testing]", TIMEOUT)

    return make_once(env, [base / STAMP, ROOT / "pyproject.toml", TIMEOUT], make)


def environment(name: str, projects: Sequence[Path], without_requirements: Sequence[str] = ()) -> Path:
    """Core and these plugins, editable, with their test requirements.

    Args:
        name: of its directory.
        projects: the plugins.
        without_requirements: other distributions, installed as they are.
    """
    base, env = core_base(), ENVS / name

    def make() -> None:
        copy_by_links(base, env)
        if projects:
            pip(env, *(part for project in projects for part in ("-e", f"{project}[testing]")))
        if without_requirements:
            pip(env, "--no-deps", *without_requirements)

    files = [project / "pyproject.toml" for project in projects]
    return make_once(env, [base / STAMP, *files, *without_requirements], make)


def plugins_environment() -> Path:
    """Core and every plugin."""
    return environment("plugins", plugins())


def site_environment() -> Path:
    """Core, every plugin, and what builds the documentation."""
    return _with_plugins("site", "-e", f"{ROOT}[docs]")


def _with_plugins(name: str, *arguments: str) -> Path:
    """A copy of the environment of every plugin, with what `pip install` brings for these arguments."""
    base, env = plugins_environment(), ENVS / name

    def make() -> None:
        copy_by_links(base, env)
        pip(env, *arguments)

    return make_once(env, [base / STAMP, ROOT / "pyproject.toml", ROOT / "constraints.txt", *arguments], make)


def floors_environment(wheels: Path, floors: Mapping[str, str]) -> Path:
    """Core and every plugin from their wheels, on the lowest versions that they declare.

    Args:
        wheels: the directory of the wheels.
        floors: distribution → version. What is not in it has the tested version.
    """
    env = ENVS / "floors"
    shutil.rmtree(env, ignore_errors=True)
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    names = {name.lower() for name in floors}
    versions = [line for line in lines if line.partition("==")[0].lower() not in names]
    versions += [f"{name}=={version}" for name, version in floors.items()]
    constraints = BUILD / "floors.txt"
    constraints.write_text("\n".join(versions) + "\n")
    copy_by_links(torch_base(), env)
    pip(env, *sorted(wheels.glob("*.whl")), constraints=constraints)
    return env


def external_environment(project: Path) -> Path:
    """Core and a third party's plugin, from its wheel."""
    base, env, built = core_base(), ENVS / project.name, BUILD / project.name

    def make() -> None:
        shutil.rmtree(built, ignore_errors=True)
        call(sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", built, project)
        for left in ("build", *(path.name for path in project.glob("src/*.egg-info"))):
            shutil.rmtree(project / left, ignore_errors=True)
            shutil.rmtree(project / "src" / left, ignore_errors=True)
        copy_by_links(base, env)
        pip(env, *built.glob("*.whl"))

    sources = sorted(path for path in project.rglob("*") if path.suffix in (".py", ".toml"))
    return make_once(env, [base / STAMP, *sources], make)


def examples_environment() -> Path:
    """Core, every plugin, and what single examples work with."""
    return _with_plugins("examples", *EXAMPLES)


def peers_environment() -> Path:
    """Core, the plugins that are compared, and other libraries for spiking nets and event data.

    Some of them require packages that they import for parts not used here (torchvision, torchaudio, samna), or versions
    of each other that cannot be had together: they come without their requirements, and with what they do import.
    """
    zoos = ("zoo-resnet", "zoo-vgg", "zoo-transformer")
    names = ("neuron-zoo", "layer-zoo", "datasets-dvs", "ann2snn", "deploy-nir", *zoos)
    compared = [ROOT / "plugins" / name for name in names]
    return environment("peers", compared, [*PEERS, *EVENT_PEERS])


def bench_environment() -> Path:
    """Core, every plugin, and the other libraries."""
    return environment("bench", plugins(), [*PEERS, *EVENT_PEERS])


LAVA = ("lava-nc==0.10.0",)
"""The last version of an archived project: it runs on Python 3.10 only, and needs numpy < 2."""


def lava_environment(interpreter: Path) -> Path:
    """lava-nc, for the tests of what is deployed to it; without our tested versions, which are too new for it."""
    env = ENVS / "lava"

    def make() -> None:
        call(interpreter, "-m", "venv", "--without-pip", env)
        pip(env, *LAVA, constraints=None)

    return make_once(env, [*LAVA, str(interpreter)], make)


def torchfree_environment(version: str, interpreter: Path) -> Path:
    """Core without torch on another Python."""
    env = ENVS / f"python{version}"

    def make() -> None:
        call(interpreter, "-m", "venv", "--without-pip", env)
        pip(env, "click", "packaging", "pluggy", "pytest", TIMEOUT, "hypothesis", "tomli", "setuptools")
        pip(env, "--no-deps", "-e", ROOT)

    return make_once(env, [ROOT / "pyproject.toml", ROOT / "constraints.txt", version, str(interpreter), TIMEOUT], make)

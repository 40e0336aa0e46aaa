"""Runs every suite of tests, each in an environment that holds only what it is about; then one closing report.

    python tests/suites.py test      core; each plugin alone; the torch-free part on other Pythons
    python tests/suites.py check     what takes longer: wheels, examples, new plugins, parity with other libraries
    python tests/suites.py bench     measures, with every plugin and other libraries
    python tests/suites.py close     the closing pytest run over the results of the above

Environments live in `.build`; they are made on first use and again only when what defines them changes. Plugins share
one directory that holds torch and its dependencies, so that each has only core, itself and what it requires.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / ".build"
RESULTS = BUILD / "results"
SHARED = BUILD / "shared"
OTHER_PYTHONS = ("3.10", "3.12", "3.13")
PEERS = ("spikingjelly", "snntorch", "norse", "sinabs", "nir", "nirtorch", "h5py", "loguru", "pbr")
"""Other libraries for spiking nets, and what they import."""
EVENT_PEERS = (
    *("tonic", "tqdm", "importRosbag", "expelliarmus", "aedat", "dv-processing"),
    *("requests", "urllib3", "idna", "certifi", "charset-normalizer"),
)
"""Tonic, other readers of event files, and what they and the event data of spikingjelly import."""
COUNTS = ("passed", "failed", "skipped")
NOT_CORE = ("closing", "alone", "browser", "examples", "integration", "scaffold", "peers")
"""Folders of tests that are not part of the suite `core`."""


def plugins() -> list[Path]:
    """The plugins of this repository."""
    return sorted(path.parent for path in (ROOT / "plugins").glob("*/pyproject.toml"))


def call(*command: str | Path, cwd: Path = ROOT) -> None:
    """Run a command; its output is seen, its failure ends this suite."""
    print("$", *command, flush=True)
    subprocess.run([str(part) for part in command], cwd=cwd, check=True)


def pip(env: Path, *arguments: str | Path) -> None:
    """Install into an environment (it needs no pip of its own), with the tested versions."""
    own = [sys.executable, "-m", "pip", "--python", env / "bin/python", "install", "-q", "--disable-pip-version-check"]
    call(*own, "-c", ROOT / "constraints.txt", *arguments)


def stamped(directory: Path, inputs: Sequence[Path | str], make: Callable[[], None]) -> None:
    """Call `make` unless `directory` was made from the same inputs (files by content, strings as they are)."""
    digest = hashlib.sha256()
    for item in inputs:
        digest.update(item.read_bytes() if isinstance(item, Path) else item.encode())
    stamp = directory / ".made-from"
    if stamp.is_file() and stamp.read_text() == digest.hexdigest():
        return
    shutil.rmtree(directory, ignore_errors=True)
    directory.parent.mkdir(parents=True, exist_ok=True)
    make()
    stamp.write_text(digest.hexdigest())  # last: a directory half made has none


def shared_torch() -> None:
    """torch and its dependencies, for every plugin's environment."""

    def make() -> None:
        target = ["--target", SHARED, "--disable-pip-version-check"]
        call(sys.executable, "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", *target, "torch", "numpy")

    stamped(SHARED, [ROOT / "constraints.txt", sys.version], make)


def environment(name: str, projects: Sequence[Path], without_requirements: Sequence[str] = ()) -> Path:
    """Core and these plugins, editable, with their test requirements; torch from the shared directory.

    Args:
        name: of its directory.
        projects: the plugins.
        without_requirements: other distributions, installed as they are.
    """
    shared_torch()
    env = BUILD / "envs" / name

    def make() -> None:
        call(sys.executable, "-m", "venv", "--without-pip", env)
        site = next((env / "lib").glob("python*/site-packages"))
        site.joinpath("shared-torch.pth").write_text(f"{SHARED}\n")
        pip(env, "-e", f"{ROOT}[testing]", *(part for project in projects for part in ("-e", f"{project}[testing]")))
        if without_requirements:
            pip(env, "--no-deps", *without_requirements)

    files = [path / "pyproject.toml" for path in (ROOT, *projects)]
    stamped(env, [*files, ROOT / "constraints.txt", sys.version, *without_requirements], make)
    return env


def plugin_environment(plugin: Path) -> Path:
    """Core and this plugin."""
    return environment(plugin.name, [plugin])


def plugins_environment() -> Path:
    """Core and every plugin."""
    return environment("plugins", plugins())


def peers_environment() -> Path:
    """Core, the plugins that are compared, and other libraries for spiking nets and event data.

    Some of them require packages that they import for parts not used here (torchvision, torchaudio, samna), or versions
    of each other that cannot be had together: they come without their requirements, and with what they do import.
    """
    compared = [ROOT / "plugins" / name for name in ("neuron-zoo", "layer-zoo", "datasets-dvs")]
    return environment("peers", compared, [*PEERS, *EVENT_PEERS])


PER_BYTE = ("lif", "plif", "izhikevich", "alif", "cuba_lif", "adaptive_threshold")
"""Where bytes alone count, these should cost what LIF costs; the last is of `examples/own_neuron.py`."""


def bench() -> None:
    """Measure, with every plugin and the other libraries, and write docs/benchmarks/*.csv and the README's table."""
    env = environment("bench", plugins(), [*PEERS, *EVENT_PEERS])
    python, csv = env / "bin/python", ROOT / "docs" / "benchmarks"
    for script in ("startup", "eager", "run"):
        call(python, f"tests/benchmarks/{script}.py")
    call(python, "plugins/datasets-dvs/benchmarks/events.py")
    spike = [python, "-m", "spikecore", "bench"]
    some = [part for name in PER_BYTE for part in ("--neuron", name)]
    own = ["--load", "examples/own_neuron.py"]
    call(*spike, "--peers", "--nets", "--compile-steps", "128", "--csv", csv / "speed.csv")
    call(*spike, *some, *own, "--shape", "64,64,16384", "--csv", csv / "beyond-caches.csv")
    call(*spike, "--neuron", "all", *own, "--csv", csv / "neurons.csv")
    call(python, "plugins/datasets-vision/benchmarks/images.py", "--out", csv / "images.csv")
    call(python, "tests/benchmarks/readme_table.py")


def find_python(version: str) -> Path | None:
    """An interpreter of this version that runs, on PATH or among pyenv's."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    on_path = shutil.which(f"python{version}")
    candidates = [Path(on_path)] if on_path else []
    for candidate in [*candidates, *sorted(pyenv.glob(f"{version}.*/bin/python3"))]:
        ask = [str(candidate), "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
        if subprocess.run(ask, capture_output=True, text=True).stdout.strip() == version:  # a shim may lead nowhere
            return candidate
    return None


def torchfree_environment(python: str) -> Path | None:
    """Core without torch on another Python; None where that Python is not installed."""
    interpreter = find_python(python)
    if interpreter is None:
        return None
    env = BUILD / "envs" / f"python{python}"

    def make() -> None:
        call(interpreter, "-m", "venv", "--without-pip", env)
        pip(env, "click", "packaging", "pluggy", "pytest", "hypothesis", "tomli")
        pip(env, "--no-deps", "-e", ROOT)

    stamped(env, [ROOT / "pyproject.toml", ROOT / "constraints.txt", python], make)
    return env


def run_pytest(
    name: str, python: Path, *arguments: str, cwd: Path = ROOT, environment: Mapping[str, str] | None = None
) -> bool:
    """One suite; its counts go to the results."""
    print(f"\n=== {name}", flush=True)
    # What a build leaves in the tree would be found before the installed metadata, and may be older.
    for left in (*ROOT.glob("*.egg-info"), *ROOT.glob("plugins/*/src/*.egg-info")):
        shutil.rmtree(left)
    report = RESULTS / f"{name}.xml"
    start = time.monotonic()
    command = [python, "-m", "pytest", *arguments, f"--junitxml={report}", "-o", "junit_family=xunit2"]
    env = {**os.environ, **(environment or {})}
    code = subprocess.run([str(part) for part in command], cwd=cwd, env=env).returncode
    counts = dict.fromkeys(COUNTS, 0)
    if report.is_file():
        for case in ET.parse(report).iter("testcase"):
            kinds = {child.tag for child in case}
            counts["failed" if kinds & {"failure", "error"} else "skipped" if "skipped" in kinds else "passed"] += 1
        report.unlink()
    record(name, code == 0 and counts["passed"] > 0, time.monotonic() - start, counts)
    return code == 0


def record(name: str, passed: bool, seconds: float, counts: dict[str, int], reason: str = "") -> None:
    """Keep one suite's result for the closing report."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    result = {"name": name, "ok": passed, "seconds": round(seconds, 1), "counts": counts, "reason": reason}
    RESULTS.joinpath(f"{name}.json").write_text(json.dumps(result))


def guarded(name: str, work: Callable[[], bool | None]) -> bool:
    """Run a suite or a part; what fails while its environment is made is a failed suite, not the end of all."""
    start = time.monotonic()
    try:
        done = work()
    except (subprocess.CalledProcessError, OSError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        record(name, False, time.monotonic() - start, dict.fromkeys(COUNTS, 0), str(error))
        return False
    return done is not False


def clear(prefixes: tuple[str, ...]) -> None:
    """Forget earlier results, so that none is taken for one of today."""
    for path in RESULTS.glob("*.json"):
        if path.name.startswith(prefixes):
            path.unlink()


def test(arguments: Sequence[str]) -> bool:
    """Core, each plugin alone, the torch-free part elsewhere."""
    clear(("core", "plugin-", "python"))
    here, options = Path(sys.executable), ["tests", *(f"--ignore=tests/{name}" for name in NOT_CORE)]
    fine = guarded("core", lambda: run_pytest("core", here, *options, *arguments))
    for plugin in plugins():
        name = f"plugin-{plugin.name}"

        def alone(plugin: Path = plugin, name: str = name) -> bool:
            python = plugin_environment(plugin) / "bin/python"
            options = ["-c", str(ROOT / "pyproject.toml"), f"--rootdir={plugin}"]
            return run_pytest(name, python, *options, str(plugin / "tests"), str(ROOT / "tests/alone"), *arguments)

        fine &= guarded(name, alone)
    for version in OTHER_PYTHONS:
        name = f"python{version}"

        def elsewhere(version: str = version, name: str = name) -> bool:
            env = torchfree_environment(version)
            if env is None:
                record(name, True, 0.0, dict.fromkeys(COUNTS, 0), f"no python{version} on this machine")
                return True
            return run_pytest(name, env / "bin/python", "tests/torchfree", *arguments)

        fine &= guarded(name, elsewhere)
    return fine


def check() -> bool:
    """The parts of `make check`."""
    clear(("check-",))
    fine = True
    for name, part in PARTS.items():
        fine &= guarded(f"check-{name}", part)
    return fine


def check_wheels() -> None:
    """Core alone from its wheel, then with every plugin's wheel, in an empty directory outside the source tree."""
    start = time.monotonic()
    wheels, env, empty = BUILD / "wheels", BUILD / "envs" / "wheels", BUILD / "empty"
    for path in (wheels, empty):
        shutil.rmtree(path, ignore_errors=True)
    empty.mkdir(parents=True)
    for source in (ROOT, *plugins()):
        call(sys.executable, "-m", "build", "--wheel", "--outdir", wheels, source)
    call(sys.executable, "-m", "venv", "--clear", "--without-pip", env)
    spike = env / "bin/spike"
    pip(env, "torch")
    pip(env, *wheels.glob("spikecore-*.whl"))
    call(spike, "list-plugins", "--check", cwd=empty)
    call(spike, "run", cwd=empty)
    pip(env, "--no-deps", *(path for path in wheels.glob("*.whl") if not path.name.startswith("spikecore-")))
    call(spike, "doctor", cwd=empty)
    call(spike, "run", "--set", "neuron.name=izhikevich", "--set", "trainer.epochs=2", cwd=empty)
    record("check-wheels", True, time.monotonic() - start, {"passed": 1, "failed": 0, "skipped": 0})


def check_examples() -> bool:
    """Every example, by the command that its first line gives."""
    return run_pytest("check-examples", Path(sys.executable), "tests/examples")


def check_scaffold() -> bool:
    """The plugin of every kind, as `spike new-plugin` makes it, in an environment of its own."""
    shared_torch()
    env = BUILD / "envs" / "scaffold"
    call(sys.executable, "-m", "venv", "--clear", env)
    site = next((env / "lib").glob("python*/site-packages"))
    site.joinpath("shared-torch.pth").write_text(f"{SHARED}\n")
    pip(env, f"{ROOT}[testing]", "ruff")
    os.environ["SPIKE_SCAFFOLD_PYTHON"] = str(env / "bin/python")
    return run_pytest("check-scaffold", Path(sys.executable), "tests/scaffold")


def check_peers() -> bool:
    """Parity with other libraries; a missing one is a failure."""
    if sys.version_info < (3, 11):
        record("check-peers", True, 0.0, dict.fromkeys(COUNTS, 0), "spikingjelly needs Python 3.11")
        return True
    python = peers_environment() / "bin/python"
    events = [f"plugins/datasets-dvs/tests/test_{name}.py" for name in ("formats", "frames", "tonic")]
    return run_pytest("check-peers", python, "tests/peers", *events, environment={"SPIKE_PEERS": "1"})


def check_integration() -> bool:
    """Whole flows across the plugins, all of them installed."""
    python = plugins_environment() / "bin/python"
    return run_pytest("check-integration", python, "tests/integration")


def check_browser() -> bool:
    """Reports in a headless Chromium, which this does not install: a missing one is a failure that says what to do."""
    if shutil.which("chromium") is None:
        raise OSError("chromium is not installed: apt-get install -y chromium")
    return run_pytest("check-browser", Path(sys.executable), "tests/browser")


PARTS: dict[str, Callable[[], bool | None]] = {
    "wheels": check_wheels,
    "examples": check_examples,
    "scaffold": check_scaffold,
    "peers": check_peers,
    "browser": check_browser,
    "integration": check_integration,
}
"""The parts of `make check`; each records its result as `check-NAME`."""


def close() -> bool:
    """The closing pytest run: one item per suite, with its counts."""
    command = [sys.executable, "-m", "pytest", "tests/closing", "-q", "-p", "no:cacheprovider"]
    return subprocess.run(command, cwd=ROOT, env={**os.environ, "SPIKE_RESULTS": str(RESULTS)}).returncode == 0


def main(arguments: list[str]) -> int:
    """0 when everything passed."""
    action, *rest = arguments or [""]
    if action == "test":
        RESULTS.mkdir(parents=True, exist_ok=True)
        fine = test(rest)
        return 0 if close() and fine else 1
    if action == "check":
        return 0 if check() else 1
    if action == "bench":
        bench()
        return 0
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""`spike doctor` and `--check`: plugins are loaded elsewhere, so that nothing they do harms the doctor."""

import json
import sys

import pytest

from spikecore.errors import BrokenPluginError
from spikecore.pythons import find_python
from spikecore.registry import Blocking, Registry
from spikecore.registry.manager import Hooks
from spikecore.registry.probe import probe
from spikecore.testing.distributions import fake_distribution
from tests.faulty_plugins import FAULTS, SOUND, install, rows

HOOKS = """
from spikecore.registry.hookspecs import DoctorCheck, hookimpl
@hookimpl
def spike_doctor_checks():
    return [DoctorCheck("licence", "missing", "no key", "buy one")]
@hookimpl
def spike_report_header():
    return ["one", "two"]
"""


def test_the_pythons_of_this_machine_are_listed(spike):
    listed = json.loads(spike("doctor", "core", "--json").stdout)["environment"]["pythons"]
    for version in ("3.10", f"{sys.version_info.major}.{sys.version_info.minor}"):
        interpreter = find_python(version)
        assert (f"{version} ({interpreter})" in listed) == (interpreter is not None)
    assert "3.9" not in listed


def findings(done):
    answer = json.loads(done.stdout)
    assert answer["schema"] == 1
    assert answer["environment"]["python"]
    return answer["findings"]


def of(items, plugin):
    return {item["what"]: item for item in items if item["plugin"] == plugin}


def test_only_what_is_broken_makes_the_doctor_fail(spike, tmp_path):
    install(tmp_path, "b", FAULTS["dependency"].source, ("certainly-missing",), "b_mod:Good", "two")
    install(tmp_path, "c", SOUND, target="c_mod:Good", component="three")
    for name in ("b", "c"):
        (tmp_path / "site" / f"{name}_mod_hooks.py").write_text(HOOKS)
    done = spike("doctor", "b", "c", "--json")
    assert done.returncode == 0, done.stderr
    items = findings(done)
    assert of(items, "b")["backend two"]["status"] == "missing"
    assert of(items, "b")["requirement certainly-missing"]["hint"] == "pip install 'certainly-missing'"
    assert of(items, "c")["backend three"]["status"] == "ok"
    assert of(items, "c")["backend three"]["seconds"] >= 0
    assert of(items, "c")["licence"]["hint"] == "buy one"
    install(tmp_path, "a", FAULTS["raises"].source, target="a_mod:Good", component="one")
    done = spike("doctor", "a")
    assert done.returncode == 1
    assert "no licence" in done.stdout


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "killed by signal 11"),
        ("import os; os._exit(3)", "status 3"),
        ("import sys; sys.exit()", "SystemExit"),
    ],
    ids=["crash", "exit", "sys.exit"],
)
def test_a_deadly_plugin_is_found_and_the_rest_is_still_loaded(source, says, spike, tmp_path):
    install(tmp_path, "a", source, target="a_mod:Good", component="one")
    install(tmp_path, "c", "print('noise on stdout')\n" + SOUND, target="c_mod:Good", component="three")
    listing = rows(spike("list-plugins", "--check", "--kind", "backend", "--format", "json"))
    assert listing["spikecore-a", "backend", "one"]["status"] == "broken"
    assert says in listing["spikecore-a", "backend", "one"]["reason"]
    assert listing["spikecore-c", "backend", "three"]["status"] == "ok"


def test_a_plugin_that_hangs_is_given_up(spike, tmp_path):
    install(tmp_path, "a", "import time; time.sleep(100000)", target="a_mod:Good", component="one")
    install(tmp_path, "c", SOUND, target="c_mod:Good", component="three")
    listing = rows(spike("list-plugins", "--check", "--kind", "backend", "--timeout", "2", "--format", "json"))
    hung, sound = (listing[f"spikecore-{name}", "backend", own] for name, own in (("a", "one"), ("c", "three")))
    assert hung["status"] == "broken"
    assert "did not load within 2 s" in hung["reason"]
    # On a busy machine the sound one may take longer than that too: then it says so, and is not skipped.
    assert sound["status"] == "ok" or "did not load within 2 s" in sound["reason"]


def test_collisions_and_left_overs_are_told(spike, tmp_path):
    install(tmp_path, "a", SOUND, target="a_mod:Good")
    install(tmp_path, "b", SOUND, target="b_mod:Good", component="torch")
    install(tmp_path, "c", SOUND, target="c_mod:Good")
    site = tmp_path / "site"
    fake_distribution(site, "spikecore-a", {"spikecore.backends": {"old": "a_mod:Good"}}, version="0.9")
    items = findings(spike("doctor", "--json", SPIKE_DISABLE_PLUGINS=""))
    assert any("spikecore-a is installed 2 times" in item["what"] for item in items)
    assert of(items, "b")["backend torch is shadowed"]["status"] == "warning"
    assert of(items, "a")["backend mine is ambiguous"]["hint"] == "write 'spikecore-a:mine'"
    assert "backend old" not in of(items, "a")  # the newer of two in one directory counts


def test_stale_editable_metadata_are_told(spike, tmp_path):
    source = tmp_path / "source of it"
    source.mkdir()
    project = '[project]\nname = "spikecore-e"\nversion = "1.1"\n'
    project += '[project.entry-points."spikecore.backends"]\nfresh = "e_mod:Good"\n'
    (source / "pyproject.toml").write_text(project)
    install(tmp_path, "e", SOUND, target="e_mod:Good")
    info = tmp_path / "site" / "spikecore_e-1.0.dist-info"
    info.joinpath("direct_url.json").write_text(json.dumps({"url": source.as_uri(), "dir_info": {"editable": True}}))
    detail = of(findings(spike("doctor", "e", "--json")), "e")["editable install"]
    assert "version 1.0, now 1.1" in detail["detail"]
    assert "backend fresh is new" in detail["detail"]
    assert "backend mine is gone" in detail["detail"]
    assert detail["hint"] == f"pip install -e {source}"


def test_an_extra_that_is_not_there_has_its_install_line(spike, tmp_path):
    install(tmp_path, "x", SOUND, ("certainly-missing; extra == 'fast'",), "x_mod:Good")
    missing = of(findings(spike("doctor", "x", "--json")), "x")["extra fast"]
    assert (missing["status"], missing["hint"]) == ("missing", "pip install 'spikecore-x[fast]'")


def test_an_unknown_plugin_is_a_usage_error(spike):
    done = spike("doctor", "nobody")
    assert done.returncode == 2
    assert "core" in done.stderr


def hooks_of(tmp_path, **sources):
    for name, source in sources.items():
        group = {"spikecore.plugins": {name: f"{name}_hooks"}}
        fake_distribution(tmp_path, f"spikecore-{name}", group, modules={f"{name}_hooks.py": source})
    return Hooks(Registry(path=[str(tmp_path)], blocking=Blocking(), builtins=False))


def test_hooks_of_every_sound_plugin_are_called(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    hooks = hooks_of(
        tmp_path,
        h1=HOOKS,
        h2=HOOKS.replace("spike_report_header():", "spike_report_header(device):").replace('"one"', "device"),
        h3="raise RuntimeError('bad day')",
        h4=HOOKS.replace("spike_report_header", "spike_reprot_header"),
        h5=HOOKS.replace("spike_report_header()", "spike_report_header(devise)"),
    )
    assert [plugin.id for plugin in hooks.active] == ["h1", "h2"]
    assert hooks.report_header("cpu") == ["one", "two", "cpu", "two"]
    assert len(hooks.doctor_checks()) == 2  # h4 and h5 are out with all that they have
    assert "bad day" in str(hooks.failures["h3"])
    assert "spike_reprot_header" in str(hooks.failures["h4"])
    assert "devise" in str(hooks.failures["h5"])


def test_a_hook_that_raises_names_its_plugin(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    hooks = hooks_of(tmp_path, g1=HOOKS.replace('return ["one", "two"]', "raise KeyError('gone')"))
    with pytest.raises(Exception, match=r"g1.*1\.0.*spike_report_header failed: KeyError"):
        hooks.report_header("cpu")


def test_a_probe_keeps_the_state_of_what_may_not_be_loaded(tmp_path):
    fake_distribution(tmp_path, "z", {"spikecore.neurons": {"n": "z:N"}}, requires=("spikecore>=99",))
    registry = Registry(path=[str(tmp_path)], blocking=Blocking(), builtins=False)
    (result,) = probe(registry.components(), registry.blocking).probes
    assert result.status == "incompatible"


ODD = """
import os
for number in range(3, 20):
    try:
        os.write(number, {line!r})
    except OSError:
        pass
"""


@pytest.mark.parametrize(
    "line",
    [
        b"garbage\n",
        b"glued",
        b"[]\n",
        b'{"index": 0, "probe": {"x": 1}}\n',
        b'{"index": 99, "probe": {"status": "ok"}}\n',
        b'{"start": 99}\n',
        b'{"checks": 3}\n',
    ],
)
def test_a_foreign_line_on_the_pipe_breaks_one_plugin(line, spike, tmp_path):
    install(tmp_path, "a", ODD.format(line=line) + SOUND, target="a_mod:Good", component="one")
    install(tmp_path, "c", SOUND, target="c_mod:Good", component="three")
    listing = rows(spike("list-plugins", "--check", "--kind", "backend", "--format", "json"))
    assert "wrote to the descriptor" in listing["spikecore-a", "backend", "one"]["reason"]
    assert listing["spikecore-c", "backend", "three"]["status"] == "ok"


def test_a_foreign_line_before_the_end_does_not_start_the_process_for_ever(spike, tmp_path):
    source = ODD.format(line=b'{"start": 99}\n') + "os._exit(3)\n"
    install(tmp_path, "a", source, target="a_mod:Good", component="one")
    install(tmp_path, "c", SOUND, target="c_mod:Good", component="three")
    listing = rows(spike("list-plugins", "--check", "--kind", "backend", "--format", "json"))
    assert "wrote to the descriptor" in listing["spikecore-a", "backend", "one"]["reason"]
    assert listing["spikecore-c", "backend", "three"]["status"] == "ok"


LEFT_BEHIND = {
    "thread": "import threading, time; threading.Thread(target=time.sleep, args=(10**6,)).start()\n",
    "child": "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(10**6)'])\n",
}


@pytest.mark.parametrize("kind", LEFT_BEHIND)
def test_what_an_import_leaves_behind_is_not_waited_for(kind, spike, tmp_path):
    install(tmp_path, "a", LEFT_BEHIND[kind] + SOUND, target="a_mod:Good", component="one")
    listing = rows(spike("list-plugins", "--check", "--plugin", "a", "--timeout", "100000", "--format", "json"))
    assert listing["spikecore-a", "backend", "one"]["status"] == "ok"  # it would wait for a day


RAISED = {
    "own": "class Mine(BaseException): pass\nraise Mine('own')",
    "generator": "raise GeneratorExit('own')",
    "mute": "class Mute(Exception):\n    def __str__(self): raise ValueError\nraise Mute",
}


@pytest.mark.parametrize("kind", RAISED)
def test_whatever_an_import_raises_is_named(kind, tmp_path, monkeypatch):
    install(tmp_path, "a", RAISED[kind], target="a_mod_raised:Good", component="one")
    monkeypatch.syspath_prepend(tmp_path / "site")
    with pytest.raises(BrokenPluginError, match=r"spikecore-a.* failed to load: (Mine|GeneratorExit|Mute): "):
        Registry(blocking=Blocking()).load("backend", "one")


HOSTILE = """
from spikecore.registry.hookspecs import hookimpl
@hookimpl
def spike_report_header(): return {answer}
@hookimpl
def spike_doctor_checks(): return {answer}
@hookimpl
def spike_run_start(record): record.clear()
@hookimpl
def spike_epoch_end(metrics):
    metrics["own"] = 1.0
    class Mine(BaseException): pass
    raise Mine("own")
"""


@pytest.mark.parametrize("answer", ["5", "b'abc'", "[1]", "('a',)", "{}", "['a', None]"])
def test_what_a_hook_returns_or_does_is_contained(answer, tmp_path, monkeypatch):
    module = "h_" + "".join(sign for sign in answer if sign.isalnum()) + f"_{len(answer)}"
    source = {f"{module}.py": HOSTILE.replace("{answer}", answer)}
    fake_distribution(tmp_path / "site", "spikecore-h", {"spikecore.plugins": {"h": module}}, modules=source)
    monkeypatch.syspath_prepend(tmp_path / "site")
    hooks = Hooks(Registry(blocking=Blocking()), only="h")
    with pytest.raises(BrokenPluginError, match=r"spikecore-h.*spike_report_header must return a string or a list"):
        hooks.report_header("cpu")
    with pytest.raises(BrokenPluginError, match=r"spikecore-h.*spike_doctor_checks must return a list of DoctorCheck"):
        hooks.doctor_checks()
    record = {"backends": {"a": [1]}}
    hooks.run_start(tmp_path, record, None)
    assert record == {"backends": {"a": [1]}}
    metrics = {"loss": 1.0}
    with pytest.raises(BrokenPluginError, match=r"spikecore-h.*spike_epoch_end failed: Mine: own"):
        hooks.epoch_end(tmp_path, 1, metrics)
    assert metrics == {"loss": 1.0}

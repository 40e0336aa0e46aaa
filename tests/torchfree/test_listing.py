"""`spike list-plugins` and `spike doctor` for people: by plugin, problems first, and nothing imported for a list."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from spikecore.registry.summaries import summary
from tests.faulty_plugins import FAULTS, SOUND, install

UNIMPORTABLE = 'raise SystemExit("this module must not be imported")\n'
DOC = '"""Values in 0 .. 1, e.g.\n    two. More.\n\n    Not this."""'


def package(tmp_path, files):
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_summaries_come_from_the_source(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    package(
        tmp_path,
        {
            "kept_out/__init__.py": f"from .inner import First as Renamed, other\n{UNIMPORTABLE}",
            "kept_out/inner/__init__.py": "from kept_out.inner.deep import First\nfrom ..side import other\n",
            "kept_out/inner/deep.py": f"{UNIMPORTABLE}class First:\n    {DOC}\n",
            "kept_out/side.py": 'def other():\n    """One. Two."""\nclass Silent: pass\nmade = First = 3\n',
            "kept_out/broken.py": "class First(:\n",
            "round.py": "from round import First\n",
        },
    )
    assert summary("kept_out:Renamed") == "Values in 0 .. 1, e.g."
    assert summary("kept_out.inner:First") == "Values in 0 .. 1, e.g."
    assert summary("kept_out:other") == "One."
    for nothing in ("kept_out.side:Silent", "kept_out.side:made", "kept_out.broken:First", "kept_out.gone:X"):
        assert summary(nothing) == ""
    for nothing in ("gone:X", "round:First", "math:sqrt", "kept_out.side.deeper:X", "", ":"):
        assert summary(nothing) == ""


def test_a_plugin_has_its_components_by_kind(spike, tmp_path):
    install(tmp_path, "a", f'{UNIMPORTABLE}\nclass Good:\n    """Runs on nothing. Really."""\n', target="a_mod:Good")
    done = spike("list-plugins", "--plugin", "spikecore-a")
    assert done.stdout.splitlines() == ["a 1.0  (spikecore-a)", "  backend  mine"]
    done = spike("list-plugins", "--plugin", "spikecore-a", "--components")
    assert done.stdout.splitlines() == ["a 1.0  (spikecore-a)", "  backend  mine  Runs on nothing."]


def test_what_is_not_ok_is_marked_with_the_reason_below(spike, tmp_path):
    install(tmp_path, "a", FAULTS["raises"].source, target="a_mod:Good")
    lines = spike("list-plugins", "--plugin", "spikecore-a", "--check").stdout.splitlines()
    assert lines[1] == "  backend  mine (broken)"
    assert lines[2] == ""
    assert lines[3].startswith("backend mine: broken: ")


@pytest.mark.parametrize("arguments", [("list-plugins",), ("--help",)])
def test_a_full_disk_behind_stdout_is_an_error_of_one_line(arguments):
    command = [sys.executable, "-m", "spikecore", *arguments]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    text = "spike: what this command prints cannot be written: No space left on device"
    assert done.stderr.splitlines() == [text]


def test_json_is_an_option_of_its_own(spike):
    assert spike("list-plugins", "--json").stdout == spike("list-plugins", "--format", "json").stdout != ""


def test_a_warning_of_a_plugin_looks_like_those_of_the_commands(spike, tmp_path):
    """Python's own form names a line of the plugin's source, and prints it."""
    warns = (
        'import warnings\nwarnings.warn("no picture\\033[2J can be drawn")\nwarnings.warn("old", DeprecationWarning)\n'
    )
    install(tmp_path, "a", f"{warns}{SOUND}", target="a_mod:Good", component="one")
    done = spike("info", "backend", "one")
    assert done.returncode == 0
    assert done.stderr.splitlines() == ["warning: no picture\\x1b[2J can be drawn"]


def test_the_doctor_shows_problems_first_and_counts_what_works(spike, tmp_path):
    install(tmp_path, "a", SOUND, target="a_mod:Good", component="one")
    install(tmp_path, "b", FAULTS["raises"].source, ("certainly-missing",), target="b_mod:Good", component="two")
    done = spike("doctor", "a", "b")
    signs = [line.split()[0] for line in done.stdout.splitlines() if line.startswith(("BROKEN", "missing", "ok "))]
    assert signs == sorted(signs)  # BROKEN, then missing
    assert "backend one" not in done.stdout
    answer = json.loads(spike("doctor", "a", "b", "--json").stdout)["findings"]
    working = sum(item["status"] == "ok" for item in answer)
    assert working > 0
    assert done.stdout.splitlines()[-1].endswith(f"{working} work (--verbose lists them)")
    assert "ok      a: backend one" in spike("doctor", "a", "b", "--verbose").stdout


def test_names_of_other_tools_lead_to_ours(spike):
    for word, meant in (("train", "run"), ("list", "list-plugins"), ("Doctor", "doctor"), ("evaluate", "eval")):
        done = spike(word)
        assert done.returncode == 2
        assert done.stderr.splitlines()[0] == f"spike: No such command {word!r}. Did you mean {meant!r}?"
    asked = spike("info", "LIF")
    assert asked.returncode == 2
    assert "did you mean `neuron lif`?" in asked.stderr
    assert "did you mean" not in spike("info", "no-such-thing").stderr


def test_the_command_alone_shows_its_help(spike):
    done = spike()
    shown = done.stdout + done.stderr  # by click's version
    assert shown.startswith("Usage: spike [OPTIONS] COMMAND")
    assert "shows how to call it" not in shown
    assert "\n  list-plugins " in shown


def test_a_missing_word_shows_where_it_belongs(spike):
    for words, usage in (
        (("convert", "ann2snn"), "Usage: spike convert [OPTIONS] NAME SOURCE"),
        (("eval",), "Usage: spike eval [OPTIONS] RUN_DIR"),
        (("info",), "Usage: spike info [OPTIONS] KIND NAME"),
    ):
        done = spike(*words)
        assert done.returncode == 2
        assert done.stderr.splitlines()[1:] == [usage]

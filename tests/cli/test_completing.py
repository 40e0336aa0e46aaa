"""What a shell offers to complete, asked as bash asks."""

import os
import subprocess
import sys

import pytest


def completed(*words, cwd=None):
    """The answers for the last word."""
    code = "from spikecore.cli import main; main()"
    place = {
        "COMP_WORDS": " ".join(["spike", *words]),
        "COMP_CWORD": str(len(words)),
        "_SPIKE_COMPLETE": "bash_complete",
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **place}, cwd=cwd, capture_output=True, text=True, timeout=120
    )
    assert done.stderr == ""
    return [line.partition(",")[2] for line in done.stdout.splitlines() if line]


@pytest.mark.parametrize(
    ("words", "some"),
    [
        (["eva"], "eval"),
        (["info", "neu"], "neuron"),
        (["info", "neuron", "li"], "lif"),
        (["which", "dataset", "dig"], "digits"),
        (["test", "neuron:lea"], "neuron:leaky"),
        (["doctor", "co"], "core"),
        (["run", "--set", "neuron.surrogate.al"], "neuron.surrogate.alpha="),
        (["run", "--set", "neuron.name=cuba"], "neuron.name=cuba_lif"),
        (["run", "--set", "run.report=f"], "run.report=false"),
        (["profile", "--set", "dataset.n"], "dataset.name="),
    ],
    ids=" ".join,
)
def test_words(words, some):
    assert some in completed(*words)


def test_keys_are_of_the_configuration_that_was_named(tmp_path):
    (tmp_path / "own.toml").write_text('[neuron]\nname = "cuba_lif"\n')
    assert "neuron.c_decay=" in completed("run", "own.toml", "--set", "neuron.", cwd=tmp_path)
    assert "neuron.c_decay=" not in completed("run", "--set", "neuron.")


def test_after_a_choice_the_keys_are_its_own():
    keys = completed("run", "--set", "neuron.name=cuba_lif", "--set", "neuron.")
    assert {"neuron.c_decay=", "neuron.v_decay="} <= set(keys)


def test_nothing_is_offered_for_a_configuration_with_a_fault(tmp_path):
    (tmp_path / "faulty.toml").write_text("[neuron]\nname = 3\n")
    assert completed("run", "faulty.toml", "--set", "neuron.", cwd=tmp_path) == []


def test_directories_of_runs(tmp_path):
    for name in ("first/run.json", "other/deep/run.json", ".hidden/run.json", "file"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert completed("eval", "", cwd=tmp_path) == ["first", "other/"]
    assert completed("run", "--resume", "other/", cwd=tmp_path) == ["other/deep"]
    assert completed("compare", "first", "o", cwd=tmp_path) == ["other/"]
    assert completed("eval", "missing/x", cwd=tmp_path) == []

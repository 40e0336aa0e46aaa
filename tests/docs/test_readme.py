"""What the README shows runs, and the plugins it names are those that are installed."""

import re
from pathlib import Path

import pytest

from spikecore.registry import components

README = Path(__file__).parents[2] / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


def test_there_are_three_examples():
    assert len(BLOCKS) == 3


def test_the_loop_learns(capsys):
    names = {"__name__": "readme_loop"}
    exec(compile(BLOCKS[1], "the loop of the README", "exec"), names)
    assert names["loss"].item() < 0.5
    assert capsys.readouterr().out.startswith("loss 0.")


@pytest.mark.parametrize(
    ("index", "file", "component"),
    [(0, "my_net.py", "model:my_net"), (2, "my_neuron.py", "neuron:leaky_root")],
)
def test_a_component_shown_keeps_its_contract(index, file, component, tmp_path, spike):
    (tmp_path / file).write_text(BLOCKS[index], encoding="utf-8")
    done = spike("test", component, "--load", file)
    assert done.returncode == 0, done.stdout


def test_the_net_shown_is_trained_by_the_command_shown(tmp_path, spike):
    (tmp_path / "my_net.py").write_text(BLOCKS[0], encoding="utf-8")
    done = spike("run", "--load", "my_net.py", "--set", "model.name=my_net", "--set", "trainer.epochs=1")
    assert done.returncode == 0, done.stderr
    assert "test_accuracy" in done.stdout


def test_links_and_pictures_are_there():
    text = README.read_text(encoding="utf-8")
    places = [place for place in re.findall(r"\]\(([^)#]+)\)", text) if not place.startswith("http")]
    assert len(places) > 20
    assert [place for place in places if not (README.parent / place).exists()] == []


def test_every_core_component_is_in_the_table():
    text = README.read_text(encoding="utf-8")
    names = [entry.name for entry in components() if entry.plugin.id == "core"]
    assert {"lif", "atan", "torch", "digits", "classify"} <= set(names)
    assert all(f"`{name}`" in text for name in names)

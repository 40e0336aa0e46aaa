"""What the README shows runs, and the plugins it names are those that are installed."""

import re
from pathlib import Path

import pytest

from spikecore.registry import components

README = Path(__file__).parents[2] / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


def test_there_are_two_examples():
    assert len(BLOCKS) == 2


@pytest.mark.parametrize("index", range(2))
def test_an_example_runs(index, capsys):
    names = {"__name__": f"readme_{index}"}
    exec(compile(BLOCKS[index], f"README block {index}", "exec"), names)
    if index == 0:
        assert names["loss"].item() < 0.5
        assert capsys.readouterr().out.startswith("loss 0.")


def test_the_neuron_shown_keeps_its_contract(tmp_path, spike):
    (tmp_path / "my_neuron.py").write_text(BLOCKS[1], encoding="utf-8")
    done = spike("test", "neuron:leaky_root", "--load", "my_neuron.py")
    assert done.returncode == 0, done.stdout


def test_every_core_component_is_in_the_table():
    text = README.read_text(encoding="utf-8")
    names = [entry.name for entry in components() if entry.plugin.id == "core"]
    assert {"lif", "atan", "torch", "digits", "classify"} <= set(names)
    assert all(f"`{name}`" in text for name in names)

"""The reference says what the code says, and its examples run."""

import re
from pathlib import Path

import pytest

import spikecore
from spikecore import nn
from spikecore.dynamics import OPS
from spikecore.dynamics.vjp import RULES
from spikecore.registry import choices, components, load, registry, use

REFERENCE = Path(spikecore.__file__).parents[1] / "docs/reference"


def text_of(page):
    return (REFERENCE / f"{page}.md").read_text(encoding="utf-8")


def test_every_operator_stands_in_the_reference():
    text = text_of("neuron-language")
    for name, op in OPS.items():
        line = f"| `{name}` | {op.text.replace('|', chr(92) + '|')} | {'yes' if name in RULES else 'none'} |"
        assert line in text, f"expected the line {line}"


def test_every_neuron_stands_there_with_its_defaults():
    text, names = text_of("neurons"), [e.name for e in components("neuron") if e.plugin.id == "core"]
    shared = {**vars(nn.Neuron.Config())}
    for name in names:
        cls = load("neuron", name)
        (line,) = [line for line in text.splitlines() if line.startswith(f"| `{name}` | `{cls.__name__}` |")]
        for option, value in vars(cls.Config()).items():
            if option not in shared or shared[option] != value:
                assert option == "learnable" or f"{option}={value}" in line, f"{name}: {option}={value}"
    assert len(names) >= 6
    for option, value in shared.items():
        shown = '"atan"' if option == "surrogate" else f'"{value}"' if isinstance(value, str) else value
        assert f"`{option}={shown}`" in text, option


def test_every_function_of_state_stands_there():
    text = text_of("state")
    for name in ("streaming", "reset_state", "detach_state", "get_state", "set_state", "set_step_mode", "functional"):
        assert f"| `{name}(net" in text
        assert callable(getattr(nn, name))


BLOCKS = [
    (page, block)
    for page in ("neurons", "state", "net-graph", "quantized")
    for block in re.findall(r"```python\n(.*?)```", text_of(page), re.DOTALL)
]
assert len(BLOCKS) >= 4


@pytest.mark.parametrize(("page", "block"), BLOCKS)
def test_an_example_runs(page, block):
    exec(compile(block, f"docs/reference/{page}.md", "exec"), {"__name__": f"reference_{page}"})


def test_the_examples_on_options_run_one_after_another():
    blocks = re.findall(r"```python\n(.*?)```", text_of("options"), re.DOTALL)
    assert len(blocks) >= 3
    names = {"__name__": "reference_options"}
    with use(registry().without(())):  # what an example registers stays on its page
        for number, block in enumerate(blocks, 1):
            exec(compile(block, f"docs/reference/options.md, example {number}", "exec"), names)


def test_every_choice_of_core_stands_in_the_reference():
    text = text_of("options")
    for table in ("loss", "readout", "optimizer", "schedule"):
        own = [entry.name for entry in choices(table) if entry.plugin.id == "core"]
        assert own
        for name in own:
            assert f"`{name}`" in text, f"{table} {name}"
            assert table != "loss" or f"| `{name}` | `{load(table, name).__name__}` |" in text

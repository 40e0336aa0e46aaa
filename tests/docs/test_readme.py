"""What the README shows runs, and the plugins it names are those that are installed."""

import csv
import re
from pathlib import Path
from statistics import mean, stdev

import pytest

import spikecore
from spikecore.cli import spike as spike_commands
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


def test_nothing_is_installed_under_a_name_that_anybody_may_register():
    """Nobody owns these names on an index yet (docs/how-to/release.md): pages install from a clone."""
    root = README.parent
    pages = [README, *root.glob("docs/**/*.md"), *root.glob("plugins/*/README.md"), *root.glob("examples/*.toml")]
    assert len(pages) > 60
    lines = [line for page in pages if page.name != "release.md" for line in page.read_text("utf-8").splitlines()]
    assert [line for line in lines if re.search(r"pip install (-\S+ )*'?spikecore", line)] == []


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


def results():
    """First cell → the cells of a line of the table of results."""
    part = README.read_text(encoding="utf-8").split("\n## Results\n")[1].split("\n## ")[0]
    lines = [line.strip("| \n").split(" | ") for line in part.splitlines() if line.startswith("| ")]
    return {cells[0]: cells for cells in lines[1:]}


def rows(cells):
    """Those of the file that a line of the table links to."""
    link = re.search(r"\]\(([^)]+\.csv)\)", cells[-1]).group(1)
    with (README.parent / link).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def numbers(text):
    return [float(number) for number in re.findall(r"-?\d+(?:\.\d+)?", text)]


def test_every_line_of_the_results_is_compared_below():
    assert list(results()) == [
        "digits (1797 images)",
        "`ndigits` (simulated event camera)",
        "digits, `ndigits`, `moving-bars`",
        "MNIST, trained",
        "MNIST, converted",
        "CartPole-v1",
        "Pendulum-v1",
    ]


def test_the_accuracy_of_a_converted_net_is_in_its_file():
    cells = results()["MNIST, converted"]
    given, num_steps = numbers(cells[1])
    (shown,) = numbers(cells[2])
    measured = [
        row
        for row in rows(cells)
        if row["net"] == "ReLU" and row["recipe"] == "threshold_balancing" and row["T"] == "32"
    ]
    assert [(row["given"], row["accuracy"]) for row in measured] == [(f"{given / 100:.4f}", f"{shown / 100:.4f}")]
    assert num_steps == 32


def accuracies(path):
    """Test accuracy in percent of each seed in a file of the trainer `supervised`."""
    with path.open(encoding="utf-8", newline="") as file:
        return [100 * float(row["test_accuracy"]) for row in csv.DictReader(file)]


def test_the_accuracies_of_the_trainer_are_in_their_files():
    folder = README.parent / "docs" / "benchmarks"
    measured = {name: accuracies(folder / f"accuracy_{name}.csv") for name in ("digits", "ndigits", "moving-bars")}
    assert {len(values) for values in measured.values()} == {5}
    shown = results()["digits, `ndigits`, `moving-bars`"][2]
    expected = [f"{mean(values):.1f} ± {stdev(values):.1f}" for values in (measured["digits"], measured["ndigits"])]
    assert shown.startswith(", ".join(expected))
    assert set(measured["moving-bars"]) == {100.0}
    mnist = ", ".join(f"{value:.1f}" for value in accuracies(folder / "accuracy_mnist.csv"))
    assert results()["MNIST, trained"][2] == f"{mnist} %"


def test_the_returns_of_agents_are_in_their_files():
    cells = results()["CartPole-v1"]
    runs = [row for row in rows(cells) if (row["environment"], row["net"]) == ("CartPole-v1", "spiking")]
    assert [float(row["test_return"]) for row in runs] == [500.0] * 5
    assert cells[1].endswith("seeds 1 to 5")
    assert [row["seed"] for row in runs] == ["1", "2", "3", "4", "5"]
    assert numbers(cells[2]) == [500.0, 500.0]

    cells = results()["Pendulum-v1"]
    limits = []
    for net in ("spiking", "ordinary"):
        returns = [float(row["test_return"]) for row in rows(cells) if row["net"] == net]
        assert len(returns) == 5
        assert cells[1].endswith("seeds 1 to 5")
        limits += [round(max(returns)), round(min(returns))]
    assert numbers(cells[2]) == limits


def test_the_accuracies_on_ndigits_are_those_of_the_plugin():
    cells = results()["`ndigits` (simulated event camera)"]
    shown = re.search(r"([\d.]+), ([\d.]+), ([\d.]+) %", cells[2]).groups()
    page = (README.parent / "plugins/datasets-dvs/README.md").read_text(encoding="utf-8")
    assert "| {}, {} and {} % |".format(*shown) in page


def test_the_citation_is_of_this_version():
    text = (README.parent / "CITATION.cff").read_text(encoding="utf-8")
    fields = dict(re.findall(r"^([\w-]+): *(\S.*)$", text, re.MULTILINE))
    assert fields["cff-version"] == "1.2.0"
    assert fields["version"] == spikecore.__version__
    assert fields["license"] == "Apache-2.0"
    assert (README.parent / "LICENSE").read_text(encoding="utf-8").lstrip().startswith("Apache License")
    assert {"message", "title", "type"} <= set(fields)
    assert re.search(r"^authors:\n  - name: \S", text, re.MULTILINE)


def test_every_command_and_option_in_the_table_exists():
    part = README.read_text(encoding="utf-8").split("\n## The command line\n")[1].split("\nWrite your own")[0]
    calls = re.findall(r"`spike ([\w-]+)([^`]*)`", part)
    assert len({name for name, _ in calls}) >= 15
    for name, rest in calls:
        command = spike_commands.get_command(None, name)
        assert command is not None, name
        known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
        assert set(re.findall(r"--[\w-]+", rest)) <= known, name

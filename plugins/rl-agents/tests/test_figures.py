"""The script of the figures: rows that it does not measure stay, and runs under other settings are refused."""

import csv
import importlib.util
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parents[1] / "figures"


@pytest.fixture
def measure(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("measure_agents", HERE / "measure.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # its dataclasses look for their module
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "KEPT", tmp_path / "kept")
    (tmp_path / "docs" / "benchmarks").mkdir(parents=True)
    return module


def line(seed, net="spiking", value=500.0):
    return {"environment": "CartPole-v1", "net": net, "seed": seed, "test_return": value}


def test_rows_of_other_seeds_stay(measure, monkeypatch, capsys):
    monkeypatch.setattr(measure, "row", lambda cell, spike: line(cell.seed, cell.net, float(cell.seed)))
    cells = {(cell.seed, cell.net): cell for cell in measure.cells("dqn")}
    measure.write("dqn", [cells[2, "spiking"], cells[1, "ordinary"]], "spike")
    path = measure.write("dqn", [cells[1, "spiking"], cells[2, "spiking"]], "spike")
    with path.open(newline="") as file:
        rows = [(row["seed"], row["net"], row["test_return"]) for row in csv.DictReader(file)]
    assert rows == [("1", "spiking", "1.0"), ("1", "ordinary", "1.0"), ("2", "spiking", "2.0")]
    assert "CartPole-v1 spiking: mean return 1.5, 0 of 2 seeds solve it" in capsys.readouterr().out


def test_seeds_are_chosen(measure):
    assert {cell.seed for cell in measure.cells("td3", [3, 9])} == {3, 9}
    assert {cell.seed for cell in measure.cells("ppo")} == {1, 2, 3, 4, 5}


def test_a_kept_run_of_other_settings_is_refused(measure, tmp_path):
    file = tmp_path / "dqn-cartpole.toml"
    file.write_text("[trainer]\nlr = 0.001\n")
    cell = measure.Cell("dqn", file, "spiking", 1)
    measure.check_settings(cell, begins=True)
    measure.check_settings(cell, begins=False)
    file.write_text("[trainer]\nlr = 0.002\n")
    with pytest.raises(SystemExit, match="was trained with other settings"):
        measure.check_settings(cell, begins=False)

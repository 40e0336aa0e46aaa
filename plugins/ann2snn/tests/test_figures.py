"""The README says what the tables of the figures hold, and losses are within what the figures promise."""

import csv
import math
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
README = " ".join((ROOT / "plugins/ann2snn/README.md").read_text(encoding="utf-8").split())


def table(name):
    with open(ROOT / f"docs/benchmarks/ann2snn_{name}.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def digits(recipe, steps):
    (row,) = [row for row in table("digits") if (row["fold"], row["recipe"], row["T"]) == ("mean", recipe, str(steps))]
    return row


def loss(recipe, steps):
    return float(digits(recipe, steps)["loss_points"])


def least_correlation(recipe):
    """Rounded down."""
    return math.floor(1000 * float(digits(recipe, 64)["least_correlation_T64"])) / 1000


def test_digits():
    assert {row["fold"] for row in table("digits")} == {"0", "1", "2", "3", "4", "mean"}
    qcfs, relu = digits("qcfs", 8), digits("threshold_balancing", 32)
    assert min(float(qcfs["given"]), float(relu["given"])) >= 0.98
    assert loss("qcfs", 8) <= 0.2
    assert loss("threshold_balancing", 32) <= 0.3
    assert (
        f"QCFS (8 levels) at T = 8 loses {loss('qcfs', 8):.2f} points (ANN {float(qcfs['given']):.2%}); of a ReLU net "
        f"({float(relu['given']):.2%}) at T = 32 `threshold_balancing` loses {loss('threshold_balancing', 32):.2f}, "
        f"per layer {loss('threshold_balancing layer', 32):.2f}, `percentile` {loss('percentile', 32):.2f}, `max` "
        f"{loss('max', 32):.2f}"
    ).replace("%", " %") in README


def test_correlations():
    names = ("threshold_balancing", "threshold_balancing layer", "percentile", "max", "qcfs")
    least = {name: least_correlation(name) for name in names}
    assert min(least.values()) >= 0.99
    text = (
        f"at least {least['threshold_balancing']:.3f} with `threshold_balancing`, per layer "
        f"{least['threshold_balancing layer']:.3f}, {least['percentile']:.3f} with `percentile`, {least['max']:.3f} "
        f"with `max`, {least['qcfs']:.3f} with `qcfs`"
    )
    assert text in README


def test_mnist():
    rows = {(row["recipe"], row["T"]): row for row in table("mnist")}
    balancing, percentile = rows["threshold_balancing", "32"], rows["percentile", "32"]
    assert float(balancing["loss_points"]) <= 0.1
    assert (
        f"`threshold_balancing` at T = 32 loses {balancing['loss_points']} points, `percentile` "
        f"{percentile['loss_points']} (ANN {float(balancing['given']):.2%})"
    ).replace("%", " %") in README


def test_nets():
    rows = table("nets")
    distances = [row for row in rows if row["unit"] == "largest distance"]
    assert len(distances) == 4
    assert all(float(row["value"]) <= 1e-4 for row in distances)
    few, block = (max(float(row["value"]) for row in distances if row["what"].startswith(w)) for w in ("Res", "trans"))
    assert f"largest distance from the quantized net {few:.0e} in float32".replace("e-0", "e-") in README
    assert f"{block:.0e} in float32".replace("e-0", "e-") in README
    costs = {}
    for row in rows:
        if row["what"].startswith("converting"):
            kind = "with the report" if "with the report" in row["of"] else "alone"
            costs[row["what"].partition("images, ")[2], kind] = float(row["value"])
    assert costs["max per channel", "alone"] <= 1.5
    assert max(value for (what, _), value in costs.items() if not what.startswith("max")) <= 3
    text = (
        f"`max` {costs['max per channel', 'alone']:.1f}, `percentile` {costs['percentile per channel', 'alone']:.1f}, "
        f"`threshold_balancing` {costs['threshold_balancing per channel', 'alone']:.1f}; with the report's measurement "
        f"`max` {costs['max per channel', 'with the report']:.1f}"
    )
    assert text in README

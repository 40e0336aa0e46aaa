"""The README's speed table, made from docs/benchmarks/speed.csv, which `spike bench --peers --csv` wrote.

    python tests/benchmarks/readme_table.py

Forward / forward+backward of a LIF neuron at each shape: the baseline in ms, all others as how many times faster.
Below, whole nets: a line for each net and measure, at the firing rates that were measured.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CSV = ROOT / "docs" / "benchmarks" / "speed.csv"
README = ROOT / "README.md"
BEGIN = "<!-- speed: written by tests/benchmarks/readme_table.py from docs/benchmarks/speed.csv -->"
END = "<!-- /speed -->"
MEASURES = ("forward", "forward+backward")
BASELINES = ("spikingjelly", "torch")
NOTHING = "Not measured yet: `make bench` does it."
Row = Mapping[str, str]


def table(rows: Sequence[Row]) -> str:
    """Markdown: a line per candidate, a column per shape."""
    timed = [row for row in rows if row["subject"] == "lif" and row["measure"] in MEASURES and row["status"] == "ok"]
    if not timed:
        return NOTHING
    times = {(row["candidate"], row["shape"], row["measure"]): float(row["wall_ms"]) for row in timed}
    shapes = list(dict.fromkeys(row["shape"] for row in timed))
    versions = {row["candidate"]: row["version"] for row in timed if row["kind"] == "peer"}
    names = list(dict.fromkeys(row["candidate"] for row in timed))
    baseline = next(name for name in BASELINES if name in names)
    lines = [f"| | {' | '.join(shapes)} |", f"|---{'|---' * len(shapes)}|"]
    for name in sorted(names, key=lambda name: (name != baseline, name in versions)):
        unit = ", ms" if name == baseline else ""
        cells = [_cell(times, name, baseline, shape) for shape in shapes]
        lines.append(f"| {' '.join([name, versions.get(name, '')]).strip()}{unit} | {' | '.join(cells)} |")
    return "\n".join([_caption(timed[0], baseline), "", *lines])


NETS_CAPTION = (
    "Nets whose convolutions meet this share of ones: torch's dense float32 in the faster memory format in ms, the "
    "others as times faster; [spike products](docs/explanation/spike-products.md) as they are or optimized, whichever "
    "is faster."
)
NETS_HEAD = "| whole net | firing rate | dense float32, ms | spikingjelly | bfloat16 | spike products |"


def nets_table(rows: Sequence[Row]) -> str:
    """Markdown: a line per deep stack, measure and rate; "" where none was timed.

    Dense is the faster of both memory formats, and spike products are the faster of a net and of its optimized copy.
    """
    timed = [row for row in rows if " at " in row["subject"] and row["status"] == "ok"]
    times: dict[tuple[str, str], dict[str, float]] = {}
    for row in timed:
        times.setdefault((row["subject"], row["measure"]), {})[row["candidate"]] = float(row["wall_ms"])
    lines = []
    for (subject, measure), of_candidate in times.items():
        dense, events = (_fastest(of_candidate, names) for names in (DENSE, EVENTS))
        if dense is None or events is None:
            continue
        name, _, rate = subject.partition(" at ")
        others = [_figure(of_candidate.get(other), dense, False) for other in ("spikingjelly", "bfloat16 autocast")]
        cells = [f"{name}, {measure}", rate, f"{dense:.3g}", *others, _figure(events, dense, False)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([NETS_CAPTION, "", NETS_HEAD, f"|{'---|' * 6}", *lines]) if lines else ""


DENSE = ("dense NCHW", "dense channels-last")
EVENTS = ("events", "optimized")


def _fastest(of_candidate: Mapping[str, float], names: Sequence[str]) -> float | None:
    return min((of_candidate[name] for name in names if name in of_candidate), default=None)


def _cell(times: Mapping[tuple[str, str, str], float], name: str, baseline: str, shape: str) -> str:
    pairs = [(times.get((name, shape, measure)), times.get((baseline, shape, measure))) for measure in MEASURES]
    parts = [_figure(own, base, name == baseline) for own, base in pairs]
    return "–" if set(parts) == {"–"} else " / ".join(parts)


def _figure(own: float | None, base: float | None, is_baseline: bool) -> str:
    if own is None or base is None:
        return "–"
    if is_baseline:
        return f"{own:.3g}"
    return f"{base / own:.2g}×" if base / own < 10 else f"{base / own:.0f}×"


def _caption(row: Row, baseline: str) -> str:
    changed = "" if row["git_state"] == "clean" else f", {row['git_state']}"
    return (
        f"A LIF layer on `[T, B, N]`, forward / forward+backward: {baseline} in ms, the others as times faster. "
        "Medians of interleaved rounds; each candidate was first checked against eager torch. "
        f"{row['device_name']}, {row['threads']} threads, torch {row['torch']}, {row['date']}, "
        f"{row['git_commit'][:9]}{changed}. [All figures](docs/benchmarks/speed.csv)."
    )


def read() -> list[Row]:
    """The rows of the CSV; none where there is no file."""
    if not CSV.is_file():
        return []
    with CSV.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def renewed(readme: str, rows: Sequence[Row]) -> str:
    """The README with the table between its two marks."""
    before, mark, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not mark or not end:
        raise SystemExit(f"README.md: expected the lines {BEGIN} and {END}")
    tables = "\n\n".join(part for part in (table(rows), nets_table(rows)) if part)
    return f"{before}{BEGIN}\n{tables}\n{END}{after}"


if __name__ == "__main__":
    README.write_text(renewed(README.read_text(encoding="utf-8"), read()), encoding="utf-8")

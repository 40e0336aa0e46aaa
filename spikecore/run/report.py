"""`report.html`: a run as one page, made from the files in its directory alone, also of a run that died."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from spikecore.analysis import figures, page
from spikecore.errors import ConfigError
from spikecore.files import write_file
from spikecore.run import kept_profile, probe
from spikecore.run.activity import activity
from spikecore.run.checkpoint import CheckpointStore
from spikecore.run.clock import TOTAL
from spikecore.run.exhibits import exhibits
from spikecore.run.gallery import read_gallery
from spikecore.run.log import read_lines
from spikecore.run.record import Record, status_of
from spikecore.run.text import SPLIT_NAMES, seconds_text, value_text

FILE = "report.html"
MAX_CURVES = 40
EPOCH = "epoch"


def write_report(directory: Path, out: Path | None = None) -> Path:
    """Write the report of a run; returns its path.

    Raises:
        ConfigError: this is no run directory, or its files hold values of other types than a run writes.
        OSError: it cannot be written.
    """
    target = out or directory / FILE
    try:
        text = build(directory)
    except (TypeError, ValueError, AttributeError, LookupError, ArithmeticError, RecursionError) as error:
        # Records are checked as far as their types are declared; configuration and environment are anybody's tables.
        raise ConfigError(
            f"{directory}: its record or metrics hold what no run writes: {type(error).__name__}: {error}"
        ) from error
    write_file(target, text)
    return target


def build(directory: Path) -> str:
    """The report's HTML."""
    record = Record.read(directory)
    status = status_of(directory, record.status)
    lines = read_lines(directory)
    looks, problems = _looks(directory)
    title = f"{record.config['run']['name']} · {directory.resolve().name}"
    body = [
        f'<h1>{escape(title)} <span class="status {escape(status)}">{escape(status)}</span></h1>',
        f'<p class="sub">{escape(_subtitle(record))}</p>',
        *_banner(directory, record, status),
        _tiles(record, lines),
        page.section("Learning", *_by_split(record, lines), *_learning(lines)),
        *_results(directory),
        page.section("Activity", *activity(record.classes, looks), *map(page.note, [*record.notes, *problems])),
        page.section("Time", *_time(record)),
        *kept_profile.section(directory),
        page.section("What ran", *_parts(directory, record)),
    ]
    return page.page(title, body)


def curves_by_name(lines: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[float, float | None]]]:
    """Metric → its points over the epochs (over the lines, where they do not say an epoch)."""
    curves: dict[str, list[tuple[float, float | None]]] = {}
    for index, line in enumerate(lines, 1):
        x = line.get(EPOCH, index)
        for name, value in line.items():
            if name != EPOCH and (value is None or _is_number(value)):
                curves.setdefault(name, []).append((float(x) if _is_number(x) else index, value))
    return curves


def _looks(directory: Path) -> tuple[dict[str, dict[str, Any]], list[str]]:
    looks, problems = {}, []
    for moment in ("before", "after"):
        path = probe.path_of(directory, moment)
        if not path.is_file():
            problems.append(f"There is no {path.name}: the run did not come so far.")
            continue
        try:
            looks[moment] = probe.read(path)
        except Exception as error:  # whatever is in the file, the rest of the report is made
            problems.append(f"{path.name} is damaged: {type(error).__name__}: {error}")
    return looks, problems


def _subtitle(record: Record) -> str:
    names = ", ".join(f"{table} {part.name}" for table, part in record.components.items() if table != "backend")
    return f"{names} · seed {record.seed} · started {record.started}"


def _banner(directory: Path, record: Record, status: str) -> list[str]:
    again = f"`spike run --resume {directory}` goes on with it."
    text = {
        "died": f"This run died: its record says that it is running, and no process is. {again}",
        "running": "This run is still going on; the report shows it as it is now.",
        "stopped": f"A hook ended this run. {again}",
        "interrupted": f"This run was interrupted. {again}",
        "failed": f"This run failed: {record.error or 'no reason is known'}. {again}",
    }.get(status)
    return [f'<p class="banner">{escape(text)}</p>'] if text else []


def _tiles(record: Record, lines: Sequence[Mapping[str, Any]]) -> str:
    last = dict(record.metrics or (lines[-1] if lines else {}))
    epochs = last.pop(EPOCH, lines[-1].get(EPOCH) if lines else None)
    tiles = [(name.replace("_", " "), value_text(name, value)) for name, value in last.items() if _is_number(value)]
    if epochs is not None:
        tiles.append(("epochs", str(epochs)))
    if "total" in record.timings_s:
        tiles.append(("time", seconds_text(record.timings_s["total"])))
    tiles.append(("device", str(record.environment["device"])))
    cells = [f"<div><dt>{escape(name)}</dt><dd>{escape(text)}</dd></div>" for name, text in tiles]
    return f'<dl class="tiles">{"".join(cells)}</dl>'


def _by_split(record: Record, lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """Samples and latest metrics, those of training, validation and test apart."""
    latest = {**(lines[-1] if lines else {}), **(record.metrics or {})}
    table: dict[str, dict[str, str]] = {}
    for name, value in latest.items():
        split, _, metric = name.partition("_")
        if split in SPLIT_NAMES and metric and _is_number(value):
            table.setdefault(metric, {})[split] = value_text(name, value)
    if record.samples:
        table = {"samples": {split: str(count) for split, count in record.samples.items()}, **table}
    if not table:
        return []
    known: set[str] = set().union(*table.values())
    splits = [split for split in SPLIT_NAMES if split in known]
    head = ("", *(SPLIT_NAMES[split] for split in splits))
    rows: list[list[str]] = []
    for metric, row in table.items():
        rows.append([metric.replace("_", " "), *(row.get(split, "–") for split in splits)])
    caption = "Metrics of the latest epoch. Nothing is chosen by the test split, which is read once, at the end."
    return [f'<div id="splits">{page.table(head, rows)}</div>', page.note(caption)]


def _learning(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    curves = curves_by_name(lines)
    if not curves:
        return [page.note("No epoch was completed, so there are no curves yet.")]
    x_label = EPOCH if any(EPOCH in line for line in lines) else "line of metrics.jsonl"
    groups: dict[str, list[str]] = {}
    for name in curves:
        kind = next((kind for kind in ("loss", "accuracy") if kind in name), name)
        groups.setdefault(kind, []).append(name)
    order = sorted(groups, key=lambda kind: {"loss": 0, "accuracy": 1}.get(kind, 2))
    more = order[MAX_CURVES:]
    order = order[:MAX_CURVES]
    shown = []
    for kind in order:
        series = [figures.Series(name, curves[name]) for name in groups[kind]]
        picture = figures.legend(groups[kind]) + figures.curves(series, x_label, percent=kind == "accuracy")
        shown.append(page.figure(kind, kind.replace("_", " ").capitalize(), picture))
    left_out = [page.note(f"Not drawn: {', '.join(more)}")] if more else []
    return [page.grid(shown), *left_out]


def _results(directory: Path) -> list[str]:
    """What the trainer showed; no section where that is nothing."""
    values, problems = read_gallery(directory)
    if not values and not problems:
        return []
    return [page.section("Results", exhibits(values), *map(page.note, problems))]


def _time(record: Record) -> list[str]:
    timings = dict(record.timings_s)
    total = timings.pop(TOTAL, 0.0)
    if not total:
        return [page.note("The run ended without its times.")]
    parts = sorted(timings.items(), key=lambda item: -item[1])
    line = [(value / total, figures.colour(index), name) for index, (name, value) in enumerate(parts)]
    names = [f"{name} {seconds_text(value)} ({value / total:.0%})" for name, value in parts]
    picture = figures.legend(names, [shade for _, shade, _ in line]) + figures.stacks(["time"], [line], "time split")
    return [page.figure("time", f"Where {seconds_text(total)} went", picture, narrow=True)]


def _parts(directory: Path, record: Record) -> list[str]:
    of_components = []
    for table, part in record.components.items():
        of_components.append((table, part.name, part.plugin, f"{part.distribution} {part.version}", part.target))
    components = page.table(("table", "name", "plugin", "distribution", "target"), of_components)
    of_plugins = []
    for plugin in record.plugins:
        source, status = f"{plugin.distribution} {plugin.version}", plugin.reason or plugin.status
        of_plugins.append((plugin.id, source, status, plugin.target or "–"))
    plugins = page.table(("plugin", "distribution", "status", "hooks"), of_plugins)
    backends = page.table(
        ("layer", "asked for", "ran on", "why"),
        [(name, backend.asked, backend.ran, backend.reason) for name, backend in record.backends.items()],
    )
    environment = {**record.environment, "argv": " ".join(record.environment["argv"])}
    if record.git:
        state = " (with changes)" if record.git["dirty"] else ""
        if record.git["dirty"] is None:
            state = " (whether files had changed is not known)"
        environment["git commit"] = record.git["commit"] + state
    environment |= {f"--load {file.path}": f"sha256 {file.sha256}" for file in record.files}
    rows = [(key, str(value)) for key, value in environment.items() if value is not None]
    config = json.dumps(record.config, indent=2, ensure_ascii=False)
    changes = f"<p>Changed when it was resumed: {escape(', '.join(record.changes))}</p>" if record.changes else ""
    return [
        "<h3>Components</h3>",
        f'<div id="components">{components}</div>',
        "<h3>Plugins</h3>",
        f'<div id="plugins">{plugins}</div>',
        "<h3>Backends</h3>",
        f'<div id="backends">{backends if record.backends else page.note("No neuron ran.")}</div>',
        "<h3>Environment</h3>",
        f'<div id="environment">{page.table(("what", "value"), rows)}</div>',
        *_history(directory, record),
        page.collapsible(
            f"Configuration (sha256 {record.config_sha256[:12]})", f"{changes}<pre>{escape(config)}</pre>"
        ),
    ]


def _history(directory: Path, record: Record) -> list[str]:
    store = CheckpointStore(directory, record.id)
    best = store.best()
    names = [f"{name} (best)" if name == best else name for name in store.names()]
    kept = ", ".join(names) or "none"
    parts = [f'<p id="checkpoints" class="note">Checkpoints: {escape(kept)}</p>']
    if record.resumes:
        rows = []
        for resumption in record.resumes:
            changes = "; ".join([*resumption.changes, *resumption.differs]) or "–"
            source = resumption.checkpoint or "the seed"
            rows.append((resumption.at, resumption.after, source, resumption.dropped_lines, changes))
        head = ("resumed", "after it had", "from", "lines dropped", "changed")
        parts += ["<h3>History</h3>", f'<div id="history">{page.table(head, rows)}</div>']
    return parts


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)

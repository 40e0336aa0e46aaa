"""Options that the user set and that change nothing in this run: each is reported once, with the reason."""

from __future__ import annotations

from collections.abc import Mapping

from spikecore.interfaces.task import Task
from spikecore.registry import build
from spikecore.run.config import AUTO_BACKEND, Resolved
from spikecore.run.roles import kind_of


def idle_options(resolved: Resolved, unused: Mapping[str, str]) -> list[str]:
    """One line for each reason; only what was set by the user, not what is a default.

    Args:
        resolved: the configuration.
        unused: tables that this run does not use → why.
    """
    lines = []
    for table in resolved.names:
        if table in unused:
            reasons = dict.fromkeys(resolved.options(table), unused[table])
        else:
            reasons = _own_reasons(resolved, table)
            if table == "trainer":
                reasons |= _validation_reasons(resolved)
        for reason in dict.fromkeys(reasons.values()):
            options = [f"{table}.{option}" for option in reasons if reasons[option] == reason]
            if given := [option for option in options if option in resolved.given]:
                lines.append(f"{', '.join(given)} has no effect: {reason}")
    return lines


def unused_tables(resolved: Resolved, task: Task) -> dict[str, str]:
    """Tables whose component this task never calls."""
    if not task.is_sequence or "encoder" not in resolved.names:
        return {}
    return {"encoder": f"the samples of {resolved.names['dataset']!r} are sequences, which go to the net as they are"}


def _validation_reasons(resolved: Resolved) -> dict[str, str]:
    """A share of the training split is taken only where the dataset has no validation split of its own."""
    if "dataset" not in resolved.names or "trainer.val_share" not in resolved.given:
        return {}
    name = resolved.names["dataset"]
    # Its splits may depend on its options, so the class does not know them. Making a dataset reads no file.
    if "val" not in build("dataset", name, resolved.tables["dataset"]).splits:
        return {}
    return {"val_share": f"dataset {name!r} has a split 'val' of its own"}


def _own_reasons(resolved: Resolved, table: str) -> dict[str, str]:
    if (table, resolved.names[table]) == AUTO_BACKEND:
        return {}
    component = resolved.registry.load(str(kind_of(table)), resolved.names[table])
    rules = getattr(component, "idle_options", None)
    return {} if rules is None else dict(rules(resolved.tables[table]))

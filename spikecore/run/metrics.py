"""What a trainer gives to its run, checked: metrics, lines for `metrics.jsonl`, scores and states."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spikecore.errors import ContractError

EXAMPLE = "{'test_accuracy': 0.93}"


def checked_metrics(trainer: object, method: str, value: object) -> dict[str, float]:
    """What `method` of a trainer returned.

    Raises:
        ContractError: it is no dict of names and numbers.
    """
    return _numbers(f"{type(trainer).__name__}.{method} must return", value)


def _numbers(who: str, value: object) -> dict[str, float]:
    if not isinstance(value, Mapping):
        advice = ": add a `return` with them ({} where there are none)" if who.endswith("return") else ""
        raise ContractError(f"{who} a dict of metrics, name -> number, as in {EXAMPLE}, got {value!r:.80}{advice}")
    for name, number in value.items():
        if not isinstance(name, str) or not _is_number(number):
            raise ContractError(
                f"{who} a dict of metrics, name -> number, as in {EXAMPLE}, got {name!r}: "
                f"{type(number).__name__}: write float(...) or int(...) around it"
            )
    return dict(value)


def check_split(trainer: object, metrics: Mapping[str, float], split: str) -> None:
    """Every metric of a split is named after it, so that no number passes for one of another split.

    Raises:
        ContractError: one is not.
    """
    if wrong := [name for name in metrics if not name.startswith(f"{split}_")]:
        raise ContractError(
            f"{type(trainer).__name__}.evaluate was asked for the split {split!r} and returned {', '.join(wrong)}: "
            f"expected names that begin with {split!r} and an underscore, as in f'{{split}}_accuracy'"
        )


def check_line(values: Mapping[str, object]) -> None:
    """What `context.log` takes: numbers, texts and booleans.

    Raises:
        ContractError: a value is none of them.
    """
    for name, value in values.items():
        if not isinstance(value, str | bool) and not _is_number(value):
            raise ContractError(
                f"context.log({name}=...) takes a number or a text, got {value!r:.80} ({type(value).__name__}): write "
                "float(...) or int(...) around it, or leave it out where there is none"
            )


def check_epoch(epoch: object, metrics: object) -> None:
    """What `context.epoch_end` takes.

    Raises:
        ContractError: the number is none from 1 on, or the metrics are no dict of names and numbers.
    """
    if not isinstance(epoch, int) or isinstance(epoch, bool) or epoch < 1:
        raise ContractError(f"context.epoch_end takes the number of the epoch, an int from 1, got {epoch!r:.80}")
    _numbers(f"context.epoch_end({epoch}, ...) takes", metrics)


def check_score(score: object) -> None:
    """What `context.checkpoint` takes.

    Raises:
        ContractError: it is neither a number nor None.
    """
    if score is not None and not _is_number(score):
        raise ContractError(
            "context.checkpoint takes a score, a number that is higher for a better net, or None, got "
            f"{score!r:.80} ({type(score).__name__}): write float(...) around it"
        )


def checked_state(trainer: object, method: str, value: object) -> dict[str, Any]:
    """What `state_dict` or `large_state_dict` of a trainer returned.

    Raises:
        ContractError: it is no dict, so that nothing could be restored from it.
    """
    if not isinstance(value, dict):
        raise ContractError(
            f"{type(trainer).__name__}.{method} must return a dict with what `fit` needs to go on ({{}} where that is "
            f"nothing), got {value!r:.80}"
        )
    return value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)

# python examples/optuna_sweep.py
"""A sweep with Optuna: each trial is a run, and a hook ends the runs that fall behind (pruning).

Needs Optuna: pip install optuna. `spike compare sweep/*` shows the runs side by side afterwards.
"""

from pathlib import Path
from typing import Any

import optuna

import spikecore
from spikecore.errors import StopRun


class Pruner:
    """Tells the trial each epoch's accuracy, and ends the run when the study says so."""

    def __init__(self, trial: optuna.Trial) -> None:
        self.trial = trial

    @spikecore.hookimpl
    def spike_epoch_end(self, epoch: int, metrics: dict[str, float]) -> None:
        self.trial.report(metrics["val_accuracy"], epoch)
        if self.trial.should_prune():
            raise StopRun(f"pruned after epoch {epoch}")


def objective(trial: optuna.Trial) -> float:
    """Validation accuracy of a run; the test split stays out of the search."""
    config: dict[str, Any] = {
        "model": {"name": "mlp", "hidden": [32]},
        "neuron": {"name": "lif", "tau": trial.suggest_float("tau", 1.2, 8.0, log=True)},
        "trainer": {"epochs": 4, "lr": trial.suggest_float("lr", 1e-4, 1e-1, log=True)},
    }
    try:
        result = spikecore.run(config, out=Path("sweep") / f"trial-{trial.number}", hooks=[Pruner(trial)])
    except StopRun as stop:
        raise optuna.TrialPruned(str(stop)) from stop
    return float(result.metrics["val_accuracy"])


optuna.logging.set_verbosity(optuna.logging.WARNING)
study = optuna.create_study(
    direction="maximize",
    sampler=optuna.samplers.TPESampler(seed=0),
    pruner=optuna.pruners.MedianPruner(n_startup_trials=2, n_warmup_steps=1),
)
study.optimize(objective, n_trials=6)
states = [trial.state.name.lower() for trial in study.trials]
print(f"{states.count('complete')} trials complete, {states.count('pruned')} pruned")
print(f"best: {study.best_value:.1%} with {study.best_params}")

assert states.count("pruned") >= 1

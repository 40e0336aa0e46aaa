"""At the end of an epoch: log, epoch_end, checkpoint; another order would cost a resumed run its line."""

import pytest

import spikecore
from spikecore.errors import ContractError
from spikecore.registry import Blocking, Registry, use
from spikecore.run.order import EpochOrder
from tests.run.toy_trainers import Alone


def follow(*calls):
    """Each call is `log`, `step` (a safe point), `score` (one with a score) or `end`."""
    order, epoch = EpochOrder(), 1
    for call in calls:
        if call == "log":
            order.log({"epoch": epoch, "loss": 1.0 / epoch})
        elif call == "log step":
            order.log({"step": epoch, "train_loss": 2.0})
        elif call == "end":
            order.epoch_end(epoch, {"loss": 1.0 / epoch})
            epoch += 1
        else:
            order.checkpoint(1.0 if call == "score" else None)


@pytest.mark.parametrize(
    "calls",
    [
        "step step log end score step log end score",
        "log end step log end step",
        "log step, step, log step, step, log, end, score",
        "log step, score, step, log step, score, log, end, score, log, end, score",
        "end score end score",
        "end score log end score",
        "score step score step",
    ],
)
def test_sound_orders(calls):
    follow(*(call.strip() for call in (calls.split(",") if "," in calls else calls.split())))


@pytest.mark.parametrize(
    "calls", ["log score end", "step log step end", "score log end", "log end score log score end"]
)
def test_an_epoch_that_a_resumed_run_would_lose_is_refused(calls):
    with pytest.raises(
        ContractError, match=r"call context\.log\(\.\.\.\), then context\.epoch_end\(\.\.\.\), then context\.ch"
    ):
        follow(*calls.split())


class Hasty(Alone):
    """Saves before it tells."""

    def fit(self, task, context):
        self._epoch += 1
        metrics = self.evaluate(task, context)
        context.log(epoch=self._epoch, **metrics)
        context.checkpoint(0.0)
        context.epoch_end(self._epoch, metrics)
        return metrics


def test_a_run_refuses_it_at_the_first_epoch(tmp_path):
    with use(Registry(blocking=Blocking())) as mine:
        mine.register("trainer", "hasty", Hasty)
        with pytest.raises(ContractError, match=r"epoch_end\(1\) comes after the safe point"):
            spikecore.run({"trainer": {"name": "hasty"}, "run": {"report": False}}, out=tmp_path / "r")

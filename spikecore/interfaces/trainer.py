"""Trainer: owns the training loop and its own state; owns no file.

`spike run` gives the trainer the parts that the configuration names (`prepare`), then calls `fit` with a `RunContext`,
through which everything that leaves the loop goes: metrics, progress, checkpoints, hooks. The same trainer works in a
notebook with any object of that shape.

At the end of an epoch the order is: first its line, then its end, then the safe point that counts it as done.

    context.log(epoch=epoch, **metrics)
    context.epoch_end(epoch, metrics, num_epochs=num_epochs)
    context.checkpoint(score)

A checkpoint holds what was logged and reported before it; a resumed run continues after it. With another order the
resumed run would lose the line or the end of that epoch, so `epoch_end` raises where it comes after its safe point.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, TypeVar, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import torch
    from torch import Tensor, nn

    from spikecore.interfaces.processes import Shard
    from spikecore.interfaces.show import Shown
    from spikecore.interfaces.task import Parts, Task

T = TypeVar("T")

DEFAULT_ROLES = ("dataset", "encoder", "model", "neuron")
TaskKind = Literal["class", "value", "sequence", "unsupervised", "environment"]


@dataclass(frozen=True)
class TrainerCapabilities:
    """What a trainer promises.

    Args:
        gradient: trains by backpropagation, so the model must be differentiable.
        resumable: `state_dict` restores the loop bit-exactly at every safe point, also in the middle of an epoch.
        extendable: options that may be larger when a run is resumed (`epochs`): the schedule goes on.
        roles: the tables of the configuration that it uses, by name; `spikecore.run.roles` has all that exist. A run
            refuses the tables of other roles, and gives them no defaults. `[backend]` comes with `neuron`.
        task: what it learns from: labels that are classes, values or sequences; samples alone (`unsupervised`); or an
            environment. Reports and the conformance suite go by it.
        multi_process: trains in several processes as in one, by `context.wrap`, `shard`, `all_sum` and `share_buffers`
            (see `interfaces.processes`). A run in several processes refuses a trainer that does not.
    """

    gradient: bool = True
    resumable: bool = True
    extendable: tuple[str, ...] = ()
    roles: tuple[str, ...] = DEFAULT_ROLES
    task: TaskKind = "class"
    multi_process: bool = False


@runtime_checkable
class RunContext(Protocol):
    """What a run gives to its trainer."""

    device: torch.device
    dtype: torch.dtype
    """Compute dtype: float32, or the autocast dtype of `run.precision`. With float16 gradients underflow unless the
    loss is scaled (`torch.amp.GradScaler`); the scaler's state is part of the trainer's."""
    generator: torch.Generator
    """The run's source of random numbers (CPU); its state is part of every checkpoint. Every process of a run draws the
    same from it: the order of samples."""
    rank_generator: torch.Generator
    """Of what a process draws on the CPU for its own samples (mixing): `generator` itself in a single process."""
    device_generator: torch.Generator
    """On `device`, of what a process draws there for its own samples, such as the spikes of an encoder. Its state is
    part of every checkpoint, as that of the other two."""

    @property
    def rank(self) -> int:
        """Number of this process; 0 where there is one."""

    @property
    def world_size(self) -> int:
        """How many processes train this net together; see `interfaces.processes`."""

    def wrap(self, model: nn.Module) -> nn.Module:
        """The net to call in training: see `interfaces.processes.Processes`, as for the next four."""

    def fully_shard(self, model: nn.Module) -> nn.Module:
        """The net to train in place of `model`, where its parameters are to be divided between the processes."""

    def shard(self, batch: Any) -> Shard:
        """This process's part of a global batch."""

    def all_sum(self, tensor: Tensor) -> Tensor:
        """The sum over the processes."""

    def share_buffers(self, model: nn.Module) -> None:
        """Give every process rank 0's buffers, before an evaluation; makes a sharded net whole."""

    def log(self, **metrics: float | int | str) -> None:
        """Append one line to `metrics.jsonl`."""

    def checkpoint(self, score: float | None = None, weights: Mapping[str, Tensor] | None = None) -> None:
        """A safe point: nothing is half done, and all that `fit` needs to go on is in `state_dict()`, the model and the
        random generators. Call it after every step, or at least after every epoch. The run saves when it is due, and
        always when there is a `score`; it may end here with KeyboardInterrupt.

        In several processes all must call it, the same number of times; `state_dict()` is then asked for in each, and
        that of rank 0 is kept, so it must be the same in all.

        Args:
            score: of the net on validation, higher is better: `best` is the checkpoint with the highest.
            weights: a `state_dict` of the model that is to be used in place of its own, such as a moving average of it:
                `load`, `eval` and `best` give these; training goes on with the model's own. Whoever gives them gives
                them at every safe point.
        """

    def show(self, name: str, value: Shown) -> None:
        """Keep a curve, image, animation, table or histogram for the report, in place of what this name had before.

        It is part of every checkpoint, so keep it small: a few names, not one for each epoch.
        """

    def epoch_end(
        self,
        epoch: int,
        metrics: dict[str, float],
        *,
        num_epochs: int | None = None,
        count: int | None = None,
        unit: str = "samples",
    ) -> None:
        """An epoch is over, and its line is logged: prints it. At the next safe point, which counts the epoch as done
        and is due now, `spike_epoch_end` is called in the plugins, so a plugin that fails costs no epoch.

        Args:
            epoch: its number, from 1.
            metrics: of this epoch.
            num_epochs: how many there will be, for the time left.
            count: how much this process has trained on in this epoch, for the rate.
            unit: what `count` counts.

        Raises:
            ContractError: the safe point that counts this epoch as done was passed before; `epoch` is no int from 1 on,
                or `metrics` no dict of numbers.
        """

    def note(self, text: str) -> None:
        """Tell the user a sentence, once, and keep it for the report: a warning, or why training ended early."""

    def progress(self, items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
        """Iterate with a progress bar; silent when not on a terminal."""

    def timed(self, part: str) -> Any:
        """Context manager: counts the time inside under `part` (`data`, `forward`, `backward`, `evaluate` …)."""


@runtime_checkable
class Trainer(Protocol):
    """What callers rely on. Subclass `spikecore.trainers.Trainer`, which has a default for all but the last four."""

    api_version: ClassVar[int]
    Config: ClassVar[type]
    capabilities: ClassVar[TrainerCapabilities]
    config: Any
    role_configs: ClassVar[Mapping[str, type]]
    """Role → frozen dataclass of the options of its table, for a role that no kind of component fills
    (`{"environment": EnvironmentConfig}`); `parts.options(role)` gives the checked instance."""
    role_defaults: ClassVar[Mapping[str, Mapping[str, Any]]]
    """Role → its table where the configuration says nothing (`{"model": {"name": "mlp"}}`), before core's own."""

    def prepare(self, parts: Parts) -> Task:
        """What is trained, built from the parts; by default from dataset, encoder and model, as for a classifier.

        Called before `fit`, and also for an evaluation or a dry run: it draws from the global generators alone, and
        leaves nothing behind.
        """

    def example(self, task: Task) -> Tensor | None:
        """A few inputs `[T, B, *input_shape]`, always the same, on which the run shows what the net's neurons do.
        None: samples of the task's validation split, or else of its training or test split, where it has one.
        """

    def fit(self, task: Task, context: RunContext) -> dict[str, float]:
        """Train from the current state to the end of the schedule; returns the final metrics (`val_accuracy`,
        `test_accuracy` …). The test split is read once, when training is over: nothing is chosen by it.
        """

    def evaluate(self, task: Task, context: RunContext, split: str = "test") -> dict[str, float]:
        """Metrics of the model as it is, on a split (`train`, `val`, `test`) or in the environment.

        Each name begins with that of the split: `test_loss`. Samples are not augmented. The same model gives the same
        numbers: what is drawn comes from a generator that starts anew.
        """

    def state_dict(self) -> dict[str, Any]:
        """Tensors, numbers, strings, None, lists, tuples and dicts only: it is saved without pickle.

        Like an optimizer's it refers to live tensors, which training changes; it may also be asked for before `fit`.
        """

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state`; takes effect in the next `fit`, whose context has the random generators of then."""

    def large_state_dict(self) -> dict[str, Any]:
        """What else `fit` needs to go on, and is too large to be kept in every checkpoint, such as a replay buffer; of
        the same types. A run keeps it with the newest checkpoint only, so that older ones cannot be resumed from.
        """

    def load_large_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state`; called after `load_state_dict` where `large_state_dict` gave any."""

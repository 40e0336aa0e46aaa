"""The loop compared with loops written by hand, and its options with their definitions."""

import dataclasses

import pytest
import torch
from helpers import samples, spiking_net, spiking_task
from torch.nn import functional

from spikecore import nn
from spikecore.errors import OptionError, RunError
from spikecore.interfaces import Batch
from spikecore.nn import losses
from spikecore.testing.training import Recorder
from spikecore_training.passes import Passes
from spikecore_training.regression import Regression
from spikecore_training.sequence import Sequence
from spikecore_training.supervised import Supervised


def trained(trainer, **keywords):
    task, recorder = spiking_task(trainer, **keywords), Recorder(seed=3)
    metrics = trainer.fit(task, recorder)
    return task, recorder, metrics


def weights(net):
    return [parameter.detach().clone() for parameter in net.parameters()]


def same(ours, theirs):
    return len(ours) == len(theirs) and all(map(torch.equal, ours, theirs))


def test_one_epoch_equals_a_loop_written_by_hand():
    options = {"name": "sgd", "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}
    trainer = Supervised(epochs=1, batch_size=13, optimizer=options, lr=0.2, loss="count_cross_entropy")
    task, recorder, _ = trained(trainer)

    net = spiking_net(3)
    before = weights(net)
    matrices = [net[1].weight, net[3].weight]
    groups = [{"params": matrices}, {"params": [net[1].bias, net[3].bias], "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=0.2, momentum=0.9, nesterov=True, weight_decay=0.01)
    order = torch.randperm(48, generator=torch.Generator().manual_seed(3))
    total = 0.0
    for index in torch.split(order, 13):
        x, label = samples(task, index)
        loss = functional.cross_entropy(net(x).sum(0), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item() * len(index)
    assert same(weights(task.model), weights(net))
    assert not same(weights(net), before)
    (line,) = [event for name, event in recorder.events if name == "log"]
    assert line["train_loss"] == pytest.approx(total / 48, rel=1e-6)


def test_clipping_warm_up_and_schedule_by_hand():
    trainer = Supervised(
        epochs=2,
        batch_size=24,
        optimizer={"name": "sgd", "momentum": 0.0, "weight_decay": 0.0},
        lr=0.8,
        schedule={"name": "exponential", "gamma": 0.5},
        warmup_epochs=1.5,
        warmup_start=0.1,
        clip_norm=0.05,
    )
    task, _, _ = trained(trainer)
    net, generator = spiking_net(3), torch.Generator().manual_seed(3)
    rates = [0.8 * 0.1, 0.8 * (0.1 + 0.9 / 3), 0.4 * (0.1 + 0.9 * 2 / 3), 0.4]
    norms = []
    for epoch in range(2):
        for step, index in enumerate(torch.split(torch.randperm(48, generator=generator), 24)):
            x, label = samples(task, index)
            net.zero_grad()
            functional.cross_entropy(net(x).mean(0), label).backward()
            norms.append(torch.cat([p.grad.flatten() for p in net.parameters()]).norm())
            for parameter in net.parameters():
                parameter.data -= rates[2 * epoch + step] * parameter.grad * min(1.0, 0.05 / (norms[-1] + 1e-6))
    assert min(norms) > 0.05
    for ours, theirs in zip(weights(task.model), weights(net), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_accumulated_batches_give_the_step_of_a_large_one():
    common = {"epochs": 2, "lr": 0.1, "optimizer": "sgd", "val_share": 0.0}
    whole, _, _ = trained(Supervised(batch_size=20, **common))
    # 20 = 4 · 5; the last step of an epoch has 8 = 5 + 3.
    parts, recorder, _ = trained(Supervised(batch_size=5, accumulate=4, **common))
    for ours, theirs in zip(weights(parts.model), weights(whole.model), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
    assert recorder.num_checkpoints == 2 * (3 + 1)


def test_moving_average_is_evaluated_and_given_to_the_run():
    trainer = Supervised(epochs=1, batch_size=24, lr=0.1, ema=0.75)
    task, recorder, metrics = trained(trainer)
    plain = Supervised(epochs=1, batch_size=24, lr=0.1)
    steps, other = [], spiking_task(plain)
    recorder_plain = Recorder(seed=3, trainer=plain, model=other.model)
    plain.fit(other, recorder_plain)
    steps = [snapshot.model for snapshot in recorder_plain.snapshots[:2]]
    for name, value in recorder.weights[-1].items():
        torch.testing.assert_close(value, 0.75 * steps[0][name] + 0.25 * steps[1][name])
        assert torch.equal(task.model.state_dict()[name], steps[1][name])  # the net itself is trained as without
    averaged = spiking_net(3)
    averaged.load_state_dict(recorder.weights[-1])
    x, label = samples(task, range(len(task.test)))
    x = torch.stack([task.test[index][0] for index in range(24)]).expand(4, -1, -1, -1, -1)
    label = torch.tensor([task.test[index][1] for index in range(24)])
    wanted = functional.cross_entropy(averaged(x).mean(0), label).item()
    assert metrics["test_loss"] == pytest.approx(wanted, rel=1e-5)
    assert metrics["val_loss_without_ema"] != metrics["val_loss"]


def passes(net, loss, task, **options):
    return Passes(
        task=dataclasses.replace(task, model=net),
        context=Recorder(),
        net=net,
        loss=loss,
        optimizer=torch.optim.SGD(net.parameters(), 0.1),
        scaler=torch.amp.GradScaler("cpu", enabled=False),
        **options,
    )


def gradients(net, step, batch):
    step.begin_step(0, 0)
    step.add(batch, 1.0)
    return [parameter.grad.clone() for parameter in net.parameters()]


def test_truncation_cuts_the_graph_between_parts():
    task = spiking_task(Supervised(batch_size=8), is_sequence=True)
    x, label = samples(task)
    batch = Batch(x, label)
    net, loss = spiking_net(3), losses.TET(mse_weight=0.3)
    ours = gradients(net, passes(net, loss, task, truncate=3), batch)
    net.zero_grad()
    with nn.streaming(net):
        (loss(net(x[:3]), label) * 3 / 4).backward()
        nn.detach_state(net)
        (loss(net(x[3:]), label) / 4).backward()
    assert same(ours, [parameter.grad for parameter in net.parameters()])
    whole = gradients(net, passes(net, loss, task), batch)
    assert not same(ours, whole)
    assert same(gradients(net, passes(net, loss, task, truncate=4), batch), whole)


def test_truncated_padded_sequences_count_own_steps():
    """Of a net without state the parts add up to the whole, whatever is padded."""
    torch.manual_seed(0)
    net = torch.nn.Linear(3, 2)
    task = spiking_task(Sequence(batch_size=8), is_sequence=True)
    x, label = torch.randn(5, 4, 3), torch.randn(5, 4, 2)
    mask = torch.arange(5)[:, None] < torch.tensor([5, 1, 3, 2])
    batch = Batch(x, label, mask)
    ours = gradients(net, passes(net, losses.SequenceMSE(), task, truncate=2, label_axis=1), batch)
    whole = gradients(net, passes(net, losses.SequenceMSE(), task, label_axis=1), batch)
    for part, all_at_once in zip(ours, whole, strict=True):
        torch.testing.assert_close(part, all_at_once)
    net.zero_grad()
    own = ((net(x) - label).square().mean(2) * mask).sum(0) / mask.sum(0)
    own.mean().backward()
    torch.testing.assert_close(whole[0], net.weight.grad)


def test_rate_penalty_by_hand():
    trainer = Supervised(rate_penalty=2.0, rate_target=0.25, epochs=1, batch_size=48, lr=0.1, optimizer="sgd")
    task, recorder, _ = trained(trainer)
    net = spiking_net(3)
    x, label = samples(task, range(48))
    spikes = net[:3](x)
    assert set(spikes.unique().tolist()) == {0.0, 1.0}
    penalty = 2.0 * (spikes.mean((0, 2)) - 0.25).square().mean()
    loss = functional.cross_entropy(net[3](spikes).mean(0), label) + penalty
    loss.backward()
    assert penalty > 0
    line = next(event for name, event in recorder.events if name == "log")
    assert line["train_loss"] == pytest.approx(loss.item(), rel=1e-5)
    optimizer = torch.optim.SGD([{"params": [net[1].weight, net[3].weight], "weight_decay": 1e-4}], lr=0.1)
    optimizer.step()
    torch.testing.assert_close(task.model[1].weight, net[1].weight)


def test_a_penalty_needs_spikes():
    trainer = Supervised(rate_penalty=1.0, epochs=1, batch_size=8)
    task = spiking_task(trainer)
    task.model[2] = torch.nn.Identity()
    with pytest.raises(OptionError, match="no layer of spiking neurons"):
        trainer.fit(task, Recorder())


def test_smoothed_labels_are_those_of_torch():
    trainer = Supervised(label_smoothing=0.2, epochs=1, batch_size=48)
    task, recorder, _ = trained(trainer)
    x, label = samples(task, range(48))
    wanted = functional.cross_entropy(spiking_net(3)(x).mean(0), label, label_smoothing=0.2)
    line = next(event for name, event in recorder.events if name == "log")
    assert line["train_loss"] == pytest.approx(wanted.item(), rel=1e-5)
    with pytest.raises(OptionError, match="given twice"):
        Supervised(label_smoothing=0.1, loss={"name": "tet", "label_smoothing": 0.1})


@pytest.mark.parametrize("is_sequence", [False, True])
def test_mixing_makes_shares_of_classes(is_sequence):
    trainer = Supervised(mixup=1.0, cutmix=1.0, batch_size=8)
    task = spiking_task(trainer, is_sequence=is_sequence)
    x, label = samples(task)
    batch = Batch(x if is_sequence else x[0], label)
    generator = torch.Generator().manual_seed(1)
    seen = set()
    for _ in range(12):
        mixed = trainer.training_batch(task, batch, generator)
        assert mixed.x.shape == batch.x.shape
        torch.testing.assert_close(mixed.label.sum(1), torch.ones(8))
        share = float(mixed.label.max(1).values.min())
        seen.add(round(share, 3))
    assert len(seen) > 3
    with pytest.raises(OptionError, match="mixed its samples already"):
        trainer.training_batch(task, mixed, generator)


def test_early_stopping_and_a_resumed_stop():
    options = {"epochs": 9, "batch_size": 24, "patience": 2, "min_delta": 2.0}  # no accuracy rises by 2
    trainer = Supervised(**options)
    task, recorder, _ = trained(trainer)
    assert sum(name == "epoch_end" for name, _ in recorder.events) == 3
    assert any("stopped after epoch 3" in note for note in recorder.notes)
    again = Supervised(**options)
    again.load_state_dict(trainer.state_dict())
    later = Recorder(seed=3)
    again.fit(task, later)
    assert not [event for event in later.events if event[0] == "epoch_end"]


class Poisoned:
    """A split with one sample that is no number."""

    def __init__(self, split, at):
        self._split, self._at = split, at

    def __len__(self):
        return len(self._split)

    def __getitem__(self, index):
        x, label = self._split[index]
        return (x * float("nan") if index == self._at else x), label


def test_a_loss_that_is_no_number_stops_before_the_weights_move():
    trainer = Supervised(epochs=1, batch_size=8)
    task = spiking_task(trainer)
    recorder = Recorder(trainer=trainer, model=task.model)
    with pytest.raises(RunError, match=r"epoch 1, step \d.*input of layer 0 \(Flatten\).*clip_norm"):
        trainer.fit(dataclasses.replace(task, train=Poisoned(task.train, 5)), recorder)
    assert all(parameter.isfinite().all() for parameter in task.model.parameters())


def test_the_layer_where_it_starts_is_named():
    trainer = Supervised(epochs=1, batch_size=48)
    task = spiking_task(trainer)
    task.model[1].register_forward_hook(lambda module, inputs, out: out / (out * 0))
    with pytest.raises(RunError, match=r"output of layer 1 \(Linear\)"):
        trainer.fit(task, Recorder())


def test_what_a_gpu_finds_out_late_is_not_saved():
    """On a GPU the loss is not read in each step; the flag that is kept there stops the next checkpoint."""
    trainer = Supervised(epochs=1, batch_size=48)
    task = spiking_task(trainer)
    trainer.fit(task, Recorder())
    trainer._passes._first_bad = torch.tensor(2.0)
    with pytest.raises(RunError, match="step 3"):
        trainer.state_dict()


def test_gradients_that_vanish_or_explode_are_told_with_cures():
    trainer = Supervised(epochs=2, batch_size=24, lr=1e-6)
    task = spiking_task(trainer)
    with torch.no_grad():
        task.model[1].bias.fill_(-50.0)  # no neuron fires, and the surrogate is flat there
    recorder = Recorder()
    trainer.fit(task, recorder)
    told = [note for note in recorder.notes if "3.weight vanishes" in note]
    assert len(told) == 1  # once, not after each epoch
    assert "v_threshold" in told[0]
    loud = spiking_task(trainer)
    loud.model[3].register_forward_hook(lambda module, inputs, out: out * 1e5)
    trainer, recorder = Supervised(epochs=1, batch_size=24, lr=1e-12), Recorder()
    trainer.fit(loud, recorder)
    assert any("explodes" in note and "clip_norm" in note for note in recorder.notes)


def test_memory_that_runs_out_names_the_settings():
    trainer = Supervised(epochs=1, batch_size=16, accumulate=2)
    task = spiking_task(trainer)

    def run_out(module, inputs):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    task.model.register_forward_pre_hook(run_out)
    with pytest.raises(
        RunError, match="memory = .save.*batch_size = 8 with trainer.accumulate = 4.*bfloat16.*truncate.*Tried to"
    ):
        trainer.fit(task, Recorder())


def test_a_batch_larger_than_the_split_is_refused():
    with pytest.raises(OptionError, match="batch_size = 49 .* has 48 samples"):
        spiking_task(Supervised(batch_size=49))


def test_workers_read_the_same_batches():
    options = {"epochs": 2, "batch_size": 7, "mixup": 0.5}
    plain, _, metrics = trained(Supervised(**options))
    ahead, _, others = trained(Supervised(**options, workers=2))
    assert same(weights(ahead.model), weights(plain.model))
    assert others == metrics


def test_compiled_and_channels_last_nets_train_alike():
    options = {"epochs": 2, "batch_size": 24}
    plain, _, _ = trained(Supervised(**options))
    compiled, _, _ = trained(Supervised(**options, compile=True, compile_backend="eager"))
    last, _, _ = trained(Supervised(**options, channels_last=True))
    for other in (compiled, last):
        for ours, theirs in zip(weights(other.model), weights(plain.model), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)


def test_deterministic_mode_is_on_while_it_trains_only():
    trainer, seen = Supervised(epochs=1, batch_size=24, deterministic=True), []
    task = spiking_task(trainer)
    task.model.register_forward_pre_hook(lambda *_: seen.append(torch.are_deterministic_algorithms_enabled()))
    trainer.fit(task, Recorder())
    assert seen
    assert all(seen)
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype):
    trainer = Supervised(epochs=6, batch_size=12, lr=0.02, clip_norm=1.0)
    task = spiking_task(trainer)
    metrics = trainer.fit(task, Recorder(dtype=dtype))
    assert metrics["val_accuracy"] > 0.6
    assert trainer.state_dict()["scaler"] == {} or dtype == torch.float16


class NoGradient(torch.autograd.Function):
    """Identity, whose gradient is nan."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad * float("nan")


class Spoiled(torch.nn.Module):
    """Identity; nan in evaluation, or on the way back."""

    def __init__(self, in_evaluation):
        super().__init__()
        self.in_evaluation = in_evaluation

    def forward(self, x):
        if not self.in_evaluation:
            return NoGradient.apply(x)
        return x if self.training else x * float("nan")


def test_float16_says_when_it_skips_all_steps_of_an_epoch():
    trainer = Supervised(epochs=1, batch_size=12)
    task, recorder = spiking_task(trainer), Recorder(dtype=torch.float16)
    task.model.append(Spoiled(in_evaluation=False))
    before = weights(task.model)
    trainer.fit(task, recorder)
    assert same(weights(task.model), before)
    assert "epoch 1: with float16 the gradient was not finite in any of its 4 steps, so no weight moved" in str(
        recorder.notes
    )
    _, recorder, _ = trained(Supervised(epochs=1, batch_size=12))
    assert "float16" not in str(recorder.notes)


def test_metrics_that_are_not_finite_are_told_once():
    trainer = Supervised(epochs=2, batch_size=12)
    task, recorder = spiking_task(trainer), Recorder()
    task.model.append(Spoiled(in_evaluation=True))
    trainer.fit(task, recorder)
    (note,) = [note for note in recorder.notes if "not finite" in note]
    assert note.startswith("epoch 1: not finite: val_loss. ")


def test_steps_are_logged_with_the_learning_rate():
    trainer = Supervised(epochs=2, batch_size=12, log_every=2, lr=0.5, schedule="constant")
    _, recorder, _ = trained(trainer)
    lines = [event for name, event in recorder.events if name == "log"]
    assert [line.get("step") for line in lines] == [2, 4, None, 6, 8, None]
    assert [line["epoch"] for line in lines] == [0.5, 1.0, 1, 1.5, 2.0, 2]
    assert {line["lr"] for line in lines if "lr" in line} == {0.5}


def test_regression_measures_errors():
    trainer = Regression(epochs=3, batch_size=12, lr=0.05, loss={"name": "mse", "value": "last"})
    task, _, metrics = trained(trainer)
    x = torch.stack([task.test[index][0] for index in range(24)]).expand(4, -1, -1, -1, -1)
    wanted = torch.stack([task.test[index][1] for index in range(24)])
    with torch.no_grad():
        error = task.model.eval()(x)[-1] - wanted
    assert metrics["test_mse"] == pytest.approx(error.square().mean().item(), rel=1e-5)
    assert metrics["test_mae"] == pytest.approx(error.abs().mean().item(), rel=1e-5)
    assert metrics["test_loss"] == pytest.approx(metrics["test_mse"], rel=1e-5)


def test_firing_rates_are_counted_by_layer():
    trainer = Supervised(epochs=1, batch_size=16, firing_rates=True)
    task, recorder, metrics = trained(trainer)
    x = torch.stack([task.test[index][0] for index in range(24)]).expand(4, -1, -1, -1, -1)
    with torch.no_grad():
        spikes = task.model[:3](x)
    assert metrics["test_firing_rate"] == pytest.approx(spikes.mean().item(), rel=1e-6)
    assert metrics["test_silent"] == pytest.approx((spikes.sum((0, 1)) == 0).float().mean().item())
    (row,) = recorder.gallery.values["firing rates"].rows
    assert row[:2] == ("2", pytest.approx(spikes.mean().item(), abs=1e-6))


class Halves:
    """Sequences of which every second one has its first two steps only, padded with noise."""

    def __init__(self, split):
        self._split = split

    def __len__(self):
        return len(self._split)

    def __getitem__(self, index):
        return self._split[index]

    def collate(self, own, generator):
        x = torch.stack([x for x, _ in own], 1)
        mask = torch.ones(x.shape[:2], dtype=torch.bool)
        mask[2:, 1::2] = False
        return Batch(x, torch.tensor([label for _, label in own]), mask)


def test_firing_rates_leave_padding_out():
    trainer = Supervised(epochs=0, batch_size=16, firing_rates=True)
    task = spiking_task(trainer, is_sequence=True)
    metrics = trainer.fit(dataclasses.replace(task, test=Halves(task.test), val=None), Recorder())
    x = torch.stack([task.test[index][0] for index in range(24)], 1)
    with torch.no_grad():
        spikes = task.model[:3](x)
    own = torch.cat([spikes[:2].flatten(0, 1), spikes[2:, ::2].flatten(0, 1)])
    assert metrics["test_firing_rate"] == pytest.approx(own.mean().item(), rel=1e-6)
    assert metrics["test_firing_rate"] != pytest.approx(spikes.mean().item(), rel=1e-3)


@pytest.mark.parametrize(("loss", "cure"), [("cross_entropy", "mse"), ("mse", "cross_entropy")])
def test_a_loss_that_does_not_take_the_labels_of_sequences_is_refused(loss, cure):
    trainer = Sequence(epochs=1, batch_size=16, loss=loss)
    task = spiking_task(Sequence(batch_size=16))
    if cure == "cross_entropy":
        classes = [(x, torch.zeros(len(x), dtype=torch.int64)) for x, _ in (task.train[index] for index in range(16))]
        task = dataclasses.replace(task, train=classes)
    with pytest.raises(OptionError, match=f"set trainer.loss = '{cure}'"):
        trainer.fit(task, Recorder())


class Labelled:
    """A split whose labels are known beforehand."""

    def __init__(self, split, labels):
        self._split, self.labels = split, torch.tensor(labels)

    def __len__(self):
        return len(self._split)

    def __getitem__(self, index):
        return self._split[index]


def test_classes_without_samples_are_named():
    trainer = Supervised(epochs=0, batch_size=16)
    task = spiking_task(trainer)
    splits = {"train": Labelled(task.train, [0, 1] * 24), "test": Labelled(task.test, [0, 1, 2])}
    task, recorder = dataclasses.replace(task, **splits, classes=("cat", "dog", "owl")), Recorder()
    trainer.fit(task, recorder)
    (note,) = [note for note in recorder.notes if "no sample" in note]
    assert "'train' has no sample of 1 of 3 classes ('owl'): they cannot be learned" in note

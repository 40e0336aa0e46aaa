"""The simulated camera against its model; ndigits and moving-bars, by themselves and through `spike run`."""

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch

import spikecore
import spikecore_datasets_dvs.embedded as module
from spikecore import create
from spikecore.errors import DatasetError, OptionError
from spikecore.interfaces.task import Task
from spikecore.run.config import resolve
from spikecore.run.experiment import Context
from spikecore_datasets_dvs.camera import Camera
from spikecore_datasets_dvs.embedded import saccade
from spikecore_datasets_dvs.representations import Frames
from spikecore_datasets_dvs.transforms import EventCutMix, RandomFlip, RandomTemporalDelete


def rng(seed=0):
    return np.random.default_rng(seed)


def test_one_pixel_follows_the_model():
    """ln I rises by 1 over 1000 µs, then falls by 0.5: events at each multiple of 0.3, at the moment of crossing."""
    camera = Camera(threshold=0.3, epsilon=1e-12)
    frames = [np.full((1, 1, 1), math.exp(level)) for level in (0.0, 1.0, 0.5)]
    (events,) = camera.record(frames, np.array([0, 1000, 2000]), rng())
    assert events.t.tolist() == [300, 600, 900, 1800]
    assert events.p.tolist() == [1, 1, 1, 0]


def test_a_pixel_is_silent_below_its_threshold_and_remembers():
    camera = Camera(threshold=0.3, epsilon=1e-12)
    levels = [0.0, 0.2, 0.0, 0.2, 0.35]
    (events,) = camera.record([np.full((1, 1, 1), math.exp(v)) for v in levels], np.arange(5) * 100, rng())
    assert len(events) == 1
    assert events.t[0] == pytest.approx(300 + 100 * 0.1 / 0.15, abs=1)


def test_refractory_time_loses_events_and_noise_has_its_rate():
    frames = [np.full((1, 1, 1), math.exp(level)) for level in (0.0, 1.0)]
    (events,) = Camera(threshold=0.1, epsilon=1e-12, refractory_us=250).record(frames, np.array([0, 1000]), rng())
    assert events.t.tolist() == [100, 400, 700, 1000]
    still = [np.ones((4, 20, 20))] * 2
    noisy = Camera(noise_hz=50.0).record(still, np.array([0, 1_000_000]), rng())
    assert sum(map(len, noisy)) == pytest.approx(4 * 400 * 50, rel=0.05)
    assert np.mean([events.p.mean() for events in noisy]) == pytest.approx(0.5, abs=0.02)
    assert all(len(events) == 0 for events in Camera().record(still, np.array([0, 1000]), rng()))


def test_mismatch_spreads_the_thresholds():
    frames = [np.full((1, 50, 50), math.exp(level)) for level in (0.0, 10.0)]
    (events,) = Camera(threshold=0.5, mismatch=0.1, epsilon=1e-12).record(frames, np.array([0, 1000]), rng())
    counts = np.bincount(events.y * 50 + events.x, minlength=2500)
    assert counts.mean() == pytest.approx(20, abs=0.5)
    assert (10 / counts).std() == pytest.approx(0.05, rel=0.15)


@pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf])
def test_intensities_that_are_none(bad):
    with pytest.raises(DatasetError, match="negative or not finite"):
        Camera().record([np.full((1, 2, 2), bad)], np.array([0]), rng())
    with pytest.raises(DatasetError, match="at least one frame"):
        Camera().record([], np.array([]), rng())


def test_saccades_close_a_triangle():
    corners = [saccade(time, 8.0) for time in (0, 100_000, 200_000, 300_000)]
    assert corners == [(-4, -4), (0, 4), (4, -4), (-4, -4)]
    assert saccade(50_000, 8.0) == (-2, 0)
    steps = np.diff([saccade(time, 8.0) for time in np.linspace(0, 300_000, 301)], axis=0)
    assert np.abs(steps).max() <= 0.081


@pytest.mark.parametrize("name", ["ndigits", "moving-bars"])
def test_embedded_data_are_what_their_info_says(embedded, name):
    dataset = create("dataset", name)
    assert dataset.capabilities.embedded
    for split, count in dataset.info.num_samples:
        part = dataset.split(split)
        assert len(part) == count
        x, label = part[3]
        assert x.shape == (10, *dataset.sample_shape)
        assert x.dtype == torch.float32
        assert label == part.labels[3]
        assert x.sum() == len(part.events(3)[0])
    assert set(part.labels.tolist()) == set(range(dataset.num_outputs))


def test_the_digits_keep_their_labels(embedded):
    ours, theirs = create("dataset", "ndigits").split("test"), create("dataset", "digits").split("test")
    assert torch.equal(ours.labels, theirs.labels)
    # Where a digit is bright, its moving edges make events.
    busy = torch.stack([ours[i][0].sum((0, 1)) for i in range(50)])[:, 4:20, 4:20]
    bright = torch.nn.functional.interpolate(theirs.images[:50], scale_factor=2, mode="bilinear")[:, 0]
    correlation = torch.corrcoef(torch.stack([busy.flatten(), bright.flatten()]))[0, 1]
    assert correlation > 0.4


def test_simulation_repeats_itself(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "CHUNK", 16)
    parts = []
    for directory in ("a", "b"):
        monkeypatch.setenv("SPIKECORE_DATA", str(tmp_path / directory))
        split = create("dataset", "moving-bars", num_train=8, num_test=2, cache=False).split("train")
        parts.append([split.events(i)[0] for i in range(len(split))])
    assert parts[0] == parts[1]
    assert parts[0][0] != parts[0][4]


def test_bars_give_every_pixel_the_same_number_of_events_whatever_the_class(embedded):
    split = create("dataset", "moving-bars", representation={"name": "frames", "num_steps": 1}).split("train")
    sums = torch.stack([torch.stack([split[i][0][0] for i in range(c, 800, 4)]).mean(0) for c in range(4)])
    assert sums.std(0).max() < 0.15 * sums.mean()


class Summed:
    """The same samples with the sum over time at every step."""

    def __init__(self, split):
        self.split = split

    def __len__(self):
        return len(self.split)

    def __getitem__(self, index):
        x, label = self.split[index]
        return x.mean(0, keepdim=True).expand_as(x), label


def accuracy(dataset, wrap):
    torch.manual_seed(0)
    net = create("model", "mlp", lambda: create("neuron", "lif"), dataset.sample_shape, 4, hidden=(64,))
    train, test = wrap(dataset.split("train")), wrap(dataset.split("test"))
    task = Task(net, create("encoder", "direct"), train, test, 4, is_sequence=True)
    context = Context(torch.device("cpu"), torch.float32, torch.Generator().manual_seed(0), net)
    return create("trainer", "classify", epochs=8).fit(task, context)["test_accuracy"]


def test_the_spiking_net_reads_the_timing_and_the_sum_over_time_tells_nothing(embedded):
    dataset = create("dataset", "moving-bars")
    assert accuracy(dataset, lambda split: split) >= 0.95
    assert abs(accuracy(dataset, Summed) - 0.25) <= 0.10


@pytest.mark.parametrize(("name", "wanted"), [("moving-bars", 0.95), ("ndigits", 0.85)])
def test_spike_run_trains_on_events(embedded, name, wanted, tmp_path):
    sets = ["model.name=mlp", "model.hidden=[128]", "trainer.epochs=8", f"dataset.name={name}"]
    config = resolve(None, sets)
    assert (
        resolve({"dataset": {"name": name, "representation": "frames"}}).tables["dataset"] == config.tables["dataset"]
    )
    assert spikecore.run(config, out=tmp_path / "run").metrics["test_accuracy"] >= wanted


ONE_STEP = "dataset.representation={name='frames', num_steps=1}"


def test_spike_run_on_the_sum_over_time_stays_at_chance(embedded, tmp_path):
    """The same net as above, given all events of a recording at once: 25 % is chance."""
    sets = ["model.name=mlp", "model.hidden=[128]", "trainer.epochs=8", "dataset.name=moving-bars", ONE_STEP]
    assert abs(spikecore.run(resolve(None, sets), out=tmp_path / "run").metrics["test_accuracy"] - 0.25) <= 0.10


@pytest.mark.parametrize(
    ("sets", "low", "high"),
    [
        (["dataset.name=moving-bars"], 0.95, 1.0),
        (["dataset.name=moving-bars", ONE_STEP], 0.15, 0.35),
        (["dataset.name=ndigits", "model.name=mlp", "model.hidden=[256]", "trainer.epochs=30"], 0.94, 1.0),
    ],
)
def test_the_runs_that_the_readme_shows(embedded, tmp_path, sets, low, high):
    if not os.environ.get("SPIKE_FULL"):
        pytest.skip("half a minute: SPIKE_FULL=1 runs this")
    assert low <= spikecore.run(resolve(None, sets), out=tmp_path / "run").metrics["test_accuracy"] <= high


EXAMPLE = Path(__file__).parents[1] / "examples" / "ndigits.toml"


def test_the_example_builds_the_net_that_it_describes(embedded):
    resolved = resolve(EXAMPLE)
    dataset = create("dataset", "ndigits", **resolved.options("dataset"))
    assert dataset.sample_shape == (2, 12, 12)
    assert dataset.split("test")[0][0].shape == (6, 2, 12, 12)
    assert resolved.options("model")["channels"] == (32, 64)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_example_reads_the_digits(embedded, tmp_path, seed):
    if not os.environ.get("SPIKE_FULL"):
        pytest.skip("a minute: SPIKE_FULL=1 runs this")
    result = spikecore.run(resolve(EXAMPLE, [f"run.seed={seed}"]), out=tmp_path / "run")
    assert result.metrics["test_accuracy"] >= 0.96


def test_a_configuration_chooses_representation_and_transforms(embedded):
    tables = {
        "dataset": {
            "name": "moving-bars",
            "representation": {"name": "voxel_grid", "num_steps": 5},
            "transforms": ["denoise", {"name": "crop", "height": 8, "width": 12}],
            "augment": [{"name": "random_flip", "axis": "y", "p": 0.25}],
        }
    }
    resolved = resolve(tables)
    import tomllib

    assert resolve(tomllib.loads(resolved.to_toml())) == resolved
    dataset = create("dataset", "moving-bars", **resolved.options("dataset"))
    assert dataset.sample_shape == (1, 8, 12)
    assert dataset.split("train")[0][0].shape == (5, 1, 8, 12)
    assert dataset.split("train").cache is None
    assert dataset.split("test").cache is not None


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            {"representation": "voxels"},
            "no event_representation 'voxels'. Did you mean 'voxel_grid'",
        ),
        (
            {"representation": {"name": "frames", "by": "colour"}},
            "option 'representation.by' must be one of 'time', 'number'",
        ),
        ({"transforms": ["crop"]}, "option 'transforms\\[0\\].height' is required"),
        ({"transforms": [RandomFlip()]}, "option 'transforms\\[0\\]' takes crop"),
        ({"transforms": "flip"}, "must be a list"),
        ({"transforms": [{"name": "crop", "height": 99, "width": 9}]}, "larger than the sensor"),
        (
            {"augment": [{"name": "random_crop", "height": 12, "width": 10}]},
            r"training split are \(12, 10\) behind 'augment', those of the test split \(16, 16\)",
        ),
        ({"augment": [{"name": "random_crop", "height": 20, "width": 16, "padding": 1}]}, "larger than the sensor"),
        ({"augment": ["flip"]}, "'augment\\[0\\]': no event_augment 'flip'"),
        ({"representation": lambda events, size: None}, r"wrap a function of your own: Custom\(function\)"),
        ({"share": 0.0}, "must be > 0"),
    ],
)
def test_wrong_options(options, says):
    with pytest.raises((OptionError, DatasetError), match=says):
        create("dataset", "moving-bars", **options)


def test_augmentation_is_drawn_anew_every_epoch_and_repeats_itself(embedded):
    def split():
        return create("dataset", "moving-bars", augment=[{"name": "drop_events", "p": 0.5}], seed=1).split("train")

    first, second = split(), split()
    assert torch.equal(first[5][0], second[5][0])
    before = first[5][0]
    first.set_epoch(1)
    assert not torch.equal(first[5][0], before)
    plain = create("dataset", "moving-bars").split("train")[5][0]
    assert 0.3 < before.sum() / plain.sum() < 0.7


def test_frames_may_be_augmented_behind_the_cache(embedded):
    split = create("dataset", "moving-bars", augment=[RandomTemporalDelete(num_steps=6)]).split("train")
    assert split.cache is not None
    assert split[0][0].shape[0] == 6


def test_cutmix_mixes_boxes_and_labels(embedded):
    split = create("dataset", "moving-bars", augment=[EventCutMix()]).split("train")
    samples = [split[i] for i in range(8)]
    plain = split.collate(samples, None)
    assert plain.label.tolist() == [label for _, label in samples]
    mixed = split.collate(samples, torch.Generator().manual_seed(3))
    again = split.collate(samples, torch.Generator().manual_seed(3))
    assert torch.equal(mixed.x, again.x)
    assert mixed.x.shape == plain.x.shape
    assert mixed.label.shape == (8, 4)
    torch.testing.assert_close(mixed.label.sum(1), torch.ones(8))
    # The box, found from the pictures themselves, has the share that the labels say.
    changed = (mixed.x != plain.x).any(0).any(1).any(0)
    height, width = changed.any(1).sum(), changed.any(0).sum()
    others = 1 - mixed.label[torch.arange(8), plain.label].min()
    assert float(height * width) / 256 == pytest.approx(float(others), abs=0.08)


def test_streaming_gives_what_the_cache_gives(embedded):
    cached, streamed = (create("dataset", "moving-bars", cache=flag).split("test") for flag in (True, False))
    assert streamed.cache is None
    assert all(torch.equal(cached[i][0], streamed[i][0]) for i in range(0, 200, 17))


def test_everything_that_matters_is_in_the_key(embedded):
    def key(**options):
        return create("dataset", "moving-bars", num_train=4, num_test=4, **options).split("test").cache.directory

    keys = [
        key(),
        key(representation=Frames(num_steps=4)),
        key(representation=Frames(by="number")),
        key(representation="binary"),
        key(transforms=["denoise"]),
        key(transforms=[{"name": "denoise", "window_us": 5}]),
        key(share=0.5),
        key(share=0.5, seed=1),
    ]
    assert len(set(keys)) == len(keys)
    assert key() == keys[0]
    assert key(seed=1) == keys[0]  # all samples, whatever the seed


def test_samples_reach_the_workers_of_a_loader(embedded):
    split = create("dataset", "moving-bars").split("test")
    split.events(0)
    loader = torch.utils.data.DataLoader(split, batch_size=50, num_workers=2, collate_fn=split.collate)
    labels = torch.cat([batch.label for batch in loader])
    assert torch.equal(labels, split.labels)


def test_an_index_outside(embedded):
    split = create("dataset", "moving-bars").split("test")
    assert torch.equal(split[-1][0], split[199][0])
    with pytest.raises(IndexError, match="200 of 200"):
        split[200]
    with pytest.raises(OptionError, match="splits train, test; got 'valid'"):
        create("dataset", "moving-bars").split("valid")


def test_recordings_of_different_lengths_train(embedded, tmp_path):
    sets = ["dataset.name=moving-bars", "dataset.representation={name='fixed_duration', duration_us=8000}"]
    sets += ["dataset.augment=['event_cutmix']", "model.name=mlp", "model.hidden=[128]", "trainer.epochs=12"]
    split = create("dataset", "moving-bars", representation={"name": "fixed_duration", "duration_us": 8000}).split(
        "test"
    )
    assert len({split.num_steps(i) for i in range(200)}) > 2
    assert spikecore.run(resolve(None, sets), out=tmp_path / "run").metrics["test_accuracy"] >= 0.9

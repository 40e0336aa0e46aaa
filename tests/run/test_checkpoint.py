"""Checkpoints as files: complete or not there, verified byte by byte, nothing that pickles."""

import json
import math
import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spikecore.errors import CheckpointError, ContractError
from spikecore.run.checkpoint import CheckpointStore, differences
from spikecore.run.log import EMPTY
from spikecore.run.tree import flatten, restore

PARTS = ("model.safetensors", "state.safetensors", "checkpoint.json")
tensors = st.builds(
    lambda shape, dtype, seed: (torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 9).to(dtype),
    st.lists(st.integers(0, 3), max_size=3),
    st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.uint8, torch.bool]),
    st.integers(0, 99),
)
keys = st.text(max_size=5) | st.integers(-3, 3)
plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
trees = st.recursive(
    plain | tensors,
    lambda inner: (
        st.lists(inner, max_size=3) | st.lists(inner, max_size=3).map(tuple) | st.dictionaries(keys, inner, max_size=3)
    ),
    max_leaves=8,
)


def same(a, b):
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and (a.dtype, a.shape) == (b.dtype, b.shape) and bits(a) == bits(b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and type(a) is type(b) and all(map(same, a, b))
    if isinstance(a, float):
        if math.isnan(a):  # its sign means nothing
            return type(b) is float and math.isnan(b)
        return type(b) is float and (math.copysign(1, a), str(a)) == (math.copysign(1, b), str(b))
    return type(a) is type(b) and a == b


def bits(tensor):
    return tensor.contiguous().view(-1).view(torch.uint8).tolist() if tensor.numel() else []


@given(trees)
@settings(deadline=None, max_examples=150)
def test_any_state_comes_back_as_it_was(tree):
    data, tensors = flatten(tree)
    assert same(restore(json.loads(json.dumps(data)), tensors), tree)


@pytest.mark.parametrize("tree", [{"$tensor": "x"}, {"$items": []}, {"$float": "a"}, {"a": {"$tuple": [1]}}, {1: 2}])
def test_keys_that_look_like_ours_are_no_trap(tree):
    data, tensors = flatten(tree)
    assert restore(json.loads(json.dumps(data)), tensors) == tree


def test_tensors_that_share_memory_are_stored_each_by_itself(tmp_path):
    base = torch.arange(6.0).reshape(2, 3)
    state = {"tied": base, "also": base, "view": base[1], "turned": base.t(), "wide": torch.ones(1).expand(4)}
    store = CheckpointStore(tmp_path, "r")
    store.save(1, state, {})
    assert same(store.read("checkpoint-00000001").model, {name: value.clone() for name, value in state.items()})


@pytest.mark.parametrize("value", [object(), {1, 2}, lambda: 0, b"x", torch.eye(2).to_sparse()])
def test_what_only_pickle_could_save_is_refused_with_its_place(value, tmp_path):
    with pytest.raises(ContractError, match=r"optimizer\.momentum"):
        CheckpointStore(tmp_path, "r").save(1, {}, {"optimizer": {"momentum": value}})
    assert not (tmp_path / "checkpoints").exists()


def filled(folder, scores=(None, 0.5, 0.9, 0.7, 0.9), **options):
    folder.mkdir(exist_ok=True)  # the run directory: a store does not make it again
    store = CheckpointStore(folder, "r", **options)
    for count, score in enumerate(scores, 1):
        model = {"w": torch.full((3,), float(count)), "b": torch.zeros(2)}
        store.save(count, model, {"n": count}, score=score, log=dict(EMPTY), timings={})
    return store


def name(count):
    return f"checkpoint-{count:08d}"


def test_the_last_and_the_first_best_are_kept(tmp_path):
    store = filled(tmp_path)
    assert store.names() == [name(3), name(4), name(5)]
    assert store.find("best") == name(3)
    assert store.find("last") == name(5)
    assert filled(tmp_path / "one", keep_last=1, keep_best=False).names() == [name(5)]
    assert filled(tmp_path / "nan", scores=(0.1, math.nan, None)).find("best") == name(1)


@pytest.mark.parametrize("weight", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_never_the_best(tmp_path, weight):
    store = CheckpointStore(tmp_path, "abc", keep_last=1)
    for count, (value, score) in enumerate([(1.0, 0.2), (weight, 0.9), (2.0, 0.1)], 1):
        model = {"w": torch.tensor([0.0, value]), "n": torch.tensor(3)}
        store.save(count, model, {}, score=score, log=dict(EMPTY), timings={})
    assert store.find("best") == name(1)
    assert store.names() == [name(1), name(3)]


def test_order_is_by_count_whatever_clocks_and_digits_say(tmp_path, monkeypatch):
    store = CheckpointStore(tmp_path, "r", keep_last=9)
    for count in (7, 99_999_999, 100_000_000):
        store.save(count, {}, {"n": count})
        os.utime(tmp_path / "checkpoints" / store.names()[-1], (1e9 - count, 1e9 - count))  # each older than the last
    assert [store.read(name).state["n"] for name in store.names()] == [7, 99_999_999, 100_000_000]


def test_saving_again_what_is_there_writes_nothing_and_another_state_gets_another_name(tmp_path):
    store = CheckpointStore(tmp_path, "r")
    first = store.save(4, {}, {"n": 1})
    at = (tmp_path / "checkpoints" / first / "checkpoint.json").stat().st_mtime_ns
    assert store.save(4, {}, {"n": 1}) == first
    assert (tmp_path / "checkpoints" / first / "checkpoint.json").stat().st_mtime_ns == at
    assert store.save(4, {}, {"n": 2}) == name(5)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_every_flipped_bit_is_noticed(part, share, tmp_path):
    store = filled(tmp_path)
    path = tmp_path / "checkpoints" / name(5) / part
    data = bytearray(path.read_bytes())
    data[int(share * len(data))] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(CheckpointError, match=r"damaged|checkpoint format"):
        store.read(name(5))
    assert store.read(name(4)).state == {"n": 4}


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("share", [None, 0.0, 0.5, 0.99])
def test_truncated_and_half_renamed(part, share, tmp_path):
    store = filled(tmp_path)
    path = tmp_path / "checkpoints" / name(5) / part
    data = path.read_bytes()
    if share is None:
        path.unlink()
    else:
        path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(CheckpointError, match="incomplete" if share is None else "truncated|damaged"):
        store.read(name(5))


def test_bytes_after_the_end_are_noticed(tmp_path):
    store = filled(tmp_path)
    with (tmp_path / "checkpoints" / name(5) / "model.safetensors").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(CheckpointError, match="truncated or padded"):
        store.read(name(5))


@pytest.mark.parametrize("version", [0, 1, "2", None])
def test_a_foreign_version_is_named(version, tmp_path):
    store = filled(tmp_path)
    path = tmp_path / "checkpoints" / name(5) / "checkpoint.json"
    index = json.loads(path.read_text())
    path.write_text(json.dumps({**index, "format": version, "spikecore": "9.9"}))
    with pytest.raises(CheckpointError, match=rf"format {version!r}, written by spikecore 9\.9.*reads format 3"):
        store.read(name(5))


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    filled(tmp_path)
    with pytest.raises(CheckpointError, match="belongs to run r, this is run other"):
        CheckpointStore(tmp_path, "other").read(name(5))


def test_a_renamed_checkpoint_is_refused_since_names_tell_the_order(tmp_path):
    store = filled(tmp_path)
    store.path(name(3)).rename(store.path(name(9)))
    with pytest.raises(CheckpointError, match=f"was renamed: it was written as {name(3)}"):
        store.read(name(9))
    assert store.read(name(5)).count == 5


def test_a_file_in_the_place_of_a_newer_checkpoint_goes_with_it(tmp_path):
    store = filled(tmp_path)
    store.path(name(9)).write_text("")
    assert store.keep_until(name(5)) == [name(9)]
    assert store.names() == [name(3), name(4), name(5)]


def test_names_lead_nowhere_else(tmp_path):
    store = filled(tmp_path)
    for wrong in ("../x", "checkpoint-1", name(2), "", "checkpoint-00000005.partial"):
        with pytest.raises(CheckpointError, match="no checkpoint"):
            store.find(wrong)
    with pytest.raises(CheckpointError, match="holds no checkpoint yet"):
        CheckpointStore(tmp_path / "empty", "r").find("last")


def test_differences_are_told_by_key():
    net = {"a": torch.zeros(2), "b": torch.zeros(3), "c": torch.zeros(1)}
    other = {"a": torch.zeros(2), "b": torch.zeros(4), "d": torch.zeros(1)}
    assert differences(net, net) == []
    assert differences(net, other) == [
        "c: missing from the checkpoint",
        "d: unknown to the net",
        "b: (4,) float32 in the checkpoint, (3,) float32 in the net",
    ]


def test_nothing_is_pickled(tmp_path):
    filled(tmp_path)
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or path.name in PARTS

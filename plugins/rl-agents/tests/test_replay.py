"""The replay buffer: what it returns of trajectories written by hand, how often, and how much memory it takes."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from spikecore.errors import OptionError, RunError
from spikecore_rl_agents import replay
from spikecore_rl_agents.priorities import SumTree
from spikecore_rl_agents.replay import ReplayBuffer
from spikecore_rl_agents.vector import Moves


def moves(followed, reward, terminated=False, truncated=False):
    return Moves(
        followed=torch.tensor([[float(followed)]]),
        rewards=torch.tensor([float(reward)]),
        terminated=torch.tensor([terminated]),
        truncated=torch.tensor([truncated]),
        returns=(0.0,) if terminated or truncated else (),
        lengths=(1,) if terminated or truncated else (),
    )


def buffer(capacity=32, **options):
    return ReplayBuffer(capacity, 1, (1,), torch.float32, gamma=0.5, **options)


def filled(**options):
    """s 0 1 2 (terminated in 3), s 10 11 (cut in 12), s 20 21 running; the reward of a step is 2^k of its number."""
    made = buffer(**options)
    steps = [(0, 1, 1), (1, 2, 2), (2, 3, 4, True), (10, 11, 8), (11, 12, 16, False, True), (20, 21, 32), (21, 22, 64)]
    for action, (state, *rest) in enumerate(steps):
        made.add(torch.tensor([[float(state)]]), torch.tensor([action]), moves(*rest))
    return made


def everything(made, size=600):
    """State → (action, R, D, s') of all that is sampled; each state must always give the same."""
    sample = made.sample(size, torch.Generator().manual_seed(0))
    seen = {}
    columns = (sample.observations, sample.actions, sample.returns, sample.discounts, sample.followed)
    for state, *values in zip(*(column.flatten().tolist() for column in columns), strict=True):
        assert seen.setdefault(state, tuple(values)) == tuple(values)
    return seen


def test_one_step():
    assert everything(filled()) == {
        0.0: (0, 1.0, 0.5, 1.0),
        1.0: (1, 2.0, 0.5, 2.0),
        2.0: (2, 4.0, 0.0, 3.0),  # terminated: nothing follows
        10.0: (3, 8.0, 0.5, 11.0),
        11.0: (4, 16.0, 0.5, 12.0),  # cut: its last observation follows, not the next episode's first
        20.0: (5, 32.0, 0.5, 21.0),  # 21 is the newest: what followed is not known yet
    }


def test_three_steps():
    assert everything(filled(num_steps=3)) == {
        0.0: (0, 1 + 2 / 2 + 4 / 4, 0.0, 3.0),
        1.0: (1, 2 + 4 / 2, 0.0, 3.0),
        2.0: (2, 4.0, 0.0, 3.0),
        10.0: (3, 8 + 16 / 2, 0.25, 12.0),  # two steps up to the cut
        11.0: (4, 16.0, 0.5, 12.0),
        20.0: (5, 32.0, 0.5, 21.0),
    }


@pytest.mark.parametrize("alpha", [0.0, 0.7])
def test_a_full_ring_forgets_the_oldest(alpha):
    made = buffer(capacity=8, alpha=alpha)
    for step in range(50):
        over = step % 7 == 6
        made.add(
            torch.tensor([[float(step)]]), torch.tensor([step]), moves(step + 0.5 if over else step + 1, step, over)
        )
        if len(made) > 2:
            seen = everything(made, 200)
            assert all(state <= step - 1 or over for state in seen), "the newest step has no next observation"
            assert all(state > step - 8 for state in seen), "it was overwritten"
            for state, (action, reward, discount, followed) in seen.items():
                ended = state % 7 == 6
                assert (action, reward, discount) == (state, state, 0.0 if ended else 0.5)
                assert followed == (state + 0.5 if ended else state + 1)
    assert len(made) == 8


def test_uniform_samples_are_uniform():
    made = buffer(capacity=101)
    for step in range(100):
        made.add(torch.tensor([[float(step)]]), torch.tensor([step]), moves(step + 1, 0))
    count, bins = 99_000, 99
    drawn = made.sample(count, torch.Generator().manual_seed(1)).observations.flatten().long()
    counts = torch.bincount(drawn, minlength=bins).double()
    assert len(counts) == bins
    chi2 = float(((counts - count / bins).square() / (count / bins)).sum())
    assert chi2 < 98 + 4 * (2 * 98) ** 0.5, "chi² of 98 degrees of freedom, 4 deviations"


def test_priorities_decide_how_often_and_weights_make_up_for_it():
    alpha, beta = 0.6, 0.5
    made = buffer(capacity=16, alpha=alpha)
    for step in range(5):
        made.add(torch.tensor([[float(step)]]), torch.tensor([step]), moves(step + 1, 0))
    errors = torch.tensor([1.0, 2.0, 4.0, 8.0])
    made.update(torch.arange(4), errors)
    sample = made.sample(40_000, torch.Generator().manual_seed(2), beta)
    wanted = errors.double() ** alpha / (errors.double() ** alpha).sum()
    shares = torch.bincount(sample.observations.flatten().long(), minlength=4) / 40_000
    torch.testing.assert_close(shares.double(), wanted, atol=0.005, rtol=0)
    ratio = wanted**-beta
    for state in range(4):
        weight = sample.weights[sample.observations.flatten() == state]
        torch.testing.assert_close(weight, (ratio[state] / ratio.max()).float().expand_as(weight), rtol=1e-5, atol=0)


def test_new_steps_have_the_highest_priority_and_every_draw_has_a_part_of_its_own():
    made = buffer(capacity=16, alpha=1.0)
    for step in range(3):
        made.add(torch.tensor([[float(step)]]), torch.tensor([step]), moves(step + 1, 0))
    made.update(torch.tensor([0]), torch.tensor([9.0]))
    made.add(torch.tensor([[3.0]]), torch.tensor([3]), moves(4, 0))
    made.add(torch.tensor([[4.0]]), torch.tensor([4]), moves(5, 0))
    # Priorities 9, 1, 1 and, new, 9; of 20 equal parts the first 9 are all state 0.
    counts = torch.bincount(made.sample(20, torch.Generator().manual_seed(0)).observations.flatten().long())
    assert counts.tolist() == [9, 1, 1, 9]


def test_sum_tree_against_a_plain_search():
    generator = torch.Generator().manual_seed(0)
    tree, plain = SumTree(37), torch.zeros(37, dtype=torch.float64)
    for _ in range(20):
        index = torch.randperm(37, generator=generator)[:11]
        values = torch.rand(11, generator=generator, dtype=torch.float64) * (torch.rand(11, generator=generator) > 0.3)
        tree.set(index, values)
        plain[index] = values
        assert tree.total == pytest.approx(float(plain.sum()))
        points = torch.rand(200, generator=generator, dtype=torch.float64) * tree.total
        wanted = torch.searchsorted(plain.cumsum(0), points, right=True)
        assert torch.equal(tree.find(points), wanted)
        assert bool((tree.priorities(tree.find(torch.tensor([0.0, tree.total]))) > 0).all())


def test_a_saved_buffer_goes_on_in_the_same_way():
    made = filled(alpha=0.6, num_steps=2)
    made.update(torch.tensor([0, 1]), torch.tensor([3.0, 0.5]))
    other = buffer(alpha=0.6, num_steps=2)
    other.load_state_dict(made.state_dict())
    for memory in (made, other):
        memory.add(torch.tensor([[22.0]]), torch.tensor([7]), moves(23, 5, truncated=True))
    first, second = (memory.sample(64, torch.Generator().manual_seed(1), 0.4) for memory in (made, other))
    for name in vars(first):
        assert torch.equal(getattr(first, name), getattr(second, name)), name
    with pytest.raises(RunError, match="cannot change when a run is resumed"):
        buffer(capacity=4).load_state_dict(made.state_dict())


def test_memory_is_stated_and_bounded():
    made = ReplayBuffer(1000, 4, (4, 84, 84), torch.uint8, alpha=0.5)
    held = (
        sum(value.nbytes for value in vars(made).values() if isinstance(value, torch.Tensor)) + made._tree._nodes.nbytes
    )
    assert made.memory_bytes == pytest.approx(held, rel=1e-3)
    assert made.memory_bytes >= 1000 * 4 * 84 * 84


def test_more_than_there_is_memory_for_is_refused(monkeypatch):
    monkeypatch.setattr(replay, "free_bytes", lambda: 2**30)
    says = (
        r"1000000 slots take 26\.\d+ GiB, and 105\.\d+ GiB while a checkpoint is written; 1\.00 GiB .* at most 85\d\d"
    )
    with pytest.raises(OptionError, match=says):
        ReplayBuffer(1_000_000, 1, (4, 84, 84), torch.uint8)
    with pytest.raises(OptionError, match="use 12 or more"):
        ReplayBuffer(8, 2, (1,), torch.float32, num_steps=4)


def test_nothing_is_sampled_from_nothing():
    for alpha in (0.0, 0.5):
        with pytest.raises(RunError, match="act first"):
            buffer(alpha=alpha).sample(1, torch.Generator())


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc tells the peak of this process alone")
def test_a_checkpoint_of_the_buffer_takes_no_more_than_is_stated():
    """Peak memory of a process that saves a buffer of 80 MB as a checkpoint does."""
    text = (
        "import re, torch\n"
        "from pathlib import Path\n"
        "from spikecore_rl_agents.replay import COPIES_WHILE_SAVED, ReplayBuffer\n"
        "from spikecore.run.checkpoint import _pack\n"
        "made = ReplayBuffer(8000, 2, (10_000,), torch.uint8)\n"
        "made._observations += 1\n"
        "made._written = [3900, 3900]\n"
        # `ru_maxrss` begins with the peak of the process that started this one.
        "peak = lambda: 1024 * int(re.search(r'VmHWM:\\s+(\\d+) kB', Path('/proc/self/status').read_text())[1])\n"
        "before = peak()\n"
        "_pack({}, {}, {'replay': made.state_dict()})\n"
        "print((peak() - before) / made.memory_bytes, COPIES_WHILE_SAVED)\n"
    )
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=120)
    taken, stated = map(float, done.stdout.split())
    assert stated - 1 < taken < stated + 0.1


def test_free_memory_is_that_of_the_machine_or_of_the_container(tmp_path):
    assert replay.free_bytes(tmp_path) is None
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 9000 kB\nMemAvailable:    5000 kB\n")
    assert replay.free_bytes(tmp_path) == 5000 * 1024
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    (group / "memory.max").write_text("max\n")
    (group / "memory.current").write_text("3000000\n")
    (group / "memory.stat").write_text("anon 2000000\ninactive_file 500000\n")
    assert replay.free_bytes(tmp_path) == 5000 * 1024, "no limit"
    (group / "memory.max").write_text("4000000\n")
    assert replay.free_bytes(tmp_path) == 1_500_000

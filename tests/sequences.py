"""Checks that any module with state must pass: threads that share it, and copies made at any moment."""

import copy
import io
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor

import torch
from torch.optim.swa_utils import AveragedModel

from spikecore.nn import functional, get_state, reset_state, set_step_mode, streaming
from spikecore.nn.state import stateful

CLIENTS = 3


def saved_and_loaded(net):
    file = io.BytesIO()
    torch.save(net, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


COPIES = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda net: pickle.loads(pickle.dumps(net)),
    "torch.save": saved_and_loaded,
    "average": lambda net: AveragedModel(net).module,
}


def in_threads(run, numbers=range(CLIENTS)):
    """`run(number)` in a thread each, with threads that change as often as Python lets them."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(len(numbers)) as pool:
            return list(pool.map(run, numbers))
    finally:
        sys.setswitchinterval(before)


def assert_threads_share(net, sequences, rounds=4, modes=("multi", "single")):
    """Each thread's sequences `[T, B, ...]` give in the shared net what they give alone.

    In plain calls, inside `streaming` of its own, step by step and through `functional`.
    """

    def plain(x):
        return net(x)

    def in_two_chunks(x):
        with streaming(net):
            return torch.cat([net(x[:2]), net(x[2:])])

    step, init_state = functional(net)
    params = {**dict(net.named_parameters()), **dict(net.named_buffers())}

    def explicit(x):
        return step(params, x, init_state(x))[0]

    def step_by_step(x):
        reset_state(net)
        outs = torch.stack([net(current) for current in x])
        reset_state(net)
        return outs

    kept_whole = {part for part in net.modules() if getattr(part, "num_steps", None) or has_fixed_steps(part)}
    calls = {"multi": [plain, explicit] + ([] if kept_whole else [in_two_chunks]), "single": [step_by_step]}
    with torch.no_grad():
        for mode in modes:
            set_step_mode(net, mode)
            for call in calls[mode]:
                want = [call(x) for x in sequences]
                assert not torch.equal(want[0], want[1]), f"{call.__name__}: the clients must differ"

                def client(number, call=call, want=want):
                    with torch.no_grad():
                        return [torch.equal(call(sequences[number]), want[number]) for _ in range(rounds)]

                right = in_threads(client)
                assert all(all(answers) for answers in right), f"{mode}, {call.__name__}: {right}"
    set_step_mode(net, "multi")
    assert set(get_state(net).values()) == {None}


def has_fixed_steps(part):
    return bool(getattr(getattr(part, "capabilities", None), "fixed_num_steps", False))


def assert_copies_behave(net, x, modes=("multi", "single")):
    """A copy goes on as the net does: at rest, within `streaming`, after it, and in the middle of single steps."""
    with torch.no_grad():
        want = net(x)
        for name, made in COPIES.items():
            assert torch.equal(made(net)(x), want), name
            streams = not any(has_fixed_steps(part) or getattr(part, "num_steps", None) for part in net.modules())
            if streams:
                with streaming(net):
                    net(x[:2])
                    twin = made(net)
                    assert torch.equal(twin(x[2:]), net(x[2:])), name
                assert set(get_state(twin).values()) == {None}, name
                assert torch.equal(twin(x), want), f"{name} streams after the block has closed"
                assert set(get_state(twin).values()) == {None}, name
            if "single" in modes:
                set_step_mode(net, "single")
                reset_state(net)
                for current in x[:2]:
                    net(current)
                twin = made(net)
                for current in x[2:]:
                    assert torch.equal(twin(current), net(current)), name
                set_step_mode(net, "multi")
    assert torch.equal(net(x), want)
    assert stateful(net)

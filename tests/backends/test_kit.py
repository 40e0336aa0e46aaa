"""What backends are built on: the store of kernels, checks of arguments, lanes in memory, the interpreter."""

import os
import stat
from pathlib import Path

import pytest
import torch

from spikecore.backends.kit import (
    Backend,
    BackendCapabilities,
    BoundedDict,
    Interpreter,
    KernelStore,
    Support,
    cache_folder,
    channels,
    check_arguments,
    check_support,
    read_sequence,
    read_state,
)
from spikecore.backends.kit import store as store_module
from spikecore.dynamics import OPS, Namespace, evaluate
from spikecore.errors import BackendError
from spikecore.nn import IF, LIF, CubaLIF
from spikecore.testing.permissions import heed_permissions


class Kitchen:
    """Makes kernels and counts them."""

    def __init__(self, content=b"a kernel"):
        self.content, self.made = content, 0

    def __call__(self):
        self.made += 1
        return self.content


@pytest.fixture
def make():
    return Kitchen()


def store(folder):
    return KernelStore(folder / "kernels", store_module.content, suffix=".bin")


def test_a_kernel_is_made_once(tmp_path, make):
    first = store(tmp_path)
    assert first.get("source", make) == b"a kernel"
    assert first.get("source", make) == b"a kernel"
    assert store(tmp_path).get("source", make) == b"a kernel"  # as another process finds it
    assert make.made == 1
    assert store(tmp_path).get("another source", make) == b"a kernel"
    assert make.made == 2
    assert stat.S_IMODE((tmp_path / "kernels").stat().st_mode) == 0o700
    assert len(list((tmp_path / "kernels").iterdir())) == 2


@pytest.mark.parametrize("damage", ["truncated", "empty", "foreign", "flipped", "swapped", "a pipe"])
def test_a_damaged_kernel_is_made_again(tmp_path, make, damage):
    store(tmp_path).get("source", make)
    (path,) = (tmp_path / "kernels").iterdir()
    content = path.read_bytes()
    path.unlink()
    if damage == "a pipe":
        os.mkfifo(path)
    else:
        store(tmp_path).get("another", Kitchen(b"other"))
        (other,) = (tmp_path / "kernels").iterdir()
        broken = {
            "truncated": content[:-1],
            "empty": b"",
            "foreign": b"#!/bin/sh\nexit 0\n",
            "flipped": bytes([content[0] ^ 1]) + content[1:],
            "swapped": other.read_bytes(),  # whole, but of another name
        }
        path.write_bytes(broken[damage])
    assert store(tmp_path).get("source", make) == b"a kernel"
    assert make.made == 2


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
def test_a_folder_that_others_may_write_to_is_not_used(tmp_path, make, mode):
    folder = tmp_path / "kernels"
    folder.mkdir()
    folder.chmod(mode)
    assert store(tmp_path).get("source", make) == b"a kernel"
    assert not list(folder.iterdir())


def test_a_folder_of_another_user_is_not_used(tmp_path, make, monkeypatch):
    owner = os.getuid()
    monkeypatch.setattr(store_module.os, "getuid", lambda: owner + 1)
    assert store(tmp_path).get("source", make) == b"a kernel"
    assert not list((tmp_path / "kernels").iterdir())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives folders away")
def test_a_folder_that_belongs_to_another_user(tmp_path, make):
    folder = tmp_path / "kernels"
    folder.mkdir(mode=0o755)
    os.chown(folder, 65534, 65534)
    with heed_permissions():
        assert store(tmp_path).get("source", make) == b"a kernel"
    os.chown(tmp_path, 65534, 65534)  # whose owner may put another folder in its place
    os.chown(folder, 0, 0)
    assert store(tmp_path).get("source", make) == b"a kernel"
    assert not list(folder.iterdir())


def test_a_folder_that_cannot_be_made(tmp_path, make):
    tmp_path.chmod(0o555)
    with heed_permissions():
        assert store(tmp_path).get("source", make) == b"a kernel"
    assert not (tmp_path / "kernels").exists()
    tmp_path.chmod(0o755)


def test_a_forked_child_leaves_the_private_folder_to_its_parent(monkeypatch):
    at_exit = []
    monkeypatch.setattr(store_module.atexit, "register", at_exit.append)
    folder = store_module.private_folder.__wrapped__()
    (remove,) = at_exit
    parent = os.getpid()
    monkeypatch.setattr(store_module.os, "getpid", lambda: parent + 1)
    remove()
    assert folder.is_dir()
    monkeypatch.undo()
    remove()
    assert not folder.exists()


def test_a_disk_that_fills_while_writing_leaves_nothing_behind(tmp_path, make, monkeypatch):
    def full(descriptor):
        raise OSError(28, "no space left on device")

    monkeypatch.setattr(store_module.os, "fsync", full)
    with pytest.raises(BackendError, match=r"no room for a compiled kernel: neither .*kernels nor"):
        store(tmp_path).get("source", make)
    assert make.made == 1
    assert not list((tmp_path / "kernels").iterdir())


def test_what_does_not_load_is_an_error(tmp_path, make):
    def refuse(path):
        raise OSError("wrong ELF class")

    with pytest.raises(BackendError, match="does not load: wrong ELF class"):
        KernelStore(tmp_path / "kernels", refuse).get("source", make)


@pytest.mark.parametrize(("base", "under"), [("/somewhere", "/somewhere"), ("relative", "~/.cache"), ("", "~/.cache")])
def test_where_kernels_are_kept(monkeypatch, base, under):
    monkeypatch.setenv("XDG_CACHE_HOME", base)
    assert str(cache_folder("mine")) == os.path.expanduser(f"{under}/spikecore/mine")


CPU = torch.device("cpu")


def test_arguments_that_do_not_fit_are_refused():
    program = LIF(tau=[2.0, 3.0, 5.0]).program()
    v, tau = torch.zeros(2, 3, 4), torch.ones(3)
    check_arguments(program, 24, torch.float32, CPU, [v], [tau])
    for arguments, message in [
        ((23, torch.float32, CPU, [v], [tau]), "has 24 elements, a step of x has 23"),
        ((24, torch.float64, CPU, [v], [tau]), r"as torch\.float64 on cpu, got torch\.float32"),
        ((24, torch.float32, torch.device("meta"), [v], [tau]), "on meta, got torch.float32 on cpu"),
        ((24, torch.float32, CPU, [], [tau]), "1 states and 1 tensor parameters, got 0 and 1"),
        ((24, torch.float32, CPU, [v], []), "1 states and 1 tensor parameters, got 1 and 0"),
    ]:
        with pytest.raises(BackendError, match=message):
            check_arguments(program, *arguments)


def test_channels_follow_axis_2():
    per_channel, shared = LIF(tau=[2.0, 3.0, 5.0]).program(), LIF(learnable=("tau",)).program()
    assert channels(per_channel, (7, 2, 3, 4, 5), [torch.ones(3)]) == (20, 3)
    assert channels(per_channel, (7, 2, 3), [torch.ones(3)]) == (1, 3)
    assert channels(per_channel, (7, 2, 3, 0), [torch.ones(3)]) == (1, 3)
    assert channels(shared, (7, 2, 9), [torch.ones(())]) == (1, 1)
    for shape in ((7, 2, 4), (7, 2)):
        with pytest.raises(BackendError, match=r"LIF\.tau has 3 values, x is \(7, 2(, 4)?\): axis 2 differs"):
            channels(per_channel, shape, [torch.ones(3)])
    for size in (0, 2, 3):
        with pytest.raises(BackendError, match=rf"LIF\.tau is one number, got {size}"):
            channels(shared, (7, 2, 3), [torch.ones(size)])


def element(lanes, t, n):
    tensor, step, lane = lanes
    memory = torch.empty(0, dtype=tensor.dtype).set_(tensor.untyped_storage())
    return float(memory[tensor.storage_offset() + t * step + n * lane])


SEQUENCES = {
    "contiguous": (lambda x: x, False),
    "one number for a step": (lambda x: x[:, :1, :1].expand(4, 3, 5), False),
    "one number": (lambda x: x[:1, :1, :1].expand(4, 3, 5), False),
    "one step for all": (lambda x: x[:1].expand(4, 3, 5), False),
    "every second step": (lambda x: torch.cat([x, x], 1).view(8, 3, 5)[::2], False),
    "reversed axes": (lambda x: x.permute(2, 1, 0).contiguous().permute(2, 1, 0), True),
    "one row of a step": (lambda x: x[:, :1].expand(4, 3, 5), True),
}


@pytest.mark.parametrize("name", SEQUENCES)
def test_lanes_of_sequences(name):
    make_view, is_copied = SEQUENCES[name]
    x = make_view(torch.arange(60.0).view(4, 3, 5))
    lanes = read_sequence(x)
    assert (lanes[0].data_ptr() != x.data_ptr()) == is_copied
    for t in range(4):
        assert [element(lanes, t, n) for n in range(15)] == x[t].flatten().tolist()


def test_lanes_of_states():
    whole = torch.arange(15.0).view(3, 5)
    for state, is_copied in ((whole, False), (torch.tensor(2.0).expand(3, 5), False), (whole.t(), True)):
        lanes = read_state(state)
        assert (lanes[0].data_ptr() != state.data_ptr()) == is_copied
        assert [element(lanes, 3, n) for n in range(15)] == state.flatten().tolist()
    assert read_state(torch.tensor(2.0).expand(3, 5))[2] == 0


def test_what_a_backend_cannot_run():
    capabilities = BackendCapabilities(devices=("cpu",), dtypes=("float32",))
    program = LIF().program()
    assert check_support(capabilities, OPS, program, CPU, torch.float32)
    for device, dtype, operators, reason in [
        ("meta", torch.float32, OPS, "runs on cpu, not on meta"),
        ("cpu", torch.float64, OPS, "takes float32, not torch.float64"),
        ("cpu", torch.float32, set(OPS) - {"ge"}, "does not know the operator 'ge' of LIF"),
        ("cpu", torch.float32, set(OPS) - {"ge", "div"}, "does not know the operators 'div', 'ge' of LIF"),
    ]:
        assert check_support(capabilities, operators, program, torch.device(device), dtype) == Support(False, reason)


class Counting(Interpreter):
    capabilities = BackendCapabilities()

    def __init__(self):
        super().__init__()
        self.graphs = []

    def evaluate(self, graph, inputs):
        self.graphs.append(graph)
        return evaluate(graph, inputs)


def test_the_interpreter_refuses_what_it_does_not_declare():
    backend, program = Counting(), LIF().program()
    assert backend.supports(program, CPU, torch.float16)
    assert backend.supports(program, torch.device("meta"), torch.float32).reason == "runs on cpu, not on meta"


def test_the_interpreter_evaluates_each_step_and_its_gradient():
    backend, program = Counting(), LIF().program()
    backend.learn(program)
    x, v = torch.rand(3, 2, 4) * 3, torch.zeros(2, 4)
    out, _, _, saved = backend.run(program.key, x, [v], [], True, True)
    assert backend.graphs == [program.forward] * 3
    assert torch.equal(out, LIF(backend="torch")(x))
    assert 0 < out.sum() < out.numel()
    backend.graphs.clear()
    backend.run_bwd(program.key, saved, x, [v], [], torch.ones_like(x), [None], [])
    assert backend.graphs[:3] == [program.forward] * 3
    assert backend.graphs[4:] == [program.backward] * 2
    assert "grad.state.v" not in backend.graphs[3].inputs  # at the last step no gradient of v arrives


@pytest.mark.parametrize("spatial", [(), (2, 3)])
def test_gradients_of_the_interpreter_are_those_of_autograd(spatial):
    """Of outputs, recorded sequences and final states together, with respect to all that a call takes."""
    neuron = CubaLIF(v_threshold=[0.4, 0.6, 0.5], learnable=("v_threshold",), record=("v",), backend="torch").double()
    backend, program = Counting(), neuron.program()
    backend.learn(program)
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    x = (0.4 * draw(5, 2, 3, *spatial)).requires_grad_()
    states = [(0.3 * draw(2, 3, *spatial)).requires_grad_() for _ in program.states]
    params = [value.detach().clone().requires_grad_() for value in neuron._tensors_for(x[0]).values()]
    values, state = neuron.params_for(x[0]), dict(zip(program.states, states, strict=True))
    values = Namespace(**{**vars(values), "v_threshold": params[0].reshape(-1, *[1] * len(spatial))})
    outs, recorded = [], []
    for current in x:
        out, state = neuron.step(current, Namespace(**state), values)
        outs.append(out)
        recorded.append(state["v"])
    results = [torch.stack(outs), *(state[name] for name in program.states), torch.stack(recorded)]
    grads = [torch.randn(value.shape, generator=generator, dtype=torch.float64) for value in results]
    assert 0.1 < results[0].mean() < 0.9
    expected = torch.autograd.grad(results, [x, *states, *params], grads)
    given = [value.detach() for value in (x, *states, *params)]
    num_states = len(states)
    out, finals, sequences, saved = backend.run(
        program.key, given[0], given[1 : 1 + num_states], given[1 + num_states :], True, True
    )
    torch.testing.assert_close([out, *finals, *sequences], [value.detach() for value in results])
    grad_x, grad_firsts, grad_params = backend.run_bwd(
        program.key,
        saved,
        given[0],
        given[1 : 1 + num_states],
        given[1 + num_states :],
        grads[0],
        grads[1 : 1 + num_states],
        grads[1 + num_states :],
    )
    torch.testing.assert_close([grad_x, *grad_firsts, *grad_params], list(expected))
    assert backend.run(program.key, given[0], given[1 : 1 + num_states], given[1 + num_states :], False, False)[1] == []


def test_what_the_interpreter_returns_is_contiguous_and_its_own():
    backend, program = Counting(), IF().program()
    backend.learn(program)
    for steps in (0, 2):
        x, v = torch.rand(steps, 4, 2).transpose(1, 2), torch.tensor(0.5).expand(2, 4)
        out, finals, _, saved = backend.run(program.key, x, [v], [], True, True)
        grads = backend.run_bwd(program.key, saved, x, [v], [], out, [v], [])
        for tensor in (out, *finals, grads[0], *grads[1]):
            assert tensor.is_contiguous()
            inputs = {x.untyped_storage().data_ptr(), v.data_ptr()} - {0}  # an empty tensor has no memory
            assert tensor.untyped_storage().data_ptr() not in inputs


def test_defaults_of_a_backend():
    backend, program = Backend(), LIF().program()
    with pytest.raises(BackendError, match="Backend knows no neuron under the key"):
        backend.program(program.key)
    backend.learn(program)
    assert backend.program(program.key) is program
    x, v = torch.rand(2, 3), torch.zeros(2, 3)
    assert backend.step(program.key, x, [v], []) is None
    assert backend.saved_like(program.key, x[None], [v]) == []
    assert backend.reads_input(program.key, [])
    backend.stream_copy(v, x)
    assert torch.equal(v, x)
    for method, arguments in (
        ("supports", (program, CPU, torch.float32)),
        ("run", (program.key, x, [], [], False, False)),
    ):
        with pytest.raises(NotImplementedError):
            getattr(backend, method)(*arguments)


def test_kernels_used_longest_ago_are_evicted(tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "MOST_FILES", 3)
    folder = tmp_path / "kernels"
    for number in range(3):
        store_module.KernelStore(folder, Path.read_bytes).get(str(number), lambda number=number: bytes([number]) * 10)
        os.utime(max(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns), (number, number))
    first = store_module.KernelStore(folder, Path.read_bytes)
    assert first.get("0", lambda: pytest.fail("it is there"))[:10] == bytes(10), "and so it was used last"
    first.get("3", lambda: b"3" * 10)
    assert len(list(folder.iterdir())) == 3
    again = store_module.KernelStore(folder, Path.read_bytes)
    again.get("0", lambda: pytest.fail("it was used last"))
    assert again.get("1", lambda: b"anew") != b"", "the oldest went"
    monkeypatch.setattr(store_module, "MOST_BYTES", 1)
    again.get("4", lambda: b"4" * 10)
    assert len(list(folder.iterdir())) == 1


def test_a_bounded_dictionary_drops_what_was_put_in_first():
    kept = BoundedDict(16)
    for number in range(100):
        kept[number] = -number
        assert len(kept) <= 16
        assert kept[number] == -number, "what was put in just now stays"
    assert min(kept) > 80
    kept[99] = "again"
    assert kept.get(99) == "again"
    only = BoundedDict(1)
    only["a"] = only["b"] = 0
    assert list(only) == ["b"]


def test_kernels_in_memory_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "MOST_LOADED", 4)
    store = KernelStore(tmp_path / "kernels", Path.read_bytes)
    for number in range(10):
        store.get(str(number), lambda number=number: bytes([number]))
        assert len(store._loaded) <= 4
    assert store.get("0", lambda: pytest.fail("its file is there"))[:1] == b"\0"


def test_a_folder_whose_parent_others_may_change_is_not_used(tmp_path):
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    folder = tmp_path / "open" / "kernels"
    store_module.KernelStore(folder, Path.read_bytes).get("a", lambda: b"a")
    assert not list(folder.iterdir())
    (tmp_path / "open").chmod(0o1777)  # the sticky bit: only its owner may move the folder
    store_module.KernelStore(folder, Path.read_bytes).get("b", lambda: b"b")
    assert len(list(folder.iterdir())) == 1

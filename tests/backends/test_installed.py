"""Backends by name: operators of their own, what another thread learns, failures that are raised again."""

import gc
import threading
import weakref

import pytest
import torch

from spikecore.backends.installed import InstalledBackend, install
from spikecore.backends.reference import TorchBackend
from spikecore.backends.selection import backend_named
from spikecore.errors import PluginUnavailable
from spikecore.interfaces.backend import BackendCapabilities
from spikecore.nn import IF, LIF
from spikecore.registry import Registry, use


class Interpreting(TorchBackend):
    """The interpreter under another name."""

    capabilities = BackendCapabilities(priority=1)


class Noting(Interpreting):
    """Notes which programs it learns, and calls something when it learns the first one."""

    def __init__(self, first=lambda: None):
        super().__init__()
        self.keys, self.first = set(), first

    def learn(self, program):
        super().learn(program)
        is_first = not self.keys
        self.keys.add(program.key)
        if is_first:
            self.first()


class Absent(Interpreting):
    """Cannot be used anywhere."""

    def __init__(self, **options):
        raise PluginUnavailable("there is no such device")


def test_names_that_differ_in_a_sign_are_different_backends():
    """An operator's name has letters, digits and underscores; a backend's may have others."""
    own = Registry()
    names = ("two-words", "two_words", "two.words", "zwei·wörter")
    for name in names:
        own.register("backend", name, Interpreting)
    x = torch.rand(5, 2, 3, requires_grad=True)
    wanted = LIF(backend="torch")(2 * x)
    assert 0.02 < wanted.mean() < 0.98
    with use(own):
        for name in names:
            out = torch.func.vmap(LIF(backend=name), in_dims=1, out_dims=1)(2 * x)  # by the operator, not directly
            torch.testing.assert_close(out, wanted)
    operators = {install(name, Interpreting()).run_operator for name in names}
    assert len(operators) == len(names)


def test_a_program_that_another_thread_learns_during_a_replacement_is_not_lost():
    early, late = LIF(backend="torch").program(), IF(backend="torch").program()
    installed = InstalledBackend("replaced", Noting())
    installed.learn(early)

    def learn_elsewhere():
        thread = threading.Thread(target=installed.learn, args=(late,))
        thread.start()
        thread.join()

    replacement = Noting(first=learn_elsewhere)
    installed.replace(replacement)
    assert installed.backend is replacement
    assert replacement.keys == {early.key, late.key}


def test_a_failure_that_is_raised_again_does_not_collect_its_callers():
    """It holds the first one, by its cause, and the last one."""
    own = Registry()
    own.register("backend", "absent", Absent)
    kept = []

    def ask():
        big = torch.zeros(3)
        kept.append(weakref.ref(big))
        with use(own):
            backend_named("absent")

    for _ in range(5):
        with pytest.raises(PluginUnavailable, match="there is no such device"):
            ask()
    gc.collect()
    assert [reference() for reference in kept[1:-1]] == [None, None, None]

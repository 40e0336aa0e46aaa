"""`spike info` says of every option what its documentation says."""

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from click.testing import CliRunner

from spikecore.cli import describe, spike
from spikecore.interfaces.component import OneOf
from spikecore.interfaces.options import options_marked
from spikecore.registry import Blocking, Registry, choices, components, load, register, use


@dataclass(frozen=True)
class Blur:
    """Blurs.

    Args:
        height, width: of the box,
            in pixels.
    """

    name: ClassVar[str] = "blur"
    height: int = 3
    width: int = 5


CHANGE = OneOf("change")
register("change", "blur", Blur)


@dataclass(frozen=True)
class Base:
    """
    Args:
        depth: how deep.
        changes: the same every time.
    """

    depth: int = 1
    changes: Annotated[tuple[Any, ...], CHANGE] = ()


@dataclass(frozen=True)
class Derived(Base):
    """A remark.

    Args:
        depth: how deep, here.

        speed: how fast.

    Raises:
        OptionError: never.
    """

    speed: float = 2.0


def shown(kind, name):
    done = CliRunner().invoke(spike, ["info", kind, name])
    assert done.exit_code == 0, done.output
    return done.output


def test_options_of_bases_and_of_choices_are_described():
    assert [line for made in describe._options(Derived) for line in made.lines()] == [
        *("depth: whole number = 1", "    how deep, here."),
        *("changes: list of choices of change, by name or table = []", "    the same every time."),
        *("speed: number = 2.0", "    how fast."),
    ]
    ((option, mark),) = options_marked(Derived, OneOf)
    box = ["        of the box,", "        in pixels."]
    assert option == "changes"
    assert list(describe._choices(mark)) == [
        "blur: Blurs.",
        "    height: whole number = 3",
        *box,
        "    width: whole number = 5",
        *box,
    ]
    assert describe._split(describe._doc(Derived))[::2] == ("A remark.", "Raises:\n    OptionError: never.")


def test_inherited_options_are_shown_with_their_documentation():
    text = shown("neuron", "lif")
    assert "tau: number >= 1 and < inf = 2.0\n      membrane time constant, in steps; 1 keeps nothing of `v`." in text
    assert "v_threshold: number = 1.0\n      fires when `h >= v_threshold`;" in text


def test_every_option_of_ours_is_described():
    for entry in components():
        if entry.plugin.is_runtime:
            continue  # of another test in this process
        config = load(entry.kind, entry.name).Config
        tables = [mark.table for _, mark in options_marked(config, OneOf)]
        chosen = [load(choice.kind, choice.name) for table in tables for choice in choices(table)]
        for kind in (config, *filter(None, map(describe._config_of, chosen))):
            described = describe._arguments(kind)
            for field in dataclasses.fields(kind):
                assert described.get(field.name), (
                    f"{entry.kind} {entry.name}: {kind.__qualname__} leaves out {field.name}"
                )


def test_a_file_given_with_load_is_shown(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "import spikecore\nfrom spikecore.nn import LIF\n"
        '@spikecore.register("neuron", "mine")\nclass Mine(LIF):\n    """A neuron of one\'s own."""\n'
    )
    for command in ("info", "which"):
        with use(Registry(blocking=Blocking())):
            done = CliRunner().invoke(spike, [command, "neuron", "mine", "--load", str(file)])
        assert done.exit_code == 0, done.output
        assert "A neuron of one's own." in done.output

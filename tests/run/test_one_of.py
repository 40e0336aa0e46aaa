"""Options chosen from their owner's own table: from TOML and from Python, printed and checked."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import pytest

import spikecore
from spikecore.datasets.digits import Digits
from spikecore.errors import ConfigError, OptionError
from spikecore.interfaces.component import OneOf, Range, make_config
from spikecore.run.config import resolve, tomllib


@dataclass(frozen=True)
class Turn:
    name: ClassVar[str] = "turn"
    degrees: Annotated[float, Range(ge=0, lt=360)] = 90.0


@dataclass(frozen=True)
class Cut:
    name: ClassVar[str] = "cut"
    size: int


TABLE = {"turn": Turn, "cut": Cut}


class Changed(Digits):
    """Digits with changes."""

    @dataclass(frozen=True)
    class Config(Digits.Config):
        first: Annotated[Any, OneOf(TABLE)] = Turn()
        rest: Annotated[tuple[Any, ...], OneOf(TABLE)] = ()


@pytest.mark.parametrize("given", ["turn", {"name": "turn"}, {"name": "turn", "degrees": 90}, Turn()])
def test_instance_name_and_table_mean_the_same(given):
    assert make_config(Changed, {"first": given, "rest": [given]}) == Changed.Config(first=Turn(), rest=(Turn(),))


def test_it_survives_printing():
    spikecore.register("dataset", "changed-digits", Changed, replace=True)
    rest = ["turn", {"name": "cut", "size": 3}]
    resolved = resolve({"dataset": {"name": "changed-digits", "first": {"name": "cut", "size": 2}, "rest": rest}})
    assert resolved.tables["dataset"].rest == (Turn(), Cut(3))
    text = resolved.to_toml()
    assert 'first = { name = "cut", size = 2 }' in text
    assert resolve(tomllib.loads(text)) == resolved


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("trun", "must have a name among turn, cut; got 'trun'; did you mean 'turn'"),
        ({"degrees": 3}, "must have a name among turn, cut; got None"),
        ({"name": "turn", "degrees": 400}, "'turn': option 'degrees' must be >= 0 and < 360, got 400"),
        ({"name": "turn", "degree": 4}, "'turn': option 'degree' is unknown; did you mean 'degrees'"),
        ("cut", "'cut': option 'size' is required"),
    ],
)
def test_what_is_wrong_is_told(given, says):
    for options in ({"first": given}, {"rest": [given]}):
        with pytest.raises(OptionError) as caught:
            make_config(Changed, options)
        assert says in str(caught.value)
    spikecore.register("dataset", "changed-digits", Changed, replace=True)
    with pytest.raises(ConfigError) as found:
        resolve({"dataset": {"name": "changed-digits", "first": given}})
    assert found.value.problems == [line for line in found.value.problems if line.startswith("dataset.first: ")]


def test_a_list_is_a_list():
    with pytest.raises(OptionError, match="'rest' must be a list, got 'turn'"):
        make_config(Changed, {"rest": "turn"})

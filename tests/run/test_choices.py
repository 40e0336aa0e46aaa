"""Choices inside a Config: from TOML and from Python, printed and checked, open to plugins."""

from dataclasses import dataclass
from typing import Annotated, Any

import pytest

import spikecore
from spikecore.datasets.digits import Digits
from spikecore.documents import parse_toml
from spikecore.errors import ConfigError, ContractError, OptionError, UnknownComponentError
from spikecore.interfaces.component import OneOf, Range, make_config
from spikecore.interfaces.options import as_data
from spikecore.registry import Blocking, Registry, registry, use
from spikecore.run.config import resolve
from spikecore.testing.distributions import fake_distribution
from spikecore.testing.effects import alternatives


class Change:
    """Base of the choices here."""


@dataclass(frozen=True)
class Turn(Change):
    degrees: Annotated[float, Range(ge=0, lt=360)] = 90.0
    strict: bool = False


@dataclass(frozen=True)
class Cut(Change):
    size: int


def flip(x):
    return -x


CHANGE = OneOf("test_change", Change, words=("none",), fixed=("strict",))
ANY = OneOf("test_change")


class Changed(Digits):
    """Digits with changes."""

    @dataclass(frozen=True)
    class Config(Digits.Config):
        first: Annotated[Any, CHANGE] = Turn()
        rest: Annotated[tuple[Any, ...], ANY] = ()
        lazy: Annotated[Any, CHANGE] = "turn"


@pytest.fixture(autouse=True)
def offers():
    with use(registry().without(())) as own:
        own.register("dataset", "changed-digits", Changed)
        own.register("test_change", "turn", Turn)
        own.register("test_change", "cut", Cut)
        own.register("test_change", "flip", flip)
        yield own


@pytest.mark.parametrize("given", ["turn", {"name": "turn"}, {"name": "turn", "degrees": 90}, Turn()])
def test_instance_name_and_table_mean_the_same(given):
    config = make_config(Changed, {"first": given, "rest": [given, "flip"]})
    assert config == Changed.Config(first=Turn(), rest=(Turn(), flip), lazy=Turn())


def test_a_table_without_a_name_changes_the_default():
    config = make_config(Changed, {"first": {"degrees": 10.0}, "lazy": {"degrees": 20.0}})
    assert (config.first, config.lazy) == (Turn(10.0), Turn(20.0))


def test_words_are_for_the_owner():
    assert make_config(Changed, {"first": "none"}).first == "none"


def test_it_survives_printing():
    rest = ["turn", {"name": "cut", "size": 3}, "flip"]
    resolved = resolve({"dataset": {"name": "changed-digits", "first": {"name": "cut", "size": 2}, "rest": rest}})
    assert resolved.tables["dataset"].rest == (Turn(), Cut(3), flip)
    text = resolved.to_toml()
    assert 'first = { name = "cut", size = 2 }' in text
    assert '{ name = "cut", size = 3 }, "flip"]' in text
    assert 'lazy = { name = "turn", degrees = 90.0 }' in text, "what the owner decides is not printed"
    assert resolve(parse_toml(text)) == resolved


@pytest.mark.parametrize(
    ("given", "path", "says"),
    [
        ("trun", "", "no test_change 'trun'. Did you mean 'turn'? Known test_changes: cut, flip, turn."),
        ("TURN", "", "Did you mean 'turn'?"),
        ({"name": "trun"}, ".name", "no test_change 'trun'"),
        ({"name": 3}, ".name", "must be a string, the name of a test_change; got 3"),
        ({"name": "turn", "degrees": 400}, ".degrees", "must be >= 0 and < 360, got 400"),
        ({"name": "turn", "degree": 4}, ".degree", "is unknown; did you mean 'degrees'? (options: degrees, strict)"),
        ({"name": "flip", "hard": 4}, ".hard", "is unknown (a test_change 'flip' has no options)"),
        ("cut", ".size", "is required"),
        (7, "", "takes cut, flip, turn: an instance, a name or a table with a 'name'; got 7"),
        (Turn, "", "takes cut, flip, turn: "),
    ],
)
def test_what_is_wrong_is_told_with_its_path(given, path, says):
    for options, where in (({"rest": [given]}, "rest[0]"), ({"rest": ["turn", given]}, "rest[1]")):
        with pytest.raises(OptionError) as caught:
            make_config(Changed, options)
        assert f"option '{where}{path}'" in str(caught.value)
        assert says in str(caught.value)
    with pytest.raises(ConfigError) as raised:
        resolve({"dataset": {"name": "changed-digits", "rest": [given]}})
    (line,) = raised.value.problems
    assert line.startswith(f"dataset.rest[0]{path}: ")
    assert says in line


def test_a_list_is_a_list():
    with pytest.raises(OptionError, match="'rest' must be a list, got 'turn'"):
        make_config(Changed, {"rest": "turn"})
    with pytest.raises(OptionError, match=r"'rest\[0\]' given as a table needs a 'name', .* got the keys degrees"):
        make_config(Changed, {"rest": [{"degrees": 3}]})


def test_what_the_owner_decides_is_not_for_the_user():
    for given in ({"name": "turn", "strict": True}, {"strict": False}):
        with pytest.raises(OptionError, match=r"'first.strict' is set by the component that uses it"):
            make_config(Changed, {"first": given})
    with pytest.raises(OptionError, match="'first' must leave 'strict' at False"):
        make_config(Changed, {"first": Turn(strict=True)})


def test_the_owner_says_what_a_choice_must_be():
    """With a base, also an instance of a class that nobody registered; without one, only what is on offer."""

    @dataclass(frozen=True)
    class Own(Change):
        pass

    assert make_config(Changed, {"first": Own()}).first == Own()
    with pytest.raises(OptionError, match=r"'rest\[0\]' takes cut, flip, turn: "):
        make_config(Changed, {"rest": [Own()]})
    with pytest.raises(OptionError, match="'first' must be a Change, which flip is not"):
        make_config(Changed, {"first": "flip"})


SOURCE = "from dataclasses import dataclass\n@dataclass(frozen=True)\nclass C:\n    by: str = 'x'\n"


def test_two_plugins_may_offer_one_name(tmp_path, monkeypatch):
    for name in ("one", "two"):
        points = {"spikecore.choices": {"test_change.both": f"choice_{name}:C"}}
        fake_distribution(tmp_path, name, points, modules={f"choice_{name}.py": SOURCE})
    monkeypatch.syspath_prepend(tmp_path)
    given = {"first": "none", "lazy": "none"}
    with use(Registry(path=[str(tmp_path)], blocking=Blocking(), builtins=True)):
        with pytest.raises(OptionError, match="write 'one:both' or 'two:both'"):
            make_config(Changed, {"rest": ["both"], **given})
        config = make_config(Changed, {"rest": ["two:both"], **given})
        assert type(config.rest[0]).__module__ == "choice_two"
        assert as_data(config)["rest"] == [{"name": "two:both", "by": "x"}]
        assert make_config(Changed, as_data(config)) == config
    with use(Registry(path=[str(tmp_path)], blocking=Blocking().with_denied(["two"], "a test"), builtins=True)):
        assert type(make_config(Changed, {"rest": ["both"], **given}).rest[0]).__module__ == "choice_one"
        with pytest.raises(OptionError, match="is blocked"):
            make_config(Changed, {"rest": ["two:both"], **given})


def test_metadata_that_name_no_table_are_broken_and_hurt_nobody(tmp_path):
    names = ("focal", "neuron.lif", "loss.", "a-b.c", ".x", "command.run")
    fake_distribution(tmp_path, "odd", {"spikecore.choices": dict.fromkeys(names, "nowhere:X")})
    seen = Registry(path=[str(tmp_path)], blocking=Blocking(), builtins=True)
    odd = [entry for entry in seen.entries() if entry.plugin.id == "odd"]
    assert {(entry.kind, entry.name, entry.status) for entry in odd} == {("choice", name, "broken") for name in names}
    assert all("TABLE.NAME" in entry.reason for entry in odd)
    assert seen.find("neuron", "lif").plugin.id == "core"


def test_what_cannot_be_a_choice_is_refused():
    for target in (3, type("Plain", (), {})):
        with pytest.raises(ContractError, match="its target must be"):
            spikecore.register("test_change", "bad", target)
    with pytest.raises(UnknownComponentError, match="no kind 'los'; did you mean 'loss'"):
        spikecore.register("los", "mine", Turn)
    for name in ("neuron", "command", "choice", "two words", ""):
        with pytest.raises(ValueError, match="a table of choices needs an identifier"):
            OneOf(name)


def test_a_class_in_two_tables_is_printed_as_each_calls_it():
    mark = OneOf("test_other_change")
    spikecore.register("test_other_change", "rotate", Turn)

    class Both(Changed):
        @dataclass(frozen=True)
        class Config(Changed.Config):
            other: Annotated[Any, mark] = Turn(1.0)

    data = as_data(make_config(Both, {}))
    assert (data["first"]["name"], data["other"]["name"]) == ("turn", "rotate")


def test_the_kit_tries_the_other_choices_of_an_option(offers):
    """Which options have an effect is looked for among all that a table offers; a list holds one of them at a time."""
    config = make_config(Changed, {"first": "turn"})
    tried = alternatives(Changed.Config, config)
    assert tried["first"] == ["none", "cut", "flip"]
    assert sorted(tried["rest"]) == [("cut",), ("flip",), ("turn",)]

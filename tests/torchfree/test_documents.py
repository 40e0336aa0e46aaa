"""Configurations and indices from outside that nest, or go on, beyond reason: an error that says so, at once."""

import json
import os

import pytest

from spikecore.documents import MOST_DEPTH, DocumentError, parse_json, parse_toml
from spikecore.errors import ConfigError
from spikecore.run.config import _read, resolve
from spikecore.run.overrides import parse_override

DEEP = {
    "lists": "a = " + "[" * 20_000 + "]" * 20_000,
    "unclosed": "a = " + "[" * 20_000,
    "tables": "a = " + "{a = " * 3_000 + "1" + "}" * 3_000,
    "dotted": ".".join(["a"] * 200_000) + " = 1",
    "quoted": ".".join(['"a"'] * 200_000) + " = 1",
    "header": "[" + " . ".join(["a"] * 100_000) + "]",
}


@pytest.mark.parametrize("text", DEEP.values(), ids=DEEP)
def test_deep_toml_is_refused(text, tmp_path):
    with pytest.raises(DocumentError, match="100 deep"):
        parse_toml(text)
    (tmp_path / "a.toml").write_text(text)
    with pytest.raises(ConfigError, match=r"a\.toml: nests"):
        _read(tmp_path / "a.toml")


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "[" * 101 + "]" * 101, "[" * 900 + "]" * 900])
def test_deep_json_is_refused(text):
    with pytest.raises(DocumentError, match="100 deep"):
        parse_json(text, most_bytes=1 << 20)


def test_what_is_deep_enough_for_anybody_is_read():
    nested = 1
    for _ in range(MOST_DEPTH - 1):
        nested = {"a": nested}
    assert parse_json(json.dumps([nested, "[" * 500]), most_bytes=1 << 20) == [nested, "[" * 500]
    key = ".".join(["a"] * (MOST_DEPTH - 1))
    numbers = ", ".join(["1.0"] * 1000)
    tables = parse_toml(f"{key} = 1\nb = [{numbers}]\nc = '{'x' * 100_000}'")
    assert len(tables["b"]) == 1000


def test_length_is_refused_before_anything_is_parsed():
    with pytest.raises(DocumentError, match="at most 10 bytes"):
        parse_json("[" * 11, most_bytes=10)
    with pytest.raises(DocumentError, match="at most 1048576 bytes"):
        parse_toml("# " + "x" * (1 << 20))


def test_a_configuration_that_is_a_pipe_or_too_large(tmp_path):
    os.mkfifo(tmp_path / "pipe.toml")  # nobody writes to it: opening it plainly would wait for ever
    with pytest.raises(ConfigError, match=r"pipe\.toml: cannot be read: not a regular file"):
        _read(tmp_path / "pipe.toml")
    (tmp_path / "large.toml").write_bytes(b"#" * (1 << 21))
    with pytest.raises(ConfigError, match=r"large\.toml: cannot be read: larger than"):
        _read(tmp_path / "large.toml")
    (tmp_path / "own.toml").write_text("[run]\r\nseed = 3\r\n")
    (tmp_path / "link.toml").symlink_to("own.toml")
    assert _read(tmp_path / "link.toml") == {"run": {"seed": 3}}, "a link that the user typed is followed"


def test_a_deep_value_on_the_command_line():
    with pytest.raises(ConfigError, match="100 deep"):
        parse_override("run.name=" + "[" * 20_000 + "]" * 20_000)


@pytest.mark.parametrize("line", [f"run.seed = {1 << 63}", f"run.checkpoint_every_steps = -{'9' * 30}"])
def test_a_number_that_no_machine_has_is_refused(line, tmp_path):
    """Without torch other problems are named as well: that components cannot be loaded."""
    (tmp_path / "c.toml").write_text(f"model.name = 'mlp'\n{line}\n")
    name = line.partition(" ")[0]
    with pytest.raises(ConfigError, match=rf"{name}: must be .* 63 bits, got one of \d+") as error:
        resolve(tmp_path / "c.toml")
    assert "9" * 20 not in str(error.value)


def test_a_length_is_one_of_bytes():
    text = json.dumps("é" * 30, ensure_ascii=False)
    assert parse_json(text, most_bytes=62) == "é" * 30
    for given in (text, text.encode()):
        with pytest.raises(DocumentError, match="62 bytes long; at most 61"):
            parse_json(given, most_bytes=61)
    with pytest.raises(DocumentError, match="at most 40"):
        parse_toml("# " + "漢" * 15, most_bytes=40)

"""Text of others on the terminal: no escapes, no hidden characters, no end of lines, no end at all."""

import ast
from pathlib import Path

import pytest

import spikecore.cli
from spikecore.foreign import odd_characters, printable, printable_lines
from spikecore.testing.distributions import fake_distribution
from tests.faulty_plugins import SOUND

EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e\u2066\u200b\0\r"


def is_plain(text):
    return all(line.isprintable() for line in text.split("\n"))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é 漢", "plain é 漢"),
        ("a\x1b[2J", r"a\x1b[2J"),
        ("a\u202eb", r"a\u202eb"),
        ("10\xa0GB", "10\xa0GB"),
        ("a\nb\0", r"a\nb\x00"),
        ("\ud800", r"\ud800"),
        (ValueError("x\x9b"), r"x\x9b"),
        ("x" * 10, "x" * 10),
        ("x" * 11, "x" * 9 + "…"),
    ],
)
def test_what_is_printed(text, shown):
    assert printable(text, 10 if "x" * 10 in str(text) else 20) == shown
    assert is_plain(printable(EVIL))


def test_lines_stay_and_their_sum_is_bounded():
    assert printable_lines("a\x1b\nb") == "a\\x1b\nb"
    assert len(printable_lines("x" * 10**6)) <= 100_000
    assert len(printable("\x1b" * 10**6)) == 300


def test_look_alikes_have_names():
    usual = "lif"
    assert odd_characters("lif", usual) == []
    assert odd_characters("l\u0456f", usual) == ["'\u0456' (CYRILLIC SMALL LETTER BYELORUSSIAN-UKRAINIAN I)"]


def test_nothing_of_a_distribution_reaches_the_terminal(spike, tmp_path):
    site = tmp_path / "site"
    point = {"spikecore.backends": {"l\u0456f": "e_mod:Good", "ev\x1b[2Jil": "e_mod:Good\x1b[31m"}}
    fake_distribution(site, "spikecore-e", point, version="1.0", modules={"e_mod.py": SOUND})
    metadata = next(site.glob("*.dist-info")) / "METADATA"
    metadata.write_text(
        f"Metadata-Version: 2.1\nName: spikecore-e\nVersion: 1.0\x1b[1m\nSummary: {'s' * 5000} {EVIL[:-1]}\n\n"
    )
    listed = spike("list-plugins", "--plugin", "spikecore-e")
    assert listed.returncode == 0, listed.stderr
    assert "ev\\x1b[2Jil" in listed.stdout
    assert is_plain(listed.stdout)
    assert max(map(len, listed.stdout.splitlines())) < 1000
    looked = spike("doctor", "spikecore-e")
    assert is_plain(looked.stdout)
    assert "CYRILLIC SMALL LETTER" in looked.stdout
    assert "warning" in looked.stdout
    refused = spike("which", "backend", "nosuch\x1b[2J")
    assert refused.returncode == 2
    assert is_plain(refused.stderr)


def test_every_command_prints_through_one_function():
    """What does not may print a name that somebody else chose; `cli/__init__` and the line of `bench` say so there."""
    direct = []
    for path in Path(spikecore.cli.__file__).parent.glob("*.py"):
        nodes = ast.walk(ast.parse(path.read_text()))
        names = [node.attr for node in nodes if isinstance(node, ast.Attribute)]
        direct += [path.name] * (names.count("echo") + names.count("secho"))
    assert sorted(direct) == ["__init__.py"] * 3 + ["bench.py", "output.py"]


def test_names_in_help_and_info_are_plain(spike, tmp_path):
    points = {"spikecore.commands": {"ev\x1b[2Jil": "e_mod:Good"}, "spikecore.backends": {"evil": "e_mod:Good"}}
    fake_distribution(tmp_path / "site", "spikecore-e", points, version="1.0", modules={"e_mod.py": SOUND})
    metadata = next((tmp_path / "site").glob("*.dist-info")) / "METADATA"
    metadata.write_text(f"Metadata-Version: 2.1\nName: spikecore-e\nVersion: 1.0\x1b[1m\nSummary: {EVIL[:-1]}\n\n")
    helped = spike("--help")
    assert "ev\\x1b[2Jil" in helped.stdout
    assert is_plain(helped.stdout)
    told = spike("info", "backend", "evil")
    assert "1.0\\x1b[1m" in told.stdout + told.stderr
    assert is_plain(told.stdout + told.stderr)

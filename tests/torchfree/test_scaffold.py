"""`spike new-plugin`: names and their refusals, files that parse, nothing half-written."""

import ast
import re
import shlex
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from spikecore.cli import spike as cli
from spikecore.errors import OptionError, UnknownComponentError
from spikecore.kinds import KINDS
from spikecore.registry import Blocking, Registry, use
from spikecore.scaffold import names_for, render
from spikecore.scaffold.names import FORM, LONGEST
from spikecore.testing.distributions import fake_distribution

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FILES = {
    ".github/workflows/test.yml",
    ".gitignore",
    "CHANGELOG.md",
    "LICENSE",
    "README.md",
    "pyproject.toml",
    "src/spikecore_fresh_thing/__init__.py",
    "src/spikecore_fresh_thing/component.py",
    "src/spikecore_fresh_thing/plugin.py",
    "src/spikecore_fresh_thing/py.typed",
    "tests/test_component.py",
    "tests/test_conformance.py",
}


def test_all_names_follow_from_one():
    names = names_for("fast-leaky-neuron", "neuron")
    assert names.distribution == "spikecore-fast-leaky-neuron"
    assert names.package == "spikecore_fast_leaky_neuron"
    assert (names.component, names.class_name) == ("fast_leaky", "FastLeakyNeuron")
    assert names_for("neuron", "neuron").component == "neuron"
    assert names_for("fast-leaky-neuron", "model").component == "fast_leaky_neuron"


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_kind_renders_whole_files(kind, tmp_path):
    directory = render("fresh-thing", kind, tmp_path / "deep" / "er")
    files = {path.relative_to(directory).as_posix(): path for path in directory.rglob("*") if path.is_file()}
    assert set(files) == FILES
    assert list(directory.parent.iterdir()) == [directory]
    for path in files.values():
        text = path.read_text(encoding="utf-8")
        assert "$" not in re.sub(r"\$\{\{.*?\}\}|\$SPIKECORE|\$PWD|\$\(echo", "", text)
        if path.suffix == ".py":
            ast.parse(text)
    project = tomllib.loads(files["pyproject.toml"].read_text())["project"]
    assert project["name"] == "spikecore-fresh-thing"
    assert project["entry-points"]["spikecore.plugins"] == {"fresh-thing": "spikecore_fresh_thing.plugin"}
    ((component, target),) = project["entry-points"][KINDS[kind].group].items()
    assert component == "fresh_thing"
    classes = [node.name for node in ast.parse(files[f"src/{target.split('.')[0]}/component.py"].read_text()).body
               if isinstance(node, ast.ClassDef)]  # fmt: skip
    assert target.split(":")[1] in classes
    assert files["CHANGELOG.md"].read_text().split("## ")[1].split()[0] == project["version"]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("3d-lif", "begins with a letter"),
        ("my plugin", "'my-plugin' would do"),
        ("Größe", "'groe' would do"),
        ("a--b", "'a-b' would do"),
        ("-", "lower-case ASCII"),
        ("", "lower-case ASCII"),
        ("神经元", "lower-case ASCII"),
        ("../evil", "'evil' would do"),
        ("a" * 37, "at most 36"),
        ("a\n", "'a' would do"),
        ("spikecore-x", "reserved for spikecore"),
        ("core", "reserved for spikecore"),
        ("all", "reserved for spikecore"),
        ("lif", "built in"),
        ("lif-neuron", "built in"),
    ],
)
def test_names_that_are_refused(name, says, tmp_path):
    with pytest.raises(OptionError, match=says), use(Registry(path=[], blocking=Blocking())):
        render(name, "neuron", tmp_path)
    assert not list(tmp_path.iterdir())


def test_names_of_known_plugins_are_told_and_not_refused(tmp_path):
    """The catalogue suggests, it forbids nothing."""
    with use(Registry(path=[], blocking=Blocking())):
        for name, says in (
            ("neuron-zoo", "the spikecore project has a plugin 'neuron-zoo': only one of both can be installed"),
            ("izhikevich", "the plugin neuron-zoo has a neuron 'izhikevich': with both installed, write "),
        ):
            done = CliRunner().invoke(cli, ["new-plugin", name, "--kind", "neuron", "--dest", str(tmp_path)])
            assert done.exit_code == 0
            assert f"note: {says}" in done.stderr
        assert "'spikecore-izhikevich:izhikevich'" in done.stderr
        done = CliRunner().invoke(cli, ["new-plugin", "fresh-thing", "--kind", "neuron", "--dest", str(tmp_path)])
        assert done.stderr.splitlines() == [
            "note: its CI needs the repository variable SPIKECORE, or make it with --core PLACE"
        ]


@pytest.mark.parametrize("core", ["../spikecore", "core.whl", "git+https://example.org/spikecore@v0.1.0"])
def test_its_ci_gets_core_from_the_given_place(tmp_path, core):
    with use(Registry(path=[], blocking=Blocking())):
        arguments = ["new-plugin", "fresh-thing", "--kind", "neuron", "--dest", str(tmp_path), "--core", core]
        done = CliRunner().invoke(cli, arguments)
    assert (done.exit_code, done.stderr) == (0, "")
    text = (tmp_path / "fresh-thing/.github/workflows/test.yml").read_text()
    assert f"SPIKECORE: ${{{{ vars.SPIKECORE || '{core}' }}}}\n" in text
    assert not [line for line in text.splitlines() if "pip install" in line and "-c .core/constraint.txt" not in line]


@pytest.mark.parametrize(
    "core", ["spikecore", "spikecore==0.1.0", "0.1.0", "../it's", "./a\nrun: x", "$HOME/core", "./`x`"]
)
def test_places_that_are_refused(tmp_path, core):
    with pytest.raises(OptionError, match="expected a path, a wheel or a URL"):
        render("fresh-thing", "neuron", tmp_path, core)
    assert not list(tmp_path.iterdir())


@given(st.text(max_size=50))
def test_what_is_offered_instead_is_a_sound_name(text):
    try:
        names_for(text, "neuron")
    except OptionError as error:
        offered = str(error).partition("; ")[2].removesuffix(" would do").strip("'")
        if "would do" in str(error):
            assert FORM.fullmatch(offered)
            assert len(offered) <= LONGEST
    else:
        assert FORM.fullmatch(text)


def test_taken_names(tmp_path, monkeypatch):
    site = tmp_path / "site"
    points = {"spikecore.plugins": {"other": "other"}, "spikecore.neurons": {"quick": "other:Quick"}}
    fake_distribution(site, "spikecore-other", points)
    (site / "spikecore_clash").mkdir()
    (site / "spikecore_clash" / "__init__.py").touch()
    monkeypatch.syspath_prepend(site)
    with use(Registry(blocking=Blocking())):
        for name, says in (
            ("other", "spikecore-other 1.0 is installed under this name"),
            ("quick", "spikecore-other already offers the neuron 'quick'"),
            ("clash", "finds a module 'spikecore_clash'"),
        ):
            with pytest.raises(OptionError, match=says):
                names_for(name, "neuron")
        assert names_for("quick", "encoder").component == "quick"


def test_a_directory_that_is_not_empty_stays_as_it_is(tmp_path):
    (tmp_path / "fresh-thing").mkdir()
    (tmp_path / "fresh-thing" / "notes.txt").write_text("mine")
    with pytest.raises(OptionError, match="not an empty directory"):
        render("fresh-thing", "neuron", tmp_path)
    assert [path.name for path in (tmp_path / "fresh-thing").iterdir()] == ["notes.txt"]
    (tmp_path / "file").touch()
    with pytest.raises(OptionError, match="cannot be written"):
        render("fresh-thing", "neuron", tmp_path / "file" / "below")


def test_what_is_put_into_it_meanwhile_stays(tmp_path, monkeypatch):
    (tmp_path / "fresh-thing").mkdir()
    module = sys.modules["spikecore.scaffold.render"]  # the package has a function of this name
    templates = module.render_templates

    def write_meanwhile(*given):
        (tmp_path / "fresh-thing" / "notes.txt").write_text("mine")
        yield from templates(*given)

    monkeypatch.setattr(module, "render_templates", write_meanwhile)
    with pytest.raises(OptionError, match=r"cannot be written: .*not empty"):
        render("fresh-thing", "neuron", tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == ["fresh-thing", "notes.txt"]


def test_an_empty_directory_is_filled(tmp_path):
    (tmp_path / "fresh-thing").mkdir()
    assert (render("fresh-thing", "neuron", tmp_path) / "pyproject.toml").is_file()


def test_nothing_is_left_when_writing_fails(tmp_path, monkeypatch):
    write, left = Path.write_text, [5]

    def full(self, *args, **kwargs):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device")
        return write(self, *args, **kwargs)

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OptionError, match="No space left"):
        render("fresh-thing", "neuron", tmp_path)
    assert left[0] == -1
    assert not list(tmp_path.iterdir())


def test_an_unknown_kind():
    with pytest.raises(UnknownComponentError, match="did you mean 'neuron'"):
        names_for("fresh-thing", "neurn")


@pytest.mark.parametrize("folder", ["plain", "with space", "it's"])
def test_the_command_tells_what_to_do_next(tmp_path, folder):
    directory = tmp_path / folder / "fresh-thing"
    done = CliRunner().invoke(cli, ["new-plugin", "fresh-thing", "--kind", "neuron", "--dest", str(directory.parent)])
    assert done.exit_code == 0, done.output
    steps = [shlex.split(line) for line in done.stdout.splitlines()[1:]]  # as a shell reads them
    assert steps == [
        ["pip", "install", "-e", f"{directory}[testing]"],
        ["spike", "info", "neuron", "fresh_thing"],
        ["spike", "test", "neuron:fresh_thing"],
        ["pytest", str(directory / "tests")],
    ]

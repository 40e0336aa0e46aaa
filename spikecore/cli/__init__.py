"""The `spike` command. Each subcommand lives in a file of its own and is imported when it is called."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
import warnings
from typing import TYPE_CHECKING, Any, TextIO

import click

from spikecore import __version__
from spikecore.errors import (
    AmbiguousComponentError,
    BrokenPluginError,
    CheckpointError,
    ConfigError,
    ContractError,
    PluginError,
    SpikeError,
)
from spikecore.foreign import printable, printable_lines
from spikecore.registry.commands import COMMANDS
from spikecore.terminal import width, wrapped

if TYPE_CHECKING:
    from spikecore.registry import Entry


MEANT = {
    "benchmark": "bench",
    "check": "test",
    "energy": "profile",
    "evaluate": "eval",
    "export": "deploy",
    "fit": "run",
    "list": "list-plugins",
    "load": "view",
    "plugins": "list-plugins",
    "show": "info",
    "train": "run",
}
"""Names that other tools use → the command of this name here; other names are compared by spelling."""


class BrokenCommand(click.Command):
    """A plugin's command that cannot be loaded: it is listed as broken, and raises the reason when called."""

    def __init__(self, name: str, error: PluginError) -> None:
        super().__init__(name, short_help=f"(broken) {error}")
        self.error = error

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        raise self.error


class LazyGroup(click.Group):
    """Imports a command when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*COMMANDS, *self._plugin_commands()})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in COMMANDS:
            module = importlib.import_module(f"spikecore.cli.{cmd_name.replace('-', '_')}")
            command: click.Command = module.command
            return command
        entries = _commands_named(cmd_name)
        if not entries:
            return None
        from spikecore.registry.loading import load_target, who

        try:
            entry = _only(cmd_name, entries)
            loaded = load_target(entry)
            if not isinstance(loaded, click.Command):
                raise ContractError(f"{who(entry)} is not a click command, but {type(loaded).__name__}")
            return loaded
        except PluginError as error:
            return BrokenCommand(cmd_name, error)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            commands = self.list_commands(ctx)
            same = MEANT.get(args[0].lower())
            near = [same] if same in commands else difflib.get_close_matches(args[0].lower(), commands, n=1)
            meant = f" Did you mean {near[0]!r}?" if near else ""
            raise click.UsageError(f"{error.message}{meant}", ctx) from error

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.exceptions.Exit as stop:
            sys.exit(stop.exit_code)  # outside standalone mode, click would ignore the exit status
        except SystemExit as stop:
            from spikecore.registry.loading import is_of_core

            if ctx.invoked_subcommand not in COMMANDS or is_of_core(stop):
                raise
            raise _ended_by(stop) from stop

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        offered = {
            printable(name): printable(f"From the plugin {entry.plugin.id}.")
            for name, entry in self._plugin_commands().items()
        }
        with formatter.section("Commands"):
            formatter.write_dl(sorted({**offered, **COMMANDS}.items()))

    @staticmethod
    def _plugin_commands() -> dict[str, Any]:
        from spikecore.registry import registry

        return {entry.name: entry for entry in registry().entries() if entry.kind == "command" and entry.status == "ok"}


def _ended_by(stop: SystemExit) -> BrokenPluginError:
    from spikecore.registry.loading import place_of

    return BrokenPluginError(
        f"{place_of(stop)} asked the process to end (SystemExit: {stop.code}), so this command was not carried out: a "
        "plugin, or a file that it was given, has to raise an error that says what is wrong"
    )


def _commands_named(name: str) -> list[Entry]:
    """The plugins' commands of this name, by `distribution:name` as well."""
    from spikecore.registry import registry

    commands = [entry for entry in registry().entries() if entry.kind == "command"]
    return [entry for entry in commands if name in (entry.name, entry.qualified, f"{entry.plugin.id}:{entry.name}")]


def _only(name: str, entries: list[Entry]) -> Entry:
    """The one that may be used; raises if there is none, or more than one."""
    from spikecore.registry.registry import usable_entry

    usable = [entry for entry in entries if entry.status in ("ok", "ambiguous", "shadowed")] or entries
    if len(usable) > 1:
        owners = ", ".join(f"{entry.plugin.distribution} {entry.plugin.version}" for entry in usable)
        choices = " or ".join(repr(entry.qualified) for entry in usable)
        raise AmbiguousComponentError(f"command {name!r} is offered by {owners}: write {choices}")
    return usable_entry(usable[0])


def _block(ctx: click.Context, parameter: click.Parameter, names: tuple[str, ...]) -> None:
    """Set up the registry before anything looks at it, so that a blocked plugin is never imported."""
    if names:
        from spikecore.registry import Blocking, Registry, use
        from spikecore.registry.blocking import ALL
        from spikecore.registry.metadata import normalise

        registry = Registry(blocking=Blocking.from_environment(flags=names))
        known: set[str] = set()
        for plugin in registry.plugins():
            known |= {plugin.id, plugin.distribution}
        valid = {ALL, *map(normalise, known)}
        if unknown := [name for name in names if normalise(name) not in valid]:
            # A typo would silently leave the plugin enabled.
            raise click.UsageError(f"--no-plugin {unknown[0]}: not installed (plugins: {', '.join(sorted(known))})")
        ctx.with_resource(use(registry))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--no-plugin",
    metavar="ID",
    multiple=True,
    is_eager=True,
    expose_value=False,
    callback=_block,
    help="Switch a plugin off, by id or distribution; `all` for every one but core. Repeatable.",
)
@click.version_option(__version__, prog_name="spike")
def spike() -> None:
    """Spiking neural networks from the command line."""


AUTOLOAD = "TORCH_DEVICE_BACKEND_AUTOLOAD"
"""With 0, torch does not read the entry points of all distributions while it is imported."""


def _spare_torch() -> None:
    """Torch reads all entry points when it is imported, fails on a malformed file, and crashes if imported again."""
    from spikecore.registry.metadata import malformed_entry_points

    for problem in malformed_entry_points():
        os.environ[AUTOLOAD] = "0"
        text = f"spike: entry points cannot be read, so torch loads no backends of others: {problem}"
        click.echo(f"{printable_lines(text)}: repair or remove this file", err=True)


IS_HELP: type[click.UsageError] | tuple[()] = getattr(click.exceptions, "NoArgsIsHelpError", ())
"""What click raises for `spike` alone, with the help as its message; click 8.1 prints the help itself."""


def _error_text(error: click.ClickException) -> str:
    """`spike: …`, and where the command was called wrongly also how to see the right way."""
    if isinstance(error, IS_HELP):
        return error.format_message()
    message = f"spike: {error.format_message()}"
    if isinstance(error, click.MissingParameter) and error.ctx is not None:
        return f"{message}\n{error.ctx.get_usage()}"
    if isinstance(error, click.UsageError) and error.ctx is not None:
        return f"{message}\n`{error.ctx.command_path} --help` shows how to call it"
    return message


def _complain(message: str) -> None:
    """Print an error, which may hold names that others chose, and lists that are wider than the terminal."""
    click.echo(wrapped(printable_lines(message), width()), err=True)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """As the commands print their own warnings: Python would add a place in the source, which users did not write."""
    if category is UserWarning and file is None:
        _complain(f"warning: {message}")
    else:
        _show_elsewhere(message, category, filename, lineno, file, line)


_show_elsewhere = warnings.showwarning


def main() -> None:
    """Exit 0; 2 bad input, config or plugin; 1 the command failed; 130 Ctrl-C."""
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        _main()


def _is_output_stuck() -> bool:
    """Whether nothing can be printed: the file or disk behind stdout is full. If it is not, the output ends here."""
    try:
        os.write(sys.stdout.fileno(), b"\n")
    except OSError:
        return True
    return False


def _main() -> None:
    try:
        _spare_torch()
        spike(standalone_mode=False, prog_name="spike")
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as error:
        _complain(_error_text(error))
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except PermissionError as error:  # of whatever the command read or wrote
        what = (
            f"{error.filename}: {error.strerror}: you need its owner's rights, or a copy" if error.filename else error
        )
        click.echo(f"spike: {printable_lines(what)}", err=True)
        sys.exit(1)
    except OSError as error:
        if not _is_output_stuck():
            raise
        _complain(f"spike: what this command prints cannot be written: {error.strerror}")
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python tries again when it ends
        sys.exit(1)
    except SpikeError as error:
        if not error.is_told:
            lines = error.problems if isinstance(error, ConfigError) else [str(error)]
            _complain("\n".join(f"spike: {line}" for line in lines))
        sys.exit(2 if isinstance(error, PluginError | ConfigError | CheckpointError | ValueError) else 1)

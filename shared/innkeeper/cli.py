"""The one command ``innkeeper``: finds its subcommands, and turns our errors into one line and an exit code.

Subcommands are found through the entry-point group ``innkeeper.commands`` and loaded when they are asked for, so that
this package imports neither role and ``innkeeper worker`` pays for no web server.
"""

from importlib.metadata import EntryPoint, entry_points, version
from typing import Any

import click

from innkeeper.errors import InnkeeperError

COMMANDS_GROUP = "innkeeper.commands"
ENVVAR_PREFIX = "INNKEEPER"


class Commands(click.Group):
    """A group whose commands come from installed entry points and whose known errors end without a traceback."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all installed commands; none is loaded."""
        return sorted({*super().list_commands(ctx), *_found()})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return one command, loaded now, or None if there is none of that name."""
        known = super().get_command(ctx, cmd_name)
        if known is not None or (entry_point := _found().get(cmd_name)) is None:
            return known
        command: click.Command = entry_point.load()
        _show_variables(command)
        self.add_command(command, cmd_name)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; an :class:`InnkeeperError` becomes one line on stderr and its exit code."""
        try:
            return super().invoke(ctx)
        except InnkeeperError as error:
            click.echo(f"innkeeper: {error}", err=True)
            ctx.exit(error.exit_code)


def _show_variables(command: click.Command) -> None:
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            parameter.show_envvar = True
    for each in command.commands.values() if isinstance(command, click.Group) else ():
        _show_variables(each)


def _found() -> dict[str, EntryPoint]:
    return {entry_point.name: entry_point for entry_point in entry_points(group=COMMANDS_GROUP)}


def _print_version(ctx: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        click.echo(f"innkeeper {version('innkeeper')}")
        ctx.exit()


@click.group(
    cls=Commands,
    context_settings={
        "auto_envvar_prefix": ENVVAR_PREFIX,
        "help_option_names": ["-h", "--help"],
        "show_default": True,
    },
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version and exit.",
)
def main() -> None:
    """Durable rooms on your own Redis or Valkey.

    Every option can also be given as the environment variable shown beside it.

    \b
    Exit codes:
      0  done, or stopped as asked
      1  unexpected error
      2  wrong usage
      3  no Redis, or one that cannot be used
      4  the target with the room classes cannot be loaded
      5  the port is taken
      70 a worker whose event loop stood still or whose memory ran out
    """  # noqa: D301 - click's mark for a block that keeps its lines

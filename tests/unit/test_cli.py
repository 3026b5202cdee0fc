"""The one command: how it finds its subcommands, and how errors end."""

from importlib.metadata import EntryPoint

import click
import pytest
from click.testing import CliRunner, Result

from innkeeper import cli
from innkeeper.errors import InnkeeperError, RedisUnavailable, TargetInvalid
from innkeeper.options import log_level_option, redis_option, without_password


@click.command()
@redis_option()
@log_level_option()
@click.option("--limit", default=3, help="A number.")
@click.option("--fail", type=click.Choice(["redis", "target", "other", "bug"]))
def inspect(redis: str, log_level: str, limit: int, fail: str | None) -> None:
    """Show the options it got."""
    failures: dict[str | None, Exception] = {
        "redis": RedisUnavailable("no answer from redis://127.0.0.1"),
        "target": TargetInvalid("chat.py: no Room class in it"),
        "other": InnkeeperError("something else"),
        "bug": ZeroDivisionError("a bug"),
    }
    if fail in failures:
        raise failures[fail]
    click.echo(f"{redis} {log_level} {limit}")


@pytest.fixture(autouse=True)
def _one_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let there be one installed command, and no setting from outside."""
    entry_point = EntryPoint("inspect", f"{__name__}:inspect", cli.COMMANDS_GROUP)
    monkeypatch.setattr(EntryPoint, "load", lambda _self: inspect)
    monkeypatch.setattr(cli, "entry_points", lambda group: [entry_point] if group == cli.COMMANDS_GROUP else [])
    for name in ("INNKEEPER_REDIS", "INNKEEPER_LOG_LEVEL"):
        monkeypatch.delenv(name, raising=False)


def run(*arguments: str, **environment: str) -> Result:
    """Run the command as a shell would."""
    return CliRunner().invoke(cli.main, list(arguments), env=environment, prog_name="innkeeper")


def test_options_have_defaults() -> None:
    """Without options and variables the defaults hold."""
    assert run("inspect").output == "redis://127.0.0.1:6379/0 info 3\n"


def test_variables_are_read() -> None:
    """Shared options have one variable for all commands, the others one of their own; options win."""
    environment = {"INNKEEPER_REDIS": "redis://a", "INNKEEPER_LOG_LEVEL": "debug", "INNKEEPER_INSPECT_LIMIT": "5"}
    assert run("inspect", **environment).output == "redis://a debug 5\n"
    assert run("inspect", "--redis", "redis://b", **environment).output == "redis://b debug 5\n"


def test_help_shows_variables_and_exit_codes() -> None:
    """Help of a command shows every variable; help of the group lists the commands and explains the exit codes."""
    shown = " ".join(run("inspect", "--help").output.split())
    assert "env var: INNKEEPER_REDIS;" in shown
    assert "env var: INNKEEPER_INSPECT_LIMIT;" in shown
    group = run("--help").output
    assert "inspect Show the options it got." in " ".join(group.split())
    assert "  4  the target with the room classes cannot be loaded\n" in group


@pytest.mark.parametrize(
    ("fail", "exit_code", "message"),
    [
        ("redis", 3, "innkeeper: no answer from redis://127.0.0.1\n"),
        ("target", 4, "innkeeper: chat.py: no Room class in it\n"),
        ("other", 1, "innkeeper: something else\n"),
    ],
)
def test_known_errors_end_in_one_line(fail: str, exit_code: int, message: str) -> None:
    """An error of ours is one line on stderr and its own exit code, without a traceback."""
    result = run("inspect", "--fail", fail)
    assert (result.exit_code, result.stderr, result.stdout) == (exit_code, message, "")


def test_bugs_keep_their_traceback() -> None:
    """An error that nobody foresaw is not dressed up."""
    result = run("inspect", "--fail", "bug")
    assert isinstance(result.exception, ZeroDivisionError)
    assert result.exit_code == 1


def test_wrong_usage() -> None:
    """A command that does not exist is wrong usage: exit code 2."""
    result = run("inspekt")
    assert result.exit_code == 2
    assert "No such command 'inspekt'" in result.stderr


def test_version() -> None:
    """The version shown is the installed one."""
    assert run("--version").output.startswith("innkeeper 0.")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://127.0.0.1:6379/0", "redis://127.0.0.1:6379/0"),
        ("rediss://me:secret@host/0", "rediss://me:***@host/0"),
        ("redis://:secret@host:6379", "redis://:***@host:6379"),
        ("redis+sentinel://u:secret@a,b/0?service=x", "redis+sentinel://u:***@a,b/0?service=x"),
        (
            "redis+sentinel://a/0?sentinel_password=secret&service=x",
            "redis+sentinel://a/0?sentinel_password=***&service=x",
        ),
    ],
)
def test_passwords_are_not_shown(url: str, shown: str) -> None:
    """A URL is shown without its password and otherwise unchanged."""
    assert without_password(url) == shown

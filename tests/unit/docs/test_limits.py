"""The pages of limits and close codes say what the code does."""

import re
from pathlib import Path

import click
import pytest

from innkeeper.close_codes import REFUSALS, TABLE
from innkeeper_edge.cli import edge
from innkeeper_edge.limits import DEFAULT_LIMITS, Limits

NOTHING = "\N{EN DASH}"
DOCS = Path(__file__).parents[3] / "docs"


def _rows(page: str, columns: int) -> list[list[str]]:
    lines = (DOCS / page).read_text("utf-8").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if line.startswith("|")]
    return [row for row in rows if len(row) == columns]


def test_every_limit_is_on_the_page_with_its_default() -> None:
    """Option, variable and default of each limit, and no other."""
    shown = {row[0].strip("`"): (row[1].strip("`"), row[2]) for row in _rows("limits.md", 4) if row[0][:3] == "`--"}
    expected = {}
    for name in Limits.__dataclass_fields__:
        default = getattr(DEFAULT_LIMITS, name)
        expected[f"--{name.replace('_', '-')}"] = (f"INNKEEPER_{name.upper()}", str(default or NOTHING))
    assert shown == expected


def test_every_limit_is_an_option() -> None:
    """With the default of the dataclass, its own variable, and a help text."""
    options = {option.name: option for option in edge.params if isinstance(option, click.Option)}
    for name in Limits.__dataclass_fields__:
        assert options[name].envvar == f"INNKEEPER_{name.upper()}"
        assert options[name].help
        assert options[name].multiple or options[name].default == getattr(DEFAULT_LIMITS, name)


def test_every_refusal_is_on_the_page() -> None:
    """Status, error, time to wait and meaning."""
    shown = [row for row in _rows("limits.md", 4) if re.fullmatch(r"\d{3}", row[0])]
    assert shown == [[str(r.status), f"`{r.error}`", str(r.retry_after_s), r.meaning] for r in REFUSALS]


@pytest.mark.parametrize("code", TABLE, ids=lambda code: str(code.code))
def test_every_close_code_is_on_the_page_of_clients(code: object) -> None:
    """Number, reason, whether to come back, and meaning."""
    rows = {row[0]: row for row in _rows("handlers.md", 4) if re.fullmatch(r"\d{4}", row[0])}
    reason = f"`{code.reason}`" if code.reason else ""  # type: ignore[attr-defined]
    retry = "yes" if code.retry else "no"  # type: ignore[attr-defined]
    assert rows[str(code.code)][1:] == [reason, retry, code.meaning]  # type: ignore[attr-defined]


def test_limits_survive_the_way_to_a_child() -> None:
    """What a parent of several processes gives its children makes the same limits."""
    seen: list[Limits] = []
    command = click.Command("edge", params=edge.params, callback=lambda limits, **_: seen.append(limits))
    from innkeeper_edge.limits import limit_options  # noqa: PLC0415

    command.callback = limit_options(lambda limits, **_: seen.append(limits))
    given = ["--max-connections", "7", "--stall-s", "1.5", "--trusted-proxy", "10.1.2.3/8", "--trusted-proxy", "::1"]
    command.main(["--auth", "none", *given], standalone_mode=False)
    command.main(["--auth", "none", *seen[0].as_arguments()], standalone_mode=False)
    assert seen[0] == seen[1]
    assert [str(network) for network in seen[1].trusted_proxy] == ["10.0.0.0/8", "::1/128"]
    assert (seen[1].max_connections, seen[1].stall_s) == (7, 1.5)


@pytest.mark.parametrize(
    "given",
    [
        ["--trusted-proxy", "everybody"], ["--message-rate", "-1"], ["--stall-s", "0"], ["--origin", "app.example"],
        ["--origin", "https://*.example"], ["--origin", "https://app.example/"],
    ],
)  # fmt: skip
def test_nonsense_is_refused(given: list[str]) -> None:
    """Before anything starts, with the option's name."""
    with pytest.raises(click.BadParameter) as caught:
        edge.make_context("edge", ["--auth", "none", *given])
    assert caught.value.exit_code == 2
    assert given[0] in caught.value.format_message()

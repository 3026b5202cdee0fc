"""Answers for people and for programs: tables, by rich where it is installed, or JSON."""

import importlib.util
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from typing import Any

import click
import orjson

_GAP = "  "
_NAMES = 2


def safe(value: object) -> str:
    """Return a value as it may go to a terminal: one line, control characters as escapes."""
    text = value if isinstance(value, str) else "" if value is None else str(value)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def show_json(value: Any) -> None:
    """Print a value, dataclasses included, as one line of JSON."""
    click.echo(orjson.dumps(value, default=_plain, option=orjson.OPT_NON_STR_KEYS).decode())


def _plain(value: object) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    raise TypeError(type(value).__name__)


def show_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, title: str = "") -> None:
    """Print rows under their columns; numbers stand to the right.

    A terminal folds what is too wide, but never a row's name and its owner; whatever else reads it gets each row whole.
    """
    texts = [[safe(cell) for cell in row] for row in rows]
    right = [bool(rows) and all(isinstance(row[n], int | float) for row in rows) for n in range(len(columns))]
    if sys.stdout.isatty() and importlib.util.find_spec("rich") is not None:
        _rich(columns, texts, right, title)
    else:
        click.echo(plain_table(columns, texts, right, title))


def plain_table(columns: Sequence[str], texts: Sequence[Sequence[str]], right: Sequence[bool], title: str = "") -> str:
    """Return a table of aligned text."""
    lines = [list(columns), *map(list, texts)]
    widths = [max(len(line[n]) for line in lines) for n in range(len(columns))]
    aligned = [
        _GAP.join(
            cell.rjust(width) if is_right else cell.ljust(width)
            for cell, width, is_right in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in lines
    ]
    return "\n".join(([title] if title else []) + aligned)


def _rich(columns: Sequence[str], texts: Sequence[Sequence[str]], right: Sequence[bool], title: str) -> None:
    from rich.box import SIMPLE_HEAD  # noqa: PLC0415 - an optional extra
    from rich.console import Console  # noqa: PLC0415
    from rich.markup import escape  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    table = Table(box=SIMPLE_HEAD, title=title or None, title_justify="left", pad_edge=False)
    for n, (column, is_right) in enumerate(zip(columns, right, strict=True)):
        is_name = n < _NAMES and len(columns) > _NAMES
        table.add_column(column, justify="right" if is_right else "left", overflow="fold", no_wrap=is_name)
    for row in texts:
        table.add_row(*map(escape, row))
    Console(highlight=False, soft_wrap=False).print(table)


def show_facts(facts: Mapping[str, object]) -> None:
    """Print names and values, a line each."""
    width = max(map(len, facts), default=0)
    for name, value in facts.items():
        click.echo(f"{name.ljust(width)}  {safe(value)}")

"""What is written to the log: nobody forges a line, no secret shows, and JSON tells of rooms."""

import json
import logging
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from innkeeper import logs

URL = "redis://me:hunter2@host:6379/0"


@pytest.fixture(autouse=True)
def _no_facts() -> Iterator[None]:
    """Let no test leave what it says about rooms."""
    yield
    logs.describe(logs._no_facts)


def record(message: str, *arguments: object, error: BaseException | None = None, **extra: Any) -> logging.LogRecord:
    """Return a record as a logger would make it."""
    made = logging.LogRecord("innkeeper.worker", logging.WARNING, __file__, 1, message, arguments, None)
    if error is not None:
        made.exc_info = (type(error), error, error.__traceback__)
    made.__dict__.update(extra)
    return made


def as_json(made: logging.LogRecord) -> dict[str, Any]:
    """Return the fields of a line of JSON."""
    line = logs.JsonFormatter().format(made)
    assert "\n" not in line
    fields: dict[str, Any] = json.loads(line)
    return fields


def test_a_line_of_text_is_as_it_was() -> None:
    """Time, level, logger, message."""
    assert logs.TextFormatter().format(record("room %s: x", "a/b")).endswith("WARNING innkeeper.worker: room a/b: x")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\x0b", "\x0c", "\x85", "\u2028", "\u2029"])
def test_no_text_forges_a_line(end: str) -> None:
    """Whatever ends a line in a message or an error, what follows it never begins a line of the log."""
    forged = f"oops{end}2026-11-26 09:00:00,000 INFO    innkeeper.edge: all is well"
    for made in (record("room %s: %s", "a/b", forged), record("room %s: failed", "a/b", error=ValueError(forged))):
        lines = logs.TextFormatter().format(made).splitlines()
        assert not [line for line in lines[1:] if not line.startswith("    ")]
        assert any("all is well" in line for line in lines)
        assert len(logs.JsonFormatter().format(made).splitlines()) == 1


@pytest.mark.parametrize("control", ["\x1b[2J", "\x00", "\x7f", "\x9b1m", "\u202e", "\ud800"])
def test_controls_are_written_out(control: str) -> None:
    """A terminal that shows the log is told nothing by it, and what is no UTF-8 does not stop it."""
    made = record("room %s: %s", "a/b", f"<{control}>")
    for text in (logs.TextFormatter().format(made), as_json(made)["message"]):
        assert control[0] not in text
        assert "\\" in text
        text.encode()


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        (f"no Redis at {URL}", "hunter2"),
        ("GET /parties/a/b?name=x&access_token=s3cr3t-value", "s3cr3t-value"),
        ("redis+sentinel://a?sentinel_password=s3cr3t", "s3cr3t"),
        ("Authorization: Bearer abcdefgh12345678", "abcdefgh12345678"),
        ("protocols: bearer.abcdefgh12345678", "abcdefgh12345678"),
        ("token eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln", "eyJzdWIi"),
    ],
)
def test_secrets_do_not_show(text: str, secret: str) -> None:
    """Passwords in URLs, and tokens, are starred out in messages and in errors."""
    for made in (record("%s", text), record("failed", error=ValueError(text))):
        assert secret not in logs.TextFormatter().format(made)
        assert secret not in logs.JsonFormatter().format(made)


def test_json_tells_of_room_owner_and_token() -> None:
    """The room is read off the message, and the process adds what it knows of it."""

    def facts(room: str) -> Mapping[str, str]:
        return {"incarnation": "w-1", **({"owner": "w-1", "token": "3:7"} if room == "chat/a:b" else {})}

    logs.describe(facts)
    about = as_json(record("room %s: event failed", "chat/a:b", error=KeyError("text")))
    assert about.pop("time").endswith("Z")
    assert "KeyError: 'text'" in about.pop("traceback")
    assert about == {
        "level": "warning", "logger": "innkeeper.worker", "message": "room chat/a:b: event failed", "room": "chat/a:b",
        "incarnation": "w-1", "owner": "w-1", "token": "3:7", "error": "KeyError: 'text'",
    }  # fmt: skip
    assert "room" not in as_json(record("room %s: x", "no room"))
    assert as_json(record("x", room="a/b", owner="w-2"))["owner"] == "w-2"


def test_other_libraries_speak_json_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """With the format chosen in the environment, warnings of any logger are objects."""
    own, others = logging.getLogger("innkeeper"), logging.getLogger()
    before = own.handlers, own.level, own.propagate, list(others.handlers)
    monkeypatch.setenv(logs.FORMAT_VARIABLE, "json")
    try:
        logs.set_up_logs("info")
        logs.set_up_logs("info")  # once more takes the place of the first
        logging.getLogger("aiohttp.server").warning("something")
        own.info("mine")
    finally:
        own.handlers, own.level, own.propagate, others.handlers = before
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(line["logger"], line["message"]) for line in lines] == [
        ("aiohttp.server", "something"),
        ("innkeeper", "mine"),
    ]


def test_other_libraries_forge_no_line_either(capsys: pytest.CaptureFixture[str]) -> None:
    """Nor in text, which is the default: what rooms and rq log is written out and starred out as well."""
    own, others = logging.getLogger("innkeeper"), logging.getLogger()
    before = own.handlers, own.level, own.propagate, list(others.handlers)
    try:
        logs.set_up_logs("info", "text")
        logs.set_up_logs("info", "text")
        logging.getLogger("myroom").warning("said %s", "\x1b[31m\nFORGED ?token=SECRET1")
    finally:
        own.handlers, own.level, own.propagate, others.handlers = before
    said = capsys.readouterr().err
    assert "\x1b" not in said
    assert "SECRET1" not in said
    assert [line[:4] for line in said.splitlines()[1:]] == ["    "]

"""Mistakes in a room class are told where it is written."""

# ruff: noqa: ARG005 - the signatures are what is tested

import functools
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from harness.activations import row, staged
from innkeeper import Connection, Room, job, on


def room_with(name: str, value: Any, *bases: type) -> type[Room]:
    """Return a room class with one attribute."""
    return type("Mine", (*bases, Room), {name: value})


def passing(hook: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a hook so that it gets one argument more."""

    @functools.wraps(hook)
    def wrapped(self: Any, conn: Any) -> Any:
        return hook(self, conn, "database")

    return wrapped


def _yields(self: Any, conn: Any, message: Any) -> Iterator[Any]:
    yield self, conn, message


async def _yields_later(self: Any, conn: Any, message: Any) -> AsyncIterator[Any]:
    yield self, conn, message


@pytest.mark.parametrize("hook", [_yields, _yields_later])
def test_generators_are_refused(hook: Any) -> None:
    """A hook, or a handler of a type, with a yield in it names itself in a TypeError."""
    with pytest.raises(TypeError, match=r"Mine\.on_message has a yield in it"):
        room_with("on_message", hook)
    with pytest.raises(TypeError, match=r"Mine\.said has a yield in it"):
        room_with("said", on("say")(hook))


@pytest.mark.parametrize(
    ("name", "hook", "told"),
    [
        (
            "on_connect",
            lambda self: None,
            r"on_connect\(self\): it has to take what Room.on_connect\(self, conn\) takes",
        ),
        ("on_start", lambda self, conn: None, r"Room.on_start\(self\) takes"),
        ("on_message", lambda self, message: None, r"Room.on_message\(self, conn, message\) takes"),
        ("on_timer", lambda self, name, payload, more: None, "on_timer"),
        ("on_job", lambda self, *, result: None, "on_job"),
        ("on_leave", staticmethod(lambda self, conn: None), r"on_leave\(self, conn\)"),
        ("on_leave", classmethod(lambda cls: None), r"on_leave\(\)"),
        ("on_error", None, "on_error = None: a hook is a method"),
    ],
)
def test_hooks_that_cannot_be_called_are_refused(name: str, hook: Any, told: str) -> None:
    """A hook that does not take what it gets is a TypeError with what it should take."""
    with pytest.raises(TypeError, match=told):
        room_with(name, hook)


@pytest.mark.parametrize(
    "hook",
    [
        lambda self, *rest: None,
        lambda self, member, also=None: None,
        staticmethod(lambda conn: None),
        classmethod(lambda cls, conn: None),
        passing(lambda self, conn, database: None),
        functools.partialmethod(lambda self, how, conn: None, "how"),
        max,
    ],
    ids=["rest", "default", "static", "class", "decorated", "partial", "built-in"],
)
def test_hooks_that_can_be_called_pass(hook: Any) -> None:
    """However it is made, what may be callable is not refused."""
    assert room_with("on_leave", hook).kind == "mine"


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("on_close", "on_leave"), ("on_disconnect", "on_leave"), ("on_alarm", "on_timer"), ("on_open", "on_connect"),
        ("onMessage", "on_message"), ("onClose", "on_leave"), ("on_mesage", "on_message"), ("on_resumed", "on_resume"),
        ("on_frobnicate", ""), ("on_Start", "on_start"),
    ],
)  # fmt: skip
def test_methods_that_look_like_hooks_are_told(name: str, meant: str, caplog: pytest.LogCaptureFixture) -> None:
    """A warning names the method and the hook that is probably meant, once, whatever else inherits it."""
    with caplog.at_level(logging.WARNING, "innkeeper.worker"):
        mine = room_with(name, lambda self: None)
        type("Yours", (mine,), {})
    (record,) = caplog.records
    text = f"Mine.{name}: no hook has this name, so only your own code calls it"
    assert record.getMessage() == (f"{text}; is it {meant} that you mean?" if meant else text)


def test_methods_of_mixins_are_told_too(caplog: pytest.LogCaptureFixture) -> None:
    """A class that is no room may bring the mistake along."""
    room_with("other", 1, type("Mixin", (), {"on_close": lambda self: None}))
    assert "Mine.on_close" in caplog.text


def test_what_is_in_order_is_not_told(caplog: pytest.LogCaptureFixture) -> None:
    """Handlers of types may have such names, in subclasses without the mark too; so may values and other methods."""

    class Base(Room):
        on_off = True
        _on_close = print

        @on("move")
        def on_move(self, conn: Connection, message: Any) -> None:
            """Take it."""

        def online(self) -> None:
            """Nothing of the framework's."""

    class Sub(Base):
        def on_move(self, conn: Connection, message: Any) -> None:
            """Take it in another way."""

    assert Sub.kind == "sub"
    assert not caplog.records


@pytest.mark.parametrize("name", ["post", "state", "name", "now", "on_message", "kind", "_context", "__init__"])
def test_handlers_may_not_take_the_frameworks_names(name: str) -> None:
    """@on above a method that would hide one of Room's own is a TypeError."""
    with pytest.raises(TypeError, match=rf"Mine\.{name}: a method with @on may not take the place of Room\.{name}"):
        room_with(name, on("x")(lambda self, conn, message: None))


async def test_a_hook_that_returns_a_generator_fails() -> None:
    """What cannot be seen where the class is written is a failure where it happens."""

    class Late(Room):
        def on_message(self, conn: Connection, message: Any) -> Any:
            """Return what would never run."""
            return _yields(self, conn, message) if message else _yields_later(self, conn, message)

    stage = await staged(Late, members={"c1": row(1)})
    for message in (True, False):
        turn = await stage.say(message)
        assert turn.dead[0].error.startswith("TypeError: the hook returned a generator")


@job
def work() -> None:
    """Do nothing."""


async def test_jobs_need_a_hook() -> None:
    """A class without on_job may not enqueue: the result would come to nothing."""

    class Deaf(Room):
        def on_message(self, conn: Connection, message: Any) -> None:
            """Enqueue."""
            conn.send([message, self.enqueue(work)])

    stage = await staged(Deaf, members={"c1": row(1)})
    turn = await stage.say(1)
    assert turn.dead[0].error.endswith("test_hook_rules:work: Deaf has no on_job(self, result)")
    assert not turn.outbox

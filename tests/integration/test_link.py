"""The link to a real server: order, errors, silence, loss; with hiredis and with redis-py's own reader."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable

import pytest

from harness.house import until
from harness.valkey import Valkey
from innkeeper import channel
from innkeeper.channel import pack
from innkeeper.errors import FunctionMissing, RedisReplied, RedisUnavailable, RedisUnready
from innkeeper.redis_client import Link, connector

TIMEOUT_S = 0.4


@pytest.fixture(params=["hiredis", "redis-py"], autouse=True)
def reader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run every test with the own reader and with redis-py's."""
    if request.param == "redis-py":
        monkeypatch.setattr(channel, "hiredis", None)
    return str(request.param)


@pytest.fixture
async def quick(own_valkey: Valkey) -> AsyncIterator[Link]:
    """A link with a short timeout to a server of this test's own."""
    link = Link(connector(own_valkey.url, timeout_s=TIMEOUT_S), timeout_s=TIMEOUT_S, name="test")
    yield link
    await link.close()


async def answers(link: Link) -> bool:
    """Return whether a call works."""
    try:
        return bool(await link.call("PING") == b"PONG")
    except RedisUnavailable:
        return False


async def test_replies_come_in_the_order_of_the_commands(link: Link) -> None:
    """Many callers at once each get their own replies, in order, of whatever type."""

    async def ask(n: int) -> list[object]:
        return await link.send((("ECHO", f"{n}"), ("TIME",), ("ECHO", b"\xff" * n), ("GET", f"test:none:{n}")))

    for n, (number, time, blob, nothing) in enumerate(await asyncio.gather(*(ask(n) for n in range(200)))):
        assert number == f"{n}".encode()
        assert isinstance(time, list)
        assert all(isinstance(part, bytes) for part in time)
        assert blob == b"\xff" * n
        assert nothing is None


async def test_a_call_of_no_commands_of_a_large_one_and_of_numbers(link: Link) -> None:
    """Text goes as UTF-8, numbers as decimal text, bytes as they are, also over many packets."""
    large = bytes(range(256)) * 20_000
    assert await link.send((("ECHO", large), ("ECHO", "é"), ("ECHO", 12))) == [large, "é".encode(), b"12"]


async def test_error_replies_stand_in_the_list(link: Link) -> None:
    """One failed command of a batch hides no other reply; its text keeps its code word."""
    replies = await link.send((("ECHO", "a"), ("NOSUCH",), ("FCALL", "nosuch", 0), ("ECHO", "b")))
    assert (replies[0], replies[3]) == (b"a", b"b")
    assert isinstance(replies[1], RedisReplied)
    assert "unknown command" in str(replies[1])
    assert isinstance(replies[2], FunctionMissing)


async def test_an_error_inside_a_reply_is_an_error_too(link: Link) -> None:
    """The replies inside an EXEC answer are errors of ours as well."""
    commands = (("MULTI",), ("SET", "test:exec", "x"), ("INCR", "test:exec"), ("EXEC",))
    replies = await link.send(commands)
    assert replies[3][0] == b"OK"
    assert isinstance(replies[3][1], RedisReplied)


async def test_call_raises_an_error_reply(link: Link) -> None:
    """A single call raises what the server answered, with the code in front."""
    with pytest.raises(RedisReplied, match=r"^NOSCRIPT "):
        await link.call("EVALSHA", "0" * 40, 0)


async def test_the_code_of_an_error_reply_is_kept(quick: Link) -> None:
    """Owners and edges tell passing states by the first word, so no reader may take it out."""
    await quick.call("CONFIG", "SET", "maxmemory", "1")
    with pytest.raises(RedisReplied, match=r"^OOM "):
        await quick.call("SET", "a", "b")
    await quick.call("CONFIG", "SET", "maxmemory", "0")


async def test_a_demoted_server_counts_as_lost(own_valkey: Valkey) -> None:
    """READONLY is told to no caller as an answer: the connection is opened anew, which may lead to the new primary."""
    unready: list[str] = []
    connect = connector(own_valkey.url, timeout_s=TIMEOUT_S)
    link = Link(connect, timeout_s=TIMEOUT_S, name="test", on_unready=lambda: unready.append("x"))
    own = await link.call("CLIENT", "ID")
    await link.call("REPLICAOF", "127.0.0.1", "1")
    with pytest.raises(RedisUnready, match="READONLY"):
        await link.call("SET", "a", "b")
    assert unready == ["x"]
    await link.call("REPLICAOF", "NO", "ONE")
    assert await link.call("CLIENT", "ID") != own
    assert await link.call("SET", "a", "b") == b"OK"
    await link.close()


async def test_silence_makes_unavailable_and_later_calls_work(own_valkey: Valkey, quick: Link) -> None:
    """A server that stops answering fails every pending call within the timeout; when it goes on, so does the link."""
    loop = asyncio.get_running_loop()
    assert await quick.call("PING") == b"PONG"
    assert own_valkey.process is not None
    own_valkey.process.send_signal(signal.SIGSTOP)
    try:
        begin_s = loop.time()
        results = await asyncio.gather(*(quick.call("PING") for _ in range(5)), return_exceptions=True)
        assert all(isinstance(result, RedisUnavailable) for result in results)
        assert TIMEOUT_S * 0.9 <= loop.time() - begin_s < TIMEOUT_S * 4
        with pytest.raises(RedisUnavailable):
            await quick.call("PING")
    finally:
        own_valkey.process.send_signal(signal.SIGCONT)
    await until(lambda: answers(quick), "the link works again")
    assert await quick.call("ECHO", "x") == b"x"


async def test_a_late_reply_reaches_nobody(own_valkey: Valkey, quick: Link) -> None:
    """The answer to a call that was given up is never taken for the answer to a later one."""
    await quick.call("SET", "a", "old")
    other = Link(connector(own_valkey.url, timeout_s=5), timeout_s=5, name="other")
    await other.call("CLIENT", "PAUSE", int(TIMEOUT_S * 2_000), "ALL")
    with pytest.raises(RedisUnavailable):
        await quick.call("GET", "a")
    await until(lambda: answers(quick), "the pause ends")
    assert await quick.send((("ECHO", "1"), ("ECHO", "2"))) == [b"1", b"2"]
    await other.close()


async def test_a_killed_server_fails_calls_and_comes_back(own_valkey: Valkey, quick: Link) -> None:
    """What is in flight when the connection is lost fails at once; after the restart calls work by themselves."""
    blocked = asyncio.create_task(quick.send((("PING",), ("BLPOP", "nothing", 5))))
    await until(lambda: quick._waiting, "the call is on its way")
    own_valkey.kill()
    with pytest.raises(RedisUnavailable):
        await blocked
    with pytest.raises(RedisUnavailable):
        await quick.call("PING")
    await asyncio.to_thread(own_valkey.start)
    await until(lambda: answers(quick), "the link works again")


async def test_a_cut_connection_is_opened_anew(own_valkey: Valkey, quick: Link) -> None:
    """CLIENT KILL costs the calls in flight and nothing more."""
    own = await quick.call("CLIENT", "ID")
    other = Link(connector(own_valkey.url, timeout_s=5), timeout_s=5, name="other")
    await other.call("CLIENT", "KILL", "ID", own)
    await until(lambda: answers(quick), "the link works again")
    assert await quick.call("CLIENT", "ID") != own
    await other.close()


async def test_a_quiet_link_stays_open(quick: Link) -> None:
    """Silence while nothing is asked is no failure: the connection stays the same for longer than its timeout."""
    own = await quick.call("CLIENT", "ID")
    loop = asyncio.get_running_loop()
    until_s = loop.time() + TIMEOUT_S * 2
    await until(lambda: loop.time() > until_s, "time passes")
    assert await quick.call("CLIENT", "ID") == own


async def test_a_cancelled_call_disturbs_nobody(link: Link) -> None:
    """The replies to a caller that was cancelled are dropped; the next caller gets its own."""
    await link.call("PING")
    cancelled = asyncio.create_task(link.send((("ECHO", "a"), ("ECHO", "b"))))
    await asyncio.sleep(0)  # its first step: the commands are on their way
    assert len(link._waiting) == 1
    cancelled.cancel()
    assert await link.call("ECHO", "c") == b"c"
    with pytest.raises(asyncio.CancelledError):
        await cancelled


async def test_no_server_makes_unavailable() -> None:
    """A link that cannot connect says so within its timeout, and closes cleanly."""
    link = Link(connector("redis://127.0.0.1:1/0", timeout_s=0.1), timeout_s=0.1, name="nobody")
    with pytest.raises(RedisUnavailable, match="no connection to Redis \\(nobody\\)"):
        await link.call("PING")
    await link.close()


async def test_a_closed_link_fails_what_waits(own_valkey: Valkey) -> None:
    """Closing fails pending calls instead of leaving them hanging; a link may be closed before it was ever open."""
    link = Link(connector(own_valkey.url, timeout_s=1), timeout_s=1, name="test")
    await link.call("PING")
    waiting = asyncio.create_task(link.call("BLPOP", "nothing", 5))
    await until(lambda: link._waiting, "the call is on its way")
    await link.close()
    with pytest.raises(RedisUnavailable, match="closed"):
        await waiting
    never = Link(connector(own_valkey.url, timeout_s=1), timeout_s=1, name="never")
    await never.close()


@pytest.mark.parametrize("word", ["", "é", b"\x00\r\n", 0, -12, 2**63], ids=repr)
def test_packing_is_resp(word: str | bytes | int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both packers write the same bytes: an array of bulk strings with lengths in bytes."""
    data = word if isinstance(word, bytes) else str(word).encode()
    expected = b"*2\r\n$3\r\nGET\r\n$%d\r\n%b\r\n" % (len(data), data)
    packers: list[Callable[[], bytes]] = [lambda: pack(("GET", word))]
    assert packers[0]() == expected
    monkeypatch.setattr(channel, "hiredis", None)
    assert packers[0]() == expected

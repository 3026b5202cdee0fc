"""The room API and bad input, through real sockets and processes."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
import websockets

from harness.house import Client, House, until


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    """One edge and one worker on a private Valkey."""
    async with House(tmp_path, edges=1, workers=1) as running:
        yield running


async def joined(house: House, room: str, *names: str) -> list[Client]:
    """Join clients one after the other and wait until each is a member."""
    clients = []
    for name in names:
        clients.append(await house.join(room, name=name))
        await until(lambda: _gone(house, f"inn:{{{room}}}:members", len(clients)), f"{name} is in {room}")
    return clients


async def count(client: Client) -> dict[str, Any]:
    """Have the room count and return what it says."""
    before = len([f for f in client.got if isinstance(f, dict) and "count" in f])
    await client.send({"do": "count"})
    await until(lambda: len([f for f in client.got if isinstance(f, dict) and "count" in f]) > before, "a count")
    frame: dict[str, Any] = [f for f in client.got if isinstance(f, dict) and "count" in f][-1]
    return frame


async def test_raising_hook_undoes_its_event_alone(house: House) -> None:
    """State and broadcasts of an event that raised are gone, its sender is told, and dead holds the traceback."""
    one, two = await joined(house, "trouble/a", "one", "two")
    assert (await count(one))["count"] == 1
    await one.send({"do": "raise"})
    await one.expect(lambda f: f == {"error": "handler_failed"}, "an error frame")
    last = await count(one)
    assert last == {"count": 2, "broken": False}
    await two.expect(lambda f: f == last, "the same count")
    assert {"error": "handler_failed"} not in two.got
    assert {"broken": True} not in one.got
    ((_, record),) = await house.redis.xrange("inn:{trouble/a}:dead")
    assert record[b"error"] == b"RuntimeError: told to"
    assert b"Traceback" in record[b"traceback"]
    assert orjson.loads(record[b"data"]) == {"do": "raise"}


async def test_hook_that_never_ends_is_cut(house: House) -> None:
    """A hanging hook is cut at the handler limit; its event lies in dead, the room goes on with its state."""
    client = await house.join("trouble/hang")
    assert (await count(client))["count"] == 1
    await client.send({"do": "hang"})
    await client.expect(lambda f: f == {"error": "handler_timeout"}, "an error frame")
    assert (await count(client))["count"] == 2
    assert client.close_code is None
    ((_, record),) = await house.redis.xrange("inn:{trouble/hang}:dead")
    assert b"took longer than 1 s" in record[b"error"]


async def test_sends_excludes_and_closes(house: House) -> None:
    """conn.send reaches one, exclude leaves one out, conn.close comes after what was sent before it."""
    one, two = await joined(house, "trouble/b", "one", "two")
    await one.send({"do": "whisper"})
    await one.expect(lambda f: f == {"to": "you"}, "the whisper")
    await two.expect(lambda f: f == {"to": "others"}, "the rest")
    await one.send({"do": "bytes"})
    await two.expect(lambda f: f == b"\x00\xff", "a binary frame")
    assert {"to": "others"} not in one.got
    await one.send({"do": "close"})
    assert await one.closed() == 4321
    assert one.got[-1] == {"last": True}


async def test_refused_connections(house: House) -> None:
    """Refused and any other exception in on_connect close with 4403; only the other one lands in dead."""
    stranger = await house.join("trouble/door", name="stranger")
    assert await stranger.closed() == 4403
    assert stranger.socket.close_reason == "members only"
    assert await house.redis.exists("inn:{trouble/door}:dead") == 0
    bug = await house.join("trouble/door", name="bug")
    assert await bug.closed() == 4403
    assert await house.redis.xlen("inn:{trouble/door}:dead") == 1
    assert await house.redis.hlen("inn:{trouble/door}:members") == 0


async def test_idle_room_sleeps_and_wakes(house: House) -> None:
    """A room idle for its idle_s is released; sockets, conn.state and state stay, and the next event wakes it."""
    client = await house.join("trouble/idle", name="ann")
    await client.send({"do": "note", "note": "mine"})
    await client.expect(lambda f: f == {"notes": {"ann": "mine"}}, "the note")
    await count(client)
    await until(lambda: _missing(house, "inn:{trouble/idle}:lock"), "the lock is given back")
    assert client.close_code is None
    assert (await count(client))["count"] == 2
    other = await house.join("trouble/idle", name="bob")
    await other.send({"do": "note", "note": "his"})
    await client.expect(lambda f: f == {"notes": {"ann": "mine", "bob": "his"}}, "both notes")


async def _missing(house: House, key: str) -> bool:
    return not await house.redis.exists(key)


async def test_raw_rooms_get_frames_as_they_came(house: House) -> None:
    """A raw room sees text as str and binary as bytes, and sends them back likewise."""
    client = await house.join("rawecho/x")
    for frame in ("héllo", "", b"\x00\x01", "not json {"):
        await client.send(frame)
        await client.last(frame)


async def test_large_outputs_come_whole_and_in_order(house: House) -> None:
    """Outputs beyond what pub/sub carries come from the outlog, between their neighbours."""
    client = await house.join("trouble/large")
    await count(client)
    for size in (100, 20_000, 300_000, 11_990):
        await client.send({"do": "big", "size": size})
    last = await count(client)
    sizes = [len(frame["big"]) for frame in client.got if "big" in frame]
    assert sizes == [100, 20_000, 300_000, 11_990]
    assert client.got[-1] == last


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        pytest.param("x" * 70_000, 1009, id="70 kB message"),
        pytest.param("x" * 10_000_000, 1009, id="10 MB message"),
    ],
)
async def test_oversized_messages_close_their_sender_alone(house: House, payload: str, code: int) -> None:
    """A message over the limit closes its sender with 1009 before Redis is touched; the others stay."""
    one, two = await joined(house, "trouble/size", "one", "two")
    await count(two)
    before = await house.redis.hget("inn:{trouble/size}:sessions", "#")
    with contextlib.suppress(websockets.ConnectionClosed):
        await one.send(payload)
    assert await one.closed() == code
    await until(lambda: _gone(house, "inn:{trouble/size}:members", 1), "the leave")
    assert int(await house.redis.hget("inn:{trouble/size}:sessions", "#")) == int(before) + 1  # the leave alone
    assert (await count(two))["count"] == 2
    assert two.close_code is None


async def _gone(house: House, key: str, count: int) -> bool:
    return bool(await house.redis.hlen(key) == count)


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        pytest.param(b"\x81\x02hi", 1002, id="unmasked"),
        pytest.param(b"\xc1\x82\0\0\0\0hi", 1002, id="reserved bit"),
        pytest.param(b"\x83\x82\0\0\0\0hi", 1002, id="unknown opcode"),
        pytest.param(b"\x09\x80\0\0\0\0", 1002, id="fragmented ping"),
        pytest.param(b"\x81\x83\0\0\0\0\xff\xfe\xfd", 1007, id="invalid UTF-8"),
    ],
)
async def test_malformed_frames_close_their_sender_alone(house: House, frame: bytes, code: int) -> None:
    """A frame that RFC 6455 forbids closes its sender with the documented code; the other member notices a leave."""
    (other,) = await joined(house, "trouble/frames", "other")
    reader, writer = await asyncio.open_connection("127.0.0.1", house.edges[0].facts["port"])
    writer.write(
        b"GET /parties/trouble/frames?name=bad HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
    assert head.startswith(b"HTTP/1.1 101 ")
    await until(lambda: _gone(house, "inn:{trouble/frames}:members", 2), "both are in")
    writer.write(frame)
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    assert answer[:1] == b"\x88"
    assert int.from_bytes(answer[2:4], "big") == code
    await until(lambda: _gone(house, "inn:{trouble/frames}:members", 1), "the leave")
    assert (await count(other))["count"] == 1
    assert other.close_code is None


async def test_bad_json_is_told_and_disturbs_nobody(house: House) -> None:
    """Text that is not JSON, or JSON of another shape, costs an error frame to its sender only."""
    one, two = await joined(house, "trouble/json", "one", "two")
    for text, error in (("{", "invalid_json"), ("nan", "invalid_json"), ("[1]", "handler_failed")):
        await one.send(text)
        await one.expect({"error": error}.__eq__, error)
    assert (await count(two))["count"] == 1
    assert not any("error" in frame for frame in two.got)


@pytest.mark.parametrize(
    ("path", "status", "error"),
    [
        ("/parties/nobody/room", 404, "unknown_kind"),
        ("/parties/trouble/a{b}", 400, "invalid_room"),
        ("/parties/trouble/a%20b", 400, "invalid_room"),
        ("/parties/trouble/%2e%2e", 400, "invalid_room"),
        ("/parties/trouble/..", 400, "invalid_room"),
        ("/parties/trouble/a%0d%0ab", 400, "invalid_room"),
        ("/parties/trouble/" + "x" * 129, 400, "invalid_room"),
        ("/parties/Trouble/x", 400, "invalid_room"),
        ("/parties/trouble", 404, "invalid_room"),
        ("/parties/trouble/a/b", 404, "invalid_room"),
    ],
)
async def test_bad_addresses_are_refused_before_redis(house: House, path: str, status: int, error: str) -> None:
    """A room name outside the rule, or an unknown kind, is a clear HTTP refusal; Redis gets no key of it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", house.edges[0].facts["port"])
    key = "dGhlIHNhbXBsZSBub25jZQ=="
    head = f"GET {path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    writer.write(f"{head}Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode())
    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert orjson.loads(answer.partition(b"\r\n\r\n")[2])["error"] == error
    keys = await house.redis.keys("inn:{*")
    assert keys == []


async def test_plain_http_to_a_room_without_on_request(house: House) -> None:
    """A GET without upgrade is answered 404, and health is answered 200."""
    base = f"http://127.0.0.1:{house.edges[0].facts['port']}"
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{base}/parties/trouble/a") as answer:
            assert answer.status == 404
        async with session.get(f"{base}/healthz") as answer:
            assert answer.status == 200


async def test_slow_reader_is_closed_and_others_are_unhurt(house: House) -> None:
    """A client that does not read is cut with more than 1 MiB waiting; the others get everything."""
    slow, quick = await joined(house, "trouble/slow", "slow", "quick")
    await count(quick)
    slow.socket.transport.pause_reading()
    for i in range(60):
        await quick.send({"do": "big", "size": 200_000})
        await quick.big_frames(i + 1)
    await until(lambda: "slow reader" in house.edges[0].log, "the slow reader is cut")
    await until(lambda: _gone(house, "inn:{trouble/slow}:members", 1), "its leave")
    assert quick.close_code is None


async def test_lost_subscription_leaves_no_hole(house: House) -> None:
    """Killing every pub/sub connection under traffic costs nothing: holes are filled from the outlog."""
    one, two = await joined(house, "ledger/holes", "one", "two")
    kills = 0
    for i in range(100):
        await one.send({"i": i})
        await asyncio.sleep(0.01)
        if i % 10 == 5:
            kills += await house.redis.client_kill_filter(_type="pubsub")
    for client in (one, two):
        await client.numbers(100)
        assert [n for n, _, _ in client.numbered()] == list(range(1, 101))
        assert client.close_code is None
    assert kills >= 10


async def test_redis_restart_loses_nothing_accepted(tmp_path: Path) -> None:
    """A SIGKILLed Redis with AOF comes back; sockets stay, and every message sent is applied once, in order."""
    async with House(tmp_path, edges=1, workers=1, persist=True) as house:
        client = await house.join("ledger/aof", name="ann")
        for i in range(200):
            await client.send({"i": i})
            await asyncio.sleep(0.005)
            if i == 60:
                house.valkey.kill()
            if i == 120:
                await asyncio.to_thread(house.valkey.start)
        await until(lambda: len(client.numbered()) >= 200, "200 messages", seen=client.got[-3:])
        assert [(n, i) for n, _, i in client.numbered()] == [(i + 1, i) for i in range(200)]
        assert client.close_code is None


async def test_flushed_redis_is_noticed(house: House) -> None:
    """After FLUSHALL the clients are told to come back (4512); a new connection finds a fresh room."""
    client = await house.join("ledger/flush", name="ann")
    await client.send({"i": 0})
    await client.expect(lambda f: "n" in f, "its number")
    await house.redis.flushall()
    assert await client.closed() in (4512, 1012)
    await asyncio.sleep(1.5)  # longer than the edge keeps the kinds it read
    fresh = await until(lambda: _rejoin(house), "a fresh room")
    assert fresh.got[0] == {"welcome": 0}


async def _rejoin(house: House) -> Client | None:
    try:
        client = await house.join("ledger/flush", name="bob")
    except websockets.InvalidStatus:
        return None
    try:
        await client.expect(lambda f: "welcome" in f, "its welcome", timeout_s=3)
    except AssertionError:
        return None
    return client


async def test_sleeping_rooms_survive_a_lost_subscription(house: House) -> None:
    """A lost subscription resyncs nobody in a room that slept so long that its outlog expired."""
    (client,) = await joined(house, "trouble/asleep", "ann")
    await count(client)
    await until(lambda: _missing(house, "inn:{trouble/asleep}:lock"), "the room sleeps")
    assert await house.redis.delete("inn:{trouble/asleep}:outlog") == 1
    assert await house.redis.client_kill_filter(_type="pubsub") >= 1
    await asyncio.sleep(1)
    assert client.close_code is None
    assert (await count(client))["count"] == 2


async def test_hook_waiting_for_something_cancelled_fails_alone(house: House) -> None:
    """A cancellation that comes out of a hook counts as its failure, with a dead record; the room goes on."""
    (client,) = await joined(house, "trouble/cancelled", "ann")
    await client.send({"do": "cancel"})
    await client.expect({"error": "handler_failed"}.__eq__, "an error frame")
    assert (await count(client))["count"] == 1
    assert await house.redis.xlen("inn:{trouble/cancelled}:dead") == 1


async def test_edge_ends_politely(house: House) -> None:
    """SIGTERM closes the edge's sockets with 1012, pushes their leaves, and exits with 0."""
    client = await house.join("ledger/bye", name="ann")
    await client.expect(lambda f: "welcome" in f, "its welcome")
    house.edges[0].signal(signal.SIGTERM)
    assert await client.closed() == 1012
    assert await asyncio.to_thread(house.edges[0].process.wait, 10) == 0
    await until(lambda: _gone(house, "inn:{ledger/bye}:members", 0), "the leave")

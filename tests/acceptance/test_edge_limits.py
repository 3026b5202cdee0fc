"""The limits of a real edge: who floods, stalls or crowds is held, refused or closed; the others go on."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress

import aiohttp
import pytest
import pytest_asyncio
import websockets

from harness.house import Client, House, until
from harness.rawsocket import PING, TEXT, RawSocket, connect, frame, request_head

OPTIONS = [
    *("--head-s", "1", "--stall-s", "2", "--max-connections", "40", "--message-rate", "50", "--rate-patience-s", "2"),
    *("--control-rate", "5", "--connections-per-ip", "3", "--trusted-proxy", "127.0.0.0/8"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    """One edge with small limits, and a worker."""
    async with House(tmp_path_factory.mktemp("limits"), edges=0, workers=1) as running:
        await running.add_edge(*OPTIONS)
        yield running


def port(house: House) -> int:
    """Return where the edge listens."""
    return int(house.edges[0].facts["port"])


async def joined(socket: RawSocket, room: str, address: str = "") -> int:
    """Ask for a socket, as from an address; return the status."""
    forwarded: dict[str, str | list[str] | None] = {"X-Forwarded-For": address} if address else {}
    await socket.send(request_head(f"/parties/{room}", forwarded))
    return (await socket.answer()).status


pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_heads_have_a_deadline(house: House) -> None:
    """Connections that send no head, half of one or one byte at a time end after it; honest ones join meanwhile."""
    began_s = time.monotonic()
    async with connect(port(house)) as silent, connect(port(house)) as half, connect(port(house)) as dribbling:
        await half.send(b"GET /parties/ledger/a HTTP/1.1\r\nHost: x\r\n")

        async def dribble() -> None:
            for at in range(100):
                await dribbling.send(b"GET /parties/ledger/a HTTP/1.1\r\nX: "[at : at + 1] or b"x")
                await asyncio.sleep(0.1)

        dribbler = asyncio.create_task(dribble())
        client = await house.join("ledger/honest")
        await client.expect(lambda f: "welcome" in f, "its welcome")
        assert list(await asyncio.gather(silent.rest(), half.rest(), dribbling.rest())) == [b""] * 3
        assert 0.8 < time.monotonic() - began_s < 4
        dribbler.cancel()
        await asyncio.gather(dribbler, return_exceptions=True)
    await client.close()


async def test_an_address_has_its_places(house: House) -> None:
    """The fourth socket of an address is refused with 429 and a time to wait; when one goes there is a place."""
    async with AsyncExitStack() as stack:
        first = AsyncExitStack()
        entered = [await first.enter_async_context(connect(port(house)))]
        entered += [await stack.enter_async_context(connect(port(house))) for _ in range(4)]
        for socket in entered[:3]:
            assert await joined(socket, "ledger/crowd", "evil, 203.0.113.5") == 101
        await entered[3].send(request_head("/parties/ledger/crowd", {"X-Forwarded-For": "203.0.113.5"}))
        answer = await entered[3].answer()
        assert (answer.status, answer.headers["retry-after"]) == (429, "10")
        assert json.loads(answer.body)["error"] == "too_many_of_address"
        await first.aclose()

        async def again() -> bool:
            async with connect(port(house)) as socket:
                return await joined(socket, "ledger/crowd", "203.0.113.5") == 101

        await until(again, "a free place")
        assert await joined(entered[4], "ledger/crowd", "203.0.113.6") == 101


async def test_a_full_edge_says_so(house: House) -> None:
    """One socket more than the process takes is refused with 503; a client tries again and comes in later."""
    clients: list[Client] = []
    with suppress(websockets.InvalidStatus):  # sockets of other tests may still be on their way out
        while len(clients) < 100:
            clients.append(await house.join("ledger/full", name=f"n{len(clients)}"))
    assert 20 < len(clients) <= 40
    async with aiohttp.ClientSession() as http:
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await http.ws_connect(house.url("ledger/full"))
    assert caught.value.status == 503
    assert caught.value.headers is not None
    assert caught.value.headers["Retry-After"] == "5"
    assert caught.value.headers["Innkeeper-Refusal"].startswith("edge_full: ")
    await asyncio.gather(*(client.abort() for client in clients))
    await until(lambda: _members(house, "ledger/full", 0), "their leaves")
    await asyncio.sleep(0.1)


async def test_connections_that_say_nothing_have_an_end(house: House) -> None:
    """There may be twice as many connections as sockets; then the newest are cut off, and later there is room again."""
    async with AsyncExitStack() as stack:
        silent = [await stack.enter_async_context(connect(port(house))) for _ in range(100)]
        ends = await asyncio.gather(*(asyncio.wait_for(one.rest(), 0.5) for one in silent), return_exceptions=True)
        cut = [at for at, end in enumerate(ends) if end == b""]
        assert 20 <= len(cut) < 50
        assert cut[0] >= 50
        await asyncio.gather(*(one.rest() for one in silent))
    client = await house.join("ledger/room")
    await client.expect(lambda f: "welcome" in f, "its welcome")
    await client.close()


async def _members(house: House, room: str, count: int) -> bool:
    return bool(await house.redis.hlen(f"inn:{{{room}}}:members") == count)


async def test_a_flood_is_slowed_down_then_closed(house: House) -> None:
    """Who sends far over the rate is read at the rate, in order, then closed with 4529; a neighbour is served."""
    flood, quiet = await house.join("ledger/flood", name="flood"), await house.join("ledger/flood", name="quiet")
    await quiet.expect(lambda f: "welcome" in f, "its welcome")
    began_s = time.monotonic()

    async def send() -> None:
        for i in range(20_000):
            await flood.send({"i": i})

    sending = asyncio.create_task(send())
    await quiet.expect(lambda f: f.get("i") == 100, "the flood")
    await quiet.send({"i": -1})
    await quiet.expect(lambda f: f.get("i") == -1, "its own", timeout_s=2)
    assert await flood.closed() == 4529
    assert 1.5 < time.monotonic() - began_s < 10
    await asyncio.gather(sending, return_exceptions=True)
    heard = [i for _, name, i in quiet.numbered() if name == "flood"]
    assert heard == list(range(len(heard)))
    assert 500 <= len(heard) < 1_250  # ten seconds of its rate, and once more before it was judged
    await quiet.close()


async def test_a_flood_of_what_was_said_before_is_closed(house: House) -> None:
    """A session that says the same message again and again has the rate of every socket."""
    async with connect(port(house)) as socket:
        headers: dict[str, str | list[str] | None] = {
            "Sec-WebSocket-Protocol": "innkeeper.v1", "X-Forwarded-For": "198.51.100.4"
        }  # fmt: skip
        await socket.send(request_head("/parties/ledger/again", headers))
        assert (await socket.answer()).status == 101
        await socket.send(frame(TEXT, b'!{"hello":{"secret":"0123456789abcdef0123456789abcdef","generation":1}}'))
        await socket.send(frame(TEXT, b'1 {"i":1}') * 3_000)
        began_s = time.monotonic()
        code = 0
        while time.monotonic() - began_s < 10 and not code:
            with suppress(TimeoutError):
                code = await socket.close_code()
        assert code == 4529


async def test_a_flood_of_pings_is_closed(house: House) -> None:
    """Fifty pings may come at once, then it is 4529; the others of the edge do not notice."""
    quiet = await house.join("ledger/pings", name="quiet")
    async with connect(port(house)) as socket:
        assert await joined(socket, "ledger/pings", "198.51.100.1") == 101
        await socket.send(frame(PING, b"x") * 100_000)
        assert await socket.close_code() == 4529
    began_s = time.monotonic()
    await quiet.send({"i": 0})
    await quiet.expect(lambda f: f.get("i") == 0, "its answer")
    assert time.monotonic() - began_s < 1
    await quiet.close()


async def test_who_does_not_read_is_cut_off(house: House) -> None:
    """A socket in which nothing moves for two seconds ends, long before 1 MiB waits for it; others get everything."""
    quiet = await house.join("trouble/stalled", name="quiet")
    _, writer = await asyncio.open_connection("127.0.0.1", port(house), limit=1)
    try:
        writer.transport.get_extra_info("socket").setsockopt(1, 8, 4_096)  # SO_RCVBUF
        writer.write(request_head("/parties/trouble/stalled", {"X-Forwarded-For": "198.51.100.2"}))
        await until(lambda: _members(house, "trouble/stalled", 2), "its join")
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        for _ in range(60):
            await quiet.send({"do": "big", "size": 60_000})
        await quiet.big_frames(60)
        await until(lambda: _members(house, "trouble/stalled", 1), "its leave")
        assert "nothing moved for 2 s" in house.edges[0].log or "slow reader" in house.edges[0].log
        assert quiet.close_code is None
    finally:
        writer.transport.abort()
    await quiet.close()


async def test_a_healthy_client_meets_no_limit(house: House) -> None:
    """Forty messages a second for two seconds, with pings: nothing is held or closed."""
    client = await house.join("ledger/healthy")
    for i in range(80):
        await client.send({"i": i})
        if i % 20 == 0:
            await (await client.socket.ping())
        await asyncio.sleep(0.02)
    await client.expect(lambda f: f.get("i") == 79, "the last", timeout_s=3)
    assert client.close_code is None
    await client.close()


async def test_a_message_frame_still_passes(house: House) -> None:
    """A raw frame within all limits is answered as ever."""
    async with connect(port(house)) as socket:
        assert await joined(socket, "ledger/raw", "198.51.100.3") == 101
        await socket.send(frame(TEXT, b'{"i":7}'))
        while b'"i":7' not in (await socket.frame()).payload:
            pass

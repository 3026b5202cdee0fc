"""HTTP requests to rooms, through a real edge and a real worker."""

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from harness.house import House, until

TARGET = str(Path(__file__).parents[1] / "harness" / "web_rooms.py")


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    """One edge and one worker on a private Valkey."""
    async with House(tmp_path, edges=1, workers=1, target=TARGET) as running:
        yield running


def url(house: House, rest: str, edge: int = 0) -> str:
    """Return the HTTP address of something at an edge."""
    return f"http://127.0.0.1:{house.edges[edge].facts['port']}/parties/{rest}"


async def ask(house: House, method: str, rest: str, **options: Any) -> tuple[int, bytes, aiohttp.ClientResponse]:
    """Return status, body and the rest of an answer."""
    async with aiohttp.ClientSession() as session, session.request(method, url(house, rest), **options) as answer:
        return answer.status, await answer.read(), answer


async def test_a_request_reaches_the_room_as_it_was_sent(house: House) -> None:
    """Method, path, query, headers, cookies and body are what was sent; those of the connection are left out."""
    headers = [("X-One", "a"), ("X-One", "b"), ("X-Gone", "1"), ("Connection", "keep-alive, X-Gone"), ("Cookie", "k=v")]
    status, body, _ = await ask(
        house, "PATCH", "web/a/echo?q=1&q=%C3%A9&e=&name=ann", data="höhö".encode(), headers=headers
    )
    assert status == 200
    assert orjson.loads(body) == {
        "method": "PATCH", "query": {"q": "é", "e": "", "name": "ann"},
        "all": [["q", "1"], ["q", "é"], ["e", ""], ["name", "ann"]], "headers": {"x-one": "a, b"}, "text": "höhö",
        "user": "ann", "cookie": "k=v",
    }  # fmt: skip


async def test_what_a_handler_returns_is_the_answer(house: House) -> None:
    """JSON, text, bytes, None and a Response become bodies with their types; HEAD gets the headers alone."""
    seen: dict[str, Any] = {}
    cookies: list[str] = []
    for path in ("count", "text", "none", "teapot"):
        status, body, answer = await ask(house, "GET", f"web/b/{path}")
        seen[path] = (status, body, answer.headers.get("Content-Type"))
        cookies += answer.headers.getall("Set-Cookie", ())
    assert seen == {
        "count": (200, b'{"count":1}', "application/json"),
        "text": (200, "héllo".encode(), "text/plain; charset=utf-8"),
        "none": (204, b"", None),
        "teapot": (418, b"short", "x/y"),
    }
    assert cookies == ["a=1", "b=2"]
    status, body, answer = await ask(house, "HEAD", "web/b/text")
    assert (status, body, answer.headers["Content-Length"]) == (200, b"", "6")
    assert (await ask(house, "OPTIONS", "web/b/echo"))[0] == 200


async def test_a_request_is_an_event_like_others(house: House) -> None:
    """What it broadcasts reaches the members, and its state is committed before the answer."""
    client = await house.join("web/c")
    await client.expect(lambda f: f == {"count": 0}, "the greeting")
    assert (await ask(house, "POST", "web/c/count"))[1] == b'{"count":1}'
    assert await house.redis.hget("inn:{web/c}:state", "count") == b"1"
    await client.expect(lambda f: f == {"count": 1}, "the broadcast")


@pytest.mark.parametrize("size", [10_000, 20_000, 500_000])
async def test_large_bodies_pass_both_ways(house: House, size: int) -> None:
    """A body up to the class's limit comes back byte for byte, also where pub/sub is too small for it."""
    body = bytes(range(256)) * (size // 256 + 1)
    status, back, answer = await ask(house, "PUT", "web/d/bytes", data=body[:size])
    assert (status, back, answer.headers["Content-Type"]) == (200, body[:size], "application/octet-stream")


async def test_many_requests_at_once_are_each_answered_with_their_own(house: House) -> None:
    """Two hundred requests over kept connections: every number once, one subscription."""
    async with aiohttp.ClientSession() as session:

        async def one() -> int:
            async with session.post(url(house, "web/many/count")) as answer:
                count: int = (await answer.json())["count"]
                return count

        assert sorted(await asyncio.gather(*(one() for _ in range(200)))) == list(range(1, 201))


async def test_failures_tell_nothing_and_undo(house: House) -> None:
    """A handler that raises, or returns what cannot be sent: 500 without a trace, undone, in dead, on_error."""
    for path in ("raise", "bad"):
        status, body, _ = await ask(house, "GET", f"web/e/{path}")
        assert (status, body) == (500, b'{"error":"handler_failed"}')
    state = await house.redis.hgetall("inn:{web/e}:state")
    assert b"broken" not in state
    assert [kind for _, kind in orjson.loads(state[b"errors"])] == ["request", "request"]
    assert await house.redis.xlen("inn:{web/e}:dead") == 2
    status, body, _ = await ask(house, "POST", "web/e/json", data=b"{")
    assert (status, orjson.loads(body)["error"]) == (400, "invalid_body")
    assert await house.redis.xlen("inn:{web/e}:dead") == 2


async def test_refusals_before_the_room(house: House) -> None:
    """Bad names, unknown kinds, kinds without on_request, foreign origins and large bodies reach no room."""
    assert (await ask(house, "GET", "Web/a"))[0] == 400
    assert (await ask(house, "GET", "web"))[0] == 404
    status, body, _ = await ask(house, "GET", "nobody/a")
    assert (status, orjson.loads(body)["error"]) == (404, "unknown_kind")
    status, body, _ = await ask(house, "GET", "deaf/a")
    assert (status, orjson.loads(body)["error"]) == (404, "no_requests")
    assert (await ask(house, "GET", "web/f/echo", headers={"Origin": "https://evil.test"}))[0] == 403
    assert (await ask(house, "POST", "web/f/echo", data=b"x" * 600_001))[0] == 413

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(7):
            yield b"x" * 100_000

    assert (await ask(house, "POST", "web/f/echo", data=chunks()))[0] == 413
    assert (await ask(house, "GET", "web/f/echo?" + "&".join(f"a{n}=1" for n in range(1000))))[0] in {200, 400, 431}
    assert await house.redis.keys("inn:{deaf/*") == []


async def test_headers_that_are_no_utf8_are_latin_1(house: House) -> None:
    """A header of any bytes reaches the handler; nothing breaks on it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", house.edges[0].facts["port"])
    writer.write(b"GET /parties/web/g/echo HTTP/1.1\r\nHost: x\r\nX-Odd: caf\xe9\r\nConnection: close\r\n\r\n")
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert orjson.loads(answer.partition(b"\r\n\r\n")[2])["headers"] == {"x-odd": "café"}


async def test_deadline_and_backlog(house: House) -> None:
    """Too late is 504 and the room goes on; a full room is 503 with Retry-After, at once."""
    status, body, _ = await ask(house, "GET", "web/h/text?s=4")
    assert (status, orjson.loads(body)["error"]) == (504, "no_answer")
    assert (await ask(house, "GET", "web/h/count"))[0] in {200, 504}
    running = [asyncio.create_task(ask(house, "GET", f"slow/a/{n}")) for n in range(6)]
    answers = await asyncio.gather(*running)
    codes = sorted(status for status, _, _ in answers)
    assert codes[0] == 200
    assert codes[-1] == 503
    assert all(answer.headers["Retry-After"] == "1" for status, _, answer in answers if status == 503)


async def test_an_upload_that_breaks_off_disturbs_nobody(house: House) -> None:
    """No room hears of it, and no traceback is in the log."""
    head = b"POST /parties/web/cut/count HTTP/1.1\r\nHost: x\r\n"
    for rest in (b"Content-Length: 100\r\n\r\nhalf", b"Transfer-Encoding: chunked\r\n\r\n40\r\nhalf"):
        _, writer = await asyncio.open_connection("127.0.0.1", house.edges[0].facts["port"])
        writer.write(head + rest)
        await asyncio.sleep(0.2)
        writer.transport.abort()
    await asyncio.sleep(0.3)
    assert (await ask(house, "POST", "web/cut/count"))[1] == b'{"count":1}'
    assert "Traceback" not in house.edges[0].log


async def test_an_address_has_so_many_requests_at_once(house: House) -> None:
    """One more than sockets is refused with a time to wait; its sockets and others are not concerned."""
    await house.add_edge("--connections-per-ip", "2", "--trusted-proxy", "127.0.0.0/8")
    ann, bob = ({"X-Forwarded-For": f"203.0.113.{number}"} for number in (1, 2))
    at = url(house, "web/many/count", edge=1)

    async def dribble() -> AsyncIterator[bytes]:
        yield b"x"
        await release.wait()

    release = asyncio.Event()
    async with aiohttp.ClientSession() as session:

        async def status(headers: dict[str, str], **options: Any) -> tuple[int, str | None]:
            async with session.post(at, headers=headers, **options) as answer:
                return answer.status, answer.headers.get("Retry-After")

        uploads = [asyncio.create_task(status(ann, data=dribble())) for _ in range(2)]
        await asyncio.sleep(0.5)  # a probe that was sooner would take a place of theirs
        assert await status(ann) == (429, "10")
        assert await status(bob) == (200, None)
        release.set()
        assert await asyncio.gather(*uploads) == [(200, None)] * 2
        assert await status(ann) == (200, None)


async def test_a_cut_handler_is_answered(house: House) -> None:
    """A handler over its limit gets 500 handler_timeout."""
    assert (await ask(house, "GET", "cutoff/a"))[:2] == (500, b'{"error":"handler_timeout"}')


async def test_a_handler_that_ends_its_room_still_answers(house: House) -> None:
    """destroy() and move() in on_request are answered as any other."""
    assert (await ask(house, "POST", "web/i/count"))[1] == b'{"count":1}'
    client = await house.join("web/i")
    await client.expect(lambda f: f == {"count": 1}, "the greeting")
    assert (await ask(house, "DELETE", "web/i/destroy"))[:2] == (200, b'{"destroyed":true}')
    assert await client.closed() == 4404
    assert (await ask(house, "POST", "web/i/count"))[1] == b'{"count":1}'
    client = await house.join("web/j")
    await client.expect(lambda f: f == {"count": 0}, "the greeting")
    assert (await ask(house, "POST", "web/j/move?to=web/i"))[:2] == (200, b'{"moved":1}')
    await client.expect(lambda f: f == {"count": 1}, "the greeting of the other room")
    assert client.close_code is None


async def test_a_killed_worker_costs_no_request(tmp_path: Path) -> None:
    """SIGKILL of the owner in the middle: every request is answered 200 by the other worker, each applied once."""
    async with House(tmp_path, edges=1, workers=2, target=TARGET) as house:
        assert (await ask(house, "POST", "web/k/count?s=0"))[1] == b'{"count":1}'
        running = [asyncio.create_task(ask(house, "POST", "web/k/count?s=0.05")) for _ in range(10)]
        await until(lambda: _held(house, 3), "some are done")
        (await house.owner_of("web/k")).signal(signal.SIGKILL)
        answers = await asyncio.gather(*running)
        assert [status for status, _, _ in answers] == [200] * 10
        assert sorted(orjson.loads(body)["count"] for _, body, _ in answers) == list(range(2, 12))


async def _held(house: House, count: int) -> bool:
    return int(await house.redis.hget("inn:{web/k}:state", "count") or 0) >= count


async def test_a_feed_without_sockets_goes(house: House) -> None:
    """Some seconds after the last request the edge listens to the room no more; a drain waits for none of it."""
    assert (await ask(house, "GET", "web/l/text"))[0] == 200
    channel = "inn:{web/l}:out"
    assert await _listeners(house, channel) == 1
    await until(lambda: _unheard(house, channel), "the edge lets go", timeout_s=8)
    assert (await ask(house, "GET", "web/l/text"))[0] == 200
    started_s = asyncio.get_running_loop().time()
    house.edges[0].signal(signal.SIGTERM)
    assert await asyncio.to_thread(house.edges[0].process.wait, 10) == 0
    assert asyncio.get_running_loop().time() - started_s < 3


async def _listeners(house: House, channel: str) -> int:
    count: int = (await house.redis.execute_command("PUBSUB", "SHARDNUMSUB", channel))[1]
    return count


async def _unheard(house: House, channel: str) -> bool:
    return await _listeners(house, channel) == 0

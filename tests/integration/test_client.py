"""The Python client over real sockets, against an edge that says what the test wants."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import WSMessage, WSMsgType

from harness.house import until
from harness.scripted_edge import EdgeSocket, ScriptedEdge
from innkeeper.client import Backoff, Closed, Down, Event, Message, Opened, Resync, Room, Sent, connect
from innkeeper.client import room as room_module
from innkeeper.errors import MessageFailed, MessageLost, RoomClosed

QUICK = Backoff(first_s=0.02)


@pytest.fixture
async def edge() -> AsyncIterator[ScriptedEdge]:
    """Return an edge without a script."""
    async with ScriptedEdge() as edge:
        yield edge


async def _enter(edge: ScriptedEdge, **options: Any) -> tuple[Room, EdgeSocket]:
    """Return a room that was entered, and the edge's end of it."""
    room = connect(edge.url, backoff=QUICK, **options)
    (_, socket) = await asyncio.gather(room.__aenter__(), edge.answered())
    return room, socket


async def _is_done(sent: Sent) -> None:
    async with asyncio.timeout(5):
        await sent


async def test_a_message_there_and_back(edge: ScriptedEdge) -> None:
    """Name, query and headers go with the handshake, values there and back, and leaving closes with 1000."""
    entering = connect(
        f"{edge.url}?x=1", name="Ann & Bob", query={"y": "2"}, headers={"Authorization": "Bearer 5"}, protocols=["more"]
    )
    serving = asyncio.create_task(edge.answered())
    async with entering as room:
        socket = await serving
        query = dict(socket.request.query)
        assert query == {"x": "1", "y": "2", "name": "Ann & Bob"}
        assert socket.request.headers["Authorization"] == "Bearer 5"
        assert socket.request.headers["Sec-WebSocket-Protocol"] == "innkeeper.v1,more"
        assert (room.state, room.connection_id) == ("open", "c-1")
        sent = room.send({"text": "hi"})
        assert await socket.get() == '1 {"text":"hi"}'
        await socket.say({"ack": 1})
        await _is_done(sent)
        await socket.say('11 {"a":1}', (12).to_bytes(8, "big") + b"\xff", {"applied": 1})
        assert [await anext(room), await anext(room)] == [{"a": 1}, b"\xff"]
        await sent.applied
    assert await socket.closed_with() == 1000
    assert room.state == "closed"
    with pytest.raises(StopAsyncIteration):
        await anext(room)
    assert [event async for event in room.events()] == [Closed(1000, "left")]


async def test_a_cut_connection_resumes_and_sends_again(edge: ScriptedEdge) -> None:
    """What was not accepted is sent once more, in order, after the resume; nothing shows of it but events."""
    room, socket = await _enter(edge)
    sent = [room.send(n) for n in range(3)]
    assert [await socket.get() for _ in sent] == ["1 0", "2 1", "3 2"]
    await socket.say({"ack": 1}, '11 "x"')
    assert await anext(room) == "x"
    socket.cut()
    await until(lambda: room.state == "down", "it is down")
    sent.append(room.send(3))
    socket = await edge.arrival()
    hello = await socket.hello()
    assert (hello["generation"], hello["last"]) == (2, "11-77")
    assert socket.got_nothing
    await socket.say({"resumed": {"conn": "c-1", "at": "11-77", "accepted": 2}})
    assert [await socket.get(), await socket.get()] == ["3 2", "4 3"]
    await socket.say('12 "y"', {"ack": 4})
    assert await anext(room) == "y"
    await asyncio.gather(*map(_is_done, sent))
    await room.close()


async def test_events_tell_everything_in_order(edge: ScriptedEdge) -> None:
    """Also what `async for` over the room passes over; they end with Closed."""
    room, socket = await _enter(edge)
    await socket.say('11 "x"')
    await socket.close(1012, "edge restarting")
    socket = await edge.answered(resync={"conn": "c-1", "at": "9-5", "accepted": 0})
    await socket.close(4403, "refused")
    events: list[Event] = []
    async with asyncio.timeout(5):
        events = [event async for event in room.events()]
    down = events[2]
    assert isinstance(down, Down)
    assert (down.code, down.reason, down.attempt) == (1012, "edge restarting", 1)
    assert [*events[:2], *events[3:]] == [
        Opened(False, "c-1"), Message("x", 11), Opened(True, "c-1"), Resync(False), Closed(4403, "refused"),
    ]  # fmt: skip
    with pytest.raises(RoomClosed) as caught:
        await anext(room)
    assert (caught.value.code, caught.value.reason) == (4403, "refused")
    await room.close()


async def test_what_waits_when_it_ends_is_told(edge: ScriptedEdge, caplog: pytest.LogCaptureFixture) -> None:
    """A message on its way is unknown, one sent later was not applied; unlooked-at ones are no complaint."""
    room, socket = await _enter(edge)
    sent, unseen = room.send(1), room.send(2)
    await socket.close(4403, "refused")
    with pytest.raises(MessageLost) as caught:
        await _is_done(sent)
    assert (caught.value.applied, caught.value.number) == ("unknown", 1)
    with pytest.raises(MessageLost):
        await sent.applied
    late = room.send(3)
    with pytest.raises(MessageLost) as caught:
        await _is_done(late)
    assert caught.value.applied == "no"
    await room.close()
    del unseen
    assert not caplog.records


async def test_a_failed_message_raises_at_applied(edge: ScriptedEdge) -> None:
    """It was accepted; only its handling failed. Giving up one wait takes nothing from another."""
    room, socket = await _enter(edge)
    sent = room.send(1)
    waiting = asyncio.ensure_future(sent.applied)
    await asyncio.sleep(0)
    waiting.cancel()
    await socket.say({"ack": 1}, {"error": "handler_failed", "n": 1}, {"applied": 1})
    await _is_done(sent)
    with pytest.raises(MessageFailed) as caught:
        await sent.applied
    assert (caught.value.code, caught.value.number) == ("handler_failed", 1)
    await room.close()


async def test_a_session_that_is_over_is_replaced(edge: ScriptedEdge) -> None:
    """4410: another secret, and the snapshot is announced."""
    room, socket = await _enter(edge)
    await socket.close(4410, "session over")
    socket = await edge.arrival()
    hello = await socket.hello()
    assert (hello["generation"], hello["last"]) == (1, None)
    await socket.say({"hello": {"conn": "c-2", "at": "30-78"}}, '31 "fresh"')
    assert await anext(room) == "fresh"
    assert room.connection_id == "c-2"
    await room.close()


async def test_a_session_that_cannot_go_on_is_left(edge: ScriptedEdge) -> None:
    """Where the room accepted more than was ever sent, the old session is closed with 1000 and a new one begun."""
    room, socket = await _enter(edge)
    await socket.say({"resync": {"conn": "c-1", "at": "9-5", "accepted": 7}})
    assert await socket.closed_with() == 1000
    socket = await edge.answered()
    await until(lambda: room.state == "open", "it is open again")
    await room.close()


async def test_reconnect_gives_the_socket_up_at_once(edge: ScriptedEdge) -> None:
    """Without leaving; also the wait before the next attempt is cut short."""
    room, socket = await _enter(edge)
    room.reconnect()
    assert await socket.closed_with() == 3001
    socket = await edge.answered(resumed={"conn": "c-1", "at": "10-77", "accepted": 0})
    await room.close()

    slow = connect(edge.url, backoff=Backoff(first_s=600, most_s=600))
    (_, socket) = await asyncio.gather(slow.__aenter__(), edge.answered())
    socket.cut()
    await until(lambda: slow.state == "down", "it waits")
    slow.reconnect()
    await edge.answered(resumed={"conn": "c-1", "at": "10-77", "accepted": 0})
    await until(lambda: slow.state == "open", "it is open again")
    await slow.close()


async def test_an_edge_that_does_not_answer_is_given_up(edge: ScriptedEdge, monkeypatch: pytest.MonkeyPatch) -> None:
    """The session goes on at the next."""
    monkeypatch.setattr(room_module, "ANSWER_S", 0.2)
    room = connect(edge.url, backoff=QUICK)
    entering = asyncio.create_task(room.__aenter__())
    silent = await edge.arrival()
    assert (await silent.hello())["generation"] == 1
    second = await edge.arrival()
    assert (await second.hello())["generation"] == 2
    await second.say({"hello": {"conn": "c-1", "at": "10-77"}})
    await entering
    await asyncio.sleep(0.3)  # longer than an answer may take: the deadline is over once it is open
    assert room.state == "open"
    assert await silent.closed_with() == 3001
    await room.close()


async def test_a_peer_that_answers_no_pings_is_given_up(edge: ScriptedEdge, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half-open connections are found without traffic of the room."""
    monkeypatch.setattr(room_module, "PING_S", 0.2)
    room, socket = await _enter(edge)
    assert socket.request.transport is not None
    transport: Any = socket.request.transport
    transport.pause_reading()
    await edge.answered(resumed={"conn": "c-1", "at": "10-77", "accepted": 0})
    await until(lambda: room.state == "open", "it is open again")
    await room.close()


@pytest.mark.parametrize("status", [400, 403, 404, 426])
async def test_a_refused_handshake_is_final(edge: ScriptedEdge, status: int) -> None:
    """Nothing comes of asking again."""
    edge.statuses = [status]
    with pytest.raises(RoomClosed, match=f"HTTP {status}"):
        async with connect(edge.url, backoff=QUICK):
            raise AssertionError("it was entered")


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_an_edge_that_is_not_ready_is_asked_again(edge: ScriptedEdge, status: int) -> None:
    """It may be by then."""
    edge.statuses = [status]
    room, _ = await _enter(edge)
    first = await anext(room.events())
    assert isinstance(first, Down)
    assert first.reason == f"the handshake was answered with HTTP {status}"
    await room.close()


async def test_a_room_that_was_open_outlives_a_wrong_answer(edge: ScriptedEdge) -> None:
    """A 404 of a proxy in the middle of a deployment ends no session."""
    room, socket = await _enter(edge)
    edge.statuses = [404, 403]
    socket.cut()
    await edge.answered(resumed={"conn": "c-1", "at": "10-77", "accepted": 0})
    await until(lambda: room.state == "open", "it is open again")
    await room.close()


async def test_a_server_without_the_subprotocol_is_never_spoken_to(edge: ScriptedEdge) -> None:
    """A raw room would take the hello for a message."""
    edge.protocols = ()
    with pytest.raises(RoomClosed, match=r"does not speak innkeeper\.v1"):
        await connect(edge.url).__aenter__()
    socket = await edge.arrival()
    assert await socket.closed_with() == 3001
    assert socket.got_nothing


@pytest.mark.parametrize("frame", ["no number", '!{"resumed":{}}', "!{"])
async def test_a_broken_frame_is_the_end(edge: ScriptedEdge, frame: str) -> None:
    """It says what was wrong, and leaves the session to its grace."""
    room, socket = await _enter(edge)
    await socket.say(frame)
    with pytest.raises(RoomClosed, match=r"the server broke innkeeper\.v1"):
        await anext(room)
    assert await socket.closed_with() == 3001
    await room.close()


async def test_nobody_there() -> None:
    """Entering gives up after open_s and says why."""
    with pytest.raises(RoomClosed, match=r"not open after 0\.3 s: .*[Cc]onnect"):
        async with connect("ws://127.0.0.1:9/parties/chat/lobby", backoff=QUICK, open_s=0.3):
            raise AssertionError("it was entered")


async def test_a_session_of_the_callers_own_stays_open(edge: ScriptedEdge) -> None:
    """The room closes what it opened, no more."""
    async with aiohttp.ClientSession() as http:
        room, _ = await _enter(edge, http=http)
        await room.close()
        assert not http.closed


async def test_a_cancelled_entering_leaves_nothing_behind(edge: ScriptedEdge) -> None:
    """The task and the socket end with it."""
    entering = asyncio.create_task(connect(edge.url).__aenter__())
    socket = await edge.arrival()
    entering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await entering
    assert await socket.closed_with() is not None
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("innkeeper client")]


async def test_misuse_is_refused(edge: ScriptedEdge) -> None:
    """With what to do instead."""
    room = connect(edge.url)
    with pytest.raises(RuntimeError, match="enter the room first"):
        _ = room.send(1)
    await room.close()
    room, _ = await _enter(edge)
    with pytest.raises(RuntimeError, match="entered once"):
        await room.__aenter__()
    await room.close()
    for url in ("chat/lobby", "/parties/chat/lobby", "ftp://host/x"):
        with pytest.raises(ValueError, match="a room has a ws://host"):
            connect(url)
    with pytest.raises(ValueError, match="codec is"):
        connect(edge.url, codec="xml")  # type: ignore[arg-type] # what is tested
    with pytest.raises(ValueError, match="open_s must be above 0"):
        connect(edge.url, open_s=0)


async def test_an_error_of_the_clients_own_is_logged(
    edge: ScriptedEdge, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And nobody waits for ever."""
    room, socket = await _enter(edge)

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(room._conversation, "heard", broken)
    sent = room.send(1)
    await socket.say({"ack": 1})
    with pytest.raises(MessageLost):
        await _is_done(sent)
    with pytest.raises(RoomClosed, match="the client failed"):
        await anext(room)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == [
        "the client of /parties/chat/lobby failed"
    ]
    await room.close()


async def test_a_move_goes_on_at_the_other_address(edge: ScriptedEdge, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hello comes on the same socket; where nothing answers it, and ever after, the new address is asked."""
    monkeypatch.setattr(room_module, "ANSWER_S", 0.3)
    room, socket = await _enter(edge, query={"x": "1 & 2"})
    await socket.say({"moved": {"room": "match/a:7~", "accepted": 0}})
    hello = await socket.hello()
    assert (hello["generation"], hello["last"], room.state) == (1, None, "connecting")
    again = await edge.arrival()
    assert (again.request.path, dict(again.request.query)) == ("/parties/match/a:7~", {"x": "1 & 2"})
    assert await again.hello() == hello | {"generation": 2}
    assert room.url.endswith("/parties/match/a:7~?x=1+%26+2")
    await again.say({"hello": {"conn": "c-2", "at": "3-7", "accepted": 0}})
    await until(lambda: room.state == "open", "it is open")
    await asyncio.sleep(0.4)
    assert room.state == "open"
    await room.close()


async def test_an_edge_that_stops_is_left_before_it_closes(edge: ScriptedEdge) -> None:
    """A client that hears ``close-soon`` resumes elsewhere within that time; nothing of its session is lost."""
    room, first = await _enter(edge)
    sent = room.send("kept")
    assert await first.get() == '1 "kept"'
    await first.say({"close-soon": 0.2})
    second = await edge.answered(resumed={"conn": "c-1", "at": "10-77", "accepted": 0, "beat": 20})
    assert await second.get() == '1 "kept"'
    await second.say({"ack": 1})
    await _is_done(sent)
    assert await first.closed_with() == 3001
    assert room.state == "open"
    await asyncio.sleep(0.3)  # it has left once, and goes nowhere now
    assert edge.is_calm
    await room.close()


async def test_a_refused_handshake_is_tried_again_when_the_server_said(edge: ScriptedEdge) -> None:
    """Retry-After is waited for, however short the own waits are; nonsense in it is none."""
    edge.statuses, edge.retry_after = [429], "1"
    began_s = asyncio.get_running_loop().time()
    room, _ = await _enter(edge)
    assert 1 <= asyncio.get_running_loop().time() - began_s < 5
    await room.close()
    edge.statuses, edge.retry_after = [503], "tomorrow"
    began_s = asyncio.get_running_loop().time()
    room, _ = await _enter(edge)
    assert asyncio.get_running_loop().time() - began_s < 0.9
    await room.close()


async def test_an_output_at_the_moment_of_reconnecting_makes_no_leave(edge: ScriptedEdge) -> None:
    """Aiohttp closes with 1000 where its close() meets an output that is on its way to the receiving task."""
    room, socket = await _enter(edge)
    for _ in range(5):
        assert room._socket is not None
        reader: Any = room._socket._reader
        room.reconnect()
        reader.feed_data(WSMessage(WSMsgType.TEXT, "11 1", None), 4)
        assert await socket.closed_with() == 3001
        socket = await edge.answered(resumed={"conn": "c-1", "at": "10-77", "accepted": 0})
        await until(lambda: room.state == "open", "it is open again")
    await room.close()

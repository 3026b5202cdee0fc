"""Operators' commands against a real house: what they show, what they do, and what doctor finds and mends."""

import asyncio
import re
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import pytest_asyncio
import redis.asyncio
from click.testing import CliRunner

from harness.acl import Users
from harness.crowd import fill
from harness.house import House, until
from harness.valkey import Valkey
from innkeeper import keys
from innkeeper.address import Address
from innkeeper.cli import main
from innkeeper.functions import shard_of
from innkeeper.keys import room_keys

TARGET = str(Path(__file__).parents[1] / "harness" / "operated_rooms.py")
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    """An edge and two workers; operators log in as the shipped user, which may do all that they do here."""
    folder = tmp_path_factory.mktemp("operated")
    users = Users(folder / "secrets")
    options = ("--aclfile", str(users.acl))
    async with House(folder, edges=1, workers=2, target=TARGET, server_options=options) as running:
        yield running
        refused = [(entry["username"], entry["object"]) for entry in await running.redis.acl_log()]
        assert refused == []


def _operator(house: House) -> str:
    return Users(house.folder / "secrets").url("operator", house.valkey.port)


def _invoke(url: str, *words: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, [*words, "--redis", url], env={"COLUMNS": "250"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


async def run(house: House, *words: str, code: int = 0) -> str:
    """Run a command as a shell would, in a thread: it has a loop of its own."""
    got, output = await asyncio.to_thread(_invoke, _operator(house), *words)
    assert got == code, output
    return output


async def ask(house: House, *words: str, code: int = 0) -> Any:
    """Return what a command prints as JSON."""
    return orjson.loads(await run(house, *words, "--json", code=code))


async def welcome(client: Any) -> str:
    """Return a client's connection id, once it is in."""
    frame = await client.expect(lambda f: "welcome" in f, "its welcome")
    return str(frame["welcome"])


async def test_a_room_is_shown_with_all_it_has(house: House) -> None:
    """Owner, lag, state, members, timers and outputs; as tables and as JSON."""
    ann = await house.join("desk/shown", name="ann")
    connection = await welcome(ann)
    await ann.send('"hello"')
    await ann.expect(lambda f: f.get("n") == 1, "the count")
    shown = await ask(house, "room", "desk/shown")
    workers = {row["name"]: row["rooms"] for row in await ask(house, "workers")}
    assert shown["row"]["owner"] in workers
    assert (shown["row"]["lag"], shown["row"]["members"], shown["trouble"]) == (0, 1, "")
    assert (shown["state"], list(shown["members"]), shown["members"][connection]["user"]) == (
        {"n": 1},
        [connection],
        ["", "ann"],
    )
    assert shown["timers"]["close"]["payload"] == {"by": "ann"}
    assert any('"said":"hello"' in output["body"] for output in shown["outputs"])
    text = await run(house, "room", "desk/shown")
    for piece in (connection, "hello", "close", "stuck", shown["lock"]):
        assert piece in text
    rows = await ask(house, "rooms", "--kind", "desk", "--search", "shown")
    assert [row["room"] for row in rows] == ["desk/shown"]
    assert "desk/shown" in await run(house, "rooms")
    (edge,) = await ask(house, "edges")
    assert edge["rooms"] >= 1 and edge["silent_s"] < 1.5  # noqa: PT018 - one row
    top = await ask(house, "top", "--once")
    assert (top["totals"]["workers"], top["totals"]["edges"]) == (2, 1)
    assert "workers" in await run(house, "top", "--once")


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("room", "desk/nobody"), 1, "there is no room desk/nobody"),
        (("room", "desk"), 2, "write it as kind/name"),
        (("kick", "desk/{x}", "c-1"), 2, "invalid room name"),
        (("kick", "desk/shown", "c-1", "--code", "1006"), 2, "1000 or 3000-4999"),
        (("dead", "show", "desk/shown", "1-1"), 1, "no dead event 1-1"),
        (("dead", "retry", "desk/shown", "1-1"), 1, "is not there"),
        (("dead", "drop", "desk/shown", "1-1"), 1, "were not there"),
        (("evict", "desk/asleep"), 1, "has no owner"),
        (("redis", "NONSENSE"), 1, "unknown command"),
        (("redis", "PING"), 0, "PONG"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else None,
)
async def test_mistakes_are_told(house: House, words: tuple[str, ...], code: int, text: str) -> None:
    """With an exit code, and no traceback."""
    assert text in await run(house, *words, code=code)


async def test_without_redis_there_is_one_line() -> None:
    """And exit code 3."""
    code, text = await asyncio.to_thread(_invoke, "redis://127.0.0.1:1/0", "rooms")
    assert (code, "no Redis at" in text) == (3, True)


async def test_a_member_is_kicked_in_the_rooms_order(house: House) -> None:
    """Its socket closes with the code, it leaves once, the others stay; a session is kicked for good, too."""
    ann, bob = await house.join("desk/kick", name="ann"), await house.join("desk/kick", name="bob")
    first, _ = await welcome(ann), await welcome(bob)
    assert await ask(house, "kick", "desk/kick", first) == {"connection": first, "code": 4405}
    assert await ann.closed() == 4405
    await bob.expect(lambda f: f == {"left": first}, "that it has left")
    assert "has no member" in await run(house, "kick", "desk/kick", first, code=1)
    assert bob.close_code is None


async def test_a_message_is_sent_and_followed(house: House) -> None:
    """`send` posts it; `tail` shows what comes in and what the room says, though it handles all at once."""
    ann = await house.join("desk/tail", name="ann")
    await welcome(ann)
    following = await asyncio.create_subprocess_exec(
        Path(sys.executable).with_name("innkeeper"), "tail", "desk/tail", "--for", "4", "--redis", _operator(house),
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    await asyncio.sleep(2)
    assert (await ask(house, "send", "desk/tail", '{"x":1}'))["accepted"] is True
    await ann.expect(lambda f: f == {"posted": {"x": 1}, "by": ""}, "the post")
    for n in range(20):
        await ann.send(f'"line {n}"')
        await asyncio.sleep(0.02)
    lines = (await following.communicate())[0].decode().splitlines()
    assert any(line.startswith("> ") and '"posted":{"x":1}' in line for line in lines)
    shown = [line for line in lines if line.startswith("< ") and '"line ' in line]
    assert len(shown) >= 15  # of 20; between two reads one may come and go


async def test_a_dead_event_is_shown_retried_and_dropped(house: House) -> None:
    """Once each, whatever is asked twice; an operator's terminal is safe from what stands in errors."""
    ann = await house.join("desk/dead", name="ann")
    await welcome(ann)
    for _ in range(2):
        await ann.send('"fail"')
    await until(lambda: _dead(house, "desk/dead", 2), "both lie in dead")
    text = await run(house, "dead", "list", "desk/dead")
    assert "such thing" in text and "\x1b[31m" not in text  # noqa: PT018 - one text
    assert "such thing" in (await ask(house, "room", "desk/dead"))["last_error"]
    newest, oldest = [line["entry"] for line in await ask(house, "dead", "list", "desk/dead")]
    assert "RuntimeError" in await run(house, "dead", "show", "desk/dead", oldest)
    retried = await ask(house, "dead", "retry", "desk/dead", oldest)
    assert retried["iseq"] > 2
    assert "is not there" in await run(house, "dead", "retry", "desk/dead", oldest, code=1)
    await until(lambda: _dead(house, "desk/dead", 2), "it failed once more: the room has its state in memory")
    assert (await ask(house, "dead", "drop", "desk/dead", newest))["deleted"] == 1
    await until(lambda: _dead(house, "desk/dead", 1), "one is left")


async def _dead(house: House, room: str, count: int) -> bool:
    return bool(await house.redis.xlen(f"inn:{{{room}}}:dead") == count)


async def test_a_room_is_evicted_and_moved(house: House) -> None:
    """Its instance is made anew from its state, here or at the worker that is named; the socket stays."""
    ann = await house.join("desk/moves", name="ann")
    await welcome(ann)
    await ann.send('"hello"')
    await ann.expect(lambda f: f.get("n") == 1, "the count")
    owner = (await ask(house, "room", "desk/moves"))["row"]["owner"]
    other = next(row["name"] for row in await ask(house, "workers") if row["name"] != owner)
    assert "no worker's incarnation" in await run(house, "move-owner", "desk/moves", "", code=2)
    assert "there is no living worker w-nope" in await run(house, "move-owner", "desk/moves", "w-nope", code=1)
    assert f"is {owner}'s already" in await run(house, "move-owner", "desk/moves", owner)
    await ann.send('"stays"')
    await ann.expect(lambda f: f.get("n") == 2, "its instance is as it was")
    assert await ask(house, "move-owner", "desk/moves", other) == {"room": "desk/moves", "before": owner, "now": other}
    await ann.send('"again"')
    await ann.expect(lambda f: f.get("n") == 3, "the next count")
    assert (await ask(house, "evict", "desk/moves"))["before"] == other
    await ann.send('"still"')
    await ann.expect(lambda f: f.get("n") == 4, "one more")
    assert ann.close_code is None


async def test_a_mistake_does_nothing(house: House) -> None:
    """A kind that nobody ever served, a room that is not there, an entry that is none, a key of another type."""
    for words in (("send", "dsek/x", "1"), ("wake", "dsek/x")):
        assert "no worker has ever served rooms of kind 'dsek' (known: " in await run(house, *words, code=1)
    assert await house.redis.exists("inn:{dsek/x}:sessions", keys.wake_queue("dsek")) == 0
    assert "there is no room desk/nothing" in await run(house, "room", "desk/nothing", "--json", code=1)
    for deed in ("show", "retry", "drop"):
        assert "is no entry" in await run(house, "dead", deed, "desk/x", "yesterday", code=2)
    await house.redis.set("inn:{desk/wrong}:inbox", "x")
    assert "WRONGTYPE" in await run(house, "tail", "desk/wrong", "--for", "1", code=1)
    await house.redis.delete("inn:{desk/wrong}:inbox")


async def test_replies_of_redis_are_passed_on(house: House) -> None:
    """Text as lines, for grep; JSON for programs."""
    await until(lambda: _told(house, 2), "both workers have told their load")
    assert "server_name:valkey" in (await run(house, "redis", "INFO", "server")).splitlines()
    assert [row["load"]["kinds"] for row in await ask(house, "workers")] == [["desk", "faulty"]] * 2
    assert "desk faulty" in await run(house, "workers")
    names = await ask(house, "redis", "ZRANGE", keys.WORKERS, "0", "-1")
    assert sorted(names) == sorted(row["name"] for row in await ask(house, "workers"))


@pytest.mark.parametrize("words", [("send", "desk/x", "1"), ("wake", "desk/x"), ("workers",), ("doctor",), ("rooms",)])
async def test_ctrl_c_claims_nothing(own_valkey: Valkey, words: tuple[str, ...]) -> None:
    """Whoever gives up before there is an answer hears of none, and gets a shell's own exit code."""
    assert own_valkey.process is not None
    own_valkey.process.send_signal(signal.SIGSTOP)
    try:
        process = await asyncio.create_subprocess_exec(
            Path(sys.executable).with_name("innkeeper"), *words, "--redis", own_valkey.url,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        await asyncio.sleep(1.5)
        process.send_signal(signal.SIGINT)
        said, wrong = await asyncio.wait_for(process.communicate(), 10)
    finally:
        own_valkey.process.send_signal(signal.SIGCONT)
    assert (process.returncode, said) == (130, b"")
    assert b"Traceback" not in wrong


async def test_stuck_rooms_say_why(house: House) -> None:
    """A slow handler, a room that does not start, one whose kind nobody serves: found within a minute by anybody."""
    ann = await house.join("desk/slow", name="ann")
    await welcome(ann)
    await ann.send('"wait"')
    await ann.send('"next"')
    await house.join("faulty/x", name="bob")
    await house.redis.hset(keys.KINDS, "lost", b'{"codec":"json","message_bytes":100,"backlog_count":10,"grace_s":0}')
    await run(house, "send", "lost/x", "hello")
    try:
        found = await until(
            lambda: _stuck(house, {"desk/slow", "faulty/x", "lost/x"}), "all three are seen", timeout_s=20
        )
    finally:
        await house.redis.hdel(keys.KINDS, "lost")
    assert "a handler is slow or waits" in found["desk/slow"]
    await until(
        lambda: _tells(house, "desk/slow", r"that of event 2 \(text\) for [1-9][0-9.]* s so far"), "which, how long"
    )
    assert "it does not start: OSError: the disk is full" in found["faulty/x"]
    assert "no living worker serves 'lost'" in found["lost/x"]
    text = await run(house, "doctor", code=1)
    assert "desk/slow: " in text


async def _tells(house: House, room: str, pattern: str) -> bool:
    return re.search(pattern, (await _stuck(house, {room})).get(room, "")) is not None


async def _stuck(house: House, wanted: set[str]) -> dict[str, str]:
    found = {row["room"]: row["trouble"] for row in await ask(house, "rooms", "--stuck")}
    return found if wanted <= set(found) else {}


async def test_doctor_finds_and_mends(house: House) -> None:
    """A ghost, a stale index entry, a room that somebody else owns, a room that nobody was woken for."""
    lost = Address("desk", "forgotten")
    at = room_keys(lost)
    member = {"join": 1, "edge": "e-gone", "session": "", "user": ["", "casper"], "state": None}
    ghost = room_keys(Address("desk", "haunted"))
    await house.redis.hset(ghost.members, "c-1", orjson.dumps(member))
    await house.redis.hset(ghost.meta, "created", "1")
    await house.redis.zadd(
        keys.room_index(shard_of(Address("desk", "haunted"))), {"desk/haunted": time.time() * 1000 + 9e6}
    )
    await house.redis.zadd(keys.room_index(3), {"no room at all": 1e15, str(lost): time.time() * 1000 + 9e6})
    await house.redis.xadd(at.inbox, {"t": "text", "c": "c-1", "e": "e-1", "d": "x"}, id=f"1-{int(time.time() * 1e6)}")
    await house.redis.hset(at.sessions, "#", "1")
    worker = (await ask(house, "workers"))[0]["name"]
    other = (await ask(house, "workers"))[1]["name"]
    ann = await house.join("desk/owned", name="ann")
    await welcome(ann)
    owner = (await ask(house, "room", "desk/owned"))["row"]["owner"]
    await house.redis.sadd(keys.worker_rooms(worker if owner == other else other), "desk/owned")

    seen = {each["where"]: each for each in await ask(house, "doctor", code=1)}
    assert "1 member(s) of edge e-gone" in seen["desk/haunted"]["what"]
    assert "no room" in seen[keys.room_index(3)]["what"]
    assert f"is owned by {owner}" in seen[keys.worker_rooms(worker if owner == other else other)]["what"]
    assert "have no owner, and nobody was woken" in seen["desk/forgotten"]["what"]
    assert not any(each["done"] for each in seen.values())

    done = {each["where"]: each["done"] for each in await ask(house, "doctor", "--fix", code=1)}
    assert done["desk/haunted"] == "their leaves are on the way"
    assert done["desk/forgotten"] == "woken"
    await until(lambda: _is_empty(house, ghost.members), "the ghost has left")
    again = {each["where"] for each in await ask(house, "doctor", code=1)}
    assert not again & {"desk/haunted", keys.room_index(3), keys.worker_rooms(worker), keys.worker_rooms(other)}


async def test_doctor_says_what_no_hand_mends(house: House) -> None:
    """Rooms under whose keys something else lies, a kind that nobody serves, events put aside by a room at rest."""
    await until(lambda: _told(house, 2), "both workers have told what they serve")
    await house.redis.set("inn:{desk/typed}:state", "nonsense")
    await house.redis.hset("inn:{desk/typed}:sessions", "#", "1")
    await house.redis.hset("inn:{desk/worded}:meta", "cursor", "abc")
    await house.redis.hset("inn:{desk/worded}:sessions", "#", "1")
    await house.redis.hset("inn:{nokind/x}:sessions", "#", "1")
    await house.redis.hset("inn:{desk/odd}:members", "c-1", "no json")
    await house.redis.set(keys.wake_queue("lost"), "nonsense")
    await house.redis.hset(keys.COUNTERS, "odd", "many")
    await house.redis.hset(keys.KINDS, "lost", b'{"codec":"json","message_bytes":100,"backlog_count":10,"grace_s":0}')
    await house.redis.xadd("inn:{desk/rest}:dead", {"type": "text", "error": "boom"})
    await house.redis.zadd(keys.dead_index(shard_of(Address("desk", "rest"))), {"desk/rest": 1})
    for name in ("typed", "worded", "odd"):
        room = Address("desk", name)
        await house.redis.zadd(keys.room_index(shard_of(room)), {str(room): time.time() * 1000 + 9e6})
    await house.redis.zadd(keys.room_index(shard_of(Address("nokind", "x"))), {"nokind/x": time.time() * 1000 + 9e6})
    try:
        found = await ask(house, "doctor", "--fix", code=1)
        seen = {each["where"]: each["what"] for each in found}
        assert "no worker can serve it: inn:{desk/typed}:state is a string, not a hash" in seen["desk/typed"]
        assert "no worker can serve it: cursor in inn:{desk/worded}:meta is 'abc', no number" in seen["desk/worded"]
        assert "no living worker serves 'nokind'" in seen["nokind/x"]
        assert "its member 'c-1' is no row of Innkeeper's" in seen["desk/odd"]
        assert "something else under this key" in seen[keys.wake_queue("lost")]
        assert "no living worker serves it" in seen["kind lost"]
        assert "1 event(s) put aside" in seen["desk/rest"]
        assert not any(each["done"] for each in found if each["where"] in {"desk/typed", "desk/worded", "nokind/x"})
        assert {each["room"]: each["events"] for each in await ask(house, "dead", "list")}["desk/rest"] == 1
        await run(house, "top", "--once")
        (entry,) = await ask(house, "dead", "list", "desk/rest")
        await run(house, "dead", "drop", "desk/rest", entry["entry"])
        assert "desk/rest" not in {each["room"] for each in await ask(house, "dead", "list")}
    finally:
        await house.redis.hdel(keys.KINDS, "lost")
        await house.redis.hdel(keys.COUNTERS, "odd")
        await house.redis.delete(
            keys.wake_queue("lost"), "inn:{desk/typed}:state", "inn:{desk/typed}:sessions", "inn:{desk/worded}:meta",
            "inn:{desk/worded}:sessions", "inn:{nokind/x}:sessions", "inn:{desk/odd}:members", "inn:{desk/rest}:dead",
        )  # fmt: skip


async def _told(house: House, count: int) -> bool:
    return bool(await house.redis.hlen(keys.LOAD) >= count)


async def test_doctor_looks_though_the_policy_is_wrong(own_valkey: Valkey) -> None:
    """What no edge and no worker would start on is what it is there to find."""
    async with redis.asyncio.from_url(own_valkey.url, protocol=2) as server:
        await server.config_set("maxmemory-policy", "allkeys-lru")
        code, text = await asyncio.to_thread(_invoke, own_valkey.url, "doctor")
        assert (code, "maxmemory-policy allkeys-lru" in text) == (1, True)
        await server.config_set("maxmemory-policy", "noeviction")
        await server.config_set("maxmemory", int((await server.info("memory"))["used_memory"]))
        _, text = await asyncio.to_thread(_invoke, own_valkey.url, "doctor")
        assert "nobody joins and nothing is accepted" in " ".join(text.split())
        await server.config_set("maxmemory", 0)
        await server.config_set("maxmemory-policy", "noeviction")


async def _is_empty(house: House, key: str) -> bool:
    return not await house.redis.exists(key)


@pytest.mark.long
async def test_fifty_thousand_rooms(own_valkey: Valkey) -> None:
    """Every list stays usable: nothing scans the keyspace."""
    fill(own_valkey.url, 50_000)
    for words in (("rooms",), ("rooms", "--stuck"), ("top", "--once"), ("doctor",), ("room", "crowd/r00007")):
        began_s = time.monotonic()
        code, _ = await asyncio.to_thread(_invoke, own_valkey.url, *words)
        took_s = time.monotonic() - began_s
        print(f"{' '.join(words)}: {took_s:.2f} s at 50,000 rooms")
        assert code in (0, 1)
        assert took_s < 60

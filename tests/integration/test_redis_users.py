"""The shipped users of Redis: each may do what its role does, and an edge's or program's nothing beyond."""

import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio
from redis.exceptions import NoPermissionError, ResponseError

from harness.acl import Users
from harness.valkey import Valkey
from innkeeper.boot import check_redis
from innkeeper.errors import RedisUnusable
from innkeeper.functions import CLAIM, COMMIT, HEARTBEAT, RELEASE, RENEW
from innkeeper.functions.library import load_library
from innkeeper.redis_client import Link, connector
from innkeeper.rights import RIGHTS, Role

R = "inn:{chat/a}"


@pytest.fixture(scope="module")
def users(tmp_path_factory: pytest.TempPathFactory) -> Users:
    """The files of make-secrets.sh."""
    return Users(tmp_path_factory.mktemp("secrets") / "made")


@pytest.fixture(scope="module")
def server(users: Users) -> Iterator[Valkey]:
    """A server with these users."""
    server = Valkey("--aclfile", str(users.acl), persist=True)
    yield server
    server.stop()


@pytest.fixture
async def edge(users: Users, server: Valkey) -> AsyncIterator[Any]:
    """A client that is logged in as an edge."""
    async with redis.asyncio.Redis.from_url(users.url("edge", server.port)) as client:
        yield client


FORBIDDEN: list[tuple[str | int, ...]] = [
    # the server
    ("FLUSHALL",), ("FLUSHDB",), ("CONFIG", "GET", "*"), ("CONFIG", "SET", "dir", "/var"), ("DEBUG", "SLEEP", 0),
    ("KEYS", "*"), ("SCAN", 0), ("RANDOMKEY",), ("DBSIZE",), ("SHUTDOWN", "NOSAVE"), ("SAVE",), ("BGSAVE",),
    ("MONITOR",), ("CLIENT", "LIST"), ("CLIENT", "KILL", "TYPE", "normal"), ("CLIENT", "PAUSE", 1),
    ("ACL", "LIST"), ("ACL", "SETUSER", "edge", "+@all"), ("REPLICAOF", "evil.example", 1),
    ("MODULE", "LIST"), ("SLOWLOG", "GET"), ("SWAPDB", 0, 1), ("MIGRATE", "evil.example", 1, "k", 0, 1),
    # code
    ("FUNCTION", "LOAD", "REPLACE", "#!lua name=x"), ("FUNCTION", "DELETE", "inn_0"), ("FUNCTION", "FLUSH"),
    ("FUNCTION", "LIST"), ("EVAL", "return 1", 0), ("SCRIPT", "LOAD", "return 1"),
    # what only owners may write
    ("SET", f"{R}:lock", "me"), ("DEL", f"{R}:lock"), ("HSET", f"{R}:meta", "token", "9:9"), ("DEL", f"{R}:meta"),
    ("HSET", f"{R}:state", "k", "1"), ("HSET", f"{R}:members", "c", "{}"), ("XADD", f"{R}:outlog", "*", "h", "text *"),
    ("XADD", f"{R}:outbox", "*", "type", "job"), ("HSET", f"{R}:timers", "t", "{}"), ("DEL", f"{R}:inbox"),
    ("XDEL", f"{R}:inbox", "1-1"), ("XTRIM", f"{R}:inbox", "MAXLEN", 0), ("XTRIM", f"{R}:dead", "MAXLEN", 0),
    ("EXPIRE", f"{R}:sessions", 1), ("RENAME", f"{R}:inbox", f"{R}:dead"),
    # what an edge need not read
    ("HGETALL", f"{R}:state"), ("XRANGE", f"{R}:dead", "-", "+"), ("XRANGE", f"{R}:inbox", "-", "+"),
    # what is no room's
    ("HSET", "inn:kinds", "chat", "{}"), ("ZADD", "inn:workers", 1, "w-1"), ("DEL", "inn:workers"),
    ("DEL", "inn:edges"),
    ("ZPOPMIN", "inn:wake:chat"), ("SADD", "inn:worker:w-1", "r"), ("ZADD", "inn:timers:0", 1, "r"),
    # jobs, and whatever else is on the server
    ("RPUSH", "rq:queue:innkeeper", "x"), ("HSET", "rq:job:x", "data", "x"), ("GET", "other"), ("SET", "other", "x"),
    # channels
    ("SPUBLISH", f"{R}:out", "forged"), ("SSUBSCRIBE", f"{R}:bell"), ("PSUBSCRIBE", "*"), ("PUBLISH", "other", "x"),
    # the same through the functions, which run with the rights of their caller
    ("FCALL", RENEW, 3, f"{R}:meta", f"{R}:lock", f"{R}:sessions", "1:1", "w-1", 60_000),
    ("FCALL", COMMIT, 6, *(f"{R}:{k}" for k in ("meta", "lock", "inbox", "sessions", "outlog", "out")),
     "1:1 0 1 0 0 0 -"),
    ("FCALL", CLAIM, 11, *(f"{R}:{k}" for k in ("meta", "lock", "inbox", "state", "members", "timers", "sessions",
     "outlog", "outbox", "dead", "bell")), "w-1", 7, 60_000, "", 0),
    ("FCALL", RELEASE, 10, *(f"{R}:{k}" for k in ("meta", "lock", "inbox", "state", "members", "timers", "sessions",
     "outlog", "outbox", "dead")), "1:1", "w-1", 1, 1),
    ("FCALL", HEARTBEAT, 1, "inn:workers", "w-1", 1),
]  # fmt: skip


async def test_what_an_edge_may_not_do_is_refused(edge: Any, server: Valkey) -> None:
    """Each of these acts is answered NOPERM, and nothing of it has happened."""
    assert len(FORBIDDEN) >= 40
    async with redis.asyncio.Redis(port=server.port) as admin:
        await admin.set(f"{R}:lock", "w-2:1:1")
        await admin.hset(f"{R}:meta", "token", "1:1")
        before = {key: await admin.dump(key) for key in await admin.keys("*")}
        for act in FORBIDDEN:
            with pytest.raises(NoPermissionError):
                await edge.execute_command(*act)
        assert {key: await admin.dump(key) for key in await admin.keys("*")} == before


async def test_the_functions_give_an_edge_no_other_rights(edge: Any, server: Valkey) -> None:
    """Given keys that it may name in the place of others, a function stops at the first act that is not the edge's."""
    link = Link(connector(server.url, timeout_s=5), timeout_s=5, name="test")
    await load_library(link)
    inbox, sessions, lock, bell = (f"{R}:{name}" for name in ("inbox", "sessions", "lock", "bell"))
    await link.call("SET", lock, "w-2:1:1")
    await edge.hset(sessions, "token", "1:1")
    with pytest.raises(ResponseError, match=r"ACL|permission"):  # it would write the lock
        await edge.execute_command("FCALL", RENEW, 3, sessions, lock, sessions, "1:1", "w", 9)
    keys = (sessions, lock, inbox, *[sessions] * 7, bell)
    with pytest.raises(ResponseError, match=r"ACL|permission"):
        await edge.execute_command("FCALL", CLAIM, 11, *keys, "w", 7, 9, "w-2:1:1", 0)
    assert await link.call("GET", lock) == b"w-2:1:1"
    await link.close()


@pytest.mark.parametrize("role", ["edge", "worker", "jobs"])
async def test_each_role_may_do_what_it_does(users: Users, server: Valkey, role: Role) -> None:
    """The boot check takes the shipped login; nothing it asks for is refused, but for the configuration."""
    client: Any = redis.asyncio.Redis(port=server.port, decode_responses=True)
    async with client as admin:
        await admin.acl_log_reset()
        await check_redis(users.url(role, server.port), timeout_s=5, shown="here", role=role)
        assert {entry["object"] for entry in await admin.acl_log()} <= {"config|get"}
        for command in RIGHTS[role]:
            assert await admin.execute_command("ACL DRYRUN", role, *command) == "OK", command


@pytest.mark.parametrize("role", ["edge", "worker", "jobs"])
async def test_a_role_names_what_its_login_may_not_do(users: Users, server: Valkey, role: Role) -> None:
    """One command is taken from a login: the role refuses to start, and the text names just that one."""
    client: Any = redis.asyncio.Redis(port=server.port)
    async with client as admin:
        line = next(line for line in users.acl.read_text().splitlines() if line.startswith(f"user {role} "))
        rules = [rule.replace("+xadd ", "") for rule in re.findall(r"\([^)]*\)|\S+", line)[2:] if rule != "+xadd"]
        await admin.execute_command("ACL SETUSER", f"narrow-{role}", "reset", *rules)
        url = users.url(role, server.port).replace(f"//{role}:", f"//narrow-{role}:")
        with pytest.raises(RedisUnusable, match=r"may not do what innkeeper \w+ does \(NOPERM\): XADD inn:") as refusal:
            await check_redis(url, timeout_s=5, shown="here", role=role)
        assert "users.acl.in" in str(refusal.value)
        assert "HSET" not in str(refusal.value)
        assert not await admin.exists("inn:{any/room}:inbox", "inn:{any/room}:meta", "inn:kinds"), "nothing was done"


def test_no_user_has_a_password_in_the_shipped_file(users: Users) -> None:
    """Only hashes go to the server; the default user is off, and the one without a password may only ping."""
    shipped = (Path(__file__).parents[2] / "deploy/redis/users.acl.in").read_text(encoding="utf-8")
    assert not re.search(r"[ ]>", shipped)
    lines = {line.split()[1]: line for line in shipped.splitlines()}
    assert lines["default"] == "user default off resetkeys resetchannels -@all"
    assert [name for name, line in lines.items() if "nopass" in line] == ["health"]
    assert lines["health"].split()[4:] == ["resetkeys", "resetchannels", "-@all", "+ping"]
    made = users.acl.read_text(encoding="utf-8")
    assert len(set(re.findall(r"#([0-9a-f]{64}) ", made))) == 6
    assert all(users.password(name) not in made for name in lines if name not in ("default", "health"))

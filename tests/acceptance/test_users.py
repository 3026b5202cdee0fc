"""A whole house under the shipped users of Redis; every refusal of the server's is in its ACL log."""

import asyncio
import re
import signal
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio

from harness.acl import Users
from harness.cluster import Cluster
from harness.forked import Forked
from harness.house import House, until
from harness.v1 import V1Client
from innkeeper import Innkeeper

HARNESS = Path(__file__).parents[1] / "harness"
JOBS = str(HARNESS / "job_rooms.py")
SECRET = "s3cr3t-Pa55"  # noqa: S105 - a test looks for it


async def test_a_house_lives_under_the_shipped_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rooms, sessions, timers, posts, requests, jobs, programs, a takeover and ends: Redis refuses nothing of it."""
    users = Users(tmp_path / "secrets")
    (tmp_path / "runs.txt").touch()
    monkeypatch.setenv("JOB_RUNS", str(tmp_path / "runs.txt"))
    targets = [JOBS, str(HARNESS / "post_rooms.py"), str(HARNESS / "web_rooms.py")]
    server_options = ("--aclfile", str(users.acl))
    async with House(tmp_path, edges=0, workers=0, server_options=server_options, persist=True) as house:
        port = house.valkey.port
        for _ in range(2):
            await house.add_worker("--redis", users.url("worker", port), *targets)
        for _ in range(2):
            await house.add_edge("--redis", users.url("edge", port))
        await _use_rooms(house)
        await _run_jobs_and_a_program(house, users)
        await _look_in(house, users)
        refused = {(entry["username"], entry["object"]) for entry in await house.redis.acl_log()}
        assert {entry for entry in refused if entry[1] != "config|get"} == set()
        logs = "".join(role.log for role in (*house.edges, *house.workers, *house.jobs))
        assert "NOPERM" not in "".join(line for line in logs.splitlines(keepends=True) if "config|get" not in line)
        for user in ("edge", "worker", "jobs", "program"):
            assert users.password(user) not in logs, "a password stands in a log"


async def _use_rooms(house: House) -> None:
    ann, bob = await house.join("ledger/a", name="ann"), await house.join("ledger/a", edge=1, name="bob")
    session = V1Client(house, "ledger/a", "cy")
    await until(lambda: session.outputs, "the session is in")
    session.send({"i": 1})
    await session.all_applied()
    await ann.send({"i": 2})
    await bob.numbers(2)
    (await house.owner_of("ledger/a")).signal(signal.SIGKILL)
    await bob.send({"i": 3})
    await ann.numbers(3)  # taken over

    clock = await house.join("clock/a")
    await clock.send({"set": [["often", {"every": 0.2}]]})
    await clock.expect(lambda frame: frame.get("ran", [""])[0] == "often", "a timer")
    source, sink = await house.join("source/a"), await house.join("sink/a", edge=1)
    await source.send({"to": ["sink/a"]})
    await sink.expect(lambda frame: frame.get("from") == "source/a", "a post")
    mortal = await house.join("mortal/a")
    await mortal.send({"type": "end"})
    await mortal.expect(lambda frame: "ends" in frame, "the end")
    await session.end()
    house.edges[1].signal(signal.SIGKILL)
    await ann.expect(lambda frame: frame == {"gone": "bob"}, "the reaped edge's member leaves")


async def _run_jobs_and_a_program(house: House, users: Users) -> None:
    port = house.valkey.port
    arguments = ("--redis", users.url("jobs", port))
    await house.add_jobs(*arguments, JOBS)
    works = await house.join("works/a")
    await works.send({"jobs": [["double", [4], {}], ["fail", ["x"], {}], ["die", [], {}]]})
    await until(lambda: sum("result" in frame for frame in works.got) == 3, "three results", seen=works.got)
    assert sorted(frame["result"][2] for frame in works.got if "result" in frame) == ["done", "failed", "failed"]

    async with Innkeeper.connect(users.url("program", port)) as inn:
        async with inn.room("sink/a").tail() as outputs:
            await inn.room("sink/a").post({"n": 7})
            assert (await anext(aiter(outputs))).json() == {"from": "", "n": 7}
        assert (await inn.room("web/a").request("POST", "/count")).json() == {"count": 1}
        assert (await inn.room("web/a").state())["count"] == 1
        assert await inn.room("ledger/a").members()
        await inn.room("sink/a").destroy()


async def _look_in(house: House, users: Users) -> None:
    url = users.url("operator", house.valkey.port)
    operator: Any = redis.asyncio.Redis.from_url(url, decode_responses=True, driver_info=None)
    async with operator:
        assert (await operator.get("inn:{ledger/a}:lock")).startswith("w-")
        assert await operator.hgetall("inn:{ledger/a}:meta")
        assert await operator.xrevrange("inn:{ledger/a}:outlog", "+", "-", 1)
        assert await operator.zrange("inn:workers", 0, -1)
        assert await operator.execute_command("PUBSUB SHARDNUMSUB", "inn:{ledger/a}:bell")


async def test_a_cluster_takes_the_same_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rooms on every primary, and a job: nothing is refused at any of them."""
    users = Users(tmp_path / "secrets")
    (tmp_path / "runs.txt").touch()
    monkeypatch.setenv("JOB_RUNS", str(tmp_path / "runs.txt"))
    async with Cluster() as cluster, House(tmp_path, edges=0, workers=0, url=cluster.url) as house:
        urls = {}
        for role in ("edge", "worker", "jobs"):
            line = next(line for line in users.acl.read_text("utf-8").splitlines() if line.startswith(f"user {role} "))
            rules = re.findall(r"\([^)]*\)|\S+", line)[2:]
            for node in cluster.nodes:
                await cluster.tell(node, "ACL", "SETUSER", role, "reset", *rules)
            urls[role] = cluster.url.replace("://", f"://{role}:{users.password(role)}@")
        await house.add_worker("--redis", urls["worker"], JOBS)
        await house.add_edge("--redis", urls["edge"])
        await house.add_jobs("--redis", urls["jobs"], JOBS)
        for number in range(6):
            ann = await house.join(f"ledger/{number}")
            await ann.send({"i": 1})
            await ann.numbers(1)
        works = await house.join("works/a")
        await works.send({"jobs": [["double", [4], {}]]})
        await works.expect(lambda frame: "result" in frame, "the job's result", timeout_s=20)
        for node in cluster.nodes:
            refused = {(entry["username"], entry["object"]) for entry in await _acl_log(node.port)}
            assert {entry for entry in refused if entry[1] != "config|get"} == set()


async def _acl_log(port: int) -> list[dict[str, Any]]:
    client: Any = redis.asyncio.Redis(port=port, decode_responses=True)
    async with client:
        found: list[dict[str, Any]] = await client.acl_log()
        return found


async def test_no_start_that_fails_shows_a_password(tmp_path: Path) -> None:
    """Each ends with code 3 and says why, without a traceback; no piece of the password is in it."""
    users = Users(tmp_path / "secrets")
    async with House(tmp_path, edges=0, workers=0, server_options=("--aclfile", str(users.acl)), persist=True) as house:
        here = f"127.0.0.1:{house.valkey.port}"
        await house.redis.execute_command("ACL SETUSER", "narrow", "on", f">{SECRET}", "+@all", "-xadd", "~*", "&*")
        cases = (
            (f"redis://edge:{SECRET}@{here}/0", "refuses the login"),
            (f"redis://edge:{SECRET}@127.0.0.1:1/0", "no Redis at"),
            (f"redis://edge:{SECRET}@nosuch.invalid:1/0", "no Redis at"),
            (f"redis://edge:{SECRET}/{SECRET}@{here}/0", "cannot be read"),
            (f"redis://edge:{SECRET}@{here.replace(':', ':x')}/0", "--redis redis://edge:***@"),
            (f"redis://narrow:{SECRET}@{here}/0", "(NOPERM): XADD"),
            (f"redis+sentinel://edge:{SECRET}@127.0.0.1:1/0?service=x&sentinel_password={SECRET}", "no Redis at"),
            (f"redis+cluster://edge:{SECRET}@127.0.0.1:1", "no Redis at"),
            ("redis://192.0.2.1/0", "--insecure-redis"),
            (f"redis://edge:{SECRET}@{here}/0?colour=red", "no parameter 'colour' is known"),
        )
        for url, expected in cases:
            for role in (["edge", "--auth", "none", "--port", "0"], ["worker", house.target]):
                arguments = [*role, "--redis", url, "--log-level", "debug"]
                process = await asyncio.to_thread(Forked, arguments, tmp_path / "failed.log")
                code = await asyncio.to_thread(process.wait, 20)
                said = (tmp_path / "failed.log").read_text(encoding="utf-8")
                assert code == 3, said
                assert expected in said
                assert SECRET not in said
                assert "Traceback" not in said

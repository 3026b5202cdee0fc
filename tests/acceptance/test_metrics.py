"""What operators see of a real house: numbers that move as they should."""

import json
import signal
from functools import partial
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus

from harness.house import House, Role, until
from harness.scrape import ask, reaches, scrape
from innkeeper.ops.families import COMMON
from innkeeper_edge.metrics import FAMILIES as EDGE_FAMILIES
from innkeeper_workers.jobs.metrics import FAMILIES as JOBS_FAMILIES
from innkeeper_workers.metrics import FAMILIES as WORKER_FAMILIES

OPS = ("--ops-port", "0")
JOB_ROOMS = str(Path(__file__).parents[1] / "harness" / "job_rooms.py")


async def is_ready(role: Role) -> bool:
    """Return whether a role says that it is."""
    return (await ask(role, "/readyz"))[0] == 200


async def test_what_happens_is_counted(tmp_path: Path) -> None:
    """Ten messages move the counters of messages by ten, and by twenty what two sockets get."""
    async with House(tmp_path, edges=1, workers=1, options=OPS) as house:
        edge, worker = house.edges[0], house.workers[0]
        assert await is_ready(edge)
        ann, bob = await house.join("ledger/a", name="ann"), await house.join("ledger/a", name="bob")
        await bob.expect(lambda frame: "welcome" in frame, "a welcome")
        before, owned = await scrape(edge), await scrape(worker)
        for i in range(10):
            await ann.send({"i": i})
        await bob.numbers(10)
        after = await scrape(edge)
        events = owned.value("innkeeper_worker_events_total") + 10
        handled = await reaches(worker, events, "innkeeper_worker_events_total")

        def moved(name: str) -> float:
            return after.value(f"innkeeper_edge_{name}") - before.value(f"innkeeper_edge_{name}")

        assert moved("messages_in_total") == moved("pushed_events_total") == 10
        assert moved("bytes_in_total") == 10 * len('{"i":0}')
        assert moved("messages_out_total") == 20
        assert 1 <= moved("pushes_total") == moved("push_seconds_count") <= 10
        assert after.value("innkeeper_edge_joins_total") == after.value("innkeeper_edge_sockets", mode="raw") == 2
        assert after.value("innkeeper_edge_feeds") == handled.value("innkeeper_worker_rooms", kind="ledger") == 1
        assert handled.value("innkeeper_worker_events_total", kind="ledger") == 12
        assert handled.value("innkeeper_worker_commit_seconds_count", kind="ledger") >= 1
        assert handled.value("innkeeper_worker_turn_seconds_count", kind="ledger") >= 1
        assert handled.value("innkeeper_worker_inbox_lag_events") == 0
        assert handled.value("innkeeper_worker_claims_total") == 1


async def test_what_goes_wrong_is_counted(tmp_path: Path) -> None:
    """A slow room is behind by events and seconds; failures, a fenced commit and a close are counted."""
    async with House(tmp_path, edges=1, workers=1, options=(*OPS, "--log-format", "json")) as house:
        edge, worker = house.edges[0], house.workers[0]
        ann, bob = await house.join("ledger/a", name="ann"), await house.join("ledger/a", name="bob")
        await bob.expect(lambda frame: "welcome" in frame, "a welcome")
        await ann.send({"i": 0, "wait": 2.0})  # one that takes long is behind, and so is what stands after it
        await ann.send({"i": 1})
        slow = await reaches(worker, 0.5, "innkeeper_worker_inbox_lag_seconds", kind="ledger")
        assert slow.value("innkeeper_worker_inbox_lag_events", kind="ledger") == 2
        assert slow.value("innkeeper_worker_inbox_lag_seconds", kind="ledger") < 30
        await bob.numbers(2)
        await ann.send({"wrong": 1})
        failed = await reaches(worker, 1, "innkeeper_worker_dead_events_total", kind="ledger")
        assert failed.value("innkeeper_worker_handler_errors_total", kind="ledger") == 1
        assert failed.value("innkeeper_worker_inbox_lag_seconds") < 1
        assert failed.value("innkeeper_worker_refused_commits_total") == 0
        await house.redis.hset("inn:{ledger/a}:meta", "token", "99:7")  # as if another had claimed it
        await ann.send({"i": 2})
        fenced = await reaches(worker, 1, "innkeeper_worker_room_failures_total", why="lost")
        assert fenced.value("innkeeper_worker_refused_commits_total") == 1
        await bob.numbers(3)
        await bob.close()
        closed = await reaches(edge, 1, "innkeeper_edge_closes_total", code="client")
        assert closed.value("innkeeper_edge_sockets") == 1
        lines = [json.loads(line) for role in (edge, worker) for line in role.log.splitlines()]
        (refused,) = [line for line in lines if "commit refused" in line["message"]]
        assert (refused["room"], refused["level"], refused["logger"]) == ("ledger/a", "warning", "innkeeper.worker")
        assert refused["owner"] == refused["incarnation"]
        assert refused["token"].startswith("1:")
        (raised,) = [line for line in lines if "was undone" in line["message"]]
        assert raised["error"] == "KeyError: 'i'"


async def test_every_family_is_exported(tmp_path: Path) -> None:
    """A scrape of each role names each family that the role declares, and each role gets ready."""
    async with House(tmp_path, edges=1, workers=1, target=JOB_ROOMS, options=OPS) as house:
        jobs = await house.add_jobs(*OPS)
        declared = ((house.edges[0], EDGE_FAMILIES), (house.workers[0], WORKER_FAMILIES), (jobs, JOBS_FAMILIES))
        for role, families in declared:
            await until(partial(is_ready, role), "it is ready")
            _, text = await ask(role, "/metrics")
            shown = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
            assert {family.name for family in (*COMMON, *families)} - shown == set()


async def test_jobs_are_counted_by_their_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What happens in the process of a job shows at the one that forked it."""
    monkeypatch.setenv("JOB_RUNS", str(tmp_path / "runs.txt"))
    async with House(tmp_path, edges=1, workers=1, target=JOB_ROOMS, options=OPS) as house:
        jobs = await house.add_jobs(*OPS)
        ann = await house.join("works/a", name="ann")
        entries: list[object] = [["double", [21], {}], ["fail", ["x"], {}], ["unspeakable", [], {}], ["die", [], {}]]
        await ann.send({"jobs": [*entries, ["sleep", [30], {"timeout": 1}]]})
        await reaches(jobs, 5, "innkeeper_jobs_ended_total")
        seen = await scrape(jobs)
        ends = {end: seen.value("innkeeper_jobs_ended_total", end=end) for end in ("done", "failed", "timeout", "died")}
        assert ends == {"done": 1, "failed": 2, "timeout": 1, "died": 1}
        assert 0.9 < seen.value("innkeeper_jobs_run_seconds_total") < 10
        assert (await scrape(house.workers[0])).value("innkeeper_worker_jobs_total") == 5


async def test_deaths_and_rooms_without_owner_show(tmp_path: Path) -> None:
    """A takeover counts where it was made; a room that nobody can serve shows at the workers that are left."""
    async with House(tmp_path, edges=1, workers=2, options=OPS) as house:
        ann = await house.join("ledger/a", name="ann")
        await ann.expect(lambda frame: "welcome" in frame, "a welcome")
        owner = await house.owner_of("ledger/a")
        (other,) = [role for role in house.workers if role is not owner]
        assert (await scrape(other)).value("innkeeper_worker_takeovers_total") == 0
        owner.signal(signal.SIGKILL)
        await ann.send({"i": 0})
        await ann.numbers(1)
        taken = await reaches(other, 1, "innkeeper_worker_takeovers_total")
        assert taken.value("innkeeper_worker_rooms", kind="ledger") == 1

        async def joins(room: str) -> bool:
            try:
                await house.join(room)
            except InvalidStatus:
                return False
            return True

        assert not await joins("gone/x")
        assert (await scrape(house.edges[0])).value("innkeeper_edge_rejections_total", error="unknown_kind") == 1
        # What a worker wrote that is gone for good: edges take events for its rooms, and nobody handles them.
        await house.redis.hset("inn:kinds", "gone", '{"codec":"json","message_bytes":9,"backlog_count":9,"grace_s":1}')
        await until(lambda: joins("gone/x"), "the edge knows the kind")
        await reaches(house.edges[0], 1, "innkeeper_edge_ownerless_rooms")  # while there are sockets, the edge looks
        await house.clients[-1].abort()
        await reaches(other, 1, "innkeeper_worker_ownerless_rooms")
        waiting = await reaches(other, 1, "innkeeper_waking_rooms", kind="gone")
        assert waiting.value("innkeeper_waking_rooms", kind="ledger") == 0


async def test_processes_have_ports_in_a_row(tmp_path: Path) -> None:
    """Under one parent each process has its own port, and it keeps the port when it is replaced."""
    async with House(tmp_path, edges=0, workers=0) as house:
        worker = await house.add_worker("--processes", "2", *OPS)
        assert (await ask(worker, "/healthz"))[0] == 200
        first = worker.facts["ops_port"]
        worker.signal(signal.SIGHUP)
        await until(lambda: "were replaced" in worker.log, "the roll")
        assert worker.log.count(f"at http://127.0.0.1:{first}/") == 2
        assert await is_ready(worker)

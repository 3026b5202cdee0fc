"""Jobs through the real rq: each result comes once, whatever dies, and nothing runs that was not allowed."""

import asyncio
import json
import os
import pickle
import random
import signal
import zlib
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from harness import job_rooms
from harness.house import Client, House, until
from innkeeper_workers.jobs.desk import PERFORM

TARGET = str(Path(job_rooms.__file__))
Shown = list[Any]


class Runs:
    """The file in which jobs note that they run."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def lines(self) -> list[list[str]]:
        """Return a line a run: what ran, the process, its parent."""
        return [line.split() for line in self._path.read_text(encoding="utf-8").splitlines()]

    def has(self, word: str) -> bool:
        """Return whether a job has run."""
        return any(line[0] == word for line in self.lines())


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runs:
    """Return the file in which jobs note that they run."""
    path = tmp_path / "runs.txt"
    path.touch()
    monkeypatch.setenv("JOB_RUNS", str(path))
    return Runs(path)


@pytest.fixture
async def house(tmp_path: Path, runs: Runs) -> AsyncIterator[House]:
    """One edge and two workers; jobs are added by the tests."""
    assert not runs.lines()
    async with House(tmp_path, edges=1, workers=2, target=TARGET) as running:
        yield running


async def enqueue(client: Client, *jobs: tuple[str, list[Any], dict[str, Any]]) -> None:
    """Have the room enqueue jobs."""
    await client.send({"jobs": [list(entry) for entry in jobs]})


def results(client: Client) -> list[Shown]:
    """Return the results a client was shown."""
    return [frame["result"] for frame in client.got if isinstance(frame, dict) and "result" in frame]


async def result(client: Client, *, count: int = 1, timeout_s: float = 30) -> list[Shown]:
    """Wait for that many results."""
    await until(lambda: len(results(client)) >= count, f"{count} result(s)", timeout_s=timeout_s, seen=client.got)
    return results(client)


async def test_jobs_run_and_their_results_come_back(house: House) -> None:
    """A value, an async function, an exception, a value that is not JSON, and a function that is no job."""
    await house.add_jobs()
    ann = await house.join("works/a")
    await enqueue(
        ann,
        ("double", [21], {}), ("later", [7], {"wait_s": 0.1}), ("fail", ["on purpose"], {}),
        ("unspeakable", [], {}), ("secret", [], {}), ("nosuch", [], {}),
    )  # fmt: skip
    shown = {entry[1].split(":")[1]: entry[2:] for entry in await result(ann, count=6)}
    assert shown["double"] == ["done", 42, ""]
    assert shown["later"] == ["done", {"number": 7}, ""]
    assert shown["fail"] == ["failed", None, "ValueError: on purpose"]
    assert shown["unspeakable"][0] == "failed"
    assert "not JSON" in shown["unspeakable"][2]
    for name in ("secret", "nosuch"):
        assert shown[name][:2] == ["failed", None]
        assert "mark it with @job" in shown[name][2]
    ids = {frame["enqueued"] for frame in ann.got if isinstance(frame, dict) and "enqueued" in frame}
    assert {entry[0] for entry in results(ann)} == ids
    assert await house.redis.xlen("inn:{works/a}:outbox") == 0
    assert not await house.redis.exists("inn:{works/a}:timers")
    assert not await house.redis.exists("inn:{works/a}:dead")


async def test_a_job_is_cut_at_its_timeout(house: House) -> None:
    """It ends as timeout; the next one runs."""
    await house.add_jobs()
    ann = await house.join("works/a")
    await enqueue(ann, ("sleep", [30], {"timeout": 1}), ("double", [1], {}))
    first, second = await result(ann, count=2)
    assert first[2] == "timeout"
    assert second[2:4] == ["done", 2]


async def test_a_job_whose_process_is_killed_has_failed(house: House) -> None:
    """The worker lives and tells it; what it would have done next it does."""
    await house.add_jobs()
    ann = await house.join("works/a")
    await enqueue(ann, ("die", [], {}), ("double", [1], {}))
    first, second = await result(ann, count=2)
    assert first[2:] == ["failed", None, "its process died (signal 9)"]
    assert second[2:4] == ["done", 2]


async def test_a_job_that_nobody_runs_is_lost_at_its_deadline(house: House, runs: Runs) -> None:
    """Without any process for jobs the room hears so in time; a result that comes later is void."""
    ann = await house.join("works/a")
    await enqueue(ann, ("double", [1], {"timeout": 1, "deadline": 2}))
    (lost,) = await result(ann)
    assert lost[2:4] == ["lost", None]
    await house.add_jobs()
    await until(lambda: runs.has("double-1"), "the job ran after all")
    await enqueue(ann, ("double", [2], {}))
    assert [entry[2:4] for entry in await result(ann, count=2)] == [["lost", None], ["done", 4]]


async def test_a_destroyed_room_takes_its_jobs_out_of_the_queue(house: House, runs: Runs) -> None:
    """They never run, and no result makes the room anew."""
    ann = await house.join("works/a")
    await enqueue(ann, *(("double", [n], {}) for n in range(5)))
    await until(lambda: _queued(house, 5), "five jobs are in the queue")
    await ann.send({"destroy": True})
    await until(lambda: _queued(house, 0), "none is in the queue")
    await house.add_jobs()
    bob = await house.join("works/b")
    await enqueue(bob, ("double", [9], {}))
    await result(bob)
    assert [line[0] for line in runs.lines()] == ["double-9"]
    assert not await house.redis.exists("inn:{works/a}:state", "inn:{works/a}:timers")


async def _queued(house: House, count: int) -> bool:
    return bool(await house.redis.llen("rq:queue:innkeeper") == count)


@pytest.mark.long
async def test_results_come_once_while_owners_and_jobs_are_killed(house: House, runs: Runs) -> None:
    """Sixty jobs in six rooms, owners and job processes killed: each has one result, and done means it ran."""
    seed = random.randrange(2**32)
    draw = random.Random(seed)
    for _ in range(2):
        await house.add_jobs()
    clients = [await house.join(f"works/r{n}") for n in range(6)]
    for n in range(10):
        for client in clients:
            await enqueue(client, ("later", [n], {"wait_s": 0.05, "timeout": 5, "deadline": 60}))
        await asyncio.sleep(0.2)
        if n in (2, 6):
            owner = draw.choice(house.workers)
            owner.signal(signal.SIGKILL)
            await house.add_worker()
        if n in (4, 5, 8):
            await until(runs.lines, "a job runs")
            horse = int(runs.lines()[-1][1])
            with suppress(ProcessLookupError):
                os.kill(horse, signal.SIGKILL)
    for client in clients:
        await result(client, count=10, timeout_s=90)
    await asyncio.sleep(1)
    outcomes = [entry for client in clients for entry in results(client)]
    assert len({entry[0] for entry in outcomes}) == len(outcomes) == 60, seed
    done = [entry for entry in outcomes if entry[2] == "done"]
    failed = [entry for entry in outcomes if entry[2] == "failed"]
    print(f"\njobs: seed {seed}, {len(done)} done, {len(failed)} failed by a killed process")
    assert len(done) + len(failed) == 60
    assert len(failed) <= 3
    assert all(entry[4].startswith("its process died") for entry in failed)
    for n in range(6):
        assert not await house.redis.exists(f"inn:{{works/r{n}}}:dead")


@pytest.mark.chaos
@pytest.mark.timeout(300)
async def test_a_killed_worker_of_jobs_is_noticed_by_another(house: House, runs: Runs) -> None:
    """Worker and job's process are killed together: another reports the job as failed, within 90 s."""
    first = await house.add_jobs()
    ann = await house.join("works/a")
    await enqueue(ann, ("sleep", [60], {"timeout": 120, "deadline": 600}))
    await until(lambda: runs.has("sleep"), "it runs")
    await house.add_jobs()
    first.signal(signal.SIGKILL)
    os.kill(int(runs.lines()[0][1]), signal.SIGKILL)
    begun = asyncio.get_running_loop().time()
    (entry,) = await result(ann, timeout_s=120)
    took_s = asyncio.get_running_loop().time() - begun
    print(f"\njobs: a killed worker's job was reported after {took_s:.0f} s")
    assert entry[2:] == ["failed", None, "its worker died"]
    assert took_s <= 90


class _Loaded:
    """What runs when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


def _forged(case: str, marker: Path) -> bytes:
    """Return the data of a job as somebody could write it who may write to rq's keys."""
    command = f"touch {marker}"
    if case == "pickled":
        return zlib.compress(pickle.dumps(("os.system", None, [_Loaded(str(marker))], {})))
    call: tuple[Any, ...] = {
        "honest but for its callbacks": (PERFORM, None, ["works/a", "x", "job_rooms:double", [1], {}], {}),
        "dotted path": ("os.system", None, [command], {}),
        "method": ("system", "os", [command], {}),
        "no such function": ("innkeeper_workers.jobs.runner.nosuch", None, [], {}),
        "function without @job": (PERFORM, None, ["works/a", "x", "job_rooms:secret", [], {}], {}),
        "path in the function's name": (PERFORM, None, ["works/a", "x", "os:system", [command], {}], {}),
        "no room": (PERFORM, None, ["../..", "x", "job_rooms:double", [1], {}], {}),
    }[case]
    return zlib.compress(json.dumps(call).encode())


async def test_forged_jobs_run_nothing(house: House, tmp_path: Path, runs: Runs) -> None:
    """Pickles, dotted paths and functions without @job, written into rq's keys by hand, are told in the log alone."""
    jobs = await house.add_jobs()
    marker = tmp_path / "ran"
    cases = (
        "honest but for its callbacks", "pickled", "dotted path", "method", "no such function",
        "function without @job", "path in the function's name", "no room",
    )  # fmt: skip
    for number, case in enumerate(cases):
        now = "2026-01-01T00:00:00.000000Z"
        row = {"data": _forged(case, marker), "created_at": now, "enqueued_at": now, "status": "queued",
               "origin": "innkeeper", "timeout": "10", "description": case}  # fmt: skip
        for callback in ("success", "failure", "stopped"):
            row[f"{callback}_callback_name"] = "os.system"
        await house.redis.hset(f"rq:job:forged-{number}", mapping=row)
        await house.redis.rpush("rq:queue:innkeeper", f"forged-{number}")
    ann = await house.join("works/a")
    await enqueue(ann, ("double", [21], {}))
    await until(lambda: any(entry[2:4] == ["done", 42] for entry in results(ann)), "an honest job runs after them",
                timeout_s=40, seen=jobs.log[-3000:])  # fmt: skip
    assert not marker.exists()
    assert [line[0] for line in runs.lines() if line[0] != "double-1"] == ["double-21"]
    assert "secret" not in [entry[3] for entry in results(ann)]
    assert await house.redis.hget("rq:job:forged-0", "status") == b"finished", "a callback was called"
    for number in range(len(cases)):
        assert f"forged-{number}" in jobs.log

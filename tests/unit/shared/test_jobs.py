"""Jobs without rq: what may be put into the queue, and what comes back of it into a room."""

from typing import Any

import orjson
import pytest

from harness.activations import Stage, staged
from innkeeper import JobInvalid, JobResult, Room, job
from innkeeper.errors import TimerInvalid
from innkeeper.jobs import DATA_BYTES, deadline_s, job_data, job_name, outcome


@job
def double(number: int) -> int:
    """Return twice the number."""
    return 2 * number


def unmarked() -> None:
    """Do nothing, and be no job."""


class Desk(Room):
    """Puts a job into the queue for each message, and keeps what comes back."""

    def on_message(self, conn: object, message: Any) -> None:  # noqa: ARG002 - the hook's signature
        """Enqueue, fail, or end."""
        if message == "destroy":
            self.destroy()
            return
        self.state["id"] = self.enqueue(double, message, timeout=5, deadline=30)
        if message == "fail":
            raise OSError("after the job")

    def on_job(self, result: JobResult) -> None:
        """Keep a result; fail where there is none."""
        if result.value == "bad":
            raise OSError("not this one")
        self.state.setdefault("results", []).append([result.id, result.function, result.status, result.value])


async def asked(message: Any = 21) -> tuple[Stage, str, bytes]:
    """Return a stage on which a member has asked for a job, the job's id, and what is in the outbox."""
    stage = await staged(Desk)
    await stage.handle("join", data=b'{"user":["u","u"]}')
    turn = await stage.handle("text", data=orjson.dumps(message))
    ((kind, target, data),) = turn.outbox
    assert (kind, target) == ("job", f"{__name__}:double")
    job_id = orjson.loads(data)["id"]
    assert set(turn.timers_set) == {f"~job:{job_id}"}
    return stage, job_id, data


def results(stage: Stage) -> list[Any]:
    """Return what on_job has kept."""
    return list(stage.activation.room.state.get("results", []))


async def test_a_job_is_owed_and_awaited() -> None:
    """The outbox holds the function and its arguments, the timers a deadline from the event's time on."""
    stage, job_id, data = await asked()
    assert orjson.loads(data) == {"id": job_id, "args": [21], "kwargs": {}, "timeout_s": 5}
    assert stage.activation.context.timers.jobs() == [job_id]
    assert stage.activation.room.timers == {}
    assert len(job_id) == 32


async def test_a_result_comes_once() -> None:
    """A second result of the same job, or one of a job that nobody waits for, reaches no hook."""
    stage, job_id, _ = await asked()
    turn = await stage.handle("job", connection="-", data=outcome(job_id, "done", value=42))
    assert results(stage) == [[job_id, f"{__name__}:double", "done", 42]]
    assert turn.timers_del == {f"~job:{job_id}"}
    for data in (outcome(job_id, "done", value=42), outcome("other", "done"), b"no json", b"[]"):
        turn = await stage.handle("job", connection="-", data=data)
        assert turn.consumed
        assert turn.changes_nothing
    assert len(results(stage)) == 1
    assert stage.activation.void_count == 4


async def test_a_job_that_nobody_hears_of_is_lost() -> None:
    """The deadline comes as an event; a result after it is void."""
    stage, job_id, _ = await asked()
    row = stage.activation.context.timers.get(f"~job:{job_id}")
    assert row is not None
    fired = orjson.dumps({"name": f"~job:{job_id}", "id": row.id, "due": row.due_ms})
    await stage.handle("timer", connection="-", data=fired)
    await stage.handle("job", connection="-", data=outcome(job_id, "done", value=42))
    await stage.handle("timer", connection="-", data=fired)
    assert results(stage) == [[job_id, f"{__name__}:double", "lost", None]]
    assert stage.activation.void_count == 2


async def test_a_failing_hook_owes_nothing() -> None:
    """What a hook enqueued before it raised never was."""
    stage = await staged(Desk)
    await stage.handle("join", data=b'{"user":["u","u"]}')
    turn = await stage.handle("text", data=b'"fail"')
    assert not turn.outbox
    assert not turn.timers_set
    assert stage.activation.context.timers.jobs() == []


async def test_a_failing_on_job_ends_the_wait_all_the_same() -> None:
    """The event lies in dead, the job is over."""
    stage, job_id, _ = await asked()
    turn = await stage.handle("job", connection="-", data=outcome(job_id, "done", value="bad"))
    assert [event.error for event in turn.dead] == ["OSError: not this one"]
    assert turn.timers_del == {f"~job:{job_id}"}
    assert results(stage) == []


async def test_a_condemned_result_ends_the_wait() -> None:
    """A result whose workers died of it is put aside; the job is over."""
    stage, job_id, _ = await asked()
    stage.activation.condemn(stage.event("job", "-", outcome(job_id, "done", value=1)), "its workers died of it")
    assert stage.take_turn().timers_del == {f"~job:{job_id}"}


async def test_a_destroyed_room_cancels_its_jobs() -> None:
    """The outbox survives the room, and tells the queue."""
    stage, job_id, _ = await asked()
    turn = await stage.handle("text", data=b'"destroy"')
    assert turn.destroy
    assert turn.outbox == [("cancel", job_id, b"")]


async def test_a_result_for_a_room_that_does_not_start_for_it_is_void() -> None:
    """One that was destroyed, or has nothing to wait for, is not started by a late result."""
    stage = Stage(Desk)
    assert stage.activation.concerns_nobody(stage.event("job", "-", outcome("x", "done", value=1)))
    turn = await stage.handle("job", connection="-", data=outcome("x", "done", value=1))
    assert (len(turn.consumed), turn.dead, stage.activation.void_count) == (1, [], 1)


async def test_a_room_waits_for_so_many_jobs() -> None:
    """One more than 1,000 is an error of the hook."""
    stage = await staged(Desk)
    timers = stage.activation.context.timers
    for n in range(1_000):
        timers.await_job(f"j{n}", "m:f", 1)
    with pytest.raises(TimerInvalid, match="1000 jobs"):
        timers.await_job("one more", "m:f", 1)


@pytest.mark.parametrize("name", ["f", "m.f", "m:", ":f", "m:f.g", "m:f(", "m m:f", "", "m" * 400 + ":f"])
def test_names_that_are_none(name: str) -> None:
    """A job is named pkg.mod:function."""
    with pytest.raises(JobInvalid, match="name it pkg"):
        job_name(name)


def test_functions_that_are_no_jobs() -> None:
    """A function must be marked, and stand where another process finds it."""
    assert job_name(double) == f"{__name__}:double"
    assert job_name("pkg.mod:f_1") == "pkg.mod:f_1"
    for function in (unmarked, job(lambda: None), job(lambda _: None)):
        with pytest.raises(JobInvalid, match="@job"):
            job_name(function)


@pytest.mark.parametrize("timeout", [0, 0.5, -1, float("nan"), float("inf"), 8 * 86_400, True, "5", None])
def test_times_that_make_no_sense(timeout: Any) -> None:
    """A job may run from a second to a week; its deadline is not before that."""
    with pytest.raises(JobInvalid, match="timeout"):
        job_data("j", (), {}, timeout_s=timeout)
    with pytest.raises(JobInvalid, match="deadline"):
        deadline_s(5, timeout if timeout is not None else 4)


def test_arguments_that_cannot_travel() -> None:
    """They must be JSON, and not too large."""
    with pytest.raises(JobInvalid, match="JSON"):
        job_data("j", (object(),), {}, timeout_s=5)
    with pytest.raises(JobInvalid, match="at most"):
        job_data("j", ("x" * DATA_BYTES,), {}, timeout_s=5)


def test_results_that_cannot_travel_are_failures() -> None:
    """A value that is not JSON, or too large, is told as a failure of the job."""
    for value, why in ((object(), "not JSON"), ([float("nan")], "NaN"), ("x" * DATA_BYTES, "at most")):
        told = orjson.loads(outcome("j", "done", value=value))
        assert told["status"] == "failed"
        assert told["value"] is None
        assert why in told["error"]
    assert deadline_s(5, None) > 3_600

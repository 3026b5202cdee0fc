"""Requests, posts and results of jobs to rooms in memory, as edges, other rooms and job processes would bring them."""

import asyncio
from typing import Any

import pytest

from innkeeper import Connection, JobResult, OutputInvalid, Request, Response, Room, User, job
from innkeeper.address import InvalidAddress
from innkeeper.testing import Diverged, Job, RoomHarness


@job
def add(first: int, *, second: int) -> int:
    """Stand for a job; no test runs it."""
    return first + second


class Office(Room):
    """Is asked, written to and told of jobs."""

    handler_s = 0.05
    message_bytes = 1_000

    async def on_request(self, request: Request) -> Any:
        """Show what came, or do as the path says."""
        self.state["asked"] = self.state.get("asked", 0) + 1
        match request.path:
            case "/raise":
                raise ValueError("told to")
            case "/json":
                return request.json()
            case "/hang":
                await asyncio.Event().wait()
            case "/end":
                self.destroy()
            case "/made":
                return Response("x", 201, {"x-count": str(self.state["asked"])}, "text/csv")
            case _:
                pass
        return [request.method, request.path, request.query_all, request.headers, request.text(), list(request.user)]

    def on_post(self, sender: str, message: Any) -> None:
        """Keep it."""
        if message == "raise":
            raise ValueError("told to")
        self.state.setdefault("posts", []).append([sender, message])
        self.broadcast(message)

    def on_message(self, conn: Connection, message: Any) -> None:
        """Put a job into the queue, or end with those that are there."""
        if message == "end":
            self.destroy()
        else:
            self.state[self.enqueue(add, message, second=2, timeout=5, deadline=60)] = conn.id

    def on_job(self, result: JobResult) -> None:
        """Show it; a value that is nobody's to show fails."""
        self.state.pop(result.id, None)
        if result.value == "raise":
            raise ValueError("told to")
        self.broadcast([result.status, result.value, result.error, result.function])


class Deaf(Room):
    """Has no hooks."""


# --- requests ---------------------------------------------------------------------------------------------------------
async def test_a_request_reaches_the_hook_and_its_answer_comes_back() -> None:
    """With method, path, query, headers, body and user; the commit holds both."""
    room = RoomHarness(Office)
    answer = await room.request("PUT", "/a%20b?x=1&name=ann", body="hé", headers={"X-One": "1"}, query={"y": 2})
    assert answer.json() == [
        "PUT", "/a%20b", [["x", "1"], ["name", "ann"], ["y", "2"]],
        {"x-one": "1", "content-type": "text/plain; charset=utf-8"}, "hé", ["", "ann"],
    ]  # fmt: skip
    assert (answer.status, answer.content_type, room.state) == (200, "application/json", {"asked": 1})
    answer = await room.request("GET", query=[("x", "1"), ("x", "2")], user=User("u1", "bob"))
    assert answer.json() == ["GET", "/", [["x", "1"], ["x", "2"]], {}, "", ["u1", "bob"]]
    assert (await room.request("GET")).json()[-1] == ["", "guest"]
    made = await room.request("GET", "/made")
    assert (made.status, made.text(), made.header("X-Count"), made.content_type) == (201, "x", "4", "text/csv")
    assert [len(commit.outputs) for commit in room.commits] == [1] * 4
    assert room._answers == {}
    room.check()


async def test_json_bodies() -> None:
    """A JSON value becomes the body and its type is told; a body that is none gets 400, and nothing is dead."""
    room = RoomHarness(Office)
    assert (await room.request("POST", "/json", body={"a": [1]})).json() == {"a": [1]}
    assert (await room.request("POST", "/", body=[1])).json()[3] == {"content-type": "application/json"}
    assert (await room.request("POST", "/", body=[1], headers={"Content-Type": "a/b"})).json()[3:5] == [
        {"content-type": "a/b"}, "[1]",
    ]  # fmt: skip
    assert (await room.request("POST", "/", body=None)).json()[3:5] == [{}, ""]
    bad = await room.request("POST", "/json", body=b"{no")
    assert (bad.status, bad.json()["error"]) == (400, "invalid_body")
    room.check()


async def test_requests_that_fail() -> None:
    """A hook that raises, or never ends, is undone, dead and answered with 500; the report names the request."""
    room = RoomHarness(Office)
    await room.request("GET")
    answer = await room.request("POST", "/raise", body="hello")
    assert (answer.status, answer.json(), room.state) == (500, {"error": "handler_failed"}, {"asked": 1})
    with pytest.raises(AssertionError, match="\nrequest POST /raise hello: ValueError: told to"):
        room.check()
    answer = await room.request("GET", "/hang")
    assert (answer.status, answer.json()) == (500, {"error": "handler_timeout"})
    assert [dead.kind for dead in room.dead] == [b"request", b"request"]


async def test_what_edges_answer_by_themselves() -> None:
    """No room sees a request that is too large, or to a class without the hook."""
    room = RoomHarness(Office)
    assert (await room.request("POST", body=b"x" * 1_000)).status == 200
    large = await room.request("POST", body=b"x" * 1_001)
    assert (large.status, large.json()) == (413, {"error": "body_too_large"})
    long = await room.request("GET", headers={"x": "x" * 65_536})
    assert (long.status, long.json()) == (431, {"error": "headers_too_large"})
    assert room.state == {"asked": 1}
    deaf = RoomHarness(Deaf)
    answer = await deaf.request("GET")
    assert (answer.status, answer.json(), deaf.commits) == (404, {"error": "no_requests"}, [])


async def test_a_request_that_ends_the_room_is_answered() -> None:
    """Members are closed, the state is gone, and the answer comes all the same."""
    room = RoomHarness(Office)
    ann = await room.join()
    assert (await room.request("DELETE", "/end")).status == 200
    assert (ann.closed, room.state, room.commits[1].is_end) == ((4404, "room destroyed"), {}, True)


@pytest.mark.parametrize(("method", "path"), [("", "/"), ("G T", "/"), ("GET", "x"), ("GET", "/a b"), ("GET", "/#")])
async def test_requests_that_nobody_could_make(method: str, path: str) -> None:
    """They are the test's own mistake."""
    with pytest.raises(ValueError, match=r"^(method|path) '"):
        await RoomHarness(Office).request(method, path)


async def test_a_body_that_nobody_could_send() -> None:
    """Nor can what JSON does not hold."""
    with pytest.raises(OutputInvalid):
        await RoomHarness(Office).request("POST", body=object())


async def test_requests_at_once_get_their_own_answers() -> None:
    """Each the one to it."""
    room = RoomHarness(Office)
    answers = await asyncio.gather(*(room.request("POST", "/json", body=n) for n in range(10)))
    assert [answer.json() for answer in answers] == list(range(10))


async def test_a_start_that_fails_is_the_callers_to_see() -> None:
    """It comes out of the request; a later call runs it, and gets its own answer."""
    fails = [True]

    class Fragile(Office):
        def on_start(self) -> None:
            if fails:
                raise OSError("not yet")

    room = RoomHarness(Fragile)
    with pytest.raises(OSError, match="not yet"):
        await room.request("POST", "/json", body=1)
    fails.clear()
    assert (await room.request("POST", "/json", body=2)).json() == 2
    assert room.state == {"asked": 2}


# --- posts ------------------------------------------------------------------------------------------------------------
async def test_posts_reach_the_hook() -> None:
    """With their sender, empty for a program; one that fails is undone and dead."""
    room = RoomHarness(Office)
    ann = await room.join()
    await room.post({"n": 1}, sender="player/bob")
    await room.post(None)
    assert (room.state, ann.received) == ({"posts": [["player/bob", {"n": 1}], ["", None]]}, [{"n": 1}, None])
    await room.post("raise")
    with pytest.raises(AssertionError, match=r'\npost {"sender":"","value":"raise"}: ValueError: told to'):
        room.check()
    assert len(room.state["posts"]) == 2


async def test_posts_to_a_room_without_the_hook_are_dead() -> None:
    """As in a worker."""
    room = RoomHarness(Deaf)
    await room.post(1)
    assert [dead.error for dead in room.dead] == ["Deaf has no on_post"]


async def test_posts_that_nobody_could_make() -> None:
    """A sender is an address, a value is JSON."""
    room = RoomHarness(Office)
    with pytest.raises(InvalidAddress):
        await room.post(1, sender="bob")
    with pytest.raises(OutputInvalid):
        await room.post({1, 2})
    assert room.commits == []


# --- jobs -------------------------------------------------------------------------------------------------------------
async def enqueued(room: RoomHarness, number: int = 1) -> tuple[Any, Job]:
    """Return a client that has had a job put into the queue, and the job."""
    ann = await room.join("ann")
    await ann.send(number)
    return ann, room.jobs[-1]


async def test_jobs_are_shown_as_their_function_would_get_them() -> None:
    """Those of failed events are none; one is awaited until its result has come."""
    room = RoomHarness(Office)
    ann, first = await enqueued(room)
    function = first.function
    assert function.endswith("test_calls:add")
    assert first == Job(first.id, function, (1,), {"second": 2}, 5, is_awaited=True)
    await ann.send("object")
    assert [each.args for each in room.jobs] == [(1,), ("object",)]
    assert list(room.state) == [each.id for each in room.jobs]
    await room.finish(first.id, 3)
    assert (ann.received, [each.is_awaited for each in room.jobs]) == ([["done", 3, "", function]], [False, True])


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ({}, ["done", None, ""]),
        ({"value": {"a": [1]}}, ["done", {"a": [1]}, ""]),
        ({"error": "it broke"}, ["failed", None, "it broke"]),
        ({"status": "timeout"}, ["timeout", None, "timeout, says the test"]),
        ({"status": "lost", "error": "gone"}, ["lost", None, "gone"]),
        ({"status": "failed", "error": "ValueError: no"}, ["failed", None, "ValueError: no"]),
    ],
)
async def test_how_a_job_may_end(how: dict[str, Any], expected: list[Any]) -> None:
    """A value alone is done, an error alone has failed, a status says what it is."""
    room = RoomHarness(Office)
    ann, asked = await enqueued(room)
    await room.finish(asked.id, **how)
    assert [frame[:3] for frame in ann.received] == [expected]
    room.check()


async def test_a_result_that_is_no_json_has_failed() -> None:
    """As a real job's would."""
    room = RoomHarness(Office)
    ann, asked = await enqueued(room)
    await room.finish(asked.id, object())
    assert ann.received[0][:2] == ["failed", None]
    assert ann.received[0][2].startswith("its result is not JSON")


async def test_results_that_come_twice_or_too_late() -> None:
    """They reach no hook: neither the second of a job, nor one after the deadline, which reports the job as lost."""
    room = RoomHarness(Office)
    ann, first = await enqueued(room)
    await room.finish(first.id, 1)
    await room.finish(first.id, 1)
    assert len(ann.take()) == 1
    await ann.send(2)
    await room.clock.advance(59)
    assert ann.take() == []
    await room.clock.advance(2)
    assert [frame[0] for frame in ann.take()] == ["lost"]
    await room.finish(room.jobs[1].id, 4)
    assert ann.take() == []


async def test_a_hook_that_fails_on_a_result() -> None:
    """It is undone and dead; the job is over."""
    room = RoomHarness(Office)
    _, asked = await enqueued(room)
    await room.finish(asked.id, "raise")
    with pytest.raises(AssertionError, match=r'\njob {"id":.*"value":"raise".*}: ValueError: told to'):
        room.check()
    assert (list(room.state), room.jobs[0].is_awaited) == ([asked.id], False)


async def test_the_rooms_end_cancels_its_jobs() -> None:
    """It is owed; the jobs are shown still, and a result makes no room."""
    room = RoomHarness(Office)
    ann, asked = await enqueued(room)
    await ann.send("end")
    assert room.outbox[1:] == [("cancel", asked.id, None)]
    assert [each.is_awaited for each in room.jobs] == [False]
    await room.finish(asked.id, 3)
    assert (room.state, room.commits[-1].outputs) == ({}, ())


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ({"status": "cancelled"}, "a job ends as one of done, failed, timeout, lost"),
        ({"status": "done", "error": "x"}, "a job that is done has no error"),
        ({"status": "lost", "value": 1}, "only a job that is done has a value"),
        ({"error": "x", "value": 1}, "only a job that is done has a value"),
    ],
)
async def test_ends_that_no_job_has(how: dict[str, Any], told: str) -> None:
    """They are the test's own mistake."""
    room = RoomHarness(Office)
    _, asked = await enqueued(room)
    with pytest.raises(ValueError, match=told):
        await room.finish(asked.id, **how)
    assert room.jobs[0].is_awaited


async def test_a_job_that_is_not_there() -> None:
    """The text names those that are."""
    room = RoomHarness(Office)
    with pytest.raises(ValueError, match=r"no such job into the queue; its jobs: none"):
        await room.finish("x")
    _, asked = await enqueued(room)
    with pytest.raises(ValueError, match=rf"its jobs: {asked.id} \(\S*test_calls:add\)"):
        await room.finish("x")


# --- histories --------------------------------------------------------------------------------------------------------
async def busy(room: RoomHarness) -> None:
    """Let everything come to a room."""
    ann, first = await enqueued(room)
    for path in ("/", "/raise", "/json", "/made"):
        await room.request("POST", path, body={"n": 1})
    await room.post(1, sender="player/bob")
    await room.post("raise")
    await ann.send(2)
    await room.finish(first.id, 3)
    await room.finish(first.id, 3)
    await room.sleep()
    await room.clock.advance(100)
    await ann.send(3)
    await room.finish(room.jobs[2].id, "raise")
    await ann.send(4)
    await room.request("DELETE", "/end")
    await room.finish(room.jobs[3].id, 1)
    assert (await room.request("GET")).status == 200


async def test_histories_with_all_of_it_are_the_same_under_crashes() -> None:
    """However often the object is lost, or another worker takes the room over."""
    await RoomHarness(Office).crash_everywhere(busy)
    await RoomHarness(Office).duplicate_owner(busy)


async def test_what_differs_is_told() -> None:
    """Answers, posts and jobs are compared, and their events named."""

    class Forgetful(Office):
        def __init__(self) -> None:
            self.count = 0

        async def on_request(self, request: Request) -> Any:  # noqa: ARG002 - the hook's signature
            self.count += 1
            return self.count

        def on_post(self, sender: str, message: Any) -> None:  # noqa: ARG002 - the hook's signature
            self.count += 1
            self.enqueue(add, self.count)

        def on_job(self, result: JobResult) -> None:  # noqa: ARG002 - the hook's signature
            self.count += 1
            self.post("other/room", self.count)

    async def ask(room: RoomHarness) -> None:
        await room.request("GET")
        await room.request("GET", "/x")

    async def post(room: RoomHarness) -> None:
        await room.post(0)
        await room.post(0)

    async def work(room: RoomHarness) -> None:
        await room.post(0)
        await room.finish(room.jobs[0].id, 5)

    for script, told in (
        (ask, r"commit 2 \(request GET /x\):\n  outputs 1: answer q-000000000002 .*\n2 undisturbed, .*\n1 disturbed"),
        (post, r'commit 2 \(post {"sender":"","value":0}\):\n  outbox 1: job .*"args":\[2\].* disturbed'),
        (work, r'commit 2 \(job {"id":.*}\):\n  outbox 1: post other/room .*"value":2} undisturbed, .*"value":1}'),
    ):
        with pytest.raises(Diverged, match=told):
            await RoomHarness(Forgetful).crash_everywhere(script)

"""OpenTelemetry traces across real roles, taken by a collector."""

from pathlib import Path

from harness.collector import Collector, Seen
from harness.house import House, until

ALL = ("--traces", "--traces-ratio", "1")
TRACED_ROOMS = str(Path(__file__).parents[1] / "harness" / "traced_rooms.py")
WAY = ["receive", "push", "handle", "commit", "deliver"]


def ways(spans: list[Seen], event: str) -> list[dict[str, Seen]]:
    """Return the whole traces of a kind of event, each as its spans by name."""
    traces: dict[str, dict[str, Seen]] = {}
    for span in spans:
        traces.setdefault(span.trace, {})[span.name] = span
    whole = [trace for trace in traces.values() if set(WAY) <= set(trace)]
    return [trace for trace in whole if trace["receive"].attributes["innkeeper.event"] == event]


async def test_a_message_is_one_trace_from_socket_to_socket(tmp_path: Path) -> None:
    """Edge and worker make spans of one trace, in order of cause; spans of a hook's own hang on the handler's."""
    async with (
        Collector() as collector,
        House(tmp_path, edges=2, workers=1, target=TRACED_ROOMS, options=ALL) as house,
    ):
        ann, bob = await house.join("traced/a", name="ann"), await house.join("traced/a", edge=1, name="bob")
        for client in (ann, bob):
            await client.last('"in"')
        for n in range(3):
            await ann.send({"n": n})
        await bob.expect(lambda frame: frame == {"n": 2}, "the last message")
        found = await until(
            lambda: len(ways(collector.spans, "text")) == 3 and ways(collector.spans, "text"),
            "three whole traces",
            seen=collector.spans,
        )
        by_iseq = {trace["receive"].attributes["innkeeper.iseq"]: trace for trace in found}
        assert len(by_iseq) == 3
        for iseq, trace in by_iseq.items():
            receive, push, handle, commit, deliver = (trace[name] for name in WAY)
            assert (receive.parent, push.parent, handle.parent) == ("", receive.span, receive.span)
            assert (commit.parent, deliver.parent) == (handle.span, commit.span)
            assert trace["work"].parent == handle.span
            assert receive.start_ns <= push.start_ns <= handle.start_ns <= trace["work"].start_ns
            assert trace["work"].end_ns <= handle.end_ns <= commit.start_ns <= deliver.start_ns <= deliver.end_ns
            assert {receive.service, push.service, deliver.service} == {"innkeeper-edge"}
            assert {handle.service, commit.service, trace["work"].service} == {"innkeeper-worker"}
            assert handle.attributes["innkeeper.room"] == receive.attributes["innkeeper.room"] == "traced/a"
            assert handle.attributes["innkeeper.iseq"] == iseq
            assert handle.attributes["innkeeper.connection"] == receive.attributes["innkeeper.connection"]
        assert len({span.span for span in collector.spans}) == len(collector.spans)


async def test_without_the_option_nothing_is_traced(tmp_path: Path) -> None:
    """Roles export no span unless they are asked to."""
    async with Collector() as collector, House(tmp_path, edges=1, workers=1, target=TRACED_ROOMS) as house:
        ann = await house.join("traced/a", name="ann")
        await ann.send({"n": 0})
        await ann.expect(lambda frame: frame == {"n": 0}, "its message")
    assert collector.spans == []

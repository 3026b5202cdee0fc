"""The operators' listener: who may read it, where it listens, and what it writes."""

from collections.abc import Iterator, Sequence

import aiohttp
import click
import pytest

from innkeeper.errors import PortTaken
from innkeeper.meters import Histogram
from innkeeper.ops import Family, OpsSettings, Sample
from innkeeper.ops.families import COMMON
from innkeeper.ops.listener import Listener
from innkeeper.ops.settings import (
    HOST_VARIABLE,
    PORT_VARIABLE,
    RATIO_VARIABLE,
    SHARED_VARIABLE,
    TOKEN_VARIABLE,
    TRACES_VARIABLE,
    read_settings,
)

TOKEN = "correct-horse-battery"  # noqa: S105 - of this test
COUNT = Family("test_things_total", "counter", "Things.", ("kind",))
SIZE = Family("test_size", "gauge", "Size.")
SECONDS = Family("test_seconds", "histogram", "Time.")


class FakeSource:
    """A role with three metrics."""

    role = "fake"
    families: Sequence[Family] = (COUNT, SIZE, SECONDS)
    incarnation = "f-1"

    def __init__(self) -> None:
        self.lacks: list[str] = []
        self.looks = 0

    def missing(self) -> list[str]:
        """Return what the test says."""
        return self.lacks

    async def look(self) -> None:
        """Count."""
        self.looks += 1

    def samples(self) -> Iterator[Sample]:
        """Return some."""
        histogram = Histogram((0.5, 1.0))
        for value in (0.1, 0.7, 3.0):
            histogram.observe(value)
        yield COUNT, ('a"\n',), 3
        yield SECONDS, (), histogram


async def get(listener: Listener, path: str, token: str = "", accept: str = "") -> tuple[int, str, str]:
    """Return status, content type and text of an answer."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    if accept:
        headers["Accept"] = accept
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{listener.port}{path}", headers=headers) as answer,
    ):
        return answer.status, answer.headers["Content-Type"], await answer.text()


async def test_the_listener_shows_what_its_source_says() -> None:
    """Health is of the process, readiness of the role; metrics have types, labels and cumulative buckets."""
    source = FakeSource()
    listener = Listener(OpsSettings(port=0), source)
    await listener.start()
    try:
        assert (await get(listener, "/healthz"))[0] == 200
        assert (await get(listener, "/readyz"))[::2] == (200, '{"ready": true, "missing": []}')
        source.lacks = ["tea"]
        assert (await get(listener, "/healthz"))[0] == 200
        assert (await get(listener, "/readyz"))[::2] == (503, '{"ready": false, "missing": ["tea"]}')
        status, kind, text = await get(listener, "/metrics")
        assert (status, kind.partition(";")[0], source.looks) == (200, "text/plain", 1)
        lines = text.splitlines()
        assert 'test_things_total{kind="a\\"\\n"} 3.0' in lines
        assert "# TYPE test_size gauge" in lines
        assert [line for line in lines if line.startswith("test_seconds")] == [
            'test_seconds_bucket{le="0.5"} 1.0',
            'test_seconds_bucket{le="1.0"} 2.0',
            'test_seconds_bucket{le="+Inf"} 3.0',
            "test_seconds_count 3.0",
            "test_seconds_sum 3.8",
        ]
        assert "innkeeper_ready 0.0" in lines
        assert any(line.startswith("process_resident_memory_bytes ") for line in lines)
        assert {family.name for family in COMMON} <= {line.split()[2] for line in lines if line.startswith("# TYPE")}
        assert (await get(listener, "/metrics", accept="application/openmetrics-text"))[2].endswith("# EOF\n")
        assert (await get(listener, "/"))[0] == 404
    finally:
        await listener.close()


async def test_a_token_guards_all_but_the_bare_state() -> None:
    """Without the token there are no metrics, and probes are told yes or no and nothing else."""
    source = FakeSource()
    source.lacks = ["tea"]
    listener = Listener(OpsSettings(port=0, token=TOKEN), source)
    await listener.start()
    try:
        for token in ("", "wrong", TOKEN + "x", TOKEN[:-1]):
            assert (await get(listener, "/metrics", token))[0] == 401
            assert (await get(listener, "/readyz", token))[::2] == (503, '{"ready": false}')
            assert (await get(listener, "/healthz", token))[::2] == (200, '{"alive": true}')
        assert (await get(listener, "/metrics", TOKEN))[0] == 200
        assert "tea" in (await get(listener, "/readyz", TOKEN))[2]
    finally:
        await listener.close()


async def test_without_prometheus_client_the_answer_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Health works without the extra; metrics name it."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "prometheus_client" else name)
    listener = Listener(OpsSettings(port=0), FakeSource())
    await listener.start()
    try:
        assert (await get(listener, "/healthz"))[0] == 200
        status, _, text = await get(listener, "/metrics")
        assert status == 501
        assert "innkeeper[metrics]" in text
    finally:
        await listener.close()


async def test_a_taken_port_is_refused() -> None:
    """Two processes do not share a port by chance."""
    first = Listener(OpsSettings(port=0), FakeSource())
    await first.start()
    try:
        with pytest.raises(PortTaken, match="--ops-port"):
            await Listener(OpsSettings(port=first.port), FakeSource()).start()
    finally:
        await first.close()


async def test_without_a_port_nothing_listens() -> None:
    """The listener is off unless asked for."""
    listener = Listener(OpsSettings(), FakeSource())
    await listener.start()
    assert listener.port == 0
    await listener.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.8.9.1"])
def test_loopback_needs_no_token(host: str) -> None:
    """Who reads loopback is on this machine."""
    assert read_settings(1, host, {}).token == ""


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.org", ""])  # noqa: S104 - refused
def test_any_other_host_needs_one(host: str) -> None:
    """Others can read it only if somebody said with what token."""
    with pytest.raises(click.UsageError, match=TOKEN_VARIABLE):
        read_settings(1, host, {})
    assert read_settings(1, host, {TOKEN_VARIABLE: TOKEN}).token == TOKEN
    assert read_settings(None, host, {}).port is None


def test_a_short_token_is_refused() -> None:
    """A token that can be guessed is no token."""
    with pytest.raises(click.UsageError, match="16"):
        read_settings(1, "127.0.0.1", {TOKEN_VARIABLE: "secret"})


def test_each_child_has_a_port_of_its_own() -> None:
    """With several processes ports follow each other; with 0 each has a free one; off stays off."""
    with OpsSettings(port=0).for_children(1) as (free,):
        first = int(free[PORT_VARIABLE])
    with OpsSettings(port=first).for_children(1) as environments:
        assert environments == [{PORT_VARIABLE: str(first), HOST_VARIABLE: "127.0.0.1", SHARED_VARIABLE: "1"}]
    with OpsSettings(port=0).for_children(3) as environments:
        assert len({one[PORT_VARIABLE] for one in environments}) == 3
    with OpsSettings().for_children(2) as environments:
        assert environments == [{}, {}]
    with OpsSettings(traces=0.25).for_children(1) as environments:
        assert environments == [{TRACES_VARIABLE: "1", RATIO_VARIABLE: "0.25"}]
    with pytest.raises(click.UsageError, match="65535"), OpsSettings(port=65_535).for_children(2):
        pass

"""Behind HAProxy and Caddy, as deploy/ has them, and beside FastAPI and Django: see make proxies."""

import asyncio
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
import websockets

from harness.house import Client, House, until

pytestmark = pytest.mark.proxies
ROOT = Path(__file__).parents[2]
PROXIES = ("haproxy", "caddy")


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _haproxy(folder: Path, edges: list[str], port: int, extra: str) -> list[str]:
    """Return the command of HAProxy with the shipped configuration, its containers' names exchanged for addresses."""
    text = (ROOT / "deploy/haproxy.cfg").read_text(encoding="utf-8")
    text = re.sub(r"^resolvers .*?\n\n", "", text, flags=re.MULTILINE | re.DOTALL)
    text = text.replace("maxconn 20000", "maxconn 2000")  # this machine may have a lower limit of open files
    text = text.replace("bind :8000", f"bind 127.0.0.1:{port}\n{extra}")
    check = "check inter 1s fall 2 rise 1 on-marked-down shutdown-sessions"
    servers = "\n".join(f"  server edge{number} {edge} {check}" for number, edge in enumerate(edges))
    text, count = re.subn(r"^  server-template .*$", servers, text, flags=re.MULTILINE)
    assert count == 1
    (folder / "haproxy.cfg").write_text(text, encoding="utf-8")
    return ["haproxy", "-f", str(folder / "haproxy.cfg")]


@asynccontextmanager
async def proxy(
    name: str, folder: Path, house: House, *, extra: str = "", app: str = "127.0.0.1:1"
) -> AsyncIterator[str]:
    """Run a proxy before the house's edges; yields host and port."""
    port = free_port()
    edges = [f"127.0.0.1:{edge.facts['port']}" for edge in house.edges]
    environment = os.environ | {
        "EDGES": " ".join(edges),
        "APP": app,
        "SITE": f"http://127.0.0.1:{port}",
        "HOME": str(folder),
    }
    command = ["caddy", "run", "--config", str(ROOT / "deploy/Caddyfile"), "--adapter", "caddyfile"]
    if name == "haproxy":
        command = _haproxy(folder, edges, port, extra)
    with (folder / f"{name}.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(*command, env=environment, stdout=log, stderr=log)

    async def answers() -> bool:
        try:
            async with (
                aiohttp.ClientSession() as session,
                session.get(f"http://127.0.0.1:{port}/parties/x/y") as answer,
            ):
                return answer.status not in (502, 503)
        except aiohttp.ClientError:
            return False

    try:
        await until(answers, f"{name} answers", timeout_s=20)
        yield f"127.0.0.1:{port}"
    except BaseException:
        sys.stderr.write((folder / f"{name}.log").read_text(encoding="utf-8")[-3000:])
        raise
    finally:
        process.terminate()
        await process.wait()


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    """Two edges that trust the proxy's addresses, and a worker."""
    posts = str(ROOT / "tests/harness/post_rooms.py")
    async with House(tmp_path, edges=0, workers=0) as running:
        await running.add_worker(posts)
        for _ in range(2):
            await running.add_edge("--trusted-proxy", "127.0.0.1")
        yield running


async def join(house: House, url: str, name: str, *, origin: str | None = None) -> Client:
    """Connect by way of a proxy."""
    opened = await websockets.connect(f"{url}?name={name}", origin=websockets.Origin(origin) if origin else None)
    client = Client(opened, name)
    house.clients.append(client)
    return client


@pytest.mark.parametrize("name", PROXIES)
async def test_rooms_behind_a_proxy(name: str, house: House, tmp_path: Path) -> None:
    """Both edges get rooms; an edge that goes says 1012, and its clients come back by the same address."""
    async with proxy(name, tmp_path, house) as at:
        url = f"ws://{at}/parties/ledger/r"
        clients = [await join(house, f"{url}{n}", f"c{n}", origin=f"http://{at}") for n in range(12)]
        for n, client in enumerate(clients):
            await client.send({"i": n})
            await client.numbers(1)
        used = [await house.redis.scard(key) for key in await house.redis.keys("inn:edge:*")]
        assert len(used) == 2, "one edge got all rooms"
        assert sum(used) == 12
        house.edges[0].signal(signal.SIGTERM)
        await until(lambda: house.edges[0].process.poll() == 0, "the edge has drained")
        gone = [client for client in clients if client.close_code is not None]
        assert len(gone) in used
        assert {client.close_code for client in gone} == {1012}
        for client in gone:
            again = await join(house, f"{url}{client.name[1:]}", f"{client.name}x")
            await again.send({"i": 99})
            await again.numbers(2)


@pytest.mark.parametrize("name", PROXIES)
async def test_a_client_does_not_choose_its_address(name: str, tmp_path: Path) -> None:
    """What it writes into X-Forwarded-For is replaced, so no limit of an address is evaded, or used up for others."""
    made_up = {"X-Forwarded-For": "203.0.113.7"}
    async with House(tmp_path, edges=0, workers=1) as house:
        await house.add_edge("--trusted-proxy", "127.0.0.1", "--connections-per-ip", "1")
        at_edge = house.url("ledger/s")
        async with (
            proxy(name, tmp_path, house) as at,
            websockets.connect(at_edge, additional_headers=made_up),  # as a proxy that only appends would hand it on
            websockets.connect(f"ws://{at}/parties/ledger/s", additional_headers=made_up),
        ):
            with pytest.raises(websockets.InvalidStatus):
                await websockets.connect(at_edge, additional_headers=made_up)


PREFIX = "  http-request replace-path ^/app(/.*)$ \\1"


@pytest.mark.parametrize("name", PROXIES)
async def test_a_path_prefix_is_taken_away_by_the_proxy(name: str, house: House, tmp_path: Path) -> None:
    """``/app/parties/…`` reaches the room, for sockets and requests; edges need no option for it."""
    async with proxy(name, tmp_path, house, extra=PREFIX) as at:
        ann = await join(house, f"ws://{at}/app/parties/ledger/a", "ann", origin=f"http://{at}")
        await ann.send({"i": 1})
        await ann.numbers(1)


@pytest.mark.parametrize("name", PROXIES)
async def test_origins_are_checked_behind_a_proxy(name: str, house: House, tmp_path: Path) -> None:
    """The own host's pages may connect, others' may not, however the proxy is called inside."""
    async with proxy(name, tmp_path, house) as at:
        with pytest.raises(websockets.InvalidStatus, match="403"):
            await join(house, f"ws://{at}/parties/ledger/a", "eve", origin="https://evil.example")
        await join(house, f"ws://{at}/parties/ledger/a", "ann", origin=f"http://{at}")


async def test_a_proxy_that_changes_the_host_needs_the_origin_named(tmp_path: Path) -> None:
    """With another Host the own pages are strangers, until --origin names them."""
    rewritten = "  http-request set-header Host internal.example"
    for options, is_let_in in (((), False), (("--origin", "https://www.example"), True)):
        folder = tmp_path / str(is_let_in)
        folder.mkdir()
        async with House(folder, edges=0, workers=1) as house:
            await house.add_edge(*options)
            async with proxy("haproxy", folder, house, extra=rewritten) as at:
                url = f"ws://{at}/parties/ledger/a"
                if is_let_in:
                    await join(house, url, "ann", origin="https://www.example")
                else:
                    with pytest.raises(websockets.InvalidStatus, match="403"):
                        await join(house, url, "ann", origin="https://www.example")


@pytest.mark.parametrize("framework", ["fastapi", "django"])
async def test_an_application_beside_the_rooms(framework: str, house: House, tmp_path: Path) -> None:
    """One address for both: Caddy gives rooms to the edges and the rest to the application, which posts to a room."""
    port = free_port()
    environment = os.environ | {"INNKEEPER_REDIS": house.redis_url}
    command = [sys.executable, "-m", "uvicorn", f"{framework}_app:app", "--port", str(port)]
    with (tmp_path / "app.log").open("wb") as log:
        app = await asyncio.create_subprocess_exec(
            *command, cwd=ROOT / "deploy/beside", env=environment, stdout=log, stderr=log
        )
    try:
        async with proxy("caddy", tmp_path, house, app=f"127.0.0.1:{port}") as at, aiohttp.ClientSession() as session:
            ann = await join(house, f"ws://{at}/parties/sink/orders", "ann", origin=f"http://{at}")
            await ann.expect(lambda frame: "got" in frame, "the room")

            async def order() -> bool:
                async with session.post(f"http://{at}/orders/7") as answer:
                    return answer.status == 200 and await answer.json() == {"posted": 7}

            await until(order, "the application answers", timeout_s=20)
            await ann.expect(lambda frame: frame == {"from": "", "n": 7}, "what the application posted")
    finally:
        app.terminate()
        await app.wait()

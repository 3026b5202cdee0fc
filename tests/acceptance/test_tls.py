"""Redis by TLS: verified by default, in words where it cannot be, and a house that lives behind it."""

import asyncio
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import trustme

from harness.house import House, until
from harness.valkey import Valkey
from innkeeper import Innkeeper
from innkeeper.boot import check_redis
from innkeeper.cluster import Cluster
from innkeeper.errors import RedisUnusable
from innkeeper.sync_redis import open_sync
from innkeeper.topology import reach


class Keys:
    """An authority of the test's own, a certificate for 127.0.0.1 by it, and another authority."""

    def __init__(self, folder: Path) -> None:
        authority, stranger = trustme.CA(), trustme.CA()
        self.authority, self.stranger = folder / "ca.pem", folder / "other.pem"
        self.certificate, self.key = folder / "cert.pem", folder / "key.pem"
        authority.cert_pem.write_to_path(str(self.authority))
        stranger.cert_pem.write_to_path(str(self.stranger))
        issued = authority.issue_cert("127.0.0.1")
        issued.private_key_pem.write_to_path(str(self.key))
        issued.cert_chain_pems[0].write_to_path(str(self.certificate))


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    """Certificates."""
    return Keys(tmp_path_factory.mktemp("tls"))


@asynccontextmanager
async def tls_before(server: Valkey, keys: Keys) -> AsyncIterator[int]:
    """Put TLS in front of a server; yields the port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(keys.certificate, keys.key)

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind = await asyncio.open_connection("127.0.0.1", server.port)
        await asyncio.gather(copy(reader, behind[1]), copy(behind[0], writer))

    listener = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    yield listener.sockets[0].getsockname()[1]
    listener.close()


async def test_a_house_lives_behind_tls(keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Edge, worker, jobs and a program, all by rediss:// with the authority named in the URL."""
    (tmp_path / "runs.txt").touch()
    monkeypatch.setenv("JOB_RUNS", str(tmp_path / "runs.txt"))
    server = Valkey()
    async with tls_before(server, keys) as port:
        url = f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={keys.authority}"
        target = str(Path(__file__).parents[1] / "harness" / "job_rooms.py")
        async with House(tmp_path, edges=1, workers=1, target=target, url=url) as house:
            await house.add_jobs()
            ann = await house.join("works/a")
            await ann.send({"jobs": [["double", [21], {}]]})
            shown = await ann.expect(lambda frame: "result" in frame, "the result")
            assert shown["result"][2:4] == ["done", 42]
            async with Innkeeper.connect(url) as inn:
                await until(lambda: inn.room("works/a").state(), "the program reads it")
    server.stop()


@pytest.mark.parametrize("case", ["another authority", "no authority", "another host", "no TLS there"])
async def test_what_cannot_be_verified_is_refused_in_words(keys: Keys, valkey: Valkey, case: str) -> None:
    """Verification is on without being asked for, of the signature and of the host; nothing is sent before."""
    async with tls_before(valkey, keys) as port:
        url, said = {
            "another authority": (f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={keys.stranger}", "not to be trusted"),
            "no authority": (f"rediss://127.0.0.1:{port}/0", "not to be trusted"),
            "another host": (f"rediss://localhost:{port}/0?ssl_ca_certs={keys.authority}", "not valid for 'localhost'"),
            "no TLS there": (f"rediss://127.0.0.1:{valkey.port}/0?ssl_ca_certs={keys.authority}", "no Redis at"),
        }[case]
        with pytest.raises(RedisUnusable) as refusal:
            await check_redis(url, timeout_s=2, shown="here")
        assert said in str(refusal.value)


async def test_the_other_schemes_take_tls(keys: Keys) -> None:
    """Sentinels and clusters too, with the same options in the URL; rq's own client likewise."""
    query = f"ssl_ca_certs={keys.authority}"
    assert callable(reach(f"rediss+sentinel://a:b@h:1,i:2/0?service=x&{query}", timeout_s=1))
    assert isinstance(reach(f"rediss+cluster://a:b@h:1,i:2?{query}", timeout_s=1), Cluster)
    options = open_sync(f"rediss+sentinel://a:b@h:1/0?service=x&{query}").connection_pool.connection_kwargs
    assert options["ssl_ca_certs"] == str(keys.authority)
    assert open_sync(f"rediss://a:b@h:1/0?{query}").connection_pool.connection_kwargs["ssl_ca_certs"]


@pytest.mark.skipif(not shutil.which("redis-server"), reason="needs a server with TLS: apt-get install redis-server")
async def test_a_server_that_speaks_tls_itself(keys: Keys, tmp_path: Path) -> None:
    """Redis with TLS alone, and with certificates of clients: refused without one, taken with it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    files = (
        *("--tls-cert-file", keys.certificate),
        *("--tls-key-file", keys.key),
        *("--tls-ca-cert-file", keys.authority),
    )
    options = ("--port", "0", "--tls-port", port, "--bind", "127.0.0.1", "--dir", tmp_path, "--save", "", *files)
    server = await asyncio.create_subprocess_exec("redis-server", *map(str, options), stdout=subprocess.DEVNULL)
    try:
        url = f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={keys.authority}"
        with_own = f"{url}&ssl_certfile={keys.certificate}&ssl_keyfile={keys.key}"

        async def answers() -> bool:
            with suppress(RedisUnusable):
                await check_redis(with_own, timeout_s=2, shown="here")
                return True
            return False

        await until(answers, "Redis is there")
        with pytest.raises(RedisUnusable):
            await check_redis(url, timeout_s=2, shown="here")
        async with House(tmp_path, edges=1, workers=1, url=with_own) as house:
            ann = await house.join("ledger/a", name="ann")
            await ann.send({"i": 1})
            await ann.numbers(1)
    finally:
        server.terminate()
        await server.wait()

"""Who may open a socket: counts per process, address and user, handshakes a second, and where a client really is."""

from ipaddress import ip_network
from typing import TYPE_CHECKING, cast

import pytest
from multidict import CIMultiDict

from innkeeper.close_codes import REFUSALS
from innkeeper_edge.admission import Admission, Admitted, client_address
from innkeeper_edge.handshake import Rejection
from innkeeper_edge.limits import Limits

if TYPE_CHECKING:
    from aiohttp import web

PROXIES = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))


class Asked:
    """A handshake: who is at the other end, and for whom it says it forwards."""

    def __init__(self, remote: str, *forwarded: str) -> None:
        self.remote = remote
        self.transport = self
        self.headers = CIMultiDict([("X-Forwarded-For", line) for line in forwarded])

    def get_extra_info(self, name: str) -> tuple[str, int]:
        """Return where the peer is."""
        assert name == "peername"
        return self.remote, 1


class Door:
    """An admission with a clock of the test's own."""

    def __init__(self, limits: Limits) -> None:
        self.now_s = 100.0
        self.it = Admission(limits, lambda: self.now_s)

    def admit(self, remote: str, *forwarded: str, user: str = "", is_socket: bool = True) -> Admitted | str:
        """Return a place, or the error."""
        asked = cast("web.BaseRequest", Asked(remote, *forwarded))
        answer = self.it.admit(asked, user, is_socket=is_socket)
        return answer.error if isinstance(answer, Rejection) else answer


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("198.51.100.1", [], "198.51.100.1"),
        ("198.51.100.1", ["203.0.113.9"], "198.51.100.1"),  # nobody trusts it
        ("10.1.1.1", ["203.0.113.9"], "203.0.113.9"),
        ("10.1.1.1", ["1.2.3.4, 203.0.113.9"], "203.0.113.9"),  # what the client made up stands before it
        ("10.1.1.1", ["1.2.3.4", "203.0.113.9, 10.2.2.2"], "203.0.113.9"),  # two proxies, two lines
        ("10.1.1.1", [], "10.1.1.1"),
        ("10.1.1.1", ["10.3.3.3"], "10.3.3.3"),  # a client inside
        ("10.1.1.1", ["203.0.113.9, unknown"], "10.1.1.1"),
        ("10.1.1.1", ["evil\x00, 203.0.113.9:4711"], "203.0.113.9"),
        ("fd00::1", ["[2001:db8::5]:443"], "2001:db8::5"),
        ("::ffff:10.1.1.1", ["::ffff:203.0.113.9"], "203.0.113.9"),
        ("fe80::1%eth0", [], "fe80::1"),
        ("", ["203.0.113.9"], "None"),
    ],
)
def test_only_what_trusted_proxies_say_counts(peer: str, forwarded: list[str], client: str) -> None:
    """A client is the last hop that is no trusted proxy; what it wrote itself is never looked at."""
    assert str(client_address(peer, forwarded, PROXIES)) == client


def test_sockets_of_an_address_are_counted() -> None:
    """One address gets so many places, another is not concerned, and a place that is left is free."""
    door = Door(Limits(connections_per_ip=2))
    first = door.admit("203.0.113.9")
    assert isinstance(first, Admitted)
    assert isinstance(door.admit("203.0.113.9"), Admitted)
    assert door.admit("203.0.113.9") == "too_many_of_address"
    assert isinstance(door.admit("203.0.113.8"), Admitted)
    with first:
        assert door.it.count == 3
    assert door.it.count == 2
    assert isinstance(door.admit("203.0.113.9"), Admitted)
    assert door.it.refused_count == 1


def test_an_ipv6_network_counts_as_one() -> None:
    """Whoever has a /64 has no more than one address has."""
    door = Door(Limits(connections_per_ip=1))
    assert isinstance(door.admit("2001:db8::1"), Admitted)
    assert door.admit("2001:db8::ffff:1") == "too_many_of_address"
    assert isinstance(door.admit("2001:db8:0:1::1"), Admitted)


def test_this_machine_is_not_counted() -> None:
    """A proxy that nobody named, on this machine, does not lock everybody out."""
    door = Door(Limits(connections_per_ip=1))
    assert all(isinstance(door.admit(peer), Admitted) for peer in ("127.0.0.1", "::1", "127.0.0.1"))


def test_a_far_proxy_names_no_client_this_machine() -> None:
    """What comes from elsewhere and says that it is from here is a client's own word, and has its places."""
    door = Door(Limits(connections_per_ip=1, trusted_proxy=(*PROXIES, ip_network("127.0.0.0/8"))))
    assert isinstance(door.admit("10.1.1.1", "127.0.0.1"), Admitted)
    assert door.admit("10.1.1.1", "127.0.0.1, 10.2.2.2") == "too_many_of_address"
    assert all(isinstance(door.admit("127.0.0.1", "127.0.0.1"), Admitted) for _ in range(3))


def test_requests_have_places_of_their_own() -> None:
    """An address and a user have as many requests that are not answered yet as sockets, beside them."""
    door = Door(Limits(connections_per_ip=2, connections_per_user=1))
    assert isinstance(door.admit("203.0.113.9", user="ann"), Admitted)
    first = door.admit("203.0.113.9", user="ann", is_socket=False)
    assert isinstance(first, Admitted)
    assert door.admit("203.0.113.8", user="ann", is_socket=False) == "too_many_of_user"
    assert isinstance(door.admit("203.0.113.9", is_socket=False), Admitted)
    assert door.admit("203.0.113.9", is_socket=False) == "too_many_of_address"
    assert door.it.count == 1
    with first:
        pass
    assert isinstance(door.admit("203.0.113.9", is_socket=False), Admitted)


def test_a_proxy_that_is_not_trusted_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    """Where it reaches its limit and forwards for others, the log says what to do."""
    door = Door(Limits(connections_per_ip=1))
    for _ in range(3):
        door.admit("172.16.0.2", "203.0.113.9")
    assert [record.message.partition(":")[0] for record in caplog.records] == [
        "172.16.0.2 has as many sockets as one address may have, and forwards for others"
    ]


def test_users_and_the_process_have_their_limits() -> None:
    """A user gets so many places from wherever; nobody is nobody; and there is an end for all."""
    door = Door(Limits(connections_per_user=1, max_connections=3))
    assert isinstance(door.admit("203.0.113.1", user="ann"), Admitted)
    assert door.admit("203.0.113.2", user="ann") == "too_many_of_user"
    assert isinstance(door.admit("203.0.113.3"), Admitted)
    assert isinstance(door.admit("203.0.113.4"), Admitted)
    assert door.admit("203.0.113.5", user="bob") == "edge_full"


def test_handshakes_are_counted_per_second() -> None:
    """Five seconds' worth may come at once, then so many a second; 0 lets all through."""
    door = Door(Limits(handshake_rate=5))
    assert sum(door.it.knock() is None for _ in range(30)) == 25
    door.now_s += 0.5
    assert sum(door.it.knock() is None for _ in range(30)) == 2
    door.now_s += 3600
    assert sum(door.it.knock() is None for _ in range(30)) == 25
    refused = door.it.knock()
    assert refused is not None
    assert (refused.status, refused.headers) == (503, (("Retry-After", "1"),))
    door = Door(Limits(handshake_rate=0, max_connections=0, connections_per_ip=0))
    assert not any(door.it.knock() for _ in range(3_000))
    assert all(isinstance(door.admit("203.0.113.1"), Admitted) for _ in range(300))


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.error)
def test_every_refusal_says_when_to_come_again(refusal: object) -> None:
    """They are of a passing nature: 429 or 503, and a time to wait."""
    assert refusal.status in (429, 503)  # type: ignore[attr-defined]
    assert refusal.retry_after_s >= 1  # type: ignore[attr-defined]
    assert len({each.error for each in REFUSALS}) == len(REFUSALS)

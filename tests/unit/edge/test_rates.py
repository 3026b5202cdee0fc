"""Who talks too fast is slowed down, then closed; who does not read is cut off: judged between messages."""

import asyncio
from typing import TYPE_CHECKING, Any, cast

import pytest

from innkeeper.connection import User
from innkeeper_edge.auth import Grant, Patterns
from innkeeper_edge.guarded_socket import GuardedSocket
from innkeeper_edge.limits import Limits
from innkeeper_edge.member import Member
from innkeeper_edge.rates import Rates

if TYPE_CHECKING:
    from innkeeper.close_codes import CloseCode
    from innkeeper_edge.guard import FrameGuard

LIMITS = Limits(message_rate=100, byte_rate=10_000, user_message_rate=150, output_bytes=1_000_000, stall_s=3)


class Transport:
    """A connection that keeps as much as the test says."""

    def __init__(self) -> None:
        self.waiting_bytes = 0
        self.written = b""
        self.is_cut = False

    def get_write_buffer_size(self) -> int:
        """What waits."""
        return self.waiting_bytes

    def write(self, data: bytes) -> None:
        """Keep it."""
        self.written += data

    def is_closing(self) -> bool:
        """Once it was cut."""
        return self.is_cut

    def is_reading(self) -> bool:
        """Always."""
        return True

    def abort(self) -> None:
        """Cut it."""
        self.is_cut = True


class Reader:
    """Takes everything."""

    def feed_data(self, data: bytes, /) -> tuple[bool, bytes]:
        """Take bytes."""
        del data
        return False, b""

    def feed_eof(self) -> None:
        """Take the end."""


class House:
    """An edge with one room, whose members are the test's."""

    def __init__(self, limits: Limits = LIMITS) -> None:
        self.talkers: list[Member] = []
        self.feeds = {"room": self}
        self.members: list[Member] = []
        self.transports: dict[Member, Transport] = {}
        self.sockets_of: dict[Member, GuardedSocket] = {}
        self.rates = Rates(cast("Any", self), limits)
        self.now_s = 1_000.0

    def sockets(self) -> list[Member]:
        """As of a feed."""
        return self.members

    def join(self, user: str = "", entered_at_s: float = 0.0) -> Member:
        """Return a new member."""
        transport = Transport()
        socket = GuardedSocket(cast("asyncio.Transport", transport), lambda _: None, linger_s=0.01)
        socket.guard(Reader(), max_message_bytes=1_000)
        member = Member(socket, cast("asyncio.WriteTransport", transport), entered_at_s)
        member.grant = Grant(User(user, user), Patterns.everything())
        member.entered(cast("Any", self), cast("Any", self))
        self.members.append(member)
        self.transports[member], self.sockets_of[member] = transport, socket
        return member

    def say(self, member: Member, count: int, size_bytes: int = 10) -> None:
        """Let a member say something that is accepted at once."""
        for _ in range(count):
            member.took(size_bytes)
            member.settled(size_bytes)

    def pass_s(self, seconds: float) -> None:
        """Let time pass, quietly."""
        for _ in range(round(seconds * 4)):
            self.now_s += 0.25
            self.rates.judge(self.now_s)

    def code(self, member: Member) -> int | None:
        """Return what a member was closed with."""
        return self.sockets_of[member].closing_code


@pytest.fixture
async def house() -> House:
    """A house inside a loop."""
    return House()


async def test_a_burst_is_free_and_then_costs(house: House) -> None:
    """Ten seconds' worth may come at once; what is more is paid with silence, and then all is as before."""
    member = house.join()
    house.say(member, 1_000)
    house.pass_s(0.25)
    assert not member.is_overfull
    house.say(member, 100)
    house.pass_s(0.25)
    assert member.is_overfull
    assert house.rates.throttled_count == 1
    house.pass_s(1)
    assert not member.is_overfull
    assert member.meter is not None
    house.pass_s(10)
    house.say(member, 1)
    house.pass_s(0.25)
    assert member.meter is None  # who is quiet again costs nothing


async def test_a_flood_is_held_before_it_is_judged(house: House) -> None:
    """However fast the machine, no more than ten seconds' worth is taken between two judgements."""
    member = house.join()
    house.say(member, 1_000)
    assert not member.is_overfull
    house.say(member, 1)
    assert member.is_overfull
    assert house.rates.throttled_count == 0  # nobody has judged yet
    house.pass_s(0.25)
    assert house.rates.throttled_count == 1


async def test_without_a_rate_nobody_is_held() -> None:
    """0 is no limit."""
    house = House(Limits(message_rate=0, byte_rate=0, user_message_rate=0))
    member = house.join()
    house.say(member, 100_000)
    assert not member.is_overfull


async def test_bytes_count_as_well_as_messages(house: House) -> None:
    """Few large messages are as much as many small ones."""
    member = house.join()
    house.say(member, 101, 1_000)
    house.pass_s(0.25)
    assert member.is_throttled


async def test_who_talks_within_the_rate_is_never_metered(house: House) -> None:
    """The usual client costs nothing but its count."""
    member = house.join()
    for _ in range(200):
        house.say(member, 25)
        house.pass_s(0.25)
        assert member.meter is None
    assert not member.is_overfull


async def test_no_debt_deafens_for_long(house: House) -> None:
    """However much came, after some seconds the socket is read again."""
    member = house.join()
    house.say(member, 1_000_000)
    house.pass_s(0.25)
    assert member.is_throttled
    house.pass_s(5.5)
    assert not member.is_throttled


async def test_who_goes_on_is_closed(house: House) -> None:
    """Slowed down for 30 s and still at it: 4529; a pause that earns half of the burst begins the time anew."""
    stubborn, moody = house.join(), house.join()
    house.say(stubborn, 1_000)
    house.say(moody, 1_000)
    for second in range(40):
        for member in (stubborn, moody):
            if not member.is_overfull and not (member is moody and second % 20 > 12):
                house.say(member, 300)
        house.pass_s(1)
        if second < 28:
            assert house.code(stubborn) is None
    assert house.code(stubborn) == 4529
    assert house.code(moody) is None


async def test_a_waiting_reader_goes_on_when_it_may(house: House) -> None:
    """The receive loop that waits for its room to take messages waits for its rate, too."""
    member = house.join()
    house.say(member, 1_500)
    house.pass_s(0.25)
    waiting = asyncio.create_task(member.drained())
    await asyncio.sleep(0)
    assert not waiting.done()
    house.pass_s(5.5)
    await asyncio.wait_for(waiting, 1)


async def test_a_user_has_one_rate_over_all_sockets(house: House) -> None:
    """Each socket is within its own rate, all together are not; another user is not concerned."""
    mine = [house.join("ann") for _ in range(3)]
    other = house.join("bob")
    for _ in range(60):
        for member in mine:
            house.say(member, 25)
        house.say(other, 25)
        house.pass_s(0.25)
        if mine[0].is_throttled:
            break
    assert all(member.is_throttled for member in mine)
    assert not other.is_throttled
    house.pass_s(1)
    assert not any(member.is_throttled for member in mine)


async def test_members_who_left_are_forgotten(house: House) -> None:
    """Nothing is kept of a socket that is gone."""
    member = house.join()
    house.say(member, 5_000)
    house.pass_s(0.25)
    member.left = True
    house.say(member, 5)
    house.pass_s(0.25)
    assert not house.rates._throttled
    assert not house.talkers


async def test_a_socket_in_which_nothing_moves_is_cut_off(house: House) -> None:
    """Bytes wait and none goes: after the limit it ends. One that takes a byte a second, or has nothing, stays."""
    stuck, slow, idle = (house.join() for _ in range(3))
    house.transports[stuck].waiting_bytes = 500
    for looks in range(4):
        house.transports[slow].waiting_bytes = 600 + 99 * looks
        slow.write(b"x" * 100)
        assert house.code(stuck) is None
        house.rates.look(stalls=True)
        stuck.write(b"y" * 7)
        house.transports[stuck].waiting_bytes += 7
    assert (house.code(stuck), house.transports[stuck].is_cut) == (4508, True)
    assert [house.code(member) for member in (slow, idle)] == [None, None]
    assert house.rates.stalled_count == 1


async def test_when_too_much_waits_the_newest_slow_sockets_go(house: House) -> None:
    """They are cut off at once, until a quarter is free; those with little waiting stay, however new."""
    members = [house.join(entered_at_s=float(n)) for n in range(10)]
    for member in members:
        house.transports[member].waiting_bytes = 120_000
    newest = house.join(entered_at_s=99.0)
    house.transports[newest].waiting_bytes = 1_000
    house.rates.look(stalls=True)  # it may be one large batch, on its way to all
    assert not any(house.transports[member].is_cut for member in members)
    house.rates.look(stalls=False)
    assert [house.transports[member].is_cut for member in members] == [False] * 6 + [True] * 4
    assert house.code(newest) is None
    assert house.rates.shed_count == 4


@pytest.mark.parametrize("opcode", [0x89, 0x8A])
async def test_pings_have_a_rate(opcode: int) -> None:
    """Ten seconds' worth of pings or pongs may come at once; one more ends the socket with 4529."""
    codes: list[CloseCode] = []
    socket = GuardedSocket(cast("asyncio.Transport", Transport()), codes.append, linger_s=0.01, control_rate=3)
    guard: FrameGuard = socket.guard(Reader(), max_message_bytes=1_000)
    frame = bytes((opcode, 0x80)) + b"mask"
    guard.feed_data(frame * 30)
    assert codes == []
    guard.feed_data(frame)
    assert [code.code for code in codes] == [4529]
    assert socket.closing_code == 4529

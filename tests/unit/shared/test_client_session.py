"""What a client promises across sockets, with the test as the edge and the clock."""

import random
from typing import Any

import orjson
import pytest

from innkeeper.client.backoff import Backoff
from innkeeper.client.conversation import Conversation, SessionForgotten
from innkeeper.client.events import Closed, Down, Event, Message, Moved, Opened, Problem, Resync
from innkeeper.client.session import FrameInvalid
from innkeeper.close_codes import TABLE
from innkeeper.errors import MessageFailed, MessageLost, OutputInvalid

STILL = Backoff(jitter=0)


class Fate:
    """What became of one message."""

    def __init__(self) -> None:
        self.accepted = 0
        self.settled: list[MessageFailed | None] = []
        self.lost: MessageLost | None = None

    def accept(self) -> None:
        """Count it."""
        self.accepted += 1

    def settle(self, failure: MessageFailed | None) -> None:
        """Keep how."""
        self.settled.append(failure)

    def lose(self, error: MessageLost) -> None:
        """Keep why."""
        self.lost = error


class Talk:
    """A conversation whose other end the test plays."""

    def __init__(self, codec: Any = "json") -> None:
        self.events: list[Event] = []
        self.now_s = 1000.0
        self.it = Conversation(codec, STILL, self.events.append, lambda: self.now_s)

    def send(self, *values: Any) -> list[Fate]:
        """Send values; return what becomes of them."""
        fates = [Fate() for _ in values]
        for value, fate in zip(values, fates, strict=True):
            self.it.send(value, fate)
        return fates

    def hear(self, *frames: str | bytes | dict[str, Any]) -> None:
        """Let frames come down; a dict is a control frame."""
        for frame in frames:
            self.it.heard(f"!{orjson.dumps(frame).decode()}" if isinstance(frame, dict) else frame)

    def written(self) -> list[str | bytes]:
        """Return what was written since the last look."""
        frames = list(self.it.outgoing)
        self.it.outgoing.clear()
        return frames

    def hello(self) -> dict[str, Any]:
        """Open a socket; return the words of the hello, which must be all that is written."""
        self.it.begin()
        (frame,) = self.written()
        assert isinstance(frame, str)
        words: dict[str, Any] = orjson.loads(frame.removeprefix("!"))["hello"]
        return words

    def live(self) -> "Talk":
        """Open the first socket and answer its hello."""
        self.hello()
        self.hear({"hello": {"conn": "c-1", "at": "10-77", "accepted": 0, "beat": 20}})
        return self

    def again(self, code: int = 1006) -> dict[str, Any]:
        """Break the socket and open the next."""
        self.it.lost(code, "")
        return self.hello()

    def of(self, kind: type[Event]) -> list[Any]:
        """Return the events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]


def test_the_hello_comes_first_and_what_was_sent_before_its_answer_after_it() -> None:
    """Nothing but the hello is written before the answer; numbers begin with one."""
    talk = Talk()
    talk.send({"text": "a"})
    hello = talk.hello()
    assert (len(hello.pop("secret")), hello) == (32, {"generation": 1, "last": None})
    talk.send("b")
    assert talk.written() == []
    talk.hear({"hello": {"conn": "c-1", "at": "10-77"}})
    assert talk.written() == ['1 {"text":"a"}', '2 "b"']
    assert (talk.it.state, talk.it.connection_id, talk.events) == ("open", "c-1", [Opened(False, "c-1")])
    assert Talk().hello()["secret"] != Talk().hello()["secret"]


def test_outputs_come_as_values_with_their_numbers() -> None:
    """Text is decoded by the codec, binary is bytes, numbers go beyond 32 bits."""
    talk = Talk().live()
    talk.hear('11 {"a":[1]}', '12 "two words"', (2**40).to_bytes(8, "big") + b"\x00\xff")
    assert talk.of(Message) == [Message({"a": [1]}, 11), Message("two words", 12), Message(b"\x00\xff", 2**40)]
    raw = Talk("raw").live()
    raw.hear("11 not json", "12 ", "13 !{")
    assert [event.value for event in raw.of(Message)] == ["not json", "", "!{"]


def test_frames_up_carry_their_number() -> None:
    """Text has it in digits, bytes in eight bytes; a raw room takes no other values."""
    talk = Talk("raw").live()
    talk.send("!{no control word}", b"\x01")
    assert talk.written() == ["1 !{no control word}", b"\0\0\0\0\0\0\0\x02\x01"]
    with pytest.raises(OutputInvalid, match="a raw room sends str or bytes, not dict"):
        talk.send({"a": 1})
    with pytest.raises(OutputInvalid):
        Talk().send(object())
    talk.send("next")
    assert talk.written() == ["3 next"]


def test_acks_and_applied_count_up_to_a_number() -> None:
    """What is applied is accepted, too."""
    talk = Talk().live()
    one, two, three = talk.send("a", "b", "c")
    talk.hear({"ack": 2})
    assert [fate.accepted for fate in (one, two, three)] == [1, 1, 0]
    assert not one.settled
    talk.hear({"ack": 3, "applied": 2}, {"applied": 3})
    assert [(fate.accepted, fate.settled) for fate in (one, two, three)] == [(1, [None])] * 3


def test_a_resume_sends_again_only_what_was_not_accepted() -> None:
    """It names the last output, the same secret and a higher generation."""
    talk = Talk()
    secret = talk.hello()["secret"]
    talk.hear({"hello": {"conn": "c-1", "at": "10-77"}})
    fates = talk.send("a", "b", "c")
    talk.written()
    talk.hear({"ack": 1}, '15 "x"')
    talk.it.lost(1006, "gone")
    fates += talk.send("d")
    assert talk.hello() == {"secret": secret, "generation": 2, "last": "15-77"}
    talk.hear({"resumed": {"conn": "c-1", "at": "15-77", "accepted": 2}})
    assert talk.written() == ['3 "c"', '4 "d"']
    assert [fate.accepted for fate in fates] == [1, 1, 0, 0]
    talk.hear('16 "y"', {"ack": 4})
    assert talk.events == [
        Opened(False, "c-1"), Message("x", 15), Down(1006, "gone", 0.25, 1), Opened(True, "c-1"), Message("y", 16),
    ]  # fmt: skip


def test_an_era_counts_from_the_next_output_on() -> None:
    """An `at` moves the place without an output, and so does an error."""
    talk = Talk().live()
    talk.hear('11 "x"', {"era": "88"})
    assert talk.again()["last"] == "11-77"
    talk.hear({"resumed": {"at": "11-77", "accepted": 0}}, {"era": "88"}, '12 "y"')
    assert talk.again()["last"] == "12-88"
    talk.hear({"resumed": {"at": "12-88", "accepted": 0}}, {"at": "300-99"}, '301 "z"')
    assert talk.again()["last"] == "301-99"
    talk.hear({"resumed": {"at": "301-99", "accepted": 0}}, {"error": "room_unavailable", "at": "302-100"})
    assert talk.again()["last"] == "302-100"


def test_a_resync_sends_again_what_the_room_forgot() -> None:
    """Also in the middle of a connection, and what is not written yet is written once."""
    talk = Talk().live()
    fates = talk.send("a", "b", "c", "d")
    talk.written()
    talk.hear({"ack": 4, "applied": 3})
    talk.again()
    talk.hear({"resync": {"at": "9-99", "accepted": 1}})
    assert talk.written() == ['2 "b"', '3 "c"', '4 "d"']
    assert talk.of(Resync) == [Resync(False)]
    talk.hear({"ack": 4, "applied": 4})
    assert fates[3].settled == [None]
    talk.send("e")
    talk.hear({"resync": {"at": "9-100", "accepted": 4}})
    assert talk.written() == ['5 "e"']
    assert talk.again()["last"] == "9-100"


@pytest.mark.parametrize(
    ("age_s", "accepted", "over"),
    [(0, 44, False), (0, 43, True), (29, 44, False), (31, 298, True), (31, 299, False), (0, 301, True)],
)
def test_256_applied_messages_are_kept_for_30_s(age_s: float, accepted: int, over: bool) -> None:
    """A room that needs what is older gets a new session; so does one that accepted more than was ever sent."""
    talk = Talk().live()
    talk.send(*range(300))
    talk.hear({"applied": 299})
    talk.now_s += age_s
    talk.hear({"applied": 300})
    word = {"resync": {"at": "9-5", "accepted": accepted}}
    if over:
        with pytest.raises(SessionForgotten):
            talk.hear(word)
    else:
        talk.written()
        talk.hear(word)
        assert talk.written()[0] == f"{accepted + 1} {accepted}"


def test_4410_begins_a_new_session_at_once() -> None:
    """What was sent is told unknown, what was not is told no; the snapshot is announced as a new session's."""
    talk = Talk()
    secret = talk.hello()["secret"]
    talk.hear({"hello": {"conn": "c-1", "at": "10-77"}})
    done, sent = talk.send("a", "b")
    talk.hear({"ack": 1, "applied": 1})
    talk.it.lost(1006, "")
    (unsent,) = talk.send("c")
    talk.hello()
    assert talk.it.lost(4410, "session over") == 0
    hello = talk.hello()
    assert hello["secret"] != secret
    assert (hello["generation"], hello["last"]) == (1, None)
    talk.hear({"hello": {"conn": "c-2", "at": "20-77"}})
    assert talk.written() == []
    talk.send("d")
    assert talk.written() == ['1 "d"']
    assert done.lost is not None  # the promise is kept by then: Sent ignores it
    assert sent.lost is not None
    assert unsent.lost is not None
    assert (sent.lost.applied, sent.lost.number) == ("unknown", 2)
    assert (unsent.lost.applied, unsent.lost.number) == ("no", None)
    assert str(unsent.lost) == "the message got no answer (the session ended: session over): it was not applied"
    assert talk.events[-2:] == [Opened(False, "c-2"), Resync(True)]


def test_a_session_that_was_never_answered_loses_nothing() -> None:
    """Neither to a full room nor to a 4410: the next session takes its messages, and there is no news."""
    for code in (4503, 4410):
        talk = Talk()
        (fate,) = talk.send("a")
        secret = talk.hello()["secret"]
        assert talk.it.lost(code, "room full") == 0.25
        hello = talk.hello()
        assert hello["secret"] != secret
        assert hello["generation"] == 1
        talk.hear({"hello": {"conn": "c-2", "at": "9-6"}})
        assert talk.written() == ['1 "a"']
        assert fate.lost is None
        assert talk.of(Resync) == []


def test_a_message_that_failed_is_told_once() -> None:
    """Its waiter learns the code, the events tell it, and a replay after a resume does not tell it again."""
    talk = Talk().live()
    one, two = talk.send("a", "b")
    talk.hear({"ack": 2}, {"error": "handler_failed", "n": 1, "at": "11-77"}, {"applied": 2})
    (failure,) = one.settled
    assert failure is not None
    assert (failure.code, failure.number, two.settled) == ("handler_failed", 1, [None])
    talk.again()
    talk.hear({"resumed": {"at": "11-77", "accepted": 2}}, {"error": "handler_failed", "n": 1, "at": "11-77"})
    talk.hear({"error": "room_unavailable"}, {"error": "out_of_order", "expected": 3, "later": 1})
    assert talk.of(Problem) == [
        Problem("handler_failed", 1), Problem("room_unavailable", None),
        Problem("out_of_order", None, {"expected": 3, "later": 1}),
    ]  # fmt: skip


def test_what_the_edge_refused_was_not_applied() -> None:
    """Out of order is the end; messages before the expected one stay unknown."""
    talk = Talk().live()
    one, two = talk.send("a", "b")
    talk.hear({"error": "out_of_order", "expected": 2})
    talk.it.lost(4400, "bad frame")
    assert one.lost is not None
    assert two.lost is not None
    assert (one.lost.applied, two.lost.applied) == ("unknown", "no")


@pytest.mark.parametrize(
    ("reason", "applied"), [("message too big", ["unknown", "no", "no"]), ("said by a proxy", ["unknown"] * 3)]
)
def test_a_message_that_was_too_large_was_not_applied(reason: str, applied: list[str]) -> None:
    """Nor what came after it; of what the edge had before nobody knows."""
    talk = Talk().live()
    _, *rest = talk.send("acked, and the largest of all", "a", "ééééééé", "longer yet")
    talk.hear({"ack": 1})
    talk.it.lost(1009, reason)
    assert [one.lost and one.lost.applied for one in rest] == applied


@pytest.mark.parametrize("code", [code for code in TABLE if code.code != 4410], ids=lambda code: str(code.code))
def test_every_code_of_the_table_ends_or_goes_on_as_it_says(code: Any) -> None:
    """Final codes close, others come back."""
    talk = Talk().live()
    talk.it.lost(code.code, code.reason)
    if code.retry:
        assert talk.events[-1] == Down(code.code, code.reason, 0.25, 1)
    else:
        assert talk.events[-1] == Closed(code.code, code.reason)
        (late,) = talk.send("too late")
        assert late.lost is not None
        assert late.lost.applied == "no"
        assert talk.it.lost(1006, "") == 0
        assert talk.events[-1] == Closed(code.code, code.reason)


@pytest.mark.parametrize("code", [3000, 3999, 4000, 4499])
def test_a_rooms_own_codes_below_4500_are_final(code: int) -> None:
    """The room meant it."""
    talk = Talk().live()
    talk.it.lost(code, "told to")
    assert talk.it.state == "closed"


@pytest.mark.parametrize("code", [1001, 1005, 1006, 1011, 4500, 4999])
def test_other_codes_come_back(code: int) -> None:
    """Networks and proxies say them, or a room that wants it so."""
    talk = Talk().live()
    talk.it.lost(code, "")
    assert talk.it.state == "down"


@pytest.mark.parametrize(
    "frame",
    ["no number", " 5", "5", "-1 x", "²1 x", "0 1", "!{broken", "![1]", '!{"hello":{}}', '!{"ack":"x"}', b"\0" * 3],
)
def test_a_frame_that_is_not_innkeeper_v1_is_no_silent_hole(frame: str | bytes) -> None:
    """It is refused, whatever is wrong with it."""
    with pytest.raises(FrameInvalid):
        Talk().live().hear(frame)


def test_an_output_before_the_answer_is_refused() -> None:
    """There is no place yet that it could stand at."""
    talk = Talk()
    talk.hello()
    with pytest.raises(FrameInvalid, match="before the first answer"):
        talk.hear("11 1")


def test_an_output_that_is_not_json_is_told_and_passed() -> None:
    """The place moves on with it."""
    talk = Talk().live()
    talk.hear("11 {", "12 1", {"later": 5})
    assert talk.of(Problem) == [Problem("not_json", None, {"seq": 11, "payload": b"{"})]
    assert talk.again()["last"] == "12-77"


def test_waits_grow_and_begin_anew_after_a_steady_connection() -> None:
    """They double up to the most; five seconds of connection start them again."""
    talk = Talk()
    assert [talk.it.lost(1006, "") for _ in range(8)] == [0.25, 0.5, 1, 2, 4, 8, 15, 15]
    for lived_s, wait_s in [(4.0, 15), (5.5, 0.25), (0, 0.5)]:
        talk.hello()
        talk.hear({"resumed": {"at": "10-77"}})
        talk.now_s += lived_s
        assert talk.it.lost(1012, "edge restarting") == wait_s
    assert talk.it.lost(1006, "", at_once=True) == 0


def test_jitter_leaves_out_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """At most the given part, and nonsense is refused."""
    monkeypatch.setattr(random, "random", lambda: 0.5)
    assert Backoff(jitter=0.5).wait_s(0) == pytest.approx(0.1875)
    assert Backoff().wait_s(10_000) == pytest.approx(11.25)
    for wrong in ({"first_s": 0.0}, {"first_s": float("nan")}, {"factor": 0.5}, {"most_s": 0.1}, {"jitter": 1.5}):
        with pytest.raises(ValueError, match="Backoff needs"):
            Backoff(**wrong)


def test_a_move_takes_along_what_was_not_accepted() -> None:
    """A new session says hello on the same socket; only after its answer the rest goes there, with numbers from 1."""
    talk = Talk().live()
    applied, accepted, lost, on_its_way = talk.send("a", "b", "c", "d")
    talk.hear({"ack": 2, "applied": 1})
    talk.written()
    first = talk.it._session.secret
    talk.hear({"moved": {"room": "match/7", "accepted": 3}})
    (frame,) = talk.written()
    assert isinstance(frame, str)
    hello = orjson.loads(frame[1:])["hello"]
    assert (hello["secret"] != first, hello["generation"], hello["last"]) == (True, 1, None)
    assert (talk.it.state, talk.it.room, talk.events[-1]) == ("connecting", "match/7", Moved("match/7"))
    assert [fate.accepted for fate in (applied, accepted, lost, on_its_way)] == [1, 1, 1, 0]
    assert (applied.settled, applied.lost is None or applied.lost.applied) == ([None], "unknown")
    assert [fate.lost is not None and fate.lost.applied for fate in (accepted, lost)] == ["unknown"] * 2
    (late,) = talk.send("e")
    assert talk.written() == []
    talk.hear({"hello": {"conn": "c-2", "at": "4-5", "accepted": 0}})
    assert talk.written() == ['1 "d"', '2 "e"']
    assert talk.events[-1] == Opened(False, "c-2")
    assert talk.of(Resync) == []
    talk.hear({"ack": 2, "applied": 2})
    assert [(fate.settled, fate.lost) for fate in (on_its_way, late)] == [([None], None)] * 2
    assert talk.again()["last"] == "4-5"


def test_a_move_may_answer_a_hello() -> None:
    """A client that was away is moved when it asks; one that has ended, or was never answered, is moved nowhere."""
    talk = Talk().live()
    talk.send("a")
    talk.again()
    talk.hear({"moved": {"room": "match/7", "accepted": 0}})
    talk.hear({"hello": {"conn": "c-2", "at": "4-5", "accepted": 0}})
    assert talk.written()[-1] == '1 "a"'
    talk.hear({"moved": {"room": "match/8", "accepted": 1}})
    talk.it.lost(4503, "room full")
    assert talk.it.closed is None
    talk.it.end(1000, "left")
    talk.hear({"moved": {"room": "match/9", "accepted": 1}})
    assert (talk.it.room, talk.it.state) == ("match/8", "closed")


def test_what_was_accepted_once_stays_where_it_was() -> None:
    """Also where that room was rolled back since: a message for one room never goes to two."""
    talk = Talk().live()
    kept, sent = talk.send("a", "b")
    talk.hear({"ack": 1})
    talk.again()
    talk.hear({"moved": {"room": "match/7", "accepted": 0}}, {"hello": {"conn": "c-2", "at": "4-5", "accepted": 0}})
    assert talk.written()[-1] == '1 "b"'
    assert (kept.accepted, sent.lost) == (1, None)

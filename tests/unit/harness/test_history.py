"""The history checker, on forged histories: a clean one, near-misses, and every violation called by its name."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from harness.history import Kind, Output, Socket, Step, Stored, check, next_digest, outputs_of

STEPS = [
    Step("join", "ann"), Step("say", "ann", 1), Step("join", "bob"), Step("say", "bob", 1), Step("join", "cut"),
    Step("say", "ann", 2), Step("say", "cut", 1), Step("say", "cut", 2), Step("leave", "cut"), Step("say", "bob", 2),
    Step("say", "ann", 3), Step("say", "bob", 3),
]  # fmt: skip


@dataclass
class Forgery:
    """A room's whole history: ann and bob stay to the end, cut was cut after it had sent four messages."""

    steps: list[Step]
    sockets: dict[str, Socket]
    stored: Stored

    def __init__(self, steps: list[Step] = STEPS) -> None:
        self.steps = list(steps)
        shown = outputs_of(steps)
        self.sockets = {
            "ann": Socket("ann", 3, shown[0:], is_open=True),
            "bob": Socket("bob", 3, shown[2:], is_open=True),
            "cut": Socket("cut", 4, shown[4:7]),
        }
        self.store(self.steps)

    def store(self, steps: list[Step]) -> None:
        """Let Redis hold these steps, with everything in it that belongs to them."""
        shown = outputs_of(steps)
        last = {"ann": 0, "bob": 0}
        last.update({step.sender: step.number for step in steps if step.kind == "say" and step.sender in last})
        self.stored = Stored(steps, len(steps), shown[-1].digest, list(last.items()), outlog=shown[-5:])

    def apply(self, *steps: Step, at: int | None = None) -> None:
        """Let the room do more, at the end or before a place, and everybody be shown it."""
        place = len(self.steps) if at is None else at - 1
        self.steps[place:place] = steps
        self.__init__(self.steps)  # type: ignore[misc]

    def drop(self, place: int) -> None:
        """Let the room never do the step at a place."""
        del self.steps[place - 1]
        self.__init__(self.steps)  # type: ignore[misc]

    def kinds(self) -> set[Kind]:
        """Return what the checker calls it."""
        return {violation.kind for violation in check("room", self.sockets.values(), self.stored)}


def test_clean_history() -> None:
    """A history in which everything was kept has no violation."""
    forged = Forgery()
    assert check("room", forged.sockets.values(), forged.stored) == []


def unheard_tail(f: Forgery) -> None:
    """What a cut socket sent last was not applied."""
    f.sockets["cut"].sent = 9


def heard_nothing(f: Forgery) -> None:
    """A socket was cut before its join came back."""
    f.sockets["cut"].received = []


def never_joined(f: Forgery) -> None:
    """A socket was cut before its join was accepted."""
    f.sockets["late"] = Socket("late", 3)


def outlog_gone(f: Forgery) -> None:
    """The outlog of a sleeping room has expired."""
    f.stored.outlog = []


def revoked(f: Forgery) -> None:
    """A failover took back the last steps; who had seen them was closed, and the others went on without."""
    f.sockets["cut"] = Socket("cut", 4, outputs_of([*STEPS[:8], Step("say", "cut", 3)])[4:], lossy=True)


def lost_by_a_flush(f: Forgery) -> None:
    """Everything was flushed: the old sockets saw another history and were closed."""
    old = [Step("join", "old"), Step("say", "old", 1), Step("say", "old", 2)]
    f.sockets["old"] = Socket("old", 7, outputs_of(old), lossy=True)


@pytest.mark.parametrize(
    "change",
    [unheard_tail, heard_nothing, never_joined, outlog_gone, revoked, lost_by_a_flush],
    ids=lambda f: f.__name__,
)
def test_near_misses(change: Callable[[Forgery], None]) -> None:
    """What looks odd but breaks no promise is not called a violation."""
    forged = Forgery()
    change(forged)
    assert check("room", forged.sockets.values(), forged.stored) == []


def lost_of_an_open_socket(f: Forgery) -> None:
    """The last message of a socket that stayed open was never applied."""
    f.sockets["ann"].sent = 4


def lost_in_the_middle(f: Forgery) -> None:
    """Of a cut socket the second message was applied and the first was not."""
    f.drop(7)


def lost_by_a_flush_and_not_told(f: Forgery) -> None:
    """A flush took a message back, and the socket that had sent it was not closed."""
    f.sockets["ann"].lossy = True
    f.sockets["ann"].sent = 4


def lost_although_accepted(f: Forgery) -> None:
    """A message known to be accepted was not applied."""
    f.sockets["cut"].accepted = 3


def lost_join(f: Forgery) -> None:
    """A socket stays open without ever having joined."""
    f.sockets["dan"] = Socket("dan", is_open=True)


def backlog(f: Forgery) -> None:
    """Accepted events wait and nobody comes."""
    f.stored.backlog = 2


def applied_twice(f: Forgery) -> None:
    """A message was applied again right behind itself."""
    f.apply(Step("say", "ann", 2), at=7)


def applied_again_late(f: Forgery) -> None:
    """A message was applied again at the end."""
    f.apply(Step("say", "bob", 1))
    f.stored.members = [("ann", 3), ("bob", 3)]


def joined_twice(f: Forgery) -> None:
    """A join was applied twice."""
    f.apply(Step("join", "ann"))


def delivered_twice(f: Forgery) -> None:
    """A socket got an output twice."""
    f.sockets["ann"].received.insert(4, f.sockets["ann"].received[3])


def repeated_late(f: Forgery) -> None:
    """A socket got an old batch again at the end."""
    f.sockets["ann"].received += f.sockets["ann"].received[-2:]


def applied_in_another_order(f: Forgery) -> None:
    """Two messages of one sender were applied the wrong way round."""
    f.steps[6], f.steps[7] = f.steps[7], f.steps[6]
    f.apply()


def delivered_in_another_order(f: Forgery) -> None:
    """A socket got two outputs the wrong way round."""
    got = f.sockets["bob"].received
    got[3], got[4] = got[4], got[3]


def hole_in_the_middle(f: Forgery) -> None:
    """A socket did not get one output."""
    del f.sockets["bob"].received[4]


def hole_of_a_cut_socket(f: Forgery) -> None:
    """A socket that was cut later had missed an output before that."""
    del f.sockets["cut"].received[1]


def hole_at_the_end(f: Forgery) -> None:
    """A socket did not get the last output and stayed open."""
    del f.sockets["ann"].received[-1]


def hole_at_the_beginning(f: Forgery) -> None:
    """A socket did not get its own join."""
    del f.sockets["ann"].received[0]


def heard_before_its_join(f: Forgery) -> None:
    """A socket got what was shown before it joined."""
    f.sockets["bob"].received.insert(0, outputs_of(STEPS)[1])


def deaf(f: Forgery) -> None:
    """A socket that is open and joined got nothing at all."""
    f.sockets["ann"].received = []


def shown_not_stored(f: Forgery) -> None:
    """A client saw a step that is not stored."""
    f.sockets["cut"].received = outputs_of([*STEPS[:7], Step("say", "cut", 3)])[4:]


def two_owners_showed(f: Forgery) -> None:
    """Two clients saw different steps under one number."""
    f.sockets["bob"].received[-1] = outputs_of([*STEPS[:-1], Step("say", "ann", 4)])[-1]


def both_to_one_client(f: Forgery) -> None:
    """One client saw two different steps under one number."""
    f.sockets["bob"].received.append(outputs_of([*STEPS[:-1], Step("say", "ann", 4)])[-1])


def same_step_on_another_past(f: Forgery) -> None:
    """The step is the same, but the digest says that another history lies before it."""
    last = f.sockets["bob"].received[-1]
    f.sockets["bob"].received[-1] = Output(last.place, last.step, next_digest("elsewhere", last.step))


def revoked_and_not_told(f: Forgery) -> None:
    """A failover took back what a socket saw, and the socket was not closed."""
    shown = outputs_of([*STEPS[:-1], Step("say", "ann", 4)])
    f.sockets["bob"] = Socket("bob", 3, [*shown[2:]], is_open=True, lossy=True)


def crossed_into_another_history(f: Forgery) -> None:
    """A socket saw revoked steps, then went on in the history that took their place."""
    old = outputs_of([*STEPS[:8], Step("say", "cut", 3), Step("say", "cut", 4)])
    f.sockets["cut"] = Socket("cut", 4, [*old[4:9], outputs_of(STEPS)[9]], lossy=True)


def no_leave(f: Forgery) -> None:
    """A closed socket is no member any more, but its leave never came."""
    f.drop(9)


def two_leaves(f: Forgery) -> None:
    """A leave was applied twice."""
    f.apply(Step("leave", "cut"))


def leave_before_its_message(f: Forgery) -> None:
    """A message was applied after its sender's leave."""
    f.apply(Step("say", "cut", 3))


def leave_without_join(f: Forgery) -> None:
    """Somebody left who had not joined."""
    f.apply(Step("leave", "dan"))
    f.sockets["dan"] = Socket("dan")


def left_while_open(f: Forgery) -> None:
    """A socket that stayed open was declared gone."""
    f.apply(Step("leave", "bob"))
    f.stored.members = [("ann", 3)]


def ghost(f: Forgery) -> None:
    """A closed socket is still a member."""
    f.drop(9)
    f.stored.members = [*f.stored.members, ("cut", 2)]


def ghost_after_its_leave(f: Forgery) -> None:
    """A socket left and stands among the members all the same."""
    f.stored.members = [*f.stored.members, ("cut", 2)]


def member_twice(f: Forgery) -> None:
    """One socket is a member under two connections."""
    f.stored.members = [*f.stored.members, ("ann", 3)]


def member_gone(f: Forgery) -> None:
    """An open socket that joined is no member."""
    f.stored.members = [("ann", 3)]


def count_is_off(f: Forgery) -> None:
    """The room's count is not the number of its steps."""
    f.stored.count += 1


def digest_is_off(f: Forgery) -> None:
    """The room's digest is not that of its steps."""
    f.stored.digest = "0" * 12


def row_is_off(f: Forgery) -> None:
    """A member's row says another number than its last message."""
    f.stored.members = [("ann", 2), ("bob", 3)]


def outlog_is_off(f: Forgery) -> None:
    """The outlog's tail is not the history's."""
    f.stored.outlog = f.stored.outlog[:-1]


def invented(f: Forgery) -> None:
    """A message was applied that nobody sent."""
    f.sockets["bob"].sent = 2


def unknown_sender(f: Forgery) -> None:
    """Somebody spoke who never was."""
    f.apply(Step("join", "eve"))


def put_aside(f: Forgery) -> None:
    """An innocent event was put aside."""
    f.stored.dead = ["text 7-1 its workers died of it three times"]


FORGERIES: list[tuple[Kind, Callable[[Forgery], None]]] = [
    *((Kind.LOST, f) for f in (lost_of_an_open_socket, lost_in_the_middle, lost_although_accepted, lost_join, backlog)),
    (Kind.LOST, lost_by_a_flush_and_not_told),
    *((Kind.DUPLICATED, f) for f in (applied_twice, applied_again_late, joined_twice, delivered_twice, repeated_late)),
    *((Kind.REORDERED, f) for f in (applied_in_another_order, delivered_in_another_order)),
    *((Kind.HOLE, f) for f in (hole_in_the_middle, hole_of_a_cut_socket, hole_at_the_end, hole_at_the_beginning)),
    *((Kind.HOLE, f) for f in (heard_before_its_join, deaf)),
    *((Kind.STALE_WRITE, f) for f in (shown_not_stored, two_owners_showed, both_to_one_client)),
    *((Kind.STALE_WRITE, f) for f in (same_step_on_another_past, revoked_and_not_told, crossed_into_another_history)),
    *((Kind.WRONG_LEAVE, f) for f in (no_leave, two_leaves, leave_before_its_message, leave_without_join)),
    (Kind.WRONG_LEAVE, left_while_open),
    *((Kind.GHOST, f) for f in (ghost, ghost_after_its_leave, member_twice)),
    *((Kind.DIFFERENT_STATE, f) for f in (member_gone, count_is_off, digest_is_off, row_is_off, outlog_is_off)),
    *((Kind.DIFFERENT_STATE, f) for f in (invented, unknown_sender)),
    (Kind.PUT_ASIDE, put_aside),
]


@pytest.mark.parametrize(("kind", "change"), FORGERIES, ids=[change.__name__ for _, change in FORGERIES])
def test_violation_is_called_by_name(kind: Kind, change: Callable[[Forgery], None]) -> None:
    """Each forgery is called what it is, and nothing else."""
    forged = Forgery()
    change(forged)
    assert forged.kinds() == {kind}


def test_every_kind_is_forged() -> None:
    """No kind of violation goes untested."""
    assert {kind for kind, _ in FORGERIES} == set(Kind)

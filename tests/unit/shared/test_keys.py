"""Key names: as DESIGN.md section 4 writes them, one slot per room, no two rooms share one."""

from innkeeper import keys
from innkeeper.address import Address
from innkeeper.keys import RoomKeys, room_keys


def test_keys_of_a_room() -> None:
    """Every key of a room is inn:{kind/name}:part."""
    found = room_keys(Address("chat", "lobby"))
    assert found._asdict() == {part: f"inn:{{chat/lobby}}:{part}" for part in RoomKeys._fields}
    assert set(RoomKeys._fields) == {
        "inbox", "lock", "meta", "state", "members", "sessions", "timers", "outlog", "outbox", "dead", "bell", "out",
    }  # fmt: skip


def test_all_keys_of_a_room_share_one_hash_tag() -> None:
    """The text between the first braces is the address, so a cluster puts them into one slot."""
    address = Address("chat", "a.b:c~d")
    assert {key[key.index("{") + 1 : key.index("}")] for key in room_keys(address)} == {str(address)}


def test_no_two_rooms_share_a_key() -> None:
    """A room named like another one's key is still another room."""
    pairs = [("a", "b"), ("a", "b:inbox"), ("a", "inbox"), ("a-b", "c"), ("a", "b-c"), ("a", "b.inbox")]
    found = [key for kind, name in pairs for key in room_keys(Address(kind, name))]
    assert len(found) == len(set(found))


def test_keys_beside_the_rooms() -> None:
    """The keys that are no room's stand on a level that no room's key can reach."""
    found = [
        keys.KINDS, keys.WORKERS, keys.EDGES,
        keys.DEATHS, keys.worker_rooms("w-1"), keys.edge_rooms("e-1"), keys.wake_queue("chat"),
        keys.worker_ear("w-1"),
        keys.timer_index(3), keys.outbox_index(3), keys.room_index(3), keys.dead_index(3),
    ]  # fmt: skip
    assert found == [
        "inn:kinds", "inn:workers", "inn:edges", "inn:deaths", "inn:worker:w-1", "inn:edge:e-1", "inn:wake:chat",
        "inn:worker:w-1:ear",
        "inn:timers:3", "inn:outboxes:3", "inn:rooms:3", "inn:dead:3",
    ]  # fmt: skip
    assert not any(key.startswith("inn:{") for key in found)

"""Rooms by the ten thousand, as far as operators see them: their index entries and what a list reads of each."""

from redis import Redis

from innkeeper import keys
from innkeeper.address import Address
from innkeeper.functions import shard_of
from innkeeper.keys import room_keys


def fill(url: str, count: int) -> None:
    """Write so many rooms ``crowd/r00000`` … that are awake, with a member each."""
    pipe = Redis.from_url(url).pipeline(transaction=False)
    for n in range(count):
        room = Address("crowd", f"r{n:05}")
        at = room_keys(room)
        pipe.zadd(keys.room_index(shard_of(room)), {str(room): 1e15})
        pipe.hset(at.sessions, mapping={"#": 1, "@": 1})
        pipe.hset(at.meta, mapping={"cursor": 1, "version": 1})
        pipe.hset(at.members, "c-1", '{"join":1,"edge":"e-1","session":"","user":["","ann"],"state":null}')
        if n % 5_000 == 4_999:
            pipe.execute()
    pipe.execute()

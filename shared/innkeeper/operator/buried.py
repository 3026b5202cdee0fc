"""Where events were put aside: by the index, so that rooms at rest are found, too."""

from innkeeper import keys
from innkeeper.functions import ROOM_SHARDS
from innkeeper.keys import room_keys
from innkeeper.operator.survey import ask, read_rooms
from innkeeper.topology import Commands


async def put_aside(link: Commands) -> dict[str, int]:
    """Return the rooms that have put events aside, and how many still lie there; 0 where none does any more."""
    shards = await ask(link, [("ZRANGE", keys.dead_index(n), 0, -1) for n in range(ROOM_SHARDS)], spoiled=True)
    names = (name.decode(errors="replace") for shard in shards if isinstance(shard, list) for name in shard)
    rooms = sorted(read_rooms(names))
    counts = await ask(link, [("XLEN", room_keys(room).dead) for room in rooms], spoiled=True)
    return {str(room): count if isinstance(count, int) else 0 for room, count in zip(rooms, counts, strict=True)}

"""Where events were put aside: by the index, so that rooms at rest are found, too."""

from innkeeper import keys
from innkeeper.address import InvalidAddress, parse_address
from innkeeper.functions import ROOM_SHARDS
from innkeeper.keys import room_keys
from innkeeper.operator.survey import ask
from innkeeper.topology import Commands


async def put_aside(link: Commands) -> dict[str, int]:
    """Return the rooms that have put events aside, and how many still lie there; 0 where none does any more."""
    shards = await ask(link, [("ZRANGE", keys.dead_index(n), 0, -1) for n in range(ROOM_SHARDS)], spoiled=True)
    names = sorted(name.decode() for shard in shards if isinstance(shard, list) for name in shard if _is_room(name))
    counts = await ask(link, [("XLEN", room_keys(parse_address(name)).dead) for name in names], spoiled=True)
    return {name: count if isinstance(count, int) else 0 for name, count in zip(names, counts, strict=True)}


def _is_room(name: bytes) -> bool:
    try:
        parse_address(name.decode(errors="replace"))
    except InvalidAddress:
        return False
    return True

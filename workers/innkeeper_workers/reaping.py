"""Members of edges that are gone although nobody has reaped them in the room."""

import logging

import orjson

from innkeeper import functions, keys
from innkeeper.functions import Claimed
from innkeeper.keys import RoomKeys
from innkeeper.topology import Commands

log = logging.getLogger("innkeeper.worker")


async def reap_unknown_edges(link: Commands, room: RoomKeys, claimed: Claimed) -> None:
    """Let members leave whose edge is gone from the registry (a member that a rollback brought back)."""
    edges = sorted({orjson.loads(row)["edge"] for row in claimed.members.values()})
    if not edges:
        return
    scores = await link.send([("ZSCORE", keys.EDGES, edge) for edge in edges])
    gone = [edge for edge, score in zip(edges, scores, strict=True) if score is None]
    if gone:
        log.info("%d edge(s) of members are gone, their members leave", len(gone))
        await link.send([functions.reap_edge(room, edge=edge) for edge in gone])

"""A member of a room from Python: for bots, services and tests. ``docs/clients.md`` tells how it behaves.

Example::

    async with connect("ws://127.0.0.1:8000/parties/chat/lobby", name="bot") as room:
        await room.send({"text": "hello"})  # accepted: it is applied whatever dies
        async for message in room:
            print(message)
"""

from innkeeper.client.backoff import Backoff
from innkeeper.client.events import Closed, Down, Event, Message, Moved, Opened, Problem, Resync
from innkeeper.client.room import Room, connect
from innkeeper.client.sent import Sent

__all__ = [
    "Backoff",
    "Closed",
    "Down",
    "Event",
    "Message",
    "Moved",
    "Opened",
    "Problem",
    "Resync",
    "Room",
    "Sent",
    "connect",
]

"""Rooms in memory, for tests of what you write: no Redis, no sockets, a clock that stands still until it is told.

``RoomHarness`` runs one room as a worker does, by the same code; :mod:`innkeeper.testing.plugin` makes it a fixture.
"""

from innkeeper.testing.clients import Client, Closed
from innkeeper.testing.clock import VirtualClock
from innkeeper.testing.crashes import Diverged
from innkeeper.testing.harness import RoomHarness
from innkeeper.testing.jobs import Job
from innkeeper.testing.stored import Commit

__all__ = ["Client", "Closed", "Commit", "Diverged", "Job", "RoomHarness", "VirtualClock"]

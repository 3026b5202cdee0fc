"""Rooms from other programs: beside a web framework, in a script, in a shell."""

from innkeeper.outside.client import Innkeeper
from innkeeper.outside.ear import Output
from innkeeper.outside.room import Member, OutsideRoom, Tail
from innkeeper.outside.sync import SyncInnkeeper, SyncRoom

__all__ = ["Innkeeper", "Member", "Output", "OutsideRoom", "SyncInnkeeper", "SyncRoom", "Tail"]

"""The Durable Objects programming model on your own Redis or Valkey."""

from innkeeper.connection import Connection, User
from innkeeper.dispatch import on
from innkeeper.errors import (
    InnkeeperError,
    JobInvalid,
    NoAnswer,
    OutputInvalid,
    Refused,
    RequestInvalid,
    RoomBusy,
    StateInvalid,
    StateTooLarge,
    TimerInvalid,
    TurnClosed,
)
from innkeeper.jobs import JobResult, job
from innkeeper.outside import Innkeeper
from innkeeper.request import Request, Response
from innkeeper.room import Connections, Event, Room
from innkeeper.timers import Timer

__all__ = [
    "Connection",
    "Connections",
    "Event",
    "Innkeeper",
    "InnkeeperError",
    "JobInvalid",
    "JobResult",
    "NoAnswer",
    "OutputInvalid",
    "Refused",
    "Request",
    "RequestInvalid",
    "Response",
    "Room",
    "RoomBusy",
    "StateInvalid",
    "StateTooLarge",
    "Timer",
    "TimerInvalid",
    "TurnClosed",
    "User",
    "job",
    "on",
]

"""The Durable Objects programming model on your own Redis or Valkey."""

from innkeeper.connection import Connection, User
from innkeeper.dispatch import on
from innkeeper.errors import (
    InnkeeperError,
    OutputInvalid,
    Refused,
    RequestInvalid,
    StateInvalid,
    StateTooLarge,
    TimerInvalid,
    TurnClosed,
)
from innkeeper.request import Request, Response
from innkeeper.room import Connections, Event, Room
from innkeeper.timers import Timer

__all__ = [
    "Connection",
    "Connections",
    "Event",
    "InnkeeperError",
    "OutputInvalid",
    "Refused",
    "Request",
    "RequestInvalid",
    "Response",
    "Room",
    "StateInvalid",
    "StateTooLarge",
    "Timer",
    "TimerInvalid",
    "TurnClosed",
    "User",
    "on",
]

"""The Durable Objects programming model on your own Redis or Valkey."""

from innkeeper.connection import Connection, User
from innkeeper.dispatch import on
from innkeeper.errors import (
    InnkeeperError,
    OutputInvalid,
    Refused,
    StateInvalid,
    StateTooLarge,
    TimerInvalid,
    TurnClosed,
)
from innkeeper.room import Connections, Event, Room
from innkeeper.timers import Timer

__all__ = [
    "Connection",
    "Connections",
    "Event",
    "InnkeeperError",
    "OutputInvalid",
    "Refused",
    "Room",
    "StateInvalid",
    "StateTooLarge",
    "Timer",
    "TimerInvalid",
    "TurnClosed",
    "User",
    "on",
]

"""Processes that start, watch, replace and end other processes, and the contract between the two sides.

The role's side (:mod:`innkeeper.supervise.role`) says when it is ready and follows its parent into death; the parent's
side starts a program, waits until it is ready, starts it again after a crash and replaces it by a successor.
"""

from innkeeper.supervise.child import BootFailed, Child, Program
from innkeeper.supervise.keeper import Backoff, Keeper
from innkeeper.supervise.pool import run_processes
from innkeeper.supervise.port import reserve_port
from innkeeper.supervise.role import announce_ready, follow_parent

__all__ = [
    "Backoff",
    "BootFailed",
    "Child",
    "Keeper",
    "Program",
    "announce_ready",
    "follow_parent",
    "reserve_port",
    "run_processes",
]

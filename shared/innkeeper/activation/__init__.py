"""One live instance of a room: events in, turns out. No Redis here, so tests and workers run the same code."""

from innkeeper.activation.hooks import summary_of, text_of
from innkeeper.activation.instance import Activation

__all__ = ["Activation", "summary_of", "text_of"]

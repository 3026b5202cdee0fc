"""What the frame guard drops costs little time, however much it is."""

from unittest.mock import Mock

from harness.rawsocket import CONTINUATION, TEXT, close_frame, frame
from innkeeper_edge.guard import FrameGuard


def test_a_flood_is_not_walked_to_its_end() -> None:
    """Nobody looks for the close frame behind 5,000 others of one read, nor in what comes after it."""
    for frame_count, is_found in ((4_900, True), (5_100, False)):
        watcher = Mock()
        guard = FrameGuard(Mock(), watcher, max_message_bytes=100)
        guard.feed_data(frame(TEXT, b"x" * 101) + frame(CONTINUATION, fin=False) * frame_count)
        guard.feed_data(close_frame(1000) + b"\x00" * 10_000)
        watcher.violated.assert_called_once()
        assert watcher.peer_closed.called is is_found

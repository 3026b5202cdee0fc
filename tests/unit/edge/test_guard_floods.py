"""What the frame guard drops costs little time, however much it is."""

from unittest.mock import Mock

import pytest

from harness.rawsocket import CONTINUATION, TEXT, close_frame, frame
from innkeeper.close_codes import TOO_MANY_FRAGMENTS
from innkeeper_edge.guard import FrameGuard


@pytest.mark.parametrize(("message_count", "is_taken"), [(16, True), (17, False)])
def test_pieces_of_one_read_have_an_end(message_count: int, is_taken: bool) -> None:
    """A thousand of whichever messages; those before are passed on, and the next read begins anew."""
    message = frame(TEXT, fin=False) + frame(CONTINUATION, fin=False) * 58 + frame(CONTINUATION)
    reader, watcher = Mock(**{"feed_data.return_value": (False, b"")}), Mock()
    guard = FrameGuard(reader, watcher, max_message_bytes=100)
    for _ in range(3):
        guard.feed_data(message * message_count + frame(TEXT, b"x") * 3_000)
    assert watcher.violated.called is not is_taken
    if not is_taken:
        watcher.violated.assert_called_once_with(TOO_MANY_FRAGMENTS)
        (passed,) = reader.feed_data.call_args.args
        assert passed == (message * 17)[: 6 * 1_001]


def test_a_flood_is_not_walked_to_its_end() -> None:
    """Nobody looks for the close frame behind 5,000 others of one read, nor in what comes after it."""
    for frame_count, is_found in ((4_900, True), (5_100, False)):
        watcher = Mock()
        guard = FrameGuard(Mock(), watcher, max_message_bytes=100)
        guard.feed_data(frame(TEXT, b"x" * 101) + frame(CONTINUATION, fin=False) * frame_count)
        guard.feed_data(close_frame(1000) + b"\x00" * 10_000)
        watcher.violated.assert_called_once()
        assert watcher.peer_closed.called is is_found

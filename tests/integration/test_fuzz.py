"""A short run of the fuzzer; ``make fuzz`` is the long one."""

from pathlib import Path

from fuzz.run import fuzz_edge, fuzz_parsers

SEED = 20261126


async def test_noise_breaks_no_parser() -> None:
    """Frames, handshakes, controls and envelopes, nearly right: only documented errors, none slow, no memory kept."""
    report = await fuzz_parsers(30_000, SEED)
    assert report.problems == []


async def test_noise_breaks_no_edge(tmp_path: Path) -> None:
    """Over real sockets: the edge lives, writes no traceback, and serves an honest client as before."""
    assert await fuzz_edge(tmp_path, 60, SEED) == []

"""The order of the time constants, which is asserted wherever they are made."""

import pytest

from innkeeper.lease import DEFAULT_TIMES, RESUME_WINDOW_MS, STALE_EDGE_MS, LeaseTimes


def test_the_defaults_are_the_designs() -> None:
    """Lease 2 s, renew 500 ms, heartbeat 250 ms, stop handling at 1.5 s, command timeout 500 ms."""
    times = DEFAULT_TIMES
    assert (times.lease_ms, times.renew_ms, times.heartbeat_ms) == (2_000, 500, 250)
    assert (times.stop_handling_ms, times.redis_timeout_ms, times.second_look_ms) == (1_500, 500, 25)
    assert (times.heartbeat_dead_ms, times.edge_dead_ms) == (1_000, 3_000)
    assert STALE_EDGE_MS < RESUME_WINDOW_MS


@pytest.mark.parametrize(
    ("wrong", "pair"),
    [
        ({"heartbeat_ms": 500}, ("heartbeat_ms (500)", "renew_ms (500)")),
        ({"renew_ms": 1_200}, ("renew_ms (1200)", "heartbeat_dead_ms (1000)")),
        ({"heartbeat_dead_ms": 1_500}, ("heartbeat_dead_ms (1500)", "stop_handling_ms (1500)")),
        ({"stop_handling_ms": 2_000}, ("stop_handling_ms (2000)", "lease_ms (2000)")),
        ({"lease_ms": 4_000}, ("lease_ms (4000)", "edge_dead_ms (3000)")),
        ({"redis_timeout_ms": 501}, ("redis_timeout_ms (501)", "lease_ms")),
    ],
)
def test_a_wrong_order_names_the_pair(wrong: dict[str, int], pair: tuple[str, str]) -> None:
    """Two figures in the wrong order cannot be deployed, and the text says which."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the text is checked below
        LeaseTimes(**wrong)
    assert all(part in str(caught.value) for part in pair)


def test_all_scaled_alike_is_fine() -> None:
    """Slower figures in the same order are taken, for slow networks."""
    scaled = {name: getattr(DEFAULT_TIMES, name) * 5 for name in LeaseTimes.__dataclass_fields__}
    assert LeaseTimes(**scaled).lease_ms == 10_000

"""The quick tier of the live chaos; the long runs are ``make chaos``."""

import random

import pytest

from chaos.__main__ import show
from chaos.run import SPARED, run
from chaos.scenarios import SCENARIOS


@pytest.mark.timeout(120)
async def test_nothing_is_lost_while_everything_is_hurt() -> None:
    """Processes killed, frozen and rolled, links and Redis disturbed, all at once: the checker finds nothing."""
    seed = random.SystemRandom().randrange(1, 10**6)
    outcome = await run(SCENARIOS["quick"], seed)
    show(outcome)  # with the seed; pytest shows it where this fails
    spared = [failure for failure in outcome.failures if failure.startswith(SPARED)]
    assert [failure for failure in outcome.failures if failure not in spared] == []
    assert len(spared) <= 1  # ten seconds are short: one of the faults may find nothing to hurt

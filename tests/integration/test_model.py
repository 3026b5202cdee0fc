"""Random steps with faults against a real server; a seed that fails is printed and fails again."""

import os
import uuid
from collections import Counter

import pytest

from harness.acts import RoomActs
from harness.model import Model
from innkeeper.address import Address
from innkeeper.redis_client import Link

SEEDS = int(os.environ.get("INNKEEPER_MODEL_SEEDS", "20"))
FIRST = int(os.environ.get("INNKEEPER_MODEL_FIRST_SEED", "1"))
STEPS = 150


@pytest.mark.timeout(60 + SEEDS)
async def test_nothing_is_lost_doubled_or_reordered(link: Link) -> None:
    """Whatever is lost, late, repeated or stolen: each accepted event is applied once, in order, by its owner."""
    faults: Counter[str] = Counter()
    for seed in range(FIRST, FIRST + SEEDS):
        room = RoomActs(link, Address("model", uuid.uuid4().hex))
        model = Model(room, seed, await room.server_ms())
        try:
            await model.run(STEPS)
        except Exception as error:
            raise AssertionError(f"INNKEEPER_MODEL_FIRST_SEED={seed} INNKEEPER_MODEL_SEEDS=1: {error}") from error
        faults += model.faults
    if SEEDS >= 20:
        bitten = ("refused token", "pushes sent again", "commits sent again", "late push", "late commit", "late claim",
                  "letter d", "letter b", "letter g", "edges closed", "released")  # fmt: skip
        assert {name: faults[name] for name in bitten if not faults[name]} == {}

"""``make simulate`` says what broke and how to see it again, and its exit code says whether anything did."""

import sys

import pytest

from harness.simulation import __main__ as command
from harness.simulation.run import Outcome


@pytest.mark.parametrize("broken", [False, True])
def test_the_exit_code_and_the_command_to_see_it_again(
    broken: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A violation is printed with its seed's command, and the run ends with 1; else with 0."""

    def simulate(seed: str, *, event_count: int | None, keep_trace: bool = False) -> Outcome:
        assert (event_count, keep_trace) == (40, False)
        return Outcome(seed, violations=["one message was lost"] if broken and seed == "8" else [])

    monkeypatch.setattr(command, "simulate", simulate)
    monkeypatch.setattr(sys, "argv", ["simulate", "--seeds", "3", "--first", "7", "--events", "40", "--jobs", "1"])
    assert command.main() == int(broken)
    shown = capsys.readouterr().out
    assert ("make simulate SEED=8 EVENTS=40" in shown) == ("one message was lost" in shown) == broken
    assert f"3 seeds from 7 on, {int(broken)} violate" in shown

"""The page of tic-tac-toe in headless Chromium: from the lobby to a match and back. Run it with ``make browser``."""

from functools import partial
from pathlib import Path

import pytest

from harness.browser import Tab, chromium
from harness.house import House, until

pytestmark = pytest.mark.browser
MARKED = "document.querySelectorAll('#board button')[%d].textContent !== ''"
STATUS = "(document.getElementById('status')?.textContent ?? '')"
EXAMPLE = Path(__file__).parents[2] / "examples" / "tictactoe.py"


async def _says(tab: Tab, text: str) -> None:
    await until(lambda: tab.run(f"{STATUS}.includes({text!r})"), text)


async def test_two_tabs_play_twice(tmp_path: Path) -> None:
    """They are matched and play, go back to the lobby and play again, each on the one socket it began with."""
    async with House(tmp_path, edges=0, workers=2, target=str(EXAMPLE)) as house:
        await house.add_edge("--page-file", str(EXAMPLE.with_suffix(".html")))
        async with chromium(tmp_path) as open_tab:
            url = f"http://127.0.0.1:{house.edges[0].facts['port']}/"
            tabs = [await open_tab(url)]
            await _says(tabs[0], "Waiting for another player")
            tabs.append(await open_tab(url))
            playing = tabs[0]
            for _ in range(2):
                for cell in (0, 3, 1, 4, 2):
                    playing = await _whose_turn(tabs)
                    await playing.run(f"document.querySelectorAll('#board button')[{cell}].click()")
                    await until(partial(playing.run, MARKED % cell), "the mark is shown")
                await _says(playing, "You won.")
                await _says(tabs[tabs[0] is playing], "You lost.")
                for tab in tabs:
                    await tab.run("document.getElementById('again').click()")
            await _whose_turn(tabs)


async def _whose_turn(tabs: list[Tab]) -> Tab:
    found: list[Tab] = []

    async def look() -> bool:
        found.extend([tab for tab in tabs if await tab.run(f"{STATUS}.startsWith('Your turn')")])
        return bool(found)

    await until(look, "somebody's turn", timeout_s=20)
    return found[-1]

"""What a role of a house shows on its operators' port."""

from typing import Any

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from harness.house import Role, until


class Scrape:
    """The samples of one scrape."""

    def __init__(self, text: str) -> None:
        self.samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        self.names = {sample.name for sample in self.samples}

    def value(self, name: str, **labels: str) -> float:
        """Return the sum of the samples of a name that have these labels."""
        return sum(s.value for s in self.samples if s.name == name and labels.items() <= s.labels.items())


async def ask(role: Role, path: str) -> tuple[int, str]:
    """Return status and text of an answer of a role's operators' port."""
    url = f"http://127.0.0.1:{role.facts['ops_port']}{path}"
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return answer.status, await answer.text()


async def scrape(role: Role) -> Scrape:
    """Return a role's metrics as of now."""
    status, text = await ask(role, "/metrics")
    assert status == 200, text
    return Scrape(text)


async def reaches(role: Role, least: float, name: str, **labels: str) -> Scrape:
    """Wait until a role's metric is at least that, and return that scrape."""
    found: list[Any] = []

    async def probe() -> bool:
        found[:] = [await scrape(role)]
        return bool(found[0].value(name, **labels) >= least)

    await until(probe, f"{name} {labels} reaches {least}", seen=found)
    return found[0]  # type: ignore[no-any-return]

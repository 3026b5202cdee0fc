"""The table of medians, and what of it passes."""

import statistics
from typing import Any

from bench.scenarios import SCENARIOS, Scenario

Run = dict[str, Any]
Results = dict[str, dict[str, list[Run]]]
"""By scenario, then system: the figures of each round; a round that failed has only ``error``."""

FAULTS = ("lost", "duplicates", "out_of_order", "other_order", "wrong_steps", "closed")
BOUND_CORES = 0.98
BUSY_CORES = 0.1

_COLUMNS = (
    *("scenario", "system", "to all/s (min-max)", "x baseline", "deliveries/s", "p50 ms", "p99 ms", "p99 ms to all"),
    *("kB per connection", "CPU us per delivery", "cores", "generator", "others", "faults", "floor"),
)


def median(runs: list[Run], key: str) -> float | None:
    """Return the median of a figure over the rounds that have it."""
    values = [float(run[key]) for run in runs if key in run]
    return statistics.median(values) if values else None


def ratio(runs: list[Run], baseline: list[Run]) -> float | None:
    """Return the median rate over the baseline's."""
    ours, theirs = median(runs, "to_all_per_s"), median(baseline, "to_all_per_s")
    return ours / theirs if ours is not None and theirs else None


def faults(runs: list[Run]) -> dict[str, int]:
    """Return the faults of all rounds together, by name, those that occurred."""
    counts = {name: sum(int(run.get(name, 0)) for run in runs) for name in FAULTS}
    counts["failed rounds"] = sum("error" in run for run in runs)
    return {name: count for name, count in counts.items() if count}


def judge(scenario: Scenario, runs: list[Run], baseline: list[Run]) -> str:
    """Return ``ok`` or ``FAIL``, or ``-`` where there is nothing to compare with; any fault fails."""
    if faults(runs):
        return "FAIL"
    floor = scenario.floor
    if floor is None:
        return "ok"
    if floor.figure == "ratio":
        reached = ratio(runs, baseline)
        passed = None if reached is None else reached >= floor.limit
    else:
        value, theirs = median(runs, floor.figure), median(baseline, floor.figure)
        limit = floor.limit
        if floor.figure == "p99_ms" and theirs is not None and theirs > limit / 2:
            limit = 2 * theirs  # the machine is not idle
        passed = None if value is None else value <= limit
    return "-" if passed is None else "ok" if passed else "FAIL"


def table(results: Results) -> str:
    """Return the markdown table."""
    lines = [f"| {' | '.join(_COLUMNS)} |", "|" + "---|" * len(_COLUMNS)]
    for name, systems in results.items():
        lines += [_line(SCENARIOS[name], system, runs, systems.get("baseline", [])) for system, runs in systems.items()]
    busy = [
        run["other_cores"] for systems in results.values() for runs in systems.values() for run in runs if _busy(run)
    ]
    if busy:
        most = f"{len(busy)} round(s) with {BUSY_CORES:g} cores or more used by others (at most {max(busy):.2f})"
        lines.append(f"\nThe machine was not idle: {most}. Run again before quoting any figure.")
    return "\n".join(lines)


def passed(results: Results) -> bool:
    """Return whether nothing failed: no floor of Innkeeper's, no fault of any system."""
    return not any(
        judge(SCENARIOS[name], runs, systems.get("baseline", [])) == "FAIL" if system == "innkeeper" else faults(runs)
        for name, systems in results.items()
        for system, runs in systems.items()
    )


def _line(scenario: Scenario, system: str, runs: list[Run], baseline: list[Run]) -> str:
    rates = [run["to_all_per_s"] for run in runs if "to_all_per_s" in run]
    rate = f"{statistics.median(rates):,.0f} ({min(rates):,.0f}-{max(rates):,.0f})" if rates else "-"
    bound = sum(run.get("generator_cores", 0) >= BOUND_CORES for run in runs)
    counts = faults(runs)
    floor = f"{scenario.floor}: {judge(scenario, runs, baseline)}" if system == "innkeeper" and scenario.floor else ""
    cells = [
        scenario.name,
        system,
        rate,
        _number(ratio(runs, baseline), 2),
        _number(median(runs, "deliveries_per_s"), 0),
        _number(median(runs, "p50_ms"), 2),
        _number(median(runs, "p99_ms"), 2),
        _number(median(runs, "to_all_p99_ms"), 2),
        _by_role(runs, "kb_by_role", _number(median(runs, "kb_per_connection"), 1), 1),
        _number(median(runs, "cpu_us_per_delivery"), 1),
        _by_role(runs, "cores_by_role", _number(median(runs, "cores"), 2), 2),
        _number(median(runs, "generator_cores"), 2) + (f" (lower bound in {bound})" if bound else ""),
        _number(median(runs, "other_cores"), 2),
        ", ".join(f"{count} {name}" for name, count in counts.items()) or "0",
        floor,
    ]
    return f"| {' | '.join(cells)} |"


def _busy(run: Run) -> bool:
    return float(run.get("other_cores", 0)) >= BUSY_CORES


def _number(value: float | None, digit_count: int) -> str:
    return "-" if value is None else f"{value:,.{digit_count}f}"


def _by_role(runs: list[Run], key: str, total: str, digit_count: int) -> str:
    runs = [run for run in runs if key in run]
    if not runs or len(runs[0][key]) == 1:
        return total
    parts = (f"{role} {statistics.median(run[key][role] for run in runs):.{digit_count}f}" for role in runs[0][key])
    return f"{total} ({', '.join(parts)})"

"""Who gives which rooms to whom: single decisions, and whole houses simulated second by second."""

import random
from dataclasses import dataclass, field

import pytest

from innkeeper.load import Load
from innkeeper_workers.shedding import LOOKS_BEFORE, Measure, Move, Shedder, Weighed

SMOOTHED = 0.3  # of each second's figure in what is published


def load(rooms: int = 0, cpu: float = 0.0, **more: object) -> Load:
    """Return a row with what matters here."""
    fields: dict[str, object] = {"at_ms": 0, "kinds": ("chat",), "loop_lag_ms": 0.0, **more}
    return Load(rooms=rooms, cpu=cpu, events_s=0, **fields)  # type: ignore[arg-type]


def weighed(count: int, cpu: float = 0.0, kind: str = "chat") -> list[Weighed[int]]:
    """Return rooms with equal shares; a higher number has a few more events."""
    return [Weighed(n, kind, cpu / count, 1 + n / 1000) for n in range(count)]


def looked(loads: dict[str, Load], rooms: list[Weighed[int]], *, looks: int = LOOKS_BEFORE + 2) -> list[Move[int]]:
    """Return what worker ``a`` gives away at the last of some looks at the same rows."""
    shedder = Shedder[int]("a", random.Random(1))
    moves: list[Move[int]] = []
    for second in range(looks):
        moves = shedder.decide(loads, rooms, now_s=float(second), now_ms=second * 1000)
    return moves


# --- single decisions -------------------------------------------------------------------------------------------------
def test_nothing_moves_before_it_was_seen_three_times() -> None:
    """A new worker is known for two seconds first, and then the difference must last for three looks."""
    loads = {"a": load(60), "b": load(0)}
    assert [bool(looked(loads, weighed(60), looks=n)) for n in range(1, 7)] == [False] * 4 + [True] * 2


def test_the_quietest_rooms_go_while_nobody_is_busy() -> None:
    """By number of rooms the least disturbing ones are given."""
    moves = looked({"a": load(60), "b": load(0)}, weighed(60))
    assert [move.item for move in moves] == list(range(len(moves)))
    assert {move.target for move in moves} == {"b"}


@pytest.mark.parametrize(
    "loads",
    [
        {"a": load(30), "b": load(29)},
        {"a": load(1), "b": load(0)},
        {"a": load(1), "b": load(0), "c": load(0)},
        {"a": load(20), "b": load(40)},
        {"a": load(60), "b": load(0, kinds=("match",))},
        {"a": load(60), "b": load(0, rebalance=False)},
        {"a": load(60), "b": load(0, draining=True)},
        {"a": load(60), "b": load(10, max_rooms=10)},
        {"a": load(60, rebalance=False), "b": load(0)},
        {"a": load(60, draining=True), "b": load(0)},
        {"a": load(60)},
        {"b": load(0)},
    ],
    ids=[
        "as good as even", "one", "one of three", "less than the mean", "other kinds", "wants none", "it ends",
        "it is full", "gives none", "this one ends", "alone", "not published yet",
    ],
)  # fmt: skip
def test_nothing_to_give_or_nobody_to_take(loads: dict[str, Load]) -> None:
    """However long this lasts, no room moves."""
    for looks in range(5, 12):
        assert looked(loads, weighed(max(1, loads.get("a", load(1)).rooms)), looks=looks) == []


def test_a_place_is_given_once() -> None:
    """A receiver with two places gets two rooms, however much it lacks."""
    moves = looked({"a": load(60), "b": load(8, max_rooms=10)}, weighed(60))
    assert [move.target for move in moves] == ["b", "b"]


def test_rooms_go_to_who_serves_their_kind() -> None:
    """A worker of two pools gives each pool what is its own."""
    rooms = [*weighed(30), *(room._replace(item=room.item + 100) for room in weighed(30, kind="match"))]
    moves = looked({"a": load(60, kinds=("chat", "match")), "b": load(40), "c": load(0, kinds=("match",))}, rooms)
    assert moves
    assert all(move.item >= 100 and move.target == "c" for move in moves)


def test_the_hottest_room_stays_and_the_others_go_round_it() -> None:
    """A room that fills a core is no help to anybody elsewhere; its neighbours move away from it."""
    rooms = [Weighed(0, "chat", 0.7, 700), *(Weighed(n, "chat", 0.02, 20) for n in range(1, 16))]
    moves = looked({"a": load(16, 1.0), "b": load(5, 0.2)}, rooms)
    assert moves
    assert 0 not in {move.item for move in moves}


def test_no_move_turns_the_tables() -> None:
    """A room that would make the receiver busier than the giver stays, whatever the draw says."""
    rooms = [Weighed(0, "chat", 0.5, 500), Weighed(1, "chat", 0.45, 450)]
    for looks in range(5, 60):
        assert looked({"a": load(2, 0.95), "b": load(9, 0.5)}, rooms, looks=looks) == []


def test_the_measure_changes_at_once_and_goes_back_late() -> None:
    """One busy worker makes CPU the measure; rooms are counted again after half a calm minute."""
    shedder = Shedder[int]("a", random.Random(1))
    seen = []
    for second in range(50):
        cpu = 0.6 if second == 5 else 0.35 if 5 < second < 12 else 0.1
        shedder.decide({"a": load(5, 0.1), "b": load(5, cpu)}, [], now_s=float(second), now_ms=0)
        seen.append(shedder.measure)
    assert seen == [Measure.ROOMS] * 5 + [Measure.CPU] * 36 + [Measure.ROOMS] * 9


@pytest.mark.parametrize(("cpu", "measure"), [(0.35, Measure.CPU), (0.25, Measure.ROOMS)])
def test_who_joins_goes_by_what_the_others_do(cpu: float, measure: Measure) -> None:
    """Somebody may have been busy before: to go by rooms then would give back what is given by CPU."""
    shedder = Shedder[int]("new", random.Random(1))
    for second in range(6):
        shedder.decide({"new": load(0, 0.01), "old": load(50, cpu)}, [], now_s=float(second), now_ms=0)
    assert shedder.measure is measure


def test_who_is_held_up_gets_nothing() -> None:
    """A room given to it would wait for as long as its loop does."""
    assert looked({"a": load(20, 0.1), "b": load(0, 0.1, loop_lag_ms=150.0)}, weighed(20)) == []
    assert looked({"a": load(20, 0.1), "b": load(0, 0.1, loop_lag_ms=50.0)}, weighed(20))


# --- whole houses -----------------------------------------------------------------------------------------------------
@dataclass
class Worker:
    """One simulated worker: what each of its rooms takes of a core, in truth, and what it publishes."""

    name: str
    seed: int
    rooms: dict[int, float]
    max_rooms: int = 0
    cpu: float = 0.0
    row: Load = field(default_factory=load)

    def __post_init__(self) -> None:
        self.shedder = Shedder[int](self.name, random.Random(f"{self.seed} {self.name}"))

    def publish(self, second: int, chance: random.Random) -> None:
        """Write the row: a base, and the rooms with a tenth of noise, smoothed."""
        spent = min(1.0, 0.01 + sum(self.rooms.values()) * chance.uniform(0.9, 1.1))
        self.cpu += SMOOTHED * (spent - self.cpu)
        self.row = load(len(self.rooms), self.cpu, max_rooms=self.max_rooms, at_ms=second * 1000)

    def decide(self, rows: dict[str, Load], second: int, moved_at: dict[int, int]) -> list[Move[int]]:
        """Decide by the rows as they stand; rooms count as hot as they are."""
        total = sum(self.rooms.values()) or 1.0
        rooms = [
            Weighed(n, "chat", self.cpu * cost / total, 1000 * cost)
            for n, cost in self.rooms.items()
            if second - moved_at.get(n, -60) >= 60
        ]
        return self.shedder.decide(rows, rooms, now_s=float(second), now_ms=second * 1000)


class Simulated:
    """Workers that publish and decide one after another, once a second; one is empty, as it came just now."""

    def __init__(self, seed: int, *, givers: int, rooms_each: int, cost: float) -> None:
        self.chance = random.Random(seed)
        self.workers = []
        for n in range(givers):
            costs = {
                n * rooms_each + k: cost * self.chance.lognormvariate(-0.5, 1.0) if cost else 0.0
                for k in range(rooms_each)
            }
            self.workers.append(Worker(f"w{n}", seed, costs))
        self.workers.append(Worker("new", seed, {}))
        self.moved_at: dict[int, int] = {}
        self.moves = [0]
        for _ in range(20):
            for worker in self.workers:
                worker.publish(0, self.chance)

    def run(self, seconds: int) -> None:
        """Let time pass; the rooms of a second arrive at its end."""
        by_name = {worker.name: worker for worker in self.workers}
        for second in range(len(self.moves), len(self.moves) + seconds):
            decided = []
            for worker in self.workers:
                worker.publish(second, self.chance)
                rows = {other.name: other.row for other in self.workers}
                decided += [(worker, move) for move in worker.decide(rows, second, self.moved_at)]
            for worker, move in decided:
                by_name[move.target].rooms[move.item] = worker.rooms.pop(move.item)
                self.moved_at[move.item] = second
            self.moves.append(len(decided))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("givers", "rooms_each"), [(1, 60), (3, 167), (1, 1000), (20, 10)])
def test_a_new_worker_gets_its_share_of_calm_rooms(givers: int, rooms_each: int, seed: int) -> None:
    """Within 30 s it has it, nobody moved a room twice, and nothing moves any more for five minutes."""
    house = Simulated(seed, givers=givers, rooms_each=rooms_each, cost=0.0)
    house.run(30)
    mean = givers * rooms_each / (givers + 1)
    counts = [len(worker.rooms) for worker in house.workers]
    assert len(house.workers[-1].rooms) >= 0.8 * mean - 1, counts
    assert max(counts) <= 1.1 * mean + 2, counts
    assert sum(house.moves) <= 1.15 * mean + 2
    house.run(300)
    assert sum(house.moves[30:]) <= 0.1 * mean + 1, house.moves


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("givers", "rooms_each"), [(1, 60), (3, 167), (1, 1000), (1, 3000), (20, 40)])
def test_a_new_worker_gets_its_share_of_the_work(givers: int, rooms_each: int, seed: int) -> None:
    """Rooms differ by a hundred times and the figures are noisy; soon all are as busy, and then it is quiet."""
    house = Simulated(seed, givers=givers, rooms_each=rooms_each, cost=0.8 / rooms_each)
    house.run(30)
    assert house.workers[-1].shedder.measure is Measure.CPU
    busy = [sum(worker.rooms.values()) for worker in house.workers]
    mean = sum(busy) / len(busy)
    assert busy[-1] >= 0.7 * mean, busy
    house.run(300)
    busy = [sum(worker.rooms.values()) for worker in house.workers]
    assert max(busy) <= 1.3 * mean + 0.05, busy
    assert sum(house.moves[60:]) <= 0.05 * givers * rooms_each, house.moves

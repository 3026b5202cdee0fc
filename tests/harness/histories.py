"""Random histories of a room that uses everything, for rooms in memory."""

import random
from typing import Any

from innkeeper import Connection, Event, JobResult, Refused, Request, Response, Room, functions, job
from innkeeper.keys import room_keys
from innkeeper.testing import Client, RoomHarness


@job
def work(number: int) -> int:
    """Stand for a job; histories say what it returns."""
    return number


class Anything(Room):
    """Does something else with each message, as its own chance has it."""

    max_connections = 6

    def on_create(self) -> None:
        """Begin."""
        self.state["created"] = True

    def on_connect(self, conn: Connection) -> None:
        """Refuse some, fail for some, tag the others."""
        if self.random.random() < 0.1:
            raise Refused("not now")
        if self.random.random() < 0.1:
            raise ValueError(self.new_id())
        conn.tags = {f"t{self.random.randrange(3)}" for _ in range(3)}
        conn.state = {"since": self.now(), "n": 0}
        conn.send({"id": self.new_id()})

    async def on_message(self, conn: Connection, message: Any) -> None:
        """Change this and that."""
        chance = self.random
        self.state[f"key{chance.randrange(5)}"] = [message, self.now(), self.new_id()]
        self.state.setdefault("log", []).append(message)
        del self.state["log"][:-10]
        self.state.pop(f"key{chance.randrange(5)}", None)
        conn.state["n"] += 1
        others = list(self.connections)
        match chance.randrange(10):
            case 0:
                raise ValueError(message)
            case 1:
                self.broadcast(message, tags=f"t{chance.randrange(3)}")
            case 2:
                self.broadcast(message, exclude=chance.choice(others))
            case 3:
                chance.choice(others).close(4000 + chance.randrange(10), "by chance")
            case 4:
                self.post("other/room", chance.randrange(99))
            case 5:
                conn.tags.add(self.new_id())
            case 6 if chance.random() < 0.3:
                self.destroy()
            case 7:
                self.state[self.enqueue(work, chance.randrange(99), timeout=3, deadline=5)] = message
            case _:
                self.broadcast([message, chance.random()])

    def on_request(self, request: Request) -> Any:
        """Answer this way or that, fail, or end."""
        self.state["asked"] = [request.path, self.new_id()]
        match self.random.randrange(6):
            case 0:
                raise ValueError(request.path)
            case 1:
                return Response(request.body, 201, {"x-id": self.new_id()})
            case 2 if self.random.random() < 0.2:
                self.destroy()
            case 3:
                self.enqueue(work, request.path)
            case _:
                pass
        return request.json()

    def on_post(self, sender: str, message: Any) -> None:
        """Keep it, fail, or post on."""
        self.state["posted"] = [sender, message, self.now()]
        match self.random.randrange(3):
            case 0:
                raise ValueError(message)
            case 1:
                self.post(sender or "other/room", self.new_id())
            case _:
                self.broadcast(message)

    def on_job(self, result: JobResult) -> None:
        """Show it, or fail."""
        self.broadcast([self.state.pop(result.id, None), result.status, result.value, result.error])
        if self.random.random() < 0.2:
            raise ValueError(result.status)

    def on_leave(self, conn: Connection) -> None:
        """Show it."""
        self.broadcast({"left": conn.id, "state": conn.state})

    def on_error(self, error: Exception, event: Event) -> None:
        """Count."""
        self.state["errors"] = [str(error), event.id, self.new_id()]


def history(seed: int, *, length: int = 90) -> Any:
    """Return a script of random events; the seed says which."""

    async def script(room: RoomHarness) -> None:
        chance = random.Random(seed)
        clients: list[Client] = []
        for n in range(length):
            clients = [client for client in clients if client.is_open]
            what = chance.random()
            if not clients or what < 0.2:
                clients.append(await room.join(f"u{n}"))
            elif what < 0.3:
                await room.leave(chance.choice(clients))
            elif what < 0.35:
                await room.clock.advance(chance.random() * 10)
            elif what < 0.4:
                await chance.choice(clients).send_frame("{no" if chance.random() < 0.5 else b"\x00\x01")
            elif what < 0.5:
                await room.request("POST", f"/{n}", body=b"{no" if chance.random() < 0.3 else {"n": n})
            elif what < 0.6:
                await room.post(n, sender=chance.choice(["", "player/bob"]))
            elif what < 0.7 and room.jobs:
                how: dict[str, Any] = chance.choice([{"value": n}, {"error": f"{n}"}, {"status": "timeout"}])
                await room.finish(chance.choice(room.jobs).id, **how)
            else:
                await chance.choice(clients).send(chance.choice([n, str(n), {"n": n}, None]))

    return script


def written(room: RoomHarness) -> list[Any]:
    """Return the commands that would have been sent to Redis for a room's commits."""
    keys = room_keys(room._address)
    texts = []
    for version, commit in enumerate(room.commits):
        turn = commit.to_turn()
        turn.dead = [dead._replace(traceback="") for dead in turn.dead]
        fence: dict[str, Any] = {"token": "1:1", "version": version, "worker": "w", "lease_ms": 0, "keep_outputs": 0}
        texts.append(functions.commit(keys, turn=turn, **fence))
    return texts

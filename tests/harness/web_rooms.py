"""Rooms that tests ask over HTTP."""

import asyncio
from typing import Any

from innkeeper import Connection, Event, Request, Response, Room


class Web(Room):
    """Does what the path says, and counts what was applied."""

    message_bytes = 600_000
    request_s = 3.0

    def on_connect(self, conn: Connection) -> None:
        """Tell the count so far."""
        conn.send({"count": self.state.get("count", 0)})

    def on_message(self, conn: Connection, message: Any) -> None:
        """Send it to all."""
        self.broadcast({"from": conn.user.name, "message": message})

    async def on_request(self, request: Request) -> Any:
        """Do what the path says; what no method is for raises."""
        answer = getattr(self, f"do_{request.path[1:]}", None)
        if answer is None:
            self.state["broken"] = True
            raise RuntimeError("a secret")
        if wait := request.query.get("s"):
            await asyncio.sleep(float(wait))
        return answer(request)

    def do_echo(self, request: Request) -> Any:
        """Say what came."""
        headers = {name: request.headers[name] for name in sorted(request.headers) if name.startswith("x-")}
        return {
            "method": request.method, "query": request.query, "all": request.query_all, "headers": headers,
            "text": request.text(), "user": request.user.name, "cookie": request.headers.get("cookie"),
        }  # fmt: skip

    def do_count(self, request: Request) -> Any:  # noqa: ARG002 - like the others
        """Count, and show it to all."""
        self.state["count"] = self.state.get("count", 0) + 1
        self.broadcast({"count": self.state["count"]})
        return {"count": self.state["count"]}

    def do_bytes(self, request: Request) -> Any:
        """Return the body as bytes."""
        return request.body

    def do_json(self, request: Request) -> Any:
        """Return the body as JSON."""
        return request.json()

    def do_text(self, request: Request) -> Any:  # noqa: ARG002 - like the others
        """Return text."""
        return "héllo"

    def do_none(self, request: Request) -> Any:
        """Return nothing."""

    def do_teapot(self, request: Request) -> Any:  # noqa: ARG002 - like the others
        """Return a response."""
        return Response(b"short", 418, [("X-Pot", "1"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")], "x/y")

    def do_bad(self, request: Request) -> Any:  # noqa: ARG002 - like the others
        """Return what cannot be sent."""
        return object()

    def do_destroy(self, request: Request) -> Any:  # noqa: ARG002 - like the others
        """End the room."""
        self.destroy()
        return {"destroyed": True}

    def do_move(self, request: Request) -> Any:
        """Send everybody elsewhere."""
        for conn in self.connections:
            conn.move(request.query["to"])
        return {"moved": len(self.connections)}

    def on_error(self, error: Exception, event: Event) -> None:
        """Write it down."""
        self.state.setdefault("errors", []).append([str(error), event.kind])


class Deaf(Room):
    """Takes no requests."""


class Slow(Room):
    """Full after two events, and slow."""

    backlog_count = 2

    async def on_request(self, request: Request) -> Any:
        """Take a second."""
        await asyncio.sleep(1)
        return request.path


class Cutoff(Room):
    """Its requests are cut."""

    handler_s = 0.5

    async def on_request(self, request: Request) -> Any:
        """Never answer."""
        await asyncio.Event().wait()
        return request.path

"""The server a user would write by hand: aiohttp and uvloop, rooms in memory, one process, no guarantees."""

import argparse
import asyncio
import json
import os
from collections import defaultdict

import orjson
import uvloop
from aiohttp import WSMsgType, web

rooms: dict[str, set[web.WebSocketResponse]] = defaultdict(set)
counts: dict[str, int] = defaultdict(int)


async def serve_room(request: web.Request) -> web.WebSocketResponse:
    """Broadcast each message of a room to all its sockets; rooms of kind counter number them."""
    socket = web.WebSocketResponse(compress=False)
    await socket.prepare(request)
    kind, name = request.match_info["kind"], request.match_info["name"]
    members = rooms[name]
    members.add(socket)
    try:
        async for message in socket:
            if message.type is not WSMsgType.TEXT:
                continue
            value = orjson.loads(message.data)
            if kind == "counter":
                counts[name] += 1
                value = {"n": counts[name], **value}
            text = orjson.dumps(value).decode()
            for member in list(members):
                try:  # entering contextlib.suppress for each member would cost more than this does
                    await member.send_str(text)
                except ConnectionError:
                    members.discard(member)
    finally:
        members.discard(socket)
    return socket


async def main(port: int) -> None:
    """Serve until ended."""
    app = web.Application()
    app.router.add_get("/parties/{kind}/{name}", serve_room)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=1024).start()
    if descriptor := os.environ.pop("INNKEEPER_READY_FD", ""):
        with os.fdopen(int(descriptor), "w") as pipe:
            pipe.write(json.dumps({"ready": True, "port": runner.addresses[0][1]}) + "\n")
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0, help="0 picks a free one")
    uvloop.run(main(parser.parse_args().port))

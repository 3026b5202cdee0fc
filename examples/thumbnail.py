"""A job: pictures sent to the room are made small by another process, and everybody sees the result.

Needs Pillow (``pip install pillow``), and beside the worker ``innkeeper jobs examples/thumbnail.py``, which ``dev``
starts by itself.
"""

from base64 import b64decode, b64encode
from io import BytesIO

from innkeeper import Connection, JobResult, Room, job

SIZE = (160, 160)


class Thumbnail(Room):
    """One wall of pictures; rooms are ``thumbnail/<any name>``."""

    message_bytes = 700_000
    state_bytes = 4_194_304

    def on_connect(self, conn: Connection) -> None:
        """Show a newcomer the pictures."""
        for picture in self.state.get("pictures", []):
            conn.send({"type": "picture", "png": picture})

    def on_resync(self, conn: Connection) -> None:
        """Show them to one that has missed too much, too."""
        self.on_connect(conn)

    def on_message(self, conn: Connection, message: object) -> None:
        """Have a picture made small; the room goes on meanwhile."""
        if not isinstance(message, bytes):
            conn.send({"type": "error", "text": "send a picture as a binary message"})
            return
        job_id = self.enqueue(shrink, b64encode(message).decode(), timeout=20)
        self.state.setdefault("asked", {})[job_id] = conn.id
        self.broadcast({"type": "working", "count": len(self.state["asked"])})

    def on_job(self, result: JobResult) -> None:
        """Keep and show what a job made, or tell who asked why there is nothing."""
        asker = self.connections.get(self.state["asked"].pop(result.id))
        self.broadcast({"type": "working", "count": len(self.state["asked"])})
        if result.ok:
            pictures = self.state.setdefault("pictures", [])
            pictures.append(result.value)
            del pictures[:-20]
            self.broadcast({"type": "picture", "png": result.value})
        elif asker is not None:
            asker.send({"type": "error", "text": f"{result.status}: {result.error}"})


@job
def shrink(picture: str) -> str:
    """Return a picture (base64) as a small PNG (base64); runs under ``innkeeper jobs``."""
    from PIL import Image  # noqa: PLC0415 - only the jobs need it

    with Image.open(BytesIO(b64decode(picture))) as image:
        image.thumbnail(SIZE)
        small = BytesIO()
        image.convert("RGB").save(small, "PNG")
    return b64encode(small.getvalue()).decode()

"""A server with the shipped users of Redis, and an administrator without a password for the test itself."""

import os
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

REDIS = Path(__file__).parents[2] / "deploy" / "redis"


class Users:
    """The files that deploy/redis/make-secrets.sh makes, in a folder of the test's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        environment = os.environ | {"OUT": str(folder), "HOST": "127.0.0.1"}
        subprocess.run([REDIS / "make-secrets.sh"], env=environment, check=True, capture_output=True)
        self.acl = folder / "users.acl"
        shipped = self.acl.read_text(encoding="utf-8")
        if shipped.startswith("user default on nopass"):
            return  # made before
        assert shipped.startswith("user default off ")
        # The harness looks after its server without a login.
        self.acl.write_text("user default on nopass ~* &* +@all\n" + shipped.partition("\n")[2], encoding="utf-8")

    def password(self, user: str) -> str:
        """Return a user's password."""
        text = (self.folder / f"{user}.env").read_text(encoding="utf-8")
        return urlsplit(text.strip().partition("=")[2]).password or ""

    def url(self, user: str, port: int) -> str:
        """Return a user's URL of a server on this machine."""
        return f"redis://{user}:{self.password(user)}@127.0.0.1:{port}/0"

"""What a Redis URL gives away: how it is shown without its secrets, and whether it would go into the open."""

import ipaddress
import os
import re
from collections.abc import Iterable
from urllib.parse import parse_qsl, unquote, urlsplit

from innkeeper.errors import RedisUnusable

INSECURE_VARIABLE = "INNKEEPER_INSECURE_REDIS"

_USERINFO = re.compile(r"(?<=://)(.*)@", re.DOTALL)
_IN_QUERY = re.compile(r"(?<=password=)[^&]*")
_SECRET_QUERY = ("password", "sentinel_password", "ssl_password")
_UNREADABLE = "it cannot be read; in a password, write %40 for @, %2F for /, %3A for :, %3F for ? and %23 for #"


def without_password(url: str) -> str:
    """Return a Redis URL fit for logs and terminals: a password in it shows as three stars."""
    if "://" not in url and "@" in url:  # a slip: what stands before the last @ may be a password
        url = "***@" + url.rpartition("@")[2]
    return _IN_QUERY.sub("***", _USERINFO.sub(_starred, url, count=1))


def _starred(found: re.Match[str]) -> str:
    user, colon, _ = found[1].partition(":")
    return f"{user}:***@" if colon else f"{user}@"


def without_secrets(text: str, url: str) -> str:
    """Return what a library says of a URL, or that it cannot be read, where the text holds a piece of its password."""
    given = _USERINFO.search(url)
    password = given[1].partition(":")[2] if given else ""
    secrets = {piece for piece in re.split(r"[:/?#@\[\]]", password) if piece} | {password, unquote(password)}
    secrets |= {value for name, value in parse_qsl(url.partition("?")[2]) if name in _SECRET_QUERY}
    return _UNREADABLE if any(secret in text for secret in secrets - {""}) else text


def refuse_insecure(url: str, hosts: Iterable[str] = ()) -> None:
    """Refuse a server on another machine that nobody has to log in to, unless the user has said that this is wanted.

    Args:
        url: What the user gave.
        hosts: Where that has led to, such as the primary that Sentinels name; without them the URL's own are judged.

    Raises:
        RedisUnusable: It is one. A host name counts as another machine, but for ``localhost``.
        ValueError: The URL cannot be read.
    """
    if os.environ.get(INSECURE_VARIABLE, "0").lower() in ("1", "true", "yes", "on"):
        return
    parts = urlsplit(url)
    if parts.scheme != "unix" and "@" in parts.path:  # else what stands before a / would count as the host
        raise ValueError(_UNREADABLE)
    query = dict(parse_qsl(parts.query))
    if parts.scheme == "unix" or parts.password or query.get("password") or query.get("ssl_certfile"):
        return
    named = [urlsplit(f"//{text}").hostname or "" for text in parts.netloc.rpartition("@")[2].split(",")]
    named.append(query.get("host", ""))  # redis-py goes there, whatever stands before
    remote = [host for host in hosts or named if host and not _is_here(host)]
    if remote:
        led = f" leads to {remote[0]}, which is" if hosts else " is"
        raise RedisUnusable(
            f"Redis at {without_password(url)}{led} on another machine, and no password is given: whoever reaches it "
            "owns every room. Give it users (docs/deploy.md#users-of-redis) and name one in --redis, or say "
            f"--insecure-redis ({INSECURE_VARIABLE}=1)"
        )


def has_open_sentinels(url: str) -> bool:
    """Return whether a URL names Sentinels on other machines that nobody has to log in to."""
    parts = urlsplit(url)
    if not parts.scheme.endswith("+sentinel"):
        return False
    query = dict(parse_qsl(parts.query))
    hosts = [urlsplit(f"//{text}").hostname or "" for text in parts.netloc.rpartition("@")[2].split(",")]
    return not (query.get("sentinel_password") or query.get("ssl_certfile") or all(map(_is_here, hosts)))


def _is_here(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

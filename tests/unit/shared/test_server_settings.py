"""Which settings of a server are warned of, and in which words."""

import pytest

from innkeeper.server_settings import warnings_about

AOF_ON = "# Persistence\r\nloading:0\r\naof_enabled:1\r\n"
AOF_OFF = AOF_ON.replace("aof_enabled:1", "aof_enabled:0")
LIMITS = "normal 0 0 0 slave 268435456 67108864 60 pubsub "
SOUND = {
    "save": "", "appendfsync": "everysec", "client-output-buffer-limit": LIMITS + "33554432 8388608 60",
    "min-string-size-avoid-copy-reply": "16384", "min-string-size-avoid-copy-reply-threaded": "65536",
}  # fmt: skip


@pytest.mark.parametrize(
    ("info", "config"),
    [
        pytest.param(AOF_ON, SOUND, id="the servers' defaults with AOF"),
        pytest.param(AOF_ON, SOUND | {"appendfsync": "always", "min-string-size-avoid-copy-reply": "0"}, id="ours"),
        pytest.param(AOF_ON, {"appendfsync": "everysec"}, id="a server without Valkey's settings"),
        pytest.param(AOF_ON, SOUND | {"client-output-buffer-limit": LIMITS + "0 8388608 60"}, id="soft limit alone"),
        pytest.param("", {}, id="nothing shown"),
    ],
)
def test_sound_servers(info: str, config: dict[str, str]) -> None:
    """A server that can be lived with, or that shows nothing, is not complained about."""
    assert warnings_about(info, config) == []


@pytest.mark.parametrize(
    ("info", "config", "start", "remedy"),
    [
        (AOF_OFF, SOUND, "keeps nothing on disk", "Set appendonly yes"),
        (AOF_OFF, SOUND | {"save": "3600 1 300 100"}, "keeps no append-only file", "Set appendonly yes"),
        (AOF_OFF, {}, "keeps no append-only file", "Set appendonly yes"),
        (AOF_ON, SOUND | {"appendfsync": "no"}, "leaves it to the operating system", "Set appendfsync always"),
        (AOF_ON, SOUND | {"client-output-buffer-limit": LIMITS + "0 0 0"}, "has no limit", "pubsub 32mb 8mb 60"),
        (
            AOF_ON,
            SOUND | {"min-string-size-avoid-copy-reply": "1024"},
            "has min-string-size-avoid-copy-reply 1024",
            "Set it to 0",
        ),
        (
            AOF_ON,
            SOUND | {"min-string-size-avoid-copy-reply-threaded": "16383"},
            "has min-string-size-avoid-copy-reply-threaded 16383",
            "or to 16384 or more",
        ),
    ],
)
def test_costly_settings(info: str, config: dict[str, str], start: str, remedy: str) -> None:
    """Each is one sentence that says what it costs and what to set."""
    (warning,) = warnings_about(info, config)
    assert warning.startswith(start)
    assert remedy in warning


def test_several_at_once() -> None:
    """Every setting is judged by itself."""
    config = SOUND | {"client-output-buffer-limit": LIMITS + "0 0 0", "min-string-size-avoid-copy-reply": "1"}
    assert len(warnings_about(AOF_OFF, config)) == 3

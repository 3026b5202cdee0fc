"""The set behind conn.tags."""

import pytest

from innkeeper.tags import Tags


def test_tags_are_a_set_in_order() -> None:
    """They compare and combine as sets do, and iterate alike in every process."""
    tags = Tags(["red", "vip", "blue"])
    tags.add("blue")
    tags.update(["green"], {"red"})
    tags.discard("nobody's")
    tags.remove("vip")
    assert list(tags) == ["blue", "green", "red"]
    assert set(tags) == {"red", "green", "blue"}
    assert not tags ^ {"red", "green", "blue"}
    assert tags & {"red", "x"} == {"red"}
    assert {"red"} <= tags
    tags |= {"a"}
    assert repr(tags) == "Tags(['a', 'blue', 'green', 'red'])"
    assert len(tags) == 4
    with pytest.raises(KeyError):
        tags.remove("vip")
    with pytest.raises(TypeError, match="letters"):
        tags.update("vip")

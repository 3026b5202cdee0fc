"""A room's state: nested changes are noticed, undone and written key by key."""

import tracemalloc
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from innkeeper.errors import StateInvalid, StateTooLarge
from innkeeper.state import State


def fresh(limit_bytes: int = 1_000, **values: Any) -> State:
    """Return a state as loaded by an owner."""
    return State({key: orjson.dumps(value) for key, value in values.items()}, limit_bytes)


def test_reading_changes_nothing() -> None:
    """Looking at values, nested ones too, writes no key."""
    state = fresh(a=[1, {"b": 2}], n=1)
    assert state["a"][1]["b"] == 2
    assert state["n"] == 1
    assert list(state.items()) == [("a", [1, {"b": 2}]), ("n", 1)]
    assert state.settle() == ({}, set())


def test_only_changed_keys_are_written() -> None:
    """Of many touched keys those whose bytes differ are returned, nested changes included."""
    state = fresh(a=[1], b={"x": {"y": 1}}, c=[3], d=4)
    state["a"].append(2)
    state["b"]["x"]["y"] = 2
    state["c"].append(4)
    state["c"].pop()
    state["d"] = 4
    state["e"] = None
    assert state.settle() == ({"a": b"[1,2]", "b": b'{"x":{"y":2}}', "e": b"null"}, set())
    assert state.settle() == ({}, set())
    assert state.stored["e"] == b"null"


def test_a_value_kept_by_the_handler_is_noticed_when_its_key_is_looked_at() -> None:
    """Within one event, changes to a value taken before are seen; later they are seen with the next look."""
    state = fresh(a=[1])
    kept = state["a"]
    kept.append(2)
    assert state.settle() == ({"a": b"[1,2]"}, set())
    kept.append(3)
    assert state.settle() == ({}, set())
    assert state["a"] == [1, 2, 3]
    assert state.settle() == ({"a": b"[1,2,3]"}, set())


def test_undo_restores_what_was_stored() -> None:
    """Changes, nested changes, new keys and deletions of the running event are forgotten; earlier ones stay."""
    state = fresh(a=[1], b={"x": 1}, c=3)
    state["n"] = 1
    state.settle()
    state["a"].append(2)
    state["b"] = "other"
    state["new"] = [1]
    state["n"] = 2
    del state["c"]
    state.undo()
    assert dict(state) == {"a": [1], "b": {"x": 1}, "c": 3, "n": 1}
    assert state.settle() == ({}, set())


def test_deleting() -> None:
    """A deleted key is told as deleted once, is gone for reading, and may be set again."""
    state = fresh(a=1, b=2)
    del state["a"]
    assert "a" not in state
    assert state.get("a") is None
    with pytest.raises(KeyError):
        del state["a"]
    assert state.settle() == ({}, {"a"})
    assert state.settle() == ({}, set())
    state["a"] = 5
    assert state.settle() == ({"a": b"5"}, set())


def test_deleting_what_was_never_stored_writes_nothing() -> None:
    """A key that came and went within one event leaves no trace; one that went and came is written once."""
    state = fresh(a=1)
    state["x"] = 1
    del state["x"]
    del state["a"]
    state["a"] = 2
    assert state.settle() == ({"a": b"2"}, set())
    assert list(state) == ["a"]


def test_a_missing_key() -> None:
    """A key that is not there raises KeyError, like in a dict."""
    state = fresh()
    with pytest.raises(KeyError, match="nothing"):
        _ = state["nothing"]
    with pytest.raises(KeyError):
        del state["nothing"]
    assert state.pop("nothing", 7) == 7


def test_setdefault_gives_the_stored_object() -> None:
    """The value that setdefault returns is the one in the state, so changing it counts."""
    state = fresh()
    state.setdefault("history", []).append(1)
    assert state.settle() == ({"history": b"[1]"}, set())
    state.setdefault("history", []).append(2)
    assert state.settle() == ({"history": b"[1,2]"}, set())


def test_iteration_and_length() -> None:
    """Iterating gives stored keys, then new ones, without the deleted, and allows changes meanwhile."""
    state = fresh(a=1, b=2)
    state["c"] = 3
    del state["a"]
    assert (list(state), len(state)) == (["b", "c"], 2)
    for key in state:
        del state[key]
    assert (len(state), bool(state), dict(state)) == (0, False, {})
    state.update(z=1)
    state.clear()
    assert state.settle() == ({}, {"a", "b"})


def test_repr_shows_the_values() -> None:
    """A print in a handler shows what is in it."""
    assert repr(fresh(a=[1])) == "State({'a': [1]})"


@pytest.mark.parametrize(
    "value", [object(), {1: 2}, 2**70, b"x", "\ud800", {1}], ids=lambda value: type(value).__name__
)
def test_a_value_that_is_not_json(value: Any) -> None:
    """The error names the key; nothing was taken, and undo brings the event's start back."""
    state = fresh(a=[1])
    state["ok"] = 1
    state["a"] = [value]
    with pytest.raises(StateInvalid, match=r"self\.state\['a'\]"):
        state.settle()
    state.undo()
    assert dict(state) == {"a": [1]}


@pytest.mark.parametrize("key", [1, None, b"a", ("a",)])
def test_keys_are_text(key: Any) -> None:
    """Another key than text is refused where it is set, not in the commit."""
    state = fresh()
    with pytest.raises(StateInvalid, match="keys must be text"):
        state[key] = 1
    assert key not in state


def test_the_limit() -> None:
    """A state that would pass its limit is refused whole, with both numbers in the text."""
    state = fresh(limit_bytes=20, a="x" * 10)
    state["b"] = "y" * 4
    assert state.settle() == ({"b": b'"yyyy"'}, set())
    state["b"] = "y" * 5
    with pytest.raises(StateTooLarge, match="21 bytes, the limit is 20"):
        state.settle()
    state.undo()
    assert state["b"] == "yyyy"
    del state["a"]
    state["b"] = "y" * 17
    assert state.settle() == ({"b": b'"' + b"y" * 17 + b'"'}, {"a"})


def test_a_state_over_a_lowered_limit_may_shrink() -> None:
    """After a deploy with a smaller limit handlers may still make the state smaller, but not larger."""
    state = fresh(limit_bytes=5, a="x" * 100, b=1)
    state["a"] = "x" * 50
    assert set(state.settle()[0]) == {"a"}
    state["b"] = 12345
    with pytest.raises(StateTooLarge):
        state.settle()


keys = st.sampled_from("abcd")
values = st.recursive(
    st.none() | st.integers(-5, 5) | st.text("xy", max_size=2), lambda inner: st.lists(inner, max_size=2), max_leaves=3
)
steps = st.one_of(
    st.tuples(st.just("set"), keys, values), st.tuples(st.just("del"), keys, st.none()),
    st.tuples(st.just("append"), keys, values), st.tuples(st.sampled_from(("settle", "undo")), keys, st.none()),
)  # fmt: skip


@given(st.lists(steps, max_size=30))
def test_it_behaves_like_a_dict_with_undo(plan: list[tuple[str, str, Any]]) -> None:
    """Whatever is set, deleted, changed, settled and undone: reads match a dict, and what was told adds up to it."""
    state = fresh(limit_bytes=10_000, a=[1], b=2)
    told = dict(state.stored)
    model: dict[str, Any] = {"a": [1], "b": 2}
    for verb, key, value in plan:
        if verb == "set":
            state[key] = value
            model[key] = orjson.loads(orjson.dumps(value))
        elif verb == "del" and key in model:
            del state[key], model[key]
        elif verb == "append" and isinstance(model.get(key), list):
            state[key].append(value)
            model[key].append(orjson.loads(orjson.dumps(value)))
        elif verb == "undo":
            state.undo()
            model = {name: orjson.loads(data) for name, data in told.items()}
        elif verb == "settle":
            changed, deleted = state.settle()
            assert not set(changed) & deleted
            told.update(changed)
            for name in deleted:
                del told[name]
            assert told == {name: orjson.dumps(kept) for name, kept in model.items()}
        assert (dict(state), len(state), set(state)) == (model, len(model), set(model))


def test_a_large_state_is_cleared_and_walked_in_linear_time() -> None:
    """Each key is looked at a few times, not once for every other key."""
    stored = {f"k{n}": b"0" for n in range(20_000)}
    state = State(stored, 10_000_000)
    looks = 0

    class Counted(str):
        """A key that counts how often it is hashed."""

        __slots__ = ()

        def __hash__(self) -> int:
            nonlocal looks
            looks += 1
            return super().__hash__()

    state["new"] = 1
    assert len(state) == 20_001
    for _ in range(1_000):
        assert next(iter(state)) == "k0"
    state = State({Counted(key): data for key, data in stored.items()}, 10_000_000)
    looks = 0
    state.clear()
    assert not state
    assert len(state) == 0
    assert looks < 20 * len(stored)
    assert state.settle() == ({}, set(stored))


def test_small_values_take_little_memory() -> None:
    """What is kept of a value is its JSON, not the buffer that this was written into."""
    state = fresh(limit_bytes=1_000_000)
    tracemalloc.start()
    try:
        state.update({f"key{n}": n for n in range(1_000)})
        state.settle()
        used_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert used_bytes / 1_000 < 500

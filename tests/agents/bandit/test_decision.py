"""How deep each list is walked until there are enough different candidates."""

from backchannel.agents.bandit.decision import walk
from backchannel.agents.bandit.planner import MAX_BUDGET


def test_lists_are_walked_in_proportion_until_there_are_enough() -> None:
    lists = {"a": [f"a{rank}" for rank in range(9)], "b": ["a0", "b1", "b2"]}
    found, depths = walk({"a": 4, "b": 2}, lists, 5)
    assert depths == {"a": 4, "b": 2}
    assert found["a0"] == {"a": 1, "b": 1}
    assert list(found) == ["a0", "a1", "a2", "b1", "a3"]
    found, depths = walk({"a": 1, "b": 1}, lists, 50)
    assert len(found) == 11
    assert depths == {"a": MAX_BUDGET, "b": MAX_BUDGET}


def test_where_the_planned_lists_end_the_others_fill_up() -> None:
    lists = {"a": ["x", "y"], "b": ["y", "z", "w"], "c": ["v"]}
    found, depths = walk({"a": 3}, lists, 4)
    assert list(found) == ["x", "y", "v", "z"]
    assert depths == {"a": MAX_BUDGET, "b": 2, "c": 1}
    assert walk({"a": 3}, lists, 2)[1] == {"a": 2}

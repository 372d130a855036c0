"""The union: no duplicates, a known order, the budget kept."""

from hypothesis import given
from hypothesis import strategies as st

from backchannel.ops.lab.search.union import unite
from backchannel.schemas.events import MAX_DEPTH

NAMES = ("a", "b", "c")
LISTS = st.fixed_dictionaries({name: st.lists(st.integers(0, 12), unique=True, max_size=10) for name in NAMES})
ALLOCATIONS = st.fixed_dictionaries({name: st.integers(0, 6) for name in NAMES})


def test_strategies_take_turns_in_proportion() -> None:
    union = unite({"a": [1, 2, 3, 4], "b": [9, 2, 8]}, {"a": 3, "b": 1})
    assert [one.item for one in union.candidates] == [1, 2, 9, 3]
    assert [dict(one.ranks) for one in union.candidates] == [{"a": 1}, {"a": 2}, {"b": 1}, {"a": 3}]
    assert union.depth == {"a": 3, "b": 1}


def test_duplicates_are_refilled_and_ranks_say_who_produced_what() -> None:
    union = unite({"a": [1, 2, 3, 4], "b": [1, 2, 5, 6]}, {"a": 2, "b": 2}, distinct=4)
    assert [one.item for one in union.candidates] == [1, 2, 3, 5]
    assert dict(union.candidates[0].ranks) == {"a": 1, "b": 1}
    assert (union.depth, union.drawn) == ({"a": 3, "b": 3}, 6)


def test_who_was_not_asked_fills_up_last() -> None:
    union = unite({"a": [1], "b": [2, 3], "c": []}, {"a": 5}, distinct=2)
    assert [one.item for one in union.candidates] == [1, 2]
    assert union.depth == {"a": MAX_DEPTH, "b": 1}


@given(LISTS, ALLOCATIONS)
def test_what_is_drawn_is_what_was_asked(lists: dict[str, list[int]], allocation: dict[str, int]) -> None:
    union = unite(lists, allocation)
    items = [one.item for one in union.candidates]
    assert len(items) == len(set(items))
    assert set(items) == {item for name in NAMES for item in lists[name][: allocation[name]]}
    assert union.depth == {name: count for name, count in allocation.items() if count}
    for one in union.candidates:
        expected = {
            name: lists[name].index(one.item) + 1 for name in NAMES if one.item in lists[name][: allocation[name]]
        }
        assert dict(one.ranks) == expected


@given(LISTS, ALLOCATIONS, st.integers(1, 20))
def test_a_distinct_budget_is_filled_as_far_as_there_is_anything(
    lists: dict[str, list[int]], allocation: dict[str, int], budget: int
) -> None:
    union = unite(lists, allocation, distinct=budget)
    everything = {item for found in lists.values() for item in found}
    assert len(union.candidates) == min(budget, len(everything))
    for one in union.candidates:
        assert one.ranks
        for name, rank in one.ranks.items():
            assert lists[name][rank - 1] == one.item
            assert rank <= union.depth[name]

"""Lines are grouped by their keys."""

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from backchannel.agents.sums import Groups, SumTable, numbered, unique_inverse

# Few values, so that lines share keys, among them the lowest and the highest of very many.
SIZES = st.sampled_from([1, 3, 2**20, 2**31, 2**40, 2**62])


@st.composite
def lines(draw: st.DrawFn) -> tuple[list[int], list[tuple[int, ...]]]:
    """The number of values of each key column, and the codes of lines."""
    sizes = draw(st.lists(SIZES, min_size=1, max_size=5))
    code = [st.sampled_from(sorted({0, size // 3, size - 1})) for size in sizes]
    return sizes, draw(st.lists(st.tuples(*code), max_size=12))


@given(lines())
def test_lines_of_equal_keys_are_together_however_many_keys_there_could_be(
    some: tuple[list[int], list[tuple[int, ...]]],
) -> None:
    sizes, keys = some
    columns = np.array(keys, dtype=np.int64).reshape(-1, len(sizes)).T
    groups = Groups(*((codes, range(size)) for codes, size in zip(columns, sizes, strict=True)))
    assert list(groups.keys) == sorted(set(keys))
    assert [list(groups.keys)[line] for line in groups.lines.tolist()] == keys
    table = SumTable("table", tuple((f"key {place}", int) for place in range(len(sizes))), ("lines",))
    sums = groups.sums(table, [np.ones(len(keys))])
    assert sums.values[:, 0].tolist() == [keys.count(key) for key in groups.keys]
    twice = sums.merge(sums)
    assert list(twice.keys) == list(groups.keys)
    assert (twice.values == 2 * sums.values).all()


@given(st.lists(st.tuples(*[st.sampled_from([-(2**63), -1, 0, 2**63 - 1])] * 3), min_size=1))
def test_rows_are_numbered_in_their_order(rows: list[tuple[int, ...]]) -> None:
    numbers = numbered(*np.array(rows, dtype=np.int64).T).tolist()
    order = [sorted(set(rows)).index(row) for row in rows]
    assert [sorted(set(numbers)).index(number) for number in numbers] == order


@given(st.lists(st.sampled_from([-(2**63), -128, -1, 0, 1, 127, 2**63 - 1])), st.sampled_from([np.int64, np.int8]))
def test_distinct_numbers_are_those_of_numpy(numbers: list[int], kind: type[np.integer[Any]]) -> None:
    some = np.array(100 * numbers, dtype=np.int64).astype(kind)
    for found, expected in zip(unique_inverse(some), np.unique(some, return_inverse=True), strict=True):
        assert found.tolist() == expected.tolist()

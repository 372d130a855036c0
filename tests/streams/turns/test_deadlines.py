"""Entries that fall due."""

from hypothesis import given
from hypothesis import strategies as st

from backchannel.streams.turns.deadlines import Deadlines

TIMES = st.integers(0, 20)


@given(st.lists(TIMES | st.tuples(TIMES)))
def test_due_entries_come_by_time_and_number(steps: list[int | tuple[int]]) -> None:
    """However they were added; a tuple stands for taking what is due by then."""
    deadlines, model = Deadlines[str](), list[tuple[int, int, str]]()
    for number, step in enumerate(steps):
        if isinstance(step, int):
            deadlines.add(step, number, f"entry {number}")
            model.append((step, number, f"entry {number}"))
        else:
            assert deadlines.through(*step) == sorted(one for one in model if one[0] <= step[0])
            model = [one for one in model if one[0] > step[0]]
        assert len(deadlines) == len(model)
        assert deadlines.last() == max((due for due, _, _ in model), default=None)

"""Nobody is read far ahead of the others, and somebody always."""

from faust.types import TP
from hypothesis import given
from hypothesis import strategies as st

from backchannel.streams.kafka.reading_order import not_ahead

TPS = st.builds(TP, st.sampled_from("abcd"), st.integers(0, 2))


@given(
    left=st.dictionaries(TPS, st.integers(0, 3000)),
    reached=st.dictionaries(TPS, st.integers(0, 5)),
    most=st.integers(0, 2000),
)
def test_somebody_is_always_read_where_something_is_left(
    left: dict[TP, int], reached: dict[TP, int], most: int
) -> None:
    due = not_ahead(left, reached, most)
    assert {tp for tp, records in left.items() if records <= most} <= due <= left.keys()
    assert {tp.partition for tp, records in left.items() if records} <= {tp.partition for tp in due if left[tp]}
    for held in left.keys() - due:
        assert any(tp.partition == held.partition and reached.get(tp, 0) < reached[held] for tp in due if left[tp])

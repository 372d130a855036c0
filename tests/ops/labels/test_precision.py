"""From which confidence on something is exported."""

from hypothesis import given
from hypothesis import strategies as st

from backchannel.ops.labels.learned import Learned, Told
from backchannel.ops.labels.precision import Cut, Precision, cut


def test_it_is_where_enough_of_the_labels_above_are_right() -> None:
    checks = [(0.9, 1.0)] * 60 + [(0.5, 0.0)] * 60
    assert cut(checks, 0.9) == Cut(0.9, 60, 1.0)
    assert cut([(0.4, 1.0)] * 60, 0.9) == Cut(0.4, 60, 1.0)  # confidences may be too low


def test_with_too_few_labels_the_confidence_is_believed() -> None:
    assert cut([], 0.9) == Cut(0.9)
    assert cut([(0.3, 1.0)] * 24, 0.9) == Cut(0.9)
    assert cut([(0.3, 1.0)] * 25, 0.9) == Cut(0.3, 25, 1.0)
    assert cut([(0.3, 1.0)] * 51, 0.95) == Cut(0.95)


def test_where_labels_say_no_nothing_is_exported() -> None:
    assert cut([(0.99, 0.0)] * 30, 0.9) == Cut(None, 30)


@given(
    st.lists(st.tuples(st.sampled_from([0.2, 0.5, 0.9, 0.95]), st.sampled_from([0.0, 0.5, 1.0])), max_size=120),
    st.sampled_from([0.5, 0.9]),
)
def test_what_is_above_is_right_as_often_as_it_says(checks: list[tuple[float, float]], declared: float) -> None:
    found = cut(checks, declared)
    above = [right for confidence, right in checks if found.confidence is not None and confidence >= found.confidence]
    if found.precision is not None:
        assert found.labels == len(above)
        assert found.precision == round(sum(above) / len(above), 4)
        assert found.precision > declared


def test_fields_and_provenances_are_told_apart() -> None:
    precision = Precision(0.9)
    for number in range(50):
        precision.add("interpretation", Told("a", 0.5 + number / 100, "rephrase"), 1.0)
        precision.add("interpretation", Told("a", 0.99, "success"), 0.0)
    sure, unsure = Told("a", 0.6, "rephrase"), Told("a", 0.99, "success")
    one = Learned(ts=0, session_id="s", query_id="q", text="t", interpretation=sure, entity=sure, failure_point=unsure)
    found = precision.passing(one)
    assert found.interpretation is not None
    assert found.interpretation.precision == 1.0
    assert found.entity is None  # unchecked, and below .9
    assert found.failure_point == unsure  # unchecked, and above .9
    assert precision.passing(Learned(0, "s", "q", "t", interpretation=unsure)).interpretation is None

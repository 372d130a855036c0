"""Measures of how well failure points are told, against what they are by definition."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from backchannel.agents.failures.quality import MEASURES, Answers, Quality, gain, measure, values_of
from backchannel.agents.sums import Floats
from backchannel.schemas.snapshot import Estimate

POINTS = 3
# Labels of a person: the truth, the weight, and the scores of the failure points; the last truth cannot be told.
LABELS = st.lists(
    st.tuples(
        st.integers(0, POINTS),
        st.sampled_from([0.25, 1.0, 2.0]),
        st.lists(st.integers(0, 3), min_size=POINTS, max_size=POINTS),
        st.integers(0, 4),
    ),
    min_size=1,
    max_size=12,
)
Given = list[tuple[int, float, list[int], int]]


def given_(labels: Given) -> tuple[Answers, Floats]:
    truth, weights, scores, people = zip(*labels, strict=True)
    answers = Answers(np.array(truth), np.array(weights), np.unique(people, return_inverse=True)[1])
    return answers, np.array(scores) / 4


def by_definition(labels: Given) -> list[float]:
    told = [scores.index(max(scores)) for _, _, scores, _ in labels]
    cause = [1 + scores[1:].index(max(scores[1:])) for _, _, scores, _ in labels]

    def total(which: list[bool]) -> float:
        return sum(one[1] for one, own in zip(labels, which, strict=True) if own)

    def share(part: float, whole: float) -> float:
        return part / whole if whole else 0.0

    truth = [one[0] for one in labels]
    f1 = []
    for point in range(POINTS):
        right = total([a == b == point for a, b in zip(truth, told, strict=True)])
        f1.append(share(2 * right, total([a == point for a in truth]) + total([b == point for b in told])))
    failed = [one for one in labels if one[0]]
    fine = [one for one in labels if not one[0]]
    pairs = sum(
        bad[1] * good[1] * ((bad[2][0] < good[2][0]) + (bad[2][0] == good[2][0]) / 2)
        for bad, good in product(failed, fine)
    )
    return [
        share(total([a == b for a, b in zip(truth, told, strict=True)]), total([True] * len(labels))),
        sum(f1) / POINTS,
        share(pairs, sum(one[1] for one in failed) * sum(one[1] for one in fine)),
        share(total([a == b and a > 0 for a, b in zip(truth, cause, strict=True)]), total([a > 0 for a in truth])),
    ]


@given(LABELS)
def test_values_are_what_they_are_by_definition(labels: Given) -> None:
    assert values_of(*given_(labels)) == pytest.approx(by_definition(labels))


@given(LABELS)
def test_a_label_of_twice_the_weight_counts_as_two(labels: Given) -> None:
    twice = [(truth, 2 * weight, scores, person) for truth, weight, scores, person in labels[:1]]
    assert values_of(*given_([*labels, labels[0]])) == pytest.approx(values_of(*given_([*twice, *labels[1:]])))


def many(people: int) -> tuple[Answers, Floats]:
    rng = np.random.default_rng(5)
    truth = rng.integers(2, size=400)
    return Answers(truth, np.ones(400), np.arange(400) % people), np.eye(2)[np.where(rng.random(400) < 0.2, 0, truth)]


def width(quality: Quality) -> float:
    return quality.accuracy.high - quality.accuracy.low


def test_intervals_are_over_people_and_contain_the_value() -> None:
    for quality in (measure(*many(400)), measure(*many(4))):
        assert all(one.low <= one.value <= one.high for one in structs.astuple(quality))
    answers, found = many(400)
    same = Answers(answers.truth, answers.weights, np.repeat(np.arange(20), 20))
    right = np.repeat(np.arange(20) % 2, 20)  # people are told right always or never
    alike = np.eye(2)[np.where(right, answers.truth, 1 - answers.truth)]
    assert width(measure(same, alike)) > 2 * width(measure(answers, found))


def test_a_gain_is_paired() -> None:
    answers, found = many(40)
    assert structs.astuple(gain(answers, found, found)) == (Estimate(0.0, 0.0, 0.0),) * 4
    better = found.copy()
    better[:100] = np.eye(2)[answers.truth[:100]]
    gained = gain(answers, found, better)
    assert gained.accuracy.value == pytest.approx(
        measure(answers, better).accuracy.value - measure(answers, found).accuracy.value
    )
    assert gained.accuracy.low > 0
    assert width(gained) < width(measure(answers, found))


def test_every_measure_has_a_name() -> None:
    assert len(MEASURES) == len(Quality.__struct_fields__)

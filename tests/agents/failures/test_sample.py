"""The bounded sample of labelled turns: what it keeps, and that it is a sum."""

from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backchannel.agents.checks import learn
from backchannel.agents.columnar.interning import columns_of
from backchannel.agents.failures.evidence import evidence, vectors
from backchannel.agents.failures.learner import POINTS, FailureConfig
from backchannel.agents.failures.sample import LabelledTurns, LabelSample
from backchannel.agents.learner import hash_of
from backchannel.agents.sums import Delta, MemorySums, Sums, merge
from backchannel.schemas.events import Label, Query
from backchannel.schemas.turn import Turn
from tests.support.turns import DAY, impression, label

SAMPLE = LabelSample(FailureConfig(labels_half_life_days=1.0))


def labelled(number: int, *labels: Label, ts: int = 0, user: str | None = "ann", text: str = "play jazz") -> Turn:
    asked = Query(event_id="e", ts=ts, session_id=f"s{number % 3}", query_id=f"q{number}", text=text, user_id=user)
    return Turn.of(asked, [impression(outcome="answered"), *labels])


def turns_of(delta: Delta, sample: LabelSample = SAMPLE, at: int = 0) -> LabelledTurns:
    return sample.turns(MemorySums(delta), at)


def shares(found: LabelledTurns, row: int = 0) -> dict[str, float]:
    return {point: share for point, share in zip(POINTS, found.labels[row].tolist(), strict=True) if share}


NUMBERS = st.lists(st.integers(0, 40), max_size=12, unique=True)


@given(st.lists(NUMBERS, min_size=1, max_size=4), st.integers(1, 6), st.randoms())
@settings(max_examples=50)
def test_the_sample_is_the_same_in_any_order_and_whatever_was_dropped_on_the_way(
    batches: list[list[int]], size: int, rng: Random
) -> None:
    sample = LabelSample(FailureConfig(sampled=size))
    deltas = [learn(sample, [labelled(number, label(failure_point="result")) for number in some]) for some in batches]
    rng.shuffle(deltas)
    kept = Sums(sample.table)
    for delta in deltas:
        kept = merge([{sample.name: kept}, delta])[sample.name]
        dropped = set(sample.excess(MemorySums({sample.name: kept}), {key[0] for key in kept.keys}, 0))
        left = [row for row, key in enumerate(kept.keys) if key not in dropped]
        kept = Sums(sample.table, [kept.keys[row] for row in left], kept.values[left], kept.landmark)
        assert len(left) <= size
    whole = learn(sample, [labelled(number, label(failure_point="result")) for some in batches for number in some])
    one, other = turns_of({sample.name: kept}, sample), turns_of(whole, sample)
    assert one.vectors.tolist() == other.vectors.tolist()
    assert one.labels.tolist() == other.labels.tolist()
    assert one.people == other.people
    assert one.sessions == other.sessions


def test_a_turn_is_kept_with_the_numbers_that_the_ridge_learns_from() -> None:
    turns = [labelled(number, label(failure_point="correct"), text=f"play {number}") for number in range(9)]
    found = turns_of(learn(SAMPLE, turns))
    expected = vectors((one.values() for one in evidence(columns_of(turns))), len(turns))
    assert sorted(found.vectors.tolist()) == sorted(expected.tolist())


def test_the_latest_label_counts_and_disagreement_is_kept() -> None:
    changed = [label(at=1, failure_point="result"), label(at=2, failure_point="recognition")]
    assert shares(turns_of(learn(SAMPLE, [labelled(1, *changed)]))) == {"recognition": 1.0}
    disputed = [*changed, label("joe", failure_point="correct")]
    assert shares(turns_of(learn(SAMPLE, [labelled(1, *disputed)]))) == {"recognition": 0.5, "correct": 0.5}


def test_labels_count_half_as_much_after_their_half_life() -> None:
    delta = learn(SAMPLE, [labelled(1, label(failure_point="correct"))])
    assert shares(turns_of(delta, at=DAY)) == {"correct": 0.5}


def test_turns_without_labels_of_failure_points_are_left_out() -> None:
    assert learn(SAMPLE, [labelled(1), labelled(2, label(goal="reached"))]) == {}
    assert turns_of({}).labels.shape == (0, len(POINTS))


def test_people_are_users_or_sessions_without_one_and_are_hashed() -> None:
    turns = [labelled(number, label(failure_point="correct"), user=user) for number, user in enumerate(("ann", None))]
    found = turns_of(learn(SAMPLE, turns))
    assert set(found.people) == {hash_of(SAMPLE.salt, name) for name in ("ann", "s1")}
    assert len(set(found.sessions)) == 2


@pytest.mark.parametrize("prefix", ["q", "2026-11-29/", ""])
def test_of_similar_ids_none_is_preferred(prefix: str) -> None:
    sample = LabelSample(FailureConfig(sampled=500))
    asked = [
        Query(event_id="e", ts=0, session_id="s", query_id=f"{prefix}{number}", text=str(number % 10))
        for number in range(2_000)
    ]
    delta = learn(sample, [Turn.of(one, [label(failure_point="correct")]) for one in asked])
    found = turns_of(delta, sample).vectors
    every = vectors((one.values() for one in evidence(columns_of([Turn.of(one) for one in asked]))), len(asked))
    off = np.abs(found.mean(axis=0) - every.mean(axis=0))
    assert off.max() < 0.07  # five standard deviations of a share of a tenth among 500 of 2,000

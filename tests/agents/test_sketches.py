"""The sketch never counts more people than there were, and adds up."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backchannel.agents.rewrites.rows import held_out, is_held_out
from backchannel.agents.sketches import BUCKETS, bucket, buckets, distinct, unit_hash, unit_hashes

VISITS = st.lists(st.tuples(st.sampled_from([f"user-{number}" for number in range(12)]), st.floats(0, 1)), max_size=40)


def sketch(visits: list[tuple[str, float]]) -> np.ndarray:
    weights = np.zeros(len(BUCKETS))
    for name, weight in visits:
        weights[bucket(name)] += weight
    return weights


@given(VISITS, VISITS)
def test_it_counts_no_more_than_there_were(some: list[tuple[str, float]], others: list[tuple[str, float]]) -> None:
    both = sketch(some) + sketch(others)
    assert both == pytest.approx(sketch(some + others))
    assert distinct(both) <= len({name for name, _ in some + others}) + 1e-9
    assert distinct(both) <= sum(weight for _, weight in some + others) + 1e-9
    assert distinct(both) >= distinct(sketch(some)) - 1e-9


def test_it_counts_about_as_many_as_expected() -> None:
    buckets = len(BUCKETS)
    for people in (1, 2, 3, 5, 8):
        drawn = [
            float(distinct(sketch([(f"user-{number}-{draw}", 1.0) for number in range(people)]))) for draw in range(400)
        ]
        assert np.mean(drawn) == pytest.approx(buckets * (1 - (1 - 1 / buckets) ** people), rel=0.05)


def test_somebody_who_comes_often_is_one() -> None:
    assert distinct(sketch([("ann", 1.0)] * 1000)) == 1
    assert distinct(np.stack([sketch([("ann", 0.5)]), sketch([])])).tolist() == [0.5, 0.0]


@given(st.lists(st.text(st.characters(codec="utf-8"))))
def test_names_are_hashed_together_as_one_by_one(names: list[str]) -> None:
    assert unit_hashes(names).tolist() == list(map(unit_hash, names))
    assert buckets(names).tolist() == list(map(bucket, names))
    assert held_out(names, 0.3).tolist() == [is_held_out(name, 0.3) for name in names]

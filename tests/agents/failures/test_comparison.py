"""The ridge beside the challenger: the same turns and folds, people and sessions apart."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backchannel.agents.failures import comparison
from backchannel.agents.failures.comparison import FewLabelsError, compare, folds_of, groups_of, verdict_of
from backchannel.agents.failures.evidence import WIDTH
from backchannel.agents.failures.learner import POINTS, FailureConfig, FailurePoints
from backchannel.agents.failures.quality import Quality
from backchannel.agents.failures.sample import LabelledTurns
from backchannel.agents.labelled.learner import FOLDS
from backchannel.agents.sums import Floats
from backchannel.schemas.snapshot import Estimate
from tests.agents.failures.test_challenger import needs_lightgbm

LEARNER = FailurePoints(FailureConfig(min_labels=3))
CORRECT, RECOGNITION, RESULT = map(POINTS.index, ("correct", "recognition", "result"))
_BITS = -40  # of names that are hashed


def turns_of(people: Sequence[object], sessions: Sequence[int] | None = None) -> LabelledTurns:
    turns = len(people)
    numbers = list(range(turns)) if sessions is None else list(sessions)
    return LabelledTurns(np.zeros((turns, WIDTH)), np.zeros((turns, len(POINTS))), list(map(str, people)), numbers)


def world(turns: int, *, additive: bool) -> LabelledTurns:
    """Turns that failed if both of two bits hold or neither does, or if the first one does; of a tenth the opposite."""
    rng = np.random.default_rng(2)
    found = turns_of([row % 50 for row in range(turns)])
    bits = rng.integers(2, size=(turns, 8))
    found.vectors[:, 0] = 1.0
    found.vectors[:, _BITS : _BITS + 8] = bits
    failed = (bits[:, 0] == (1 if additive else bits[:, 1])) ^ (rng.random(turns) < 0.1)
    found.labels[np.arange(turns), np.where(failed, RECOGNITION, CORRECT)] = 1.0
    return found


def by_share(features: Floats, labels: Floats, tested: Floats) -> Floats:
    """Stands for the challenger: the shares of all labels."""
    return np.repeat(labels.sum(axis=0, keepdims=True) / labels.sum(), len(tested), axis=0)


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=12))
def test_turns_that_share_a_person_or_a_session_are_in_one_group_and_others_are_not(
    turns: list[tuple[int, int]],
) -> None:
    group = list(range(len(turns)))
    for _ in turns:  # of any two that are linked, the least
        for row, (person, session) in enumerate(turns):
            linked = [one for one, (who, where) in zip(group, turns, strict=True) if who == person or where == session]
            group[row] = min(linked)
    found = groups_of(turns_of(*zip(*turns, strict=True))).tolist()
    assert set(found) == set(range(len(set(group))))
    assert len(set(zip(found, group, strict=True))) == len(set(group))


@given(st.lists(st.integers(0, 30), min_size=1, max_size=200))
def test_a_group_is_in_one_fold_and_folds_are_as_equal_as_groups_allow(people: list[int]) -> None:
    groups = groups_of(turns_of(people))
    folds = folds_of(groups)
    assert len(set(zip(folds.tolist(), groups.tolist(), strict=True))) == len(set(groups.tolist()))
    sizes = np.bincount(folds, minlength=FOLDS)
    assert sizes.max() - sizes.min() <= np.bincount(groups).max()


def test_no_turn_is_told_by_what_was_learned_from_its_person(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = world(300, additive=True)
    for row, person in enumerate(turns.people):
        turns.vectors[row, -30:] = [int(digit) for digit in f"{int(person):030b}"]
    told = []

    def remember(features: Floats, labels: Floats, tested: Floats) -> Floats:
        own, others = ({tuple(row) for row in some[:, -30:].tolist()} for some in (tested, features))
        assert not own & others
        told.append(len(tested))
        return by_share(features, labels, tested)

    monkeypatch.setattr(comparison, "boosted", remember)
    found = compare(turns, LEARNER)
    assert (found.turns, found.people) == (300, 50)
    assert sum(told) == 300
    assert found.ridge.accuracy.low > found.challenger.accuracy.high


def test_a_failure_point_with_too_few_labels_is_unknown_and_told_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "boosted", by_share)
    turns = world(300, additive=True)
    turns.labels[:30] = np.eye(len(POINTS))[RESULT]
    found = compare(turns, FailurePoints(FailureConfig(min_labels=40)))
    assert found.labels.keys() == {"correct", "recognition"}
    assert found.unknown == [point for point in POINTS if point not in found.labels]
    assert max(found.ridge.accuracy.value, found.challenger.accuracy.value) <= 0.9


def test_disagreement_counts_by_its_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "boosted", by_share)
    turns = world(300, additive=True)
    turns.labels[:] = 0.0
    turns.labels[:, CORRECT], turns.labels[:, RECOGNITION] = 0.75, 0.25
    found = compare(turns, LEARNER)
    assert found.labels == {"correct": 225.0, "recognition": 75.0}
    assert found.ridge.accuracy.value == found.challenger.accuracy.value == 0.75


def test_too_few_people_or_labels_are_an_error_that_says_of_what() -> None:
    four = world(300, additive=True)._replace(people=[str(row % 4) for row in range(300)])
    with pytest.raises(FewLabelsError, match="of 4 people"):
        compare(four, LEARNER)
    nobody = turns_of([])
    with pytest.raises(FewLabelsError, match="of 0 people"):
        compare(nobody, LEARNER)
    fine = world(300, additive=True)
    fine.labels[:, CORRECT] += fine.labels[:, RECOGNITION]
    fine.labels[:, RECOGNITION] = 0.0
    with pytest.raises(FewLabelsError, match=r"fewer than 3 labels \(failures.min_labels\)"):
        compare(fine, LEARNER)


@needs_lightgbm
def test_it_says_where_trees_are_better_and_where_they_are_not() -> None:
    crossed, added = (compare(world(400, additive=additive), LEARNER) for additive in (False, True))
    assert crossed.gain.accuracy.low > 0.2
    assert "better in accuracy" in crossed.verdict
    assert added.gain.accuracy.high < 0.05


def test_a_verdict_goes_by_intervals() -> None:
    better, worse, unclear = Estimate(0.2, 0.1, 0.3), Estimate(-0.2, -0.3, -0.1), Estimate(0.1, -0.1, 0.3)
    said = verdict_of(Quality(better, worse, unclear, better))
    assert said == (
        "Gradient boosting: better in accuracy, right cause of a failure; worse in macro-F1; "
        "no clear difference in ROC area of any failure"
    )

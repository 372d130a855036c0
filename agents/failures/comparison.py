"""The ridge beside gradient boosting, on the same folds of the same labelled turns; people and sessions are kept apart.

Both learn from the same numbers and labels, and tell the failure points that the ridge would publish from the turns of
the other folds. Folds are as equal in turns as people allow. Turns of a session, and all turns of its users, are in one
fold, and are one person where intervals are over people.
"""

import numpy as np
from msgspec import Struct, structs
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from backchannel.agents.failures.challenger import boosted, features_of
from backchannel.agents.failures.learner import POINTS, FailurePoints
from backchannel.agents.failures.quality import MEASURES, Answers, Quality, gain, measure
from backchannel.agents.failures.sample import LabelledTurns
from backchannel.agents.failures.serving import CORRECT
from backchannel.agents.labelled.learner import FOLDS
from backchannel.agents.labelled.ridge import LabelSums
from backchannel.agents.sums import Booleans, Integers
from backchannel.schemas.errors import BackchannelError


class FewLabelsError(BackchannelError, ValueError):
    """There are too few labels to compare learners; the message says of what."""


class Comparison(Struct, frozen=True):
    """How well two learners tell failure points, cross-validated.

    Attributes:
        turns: number of labelled turns.
        people: number of people; a session without a user is one.
        labels: failure point -> number of labels (decayed), of those that are told.
        unknown: failure points with too few labels to learn from: they are never told, and a turn of them counts as
            told wrong.
        ridge: the learner whose weights are published.
        challenger: gradient boosting, which is not published.
        gain: by how much the challenger is better.
        verdict: in words, at which measures the interval of the gain is above or below 0.
    """

    turns: int
    people: int
    labels: dict[str, float]
    unknown: list[str]
    ridge: Quality
    challenger: Quality
    gain: Quality
    verdict: str


def compare(turns: LabelledTurns, learner: FailurePoints) -> Comparison:
    """Compare the two learners.

    Args:
        turns: labelled turns.
        learner: the learner of failure points, whose `min_labels` a failure point needs.

    Raises:
        FewLabelsError: there are too few people, or too few labels to learn from all folds but one.
        ModuleNotFoundError: LightGBM is not installed.
    """
    groups = groups_of(turns)
    people = int(groups.max(initial=-1)) + 1
    if people < FOLDS:
        raise FewLabelsError(
            f"labelled turns of {people} people are kept, and a comparison needs those of at least {FOLDS}: label "
            "turns of other users, or of sessions without a `user_id`"
        )
    folds, features = folds_of(groups), features_of(turns.vectors)
    by_fold = [_sums(turns, folds == fold) for fold in range(FOLDS)]
    told = np.zeros(len(POINTS), dtype=bool)
    ridge, challenger = np.zeros((2, len(folds), len(POINTS)))
    for fold in range(FOLDS):
        found = learner.fit_of([one for place, one in enumerate(by_fold) if place != fold])
        if found is None or CORRECT not in found[0].points:
            raise FewLabelsError(
                f"some of the {FOLDS} folds of people leave fewer than {learner.config.min_labels:g} labels "
                f"(failures.min_labels) of {CORRECT!r}, or of every failure: label more turns of other people"
            )
        own, tested = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        points = np.array([POINTS.index(point) for point in found[0].points])
        cells = np.ix_(tested, points)
        told[points] = True
        ridge[cells] = found[1].model.probabilities(turns.vectors[tested])
        challenger[cells] = boosted(features[own], turns.labels[np.ix_(own, points)], features[tested])
    rows, truth = np.nonzero(turns.labels)
    ridge, challenger = ridge[np.ix_(rows, told)], challenger[np.ix_(rows, told)]
    place = np.where(told, told.cumsum() - 1, told.sum())  # among what is told; what is not has no column
    answers = Answers(place[truth], turns.labels[rows, truth], groups[rows])
    gained, total = gain(answers, ridge, challenger), turns.labels.sum(axis=0)
    labels = {POINTS[point]: round(float(total[point]), 3) for point in np.flatnonzero(told)}
    return Comparison(
        turns=len(folds),
        people=people,
        labels=labels,
        unknown=[point for point in POINTS if point not in labels],
        ridge=measure(answers, ridge),
        challenger=measure(answers, challenger),
        gain=gained,
        verdict=verdict_of(gained),
    )


def groups_of(turns: LabelledTurns) -> Integers:
    """Return the number of each turn's person, (turns,), from 0: turns that share a person or a session share it."""
    _, people = np.unique(turns.people, return_inverse=True)
    _, sessions = np.unique(turns.sessions, return_inverse=True)
    sessions += len(people)
    size = 2 * len(people)
    links = coo_array((np.ones(len(people)), (people, sessions)), shape=(size, size))
    _, parts = connected_components(links, directed=False)
    return np.asarray(np.unique(parts[people], return_inverse=True)[1], dtype=np.int64)


def folds_of(groups: Integers) -> Integers:
    """Return the fold of each turn, (turns,), 0 to FOLDS - 1: groups go, the largest first, to the smallest fold."""
    sizes = np.bincount(groups)
    fold, filled = np.zeros(len(sizes), dtype=np.int64), np.zeros(FOLDS)
    for group in np.argsort(-sizes, kind="stable").tolist():
        fold[group] = filled.argmin()
        filled[fold[group]] += sizes[group]
    return fold[groups]


def verdict_of(gained: Quality) -> str:
    """Return in words at which measures gradient boosting is better, and at which it is worse."""
    said: dict[str, list[str]] = {"better": [], "worse": [], "no clear difference": []}
    for name, one in zip(MEASURES, structs.astuple(gained), strict=True):
        said["better" if one.low > 0 else "worse" if one.high < 0 else "no clear difference"].append(name)
    return "Gradient boosting: " + "; ".join(f"{how} in {', '.join(names)}" for how, names in said.items() if names)


def _sums(turns: LabelledTurns, own: Booleans) -> LabelSums:
    vectors, labels = turns.vectors[own], turns.labels[own]
    return LabelSums((vectors.T * labels.sum(axis=1)) @ vectors, vectors.T @ labels, np.zeros(len(POINTS)))

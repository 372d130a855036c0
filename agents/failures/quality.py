"""How well failure points are told, by labels of people that were not learned from."""

from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np
from msgspec import Struct

from backchannel.agents.sums import Floats, Integers
from backchannel.schemas.snapshot import Estimate

SAMPLES: Final = 200
"""Samples of people, for intervals."""

MEASURES: Final = ("accuracy", "macro-F1", "ROC area of any failure", "right cause of a failure")
"""The fields of `Quality` in words."""


class Quality(Struct, frozen=True):
    """How well failure points are told, or how much better; intervals of 95% are over people.

    Attributes:
        accuracy: share of turns with the right failure point.
        macro_f1: mean F1 of the failure points.
        defect_area: area under the ROC curve of the probability that anything failed.
        right_cause: of turns in which something failed, the share whose most probable cause is right.
    """

    accuracy: Estimate
    macro_f1: Estimate
    defect_area: Estimate
    right_cause: Estimate


class Answers(NamedTuple):
    """What is right.

    Attributes:
        truth: the index of each label's failure point, (labels,); 0 is that of a correct turn. One that is no column of
            the probabilities cannot be told.
        weights: the weight of each label, (labels,), above 0.
        people: the number of the person of each label's turn, (labels,), from 0.
    """

    truth: Integers
    weights: Floats
    people: Integers


def measure(answers: Answers, found: Floats) -> Quality:
    """Measure the probabilities of failure points, (labels, points), of the labels' turns."""
    return _quality(_resampled(answers, found))


def gain(answers: Answers, found: Floats, other: Floats) -> Quality:
    """Return by how much `other` is better than `found`, both (labels, points); intervals are of paired differences."""
    return _quality(_resampled(answers, other) - _resampled(answers, found))


def values_of(answers: Answers, found: Floats) -> list[float]:
    """Return what `measure` does, without intervals: the values in the order of `Quality`."""
    return _measuring(answers, found)(answers.weights)


def _resampled(answers: Answers, found: Floats) -> Floats:
    """Return the values, and those of each sample of people, (1 + SAMPLES, 4)."""
    rng, of = np.random.default_rng(0), _measuring(answers, found)
    values, people = [of(answers.weights)], int(answers.people.max()) + 1
    for _ in range(SAMPLES):
        drawn = np.bincount(rng.integers(people, size=people), minlength=people)
        values.append(of(answers.weights * drawn[answers.people]))
    return np.array(values)


def _quality(values: Floats) -> Quality:
    low, high = np.quantile(values[1:], (0.025, 0.975), axis=0)
    return Quality(*(Estimate(*map(float, one)) for one in zip(values[0], low, high, strict=True)))


def _measuring(answers: Answers, found: Floats) -> Callable[[Floats], list[float]]:
    """Return the function from weights of the labels, (labels,), at least 0, to the values."""
    truth, points = answers.truth, found.shape[1]
    told, failed = found.argmax(axis=1), truth > 0
    named = found[:, 1:].argmax(axis=1) + 1 == truth
    _, rank = np.unique(1.0 - found[:, 0], return_inverse=True)
    size = max(int(truth.max()) + 1, points)

    def measured(weights: Floats) -> list[float]:
        counts = np.bincount(truth * size + told, weights, size * size).reshape(size, size)
        right, either = np.diag(counts)[:points], (counts.sum(axis=0) + counts.sum(axis=1))[:points]
        f1 = np.divide(2 * right, either, out=np.zeros(points), where=either > 0)
        failing, fine = (np.bincount(rank, weights * own) for own in (failed, ~failed))
        pairs = float(failing @ (fine.cumsum() - fine / 2))  # a failing turn above a fine one; of ties, a half
        values = (
            _share(right.sum(), weights.sum()),
            float(f1.mean()),
            _share(pairs, failing.sum() * fine.sum()),
            _share(weights[named & failed].sum(), failing.sum()),
        )
        return [min(value, 1.0) for value in values]  # rounding may lift them above

    return measured


def _share(part: float, whole: float) -> float:
    return float(part / whole) if whole > 0 else 0.0

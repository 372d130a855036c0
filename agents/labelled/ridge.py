"""From sums to labels of turns: a ridge regression, calibrated on people that it has not seen.

The sums hold, per fold of people, X'X and X'Y, with a row of X for each labelled turn and a column of Y for each
label, such as a failure point. From these alone follow

- the weights W = (X'X + ridge)^-1 X'Y, and those without each fold;
- the confusion: the mean scores that turns of each failure point get from weights that did not see their people, and
  the scores' covariance within failure points;
- the probabilities of a turn: discriminant analysis of its scores with that confusion, so that they are no surer than
  held-out people allow;
- the shares in any set of turns: scores are linear, so the set's mean score is W' times its mean vector. It is an
  estimate of the shares, not a count of the likeliest failure points, which would overstate or drop rare ones. Its
  variance is that of a regression's prediction, with the residuals of held-out people.

To invert the confusion instead (Bella et al., "Quantification via probability estimators", ICDM 2010) was four times as
far off: systems differ in more than their shares of failure points.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from msgspec import Struct

from backchannel.agents.sums import Floats
from backchannel.schemas.snapshot import Estimate

RIDGE: Final = 100.0
SHARPNESS: Final = 0.7
"""Scores have heavier tails than the normal distribution, so likelihoods count to this power."""

_DEVIATIONS: Final = 1.96
_ALIKE: Final = 2.0
"""Turns of one person fail alike: variances of shares count as if there were half as many turns."""
_LEAST_VARIANCE: Final = 0.01  # as a share of the mean variance of scores, which add up to one


class LabelSums(Struct, frozen=True):
    """Sums over labelled turns.

    Attributes:
        gram: X'X, (width, width).
        moments: X'Y, (width, points). The first row holds the numbers of labels, as the first column of X is constant.
        numbers: a number of each turn, added up by failure point, (points,).
    """

    gram: Floats
    moments: Floats
    numbers: Floats

    @property
    def labels(self) -> Floats:
        """The number of labels of each failure point, (points,)."""
        return np.asarray(self.moments[0])

    @staticmethod
    def width(dimension: int, points: int) -> int:
        """Return the number of sums in a packed row."""
        return dimension * (dimension + 1) // 2 + (dimension + 1) * points

    @classmethod
    def of(cls, vectors: Floats, labels: Floats, numbers: Floats, weights: Floats) -> "LabelSums":
        """Return the sums over turns.

        Args:
            vectors: X, (turns, width).
            labels: Y, (turns, points).
            numbers: the number of each turn, (turns,); of failure points, the probability that it was a defect.
            weights: the weight of each turn, (turns,).
        """
        weighted = vectors.T * weights
        return cls(weighted @ vectors, weighted @ labels, (numbers * weights) @ labels)

    def packed(self) -> Floats:
        """Return the sums as one row, without the lower triangle of X'X."""
        upper = self.gram[np.triu_indices(len(self.gram))]
        return np.concatenate((upper, self.moments.ravel(), self.numbers))

    @classmethod
    def unpacked(cls, row: Floats, dimension: int, points: int) -> "LabelSums":
        """Return the sums that `packed` made a row."""
        upper = dimension * (dimension + 1) // 2
        gram = np.zeros((dimension, dimension))
        gram[np.triu_indices(dimension)] = row[:upper]
        moments = row[upper : upper + dimension * points].reshape(dimension, points)
        return cls(gram + np.triu(gram, 1).T, moments, row[-points:])

    def only(self, points: Sequence[int]) -> "LabelSums":
        """Return the sums with the columns of some failure points."""
        return LabelSums(self.gram, self.moments[:, points], self.numbers[points])

    def scaled(self, factor: float) -> "LabelSums":
        """Return the sums times a factor."""
        return LabelSums(self.gram * factor, self.moments * factor, self.numbers * factor)


class Model(Struct, frozen=True):
    """What tells failure points apart.

    Attributes:
        weights: W, (width, points).
        means: mean scores of each failure point's turns, held out, (scores, points).
        covariance: covariance of scores within failure points, held out, (scores, scores).
        labels: number of labels, (points,).
    """

    weights: Floats
    means: Floats
    covariance: Floats
    labels: Floats

    def directions(self) -> Floats:
        """Return what scores are multiplied by for the log likelihood of each failure point, (scores, points)."""
        return np.asarray(np.linalg.solve(self.covariance, self.means))

    def probabilities(self, vectors: Floats) -> Floats:
        """Return the probability of each failure point, (turns, points), of turns with `vectors`, (turns, width)."""
        directions = self.directions()
        offsets = np.log(self.labels / self.labels.sum()) - 0.5 * (self.means * directions).sum(axis=0)
        likelihoods = vectors @ (self.weights @ directions) + offsets
        powers = np.exp(SHARPNESS * (likelihoods - likelihoods.max(axis=1, keepdims=True)))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))


class Fit(Struct, frozen=True):
    """A model, and how sure it is.

    Attributes:
        model: the model.
        inverse: (X'X + ridge)^-1, (width, width).
        residuals: mean squared residual of each failure point's scores, held out, (points,).
    """

    model: Model
    inverse: Floats
    residuals: Floats

    @classmethod
    def of(cls, folds: Sequence[LabelSums], ridge: float = RIDGE) -> "Fit":
        """Fit the sums of two or more folds, all of whose failure points have labels.

        Args:
            folds: the sums of each fold of people.
            ridge: what pulls the weights towards 0, in labels; shorter vectors need less.
        """
        gram: Floats = np.sum([one.gram for one in folds], axis=0)
        moments: Floats = np.sum([one.moments for one in folds], axis=0)
        labels = moments[0]
        penalty = ridge * np.eye(len(gram))
        size = len(labels)
        scored, squares = np.zeros((size, size)), np.zeros((size, size))
        for one in folds:
            others = np.linalg.solve(gram - one.gram + penalty, moments - one.moments)
            scored += others.T @ one.moments
            squares += others.T @ one.gram @ others
        means = scored / labels
        covariance = (squares - (means * labels) @ means.T) / labels.sum()
        covariance += (_LEAST_VARIANCE * np.trace(covariance) / size + 1e-9) * np.eye(size)
        inverse: Floats = np.asarray(np.linalg.inv(gram + penalty), dtype=float)
        residuals = np.maximum(labels - 2 * np.diag(scored) + np.diag(squares), 0.0) / labels.sum()
        return cls(Model(inverse @ moments, means, (covariance + covariance.T) / 2, labels), inverse, residuals)

    def shares(self, total: Floats, turns: float) -> list[Estimate]:
        """Return the share of each failure point in a set of turns, with an interval of 95%.

        Its width says how many turns and labels there are, and how well failure points are told apart.

        Args:
            total: the sum of the turns' vectors, (width,).
            turns: the number of turns, above 0.
        """
        mean = total / turns
        shares = self.model.weights.T @ mean
        spread = self.spread(mean, turns)
        bounds = np.clip((shares, shares - spread, shares + spread), 0.0, 1.0).T
        return [Estimate(*one) for one in bounds.round(4).tolist()]

    def spread(self, mean: Floats, turns: float) -> Floats:
        """Return half the width of the shares' intervals of 95%, (points,).

        Args:
            mean: the mean of the turns' vectors, (width,).
            turns: the number of turns, above 0.
        """
        variances = _ALIKE * self.residuals * (float(mean @ self.inverse @ mean) + 1.0 / turns)
        return np.asarray(_DEVIATIONS * np.sqrt(variances))

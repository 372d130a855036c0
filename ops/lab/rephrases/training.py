"""Fitting of the rephrase detector to labelled pairs, and measurement of its quality."""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray
from scipy.optimize import minimize

from backchannel.agents.columnar.interning import columns_of
from backchannel.agents.rephrases.detector import RephraseDetector, features
from backchannel.agents.sums import Floats
from backchannel.ops.lab.rephrases.pairs import Pair

WEIGHT: Final = {"dstc2": 1.0, "slurp": 0.3, "trec": 4.0}
"""Weight of a pair by log: callers and recordings weigh about the same in total, the few searchers a tenth of that."""

_RIDGE: Final = 1.0


class Calibration(Struct, frozen=True):
    """Number, mean probability and share of rephrases of the pairs whose probability lies in one tenth."""

    pairs: int
    probability: float
    rephrased: float


class Quality(Struct, frozen=True):
    """The detector's quality on held-out pairs.

    Attributes:
        log: the log that the pairs come from.
        pairs, rephrased: number of pairs, and number of rephrases among them.
        precision, recall: precision and recall at a probability of one half; None if undefined.
        false_alarms: share of the other pairs with a probability of one half or more.
        area: area under the ROC curve; None without rephrases.
        brier: mean squared difference of probability and label.
        calibration_error: mean difference of probability and share of rephrases, over tenths of the probability.
        calibration: calibration in each tenth that has pairs, ascending.
    """

    log: str
    pairs: int
    rephrased: int
    precision: float | None
    recall: float | None
    false_alarms: float
    area: float | None
    brier: float
    calibration_error: float
    calibration: list[Calibration]


def fit(logs: Mapping[str, Sequence[Pair]]) -> dict[str, float]:
    """Return the weights fitted to the pairs that are not held out, by feature.

    The model is a logistic regression with a ridge of 1 on standardised features.
    """
    pairs = [(log, pair) for log, some in logs.items() for pair in some if not pair.held_out]
    table = features(columns_of([pair.turn for _, pair in pairs]))
    matrix = np.stack(list(table.values()), axis=1)
    truth = np.array([pair.rephrased for _, pair in pairs], float)
    weights = np.array([WEIGHT[log] for log, _ in pairs])
    constant = list(table).index("constant")
    ridge = np.full(matrix.shape[1], _RIDGE)
    center, scale = matrix.mean(axis=0), matrix.std(axis=0)
    scale[scale == 0] = 1.0
    center[constant] = ridge[constant] = 0.0
    standard = (matrix - center) / scale

    def loss(beta: Floats) -> tuple[float, Floats]:
        score = standard @ beta
        value = weights @ (np.logaddexp(0.0, score) - truth * score) + 0.5 * ridge @ beta**2
        gradient = standard.T @ (weights * (1.0 / (1.0 + np.exp(-score)) - truth)) + ridge * beta
        return value, gradient

    start = np.zeros(matrix.shape[1])
    beta = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 5000, "ftol": 1e-12}).x
    found = beta / scale
    found[constant] -= found @ center
    return {name: round(float(value), 4) for name, value in zip(table, found, strict=True)}


def measure(log: str, pairs: Sequence[Pair], detector: RephraseDetector) -> Quality:
    """Measure `detector` on the held-out pairs among `pairs`."""
    tested = [pair for pair in pairs if pair.held_out]
    probability = detector.probabilities(columns_of([pair.turn for pair in tested]), np.arange(len(tested)))
    truth = np.array([pair.rephrased for pair in tested])
    said, true = probability >= 0.5, int(truth.sum())
    tenth = np.minimum((probability * 10).astype(int), 9)
    calibration = [
        Calibration(int(here.sum()), float(probability[here].mean()), float(truth[here].mean()))
        for here in (tenth == number for number in range(10))
        if here.any()
    ]
    return Quality(
        log,
        pairs=len(tested),
        rephrased=true,
        precision=float(truth[said].mean()) if said.any() and true else None,
        recall=float(said[truth].mean()) if true else None,
        false_alarms=float(said[~truth].mean()),
        area=_area(probability, truth) if true else None,
        brier=float(((probability - truth) ** 2).mean()),
        calibration_error=sum(one.pairs * abs(one.probability - one.rephrased) for one in calibration) / len(tested),
        calibration=calibration,
    )


def _area(probability: Floats, truth: NDArray[np.bool_]) -> float:
    """Return the probability that a rephrase scores higher than another pair; ties count half.

    Args:
        probability: the detector's probabilities, (pairs,).
        truth: whether each pair is a rephrase, (pairs,).
    """
    others = np.sort(probability[~truth])
    below = np.searchsorted(others, probability[truth], "left") + np.searchsorted(others, probability[truth], "right")
    return float(below.mean() / 2 / len(others))

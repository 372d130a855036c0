"""Fitting of the weights that tell where goals begin, and evidence on dialogues that they were not fitted to.

Every pair is learned twice, with the outcome and without, so that the weights also serve where outcomes are not logged.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from msgspec import Struct
from rapidfuzz.distance import Indel
from scipy.optimize import minimize
from scipy.sparse import csr_array
from scipy.stats import rankdata

from backchannel.agents.columnar.interning import columns_of
from backchannel.agents.goals.starts import WIDTH, evidence
from backchannel.agents.sums import GRID, Booleans, Floats, Integers
from backchannel.ops.lab.goals.pairs import FOLDS, Pair
from backchannel.schemas.snapshot import Estimate
from backchannel.schemas.turn import Turn

RIDGE: Final = 30.0
WEIGHT: Final = {"sgd": 1.0, "slurp": 1.0, "dstc2": 0.5}
"""Weight of a pair by log: a log weighs about as much as its variety."""
_SAMPLES: Final = 200  # of groups, for intervals


class Data(NamedTuple):
    """Pairs as arrays.

    Attributes:
        views: vectors, (pairs, slots) each, with the outcomes and without.
        begins: whether the second query begins a goal, (pairs,).
        logs: log of each pair, (pairs,).
        groups: number of each pair's group, (pairs,).
        folds: fold of each pair's group, (pairs,).
        weights: weight of each pair, (pairs,).
    """

    views: tuple[csr_array, ...]
    begins: Booleans
    logs: np.ndarray
    groups: Integers
    folds: Integers
    weights: Floats

    def take(self, rows: Integers) -> "Data":
        """Return some of the pairs."""
        return Data(
            tuple(view[rows] for view in self.views),
            self.begins[rows],
            self.logs[rows],
            self.groups[rows],
            self.folds[rows],
            self.weights[rows],
        )


class Quality(Struct, frozen=True):
    """How well it is told where goals begin; intervals of 95% over groups.

    Attributes:
        area: area under the ROC curve.
        f1, precision, recall: with a probability of one half or more.
        calibration_error: mean difference of probability and share of beginnings, over tenths of the probability.
        best_f1: with the threshold that is best for the same pairs.
    """

    area: Estimate
    f1: Estimate
    precision: Estimate
    recall: Estimate
    calibration_error: Estimate
    best_f1: Estimate


class Calibration(Struct, frozen=True):
    """Number, mean probability and share of beginnings of the pairs whose probability lies in one tenth."""

    pairs: int
    probability: float
    begins: float


class Report(Struct, frozen=True):
    """The evaluation.

    Attributes:
        pairs, groups: numbers of pairs and groups of SGD.
        begins: share of the pairs of SGD whose second query begins a goal.
        quality: of held-out groups, by log and what is known. The baseline is the unlikeness of the texts alone,
            fitted and calibrated the same way. `other services`: of dialogues with a service that no dialogue learned
            from has; means over the services, and the least and greatest.
        calibration: of SGD with outcomes, in each tenth of the probability that has pairs, ascending.
        mean: log whose pairs all begin a goal (snips), or none (dstc2, trec) -> mean probability. Callers of dstc2 are
            held out; the others were not learned from.
    """

    pairs: int
    groups: int
    begins: float
    quality: dict[str, Quality]
    calibration: list[Calibration]
    mean: dict[str, float]


def data_of(pairs: Sequence[Pair]) -> Data:
    """Return pairs as arrays."""
    turns = [one.turn for one in pairs]
    return Data(
        views=(_matrix(turns), _matrix([Turn.of(turn.query, (), turn.next) for turn in turns])),
        begins=np.array([one.begins for one in pairs]),
        logs=np.array([one.log for one in pairs]),
        groups=np.unique([one.log + one.group for one in pairs], return_inverse=True)[1],
        folds=np.array([one.fold for one in pairs]),
        weights=np.array([WEIGHT.get(one.log, 1.0) for one in pairs]),
    )


def _matrix(turns: Sequence[Turn]) -> csr_array:
    lines, slots = evidence(columns_of(turns), np.arange(len(turns)))
    return csr_array((np.ones(len(lines)), (lines, slots)), shape=(len(turns), WIDTH))


def fit(data: Data) -> tuple[int, ...]:
    """Return weights of slots in units of 1/1024: a ridge regression, scaled to log odds on folds not fitted to."""
    sums = []
    for fold in np.unique(data.folds).tolist():
        one = data.take(np.flatnonzero(data.folds == fold))
        scaled = [view.T.multiply(one.weights).tocsr() for view in one.views]
        gram: Floats = np.sum([some @ view for some, view in zip(scaled, one.views, strict=True)]).toarray()
        moments: Floats = np.sum([some @ one.begins for some in scaled], axis=0)
        sums.append((one, gram, moments))
    gram = np.sum([less for _, less, _ in sums], axis=0) + RIDGE * np.eye(data.views[0].shape[1])
    moments = np.sum([without for _, _, without in sums], axis=0)
    held_out = [
        (view @ np.linalg.solve(gram - less, moments - without), one.begins, one.weights)
        for one, less, without in sums
        for view in one.views
    ]
    slope, offset = _log_odds(*map(np.concatenate, zip(*held_out, strict=True)))
    weights = slope * np.linalg.solve(gram, moments)
    weights[0] += offset  # the constant's
    return tuple(np.rint(weights * GRID).astype(int).tolist())


def _log_odds(scores: Floats, begins: Booleans, weights: Floats) -> tuple[float, float]:
    """Return slope and offset of the log odds by score (Platt, "Probabilistic outputs", 1999)."""

    def loss(line: Floats) -> tuple[float, Floats]:
        odds = line[0] * scores + line[1]
        residual = weights * (1.0 / (1.0 + np.exp(-odds)) - begins)
        return float(weights @ (np.logaddexp(0.0, odds) - begins * odds)), np.array((residual @ scores, residual.sum()))

    slope, offset = minimize(loss, np.array((1.0, 0.0)), jac=True, method="BFGS").x
    return float(slope), float(offset)


def evaluate(pairs: Sequence[Pair], others: Sequence[Pair]) -> Report:
    """Measure the weights on groups, services and logs that they were not fitted to.

    Args:
        pairs: pairs to learn from, of all logs.
        others: pairs of logs that are not learned from.
    """
    data, elsewhere = data_of(pairs), data_of(others)
    dialogue = data.logs == "sgd"
    sgd, slurp, dstc2 = (np.flatnonzero(data.logs == log) for log in ("sgd", "slurp", "dstc2"))
    seeing, blind = (_held_out(data, view) for view in (0, 1))
    unlike = data.take(sgd)._replace(views=(_unlikeness([pairs[row].turn for row in sgd.tolist()]),))
    services = []
    for service in sorted(set[str]().union(*(one.services for one in pairs))):
        own = np.array([service in one.services for one in pairs])
        told = _probabilities(fit(data.take(np.flatnonzero(~own))), data.views[0][own])
        services.append(_measured(data.begins[own], told))
    across = [how(np.array(services), axis=0).tolist() for how in (np.mean, np.min, np.max)]
    found = _probabilities(fit(data), elsewhere.views[0])
    return Report(
        pairs=len(sgd),
        groups=len(np.unique(data.groups[sgd])),
        begins=float(data.begins[sgd].mean()),
        quality={
            "sgd, text and outcome": measure(data.take(sgd), seeing[sgd]),
            "sgd, text": measure(data.take(sgd), blind[sgd]),
            "sgd, unlikeness of the texts": measure(unlike, _held_out(unlike, 0)),
            "sgd, other services": Quality(*map(Estimate, *across)),
            "slurp, simulated": measure(data.take(slurp), blind[slurp]),
        },
        calibration=calibration(data.begins[dialogue], seeing[dialogue]),
        mean={"dstc2": float(seeing[dstc2].mean())}
        | {log: float(found[elsewhere.logs == log].mean()) for log in np.unique(elsewhere.logs).tolist()},
    )


def _held_out(data: Data, view: int) -> Floats:
    """Return the probabilities of all pairs, (pairs,), each by weights fitted to the other folds."""
    found = np.zeros(len(data.begins))
    for fold in range(FOLDS):
        own = data.folds == fold
        found[own] = _probabilities(fit(data.take(np.flatnonzero(~own))), data.views[view][own])
    return found


def _probabilities(weights: Sequence[int], vectors: csr_array) -> Floats:
    return np.asarray(1.0 / (1.0 + np.exp(-(vectors @ np.array(weights, dtype=float)) / GRID)))


def _unlikeness(turns: Sequence[Turn]) -> csr_array:
    unlike = [
        0.0 if turn.next is None else Indel.normalized_distance(turn.query.text.lower(), turn.next.text.lower())
        for turn in turns
    ]
    return csr_array(np.column_stack((np.ones(len(turns)), unlike)))


def measure(data: Data, found: Floats) -> Quality:
    """Measure probabilities, (pairs,), with intervals over groups."""
    rng = np.random.default_rng(0)
    values = [_measured(data.begins, found)]
    order = np.argsort(data.groups, kind="stable")
    own = np.split(order, np.flatnonzero(np.diff(data.groups[order])) + 1)
    for _ in range(_SAMPLES):
        rows = np.concatenate([own[one] for one in rng.integers(len(own), size=len(own)).tolist()])
        values.append(_measured(data.begins[rows], found[rows]))
    low, high = np.quantile(values[1:], (0.025, 0.975), axis=0)
    return Quality(*map(Estimate, values[0], low.tolist(), high.tolist()))


def calibration(begins: Booleans, found: Floats) -> list[Calibration]:
    """Return probabilities, (pairs,), against what was true, in tenths of the probability."""
    tenth = np.minimum((found * 10).astype(int), 9)
    return [
        Calibration(int(here.sum()), float(found[here].mean()), float(begins[here].mean()))
        for here in (tenth == number for number in range(10))
        if here.any()
    ]


def _measured(begins: Booleans, found: Floats) -> list[float]:
    ranks, positive, told = rankdata(found), int(begins.sum()), found >= 0.5
    area = (ranks[begins].sum() - positive * (positive + 1) / 2) / max(positive * (len(begins) - positive), 1)
    right = int((told & begins).sum())
    tenths = calibration(begins, found)
    error = sum(one.pairs * abs(one.probability - one.begins) for one in tenths) / len(begins)
    return [
        float(area),
        2 * right / max(int(told.sum()) + positive, 1),
        right / max(int(told.sum()), 1),
        right / max(positive, 1),
        float(error),
        _best_f1(begins, found),
    ]


def _best_f1(begins: Booleans, found: Floats) -> float:
    order = np.argsort(-found)
    right = begins[order].cumsum()
    told = np.flatnonzero(np.diff(found[order], append=-1.0))  # the last pair of each probability
    return float((2 * right[told] / (told + 1 + right[-1])).max())

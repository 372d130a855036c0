"""Failure points on DSTC2: the learner as it is, evaluated on callers that it has not seen.

A fold's turns are diagnosed with weights that were solved from the sums of all other callers, in which the learner's
own folds are of people, too.
"""

from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

import numpy as np
from msgspec import Struct

from backchannel.agents.columnar.interning import columns_of
from backchannel.agents.failures.challenger import boosted, features_of, is_there
from backchannel.agents.failures.evidence import RULED
from backchannel.agents.failures.learner import FailureConfig, FailurePoints
from backchannel.agents.failures.quality import SAMPLES, Quality, gain, measure, values_of
from backchannel.agents.failures.rules import RULES
from backchannel.agents.failures.sample import hashes_of
from backchannel.agents.failures.selection import next_to_label
from backchannel.agents.failures.serving import Diagnoser
from backchannel.agents.labelled.ridge import Fit
from backchannel.agents.outcomes.judge import Judge
from backchannel.agents.outcomes.rewards import RewardConfig
from backchannel.agents.serving import live_rows
from backchannel.agents.sums import Booleans, Floats, Integers, MemorySums
from backchannel.ops.lab.failures.data import OUTER_FOLDS, POINTS, Data
from backchannel.ops.labels.precision import cut
from backchannel.schemas.snapshot import Estimate
from backchannel.schemas.turn import Turn

DECLARED: Final = (0.9, 0.95)
"""Declared precisions of an export; see `ops.labels`."""


Tell: TypeAlias = Callable[[Data, Integers, Integers], Floats]
"""The data, the turns to learn from, and the turns to tell -> probabilities of POINTS, (turns to tell, POINTS)."""


class SharesQuality(Struct, frozen=True):
    """Estimated shares of failure points in each system's turns of held-out callers, against the true ones.

    Attributes:
        estimated: mean absolute error of the shares as published.
        counted: that of counting the most probable failure point of each turn.
        covered: share of the true shares that lie in their 95% intervals.
        width: mean width of the intervals.
    """

    estimated: float
    counted: float
    covered: float
    width: float


class Exported(Struct, frozen=True):
    """What `label export` writes at a declared precision, by labels of other callers.

    Attributes:
        share: the share of turns whose failure point is written.
        precision: the share of right ones among these, with an interval of 95% over callers; None if there are none.
    """

    share: float
    precision: Estimate | None


class Boosting(Struct, frozen=True):
    """Gradient boosting; see `agents.failures.challenger`.

    Attributes:
        quality: with all labels of the other folds' callers.
        sampled: with those that are in the bounded sample of all turns; see `agents.failures.sample`.
        gain: by how much that is better.
        curve: as `Report.curve`.
    """

    quality: Quality
    sampled: Quality
    gain: Quality
    curve: dict[int, Quality]


class Report(Struct, frozen=True):
    """The evaluation.

    Attributes:
        turns, callers: numbers of turns and of callers.
        majority: accuracy of calling every turn correct.
        quality: with all labels.
        rules: by rules, whose chances are of the other folds' callers; see `agents.failures.rules`.
        rules_shares: mean absolute error of shares by rules in the turns of a system, with the chances of the others.
        chances: rule -> its chances in all turns.
        confusion: true failure point -> told -> number of turns.
        curve: number of labels -> quality: means over the folds and seeds; failure points that had too few labels are
            never told.
        chosen: as `curve`, with turns chosen by `next_to_label` in rounds that double the number of labels, the first
            half of the smallest number at random.
        boosting: the same by gradient boosting; None if LightGBM is not installed.
        shares: quality of the shares.
        exported: declared precision -> what is exported.
    """

    turns: int
    callers: int
    majority: float
    quality: Quality
    rules: Quality
    rules_shares: float
    chances: dict[str, list[float]]
    confusion: dict[str, dict[str, int]]
    curve: dict[int, Quality]
    chosen: dict[int, Quality]
    boosting: Boosting | None
    shares: SharesQuality
    exported: dict[str, Exported]


def evaluate(data: Data, sizes: Sequence[int], seeds: int) -> Report:
    """Evaluate the learner.

    Args:
        data: the labelled turns.
        sizes: numbers of labels of the learning curve.
        seeds: random choices of labels per size.
    """
    found = np.zeros((len(data.truth), len(POINTS)))
    errors: list[tuple[float, float, bool, float]] = []
    for fold in range(OUTER_FOLDS):
        diagnoser, fit = learned([data.turns[row] for row in np.flatnonzero(data.folds != fold)])
        tested = np.flatnonzero(data.folds == fold)
        found[tested] = probabilities(diagnoser, data.vectors[tested])
        if fit is not None and diagnoser.known is not None:
            points = [POINTS.index(point) for point in diagnoser.known[0].points]
            errors += _shares(data, tested, fit, points, found)
    ruled = np.zeros_like(found)
    for fold in range(OUTER_FOLDS):
        tested = data.folds == fold
        ruled[tested] = data.vectors[tested][:, RULED] @ _chances(data, ~tested)
    systems = np.array(data.systems)
    off = [
        (data.vectors[own][:, RULED] @ _chances(data, ~own)).mean(axis=0)
        - np.bincount(data.truth[own], minlength=len(POINTS)) / own.sum()
        for own in (systems == system for system in np.unique(systems))
    ]
    told = found.argmax(axis=1)
    counts = np.zeros((len(POINTS), len(POINTS)), dtype=int)
    np.add.at(counts, (data.truth, told), 1)
    estimated, counted, covered, width = np.mean(np.array(errors, dtype=float), axis=0).tolist()
    return Report(
        turns=len(data.turns),
        callers=int(data.callers.max()) + 1,
        majority=float((data.truth == 0).mean()),
        quality=measure(data.answers, found),
        rules=measure(data.answers, ruled),
        rules_shares=float(np.abs(off).mean()),
        chances={
            rule.name: row for rule, row in zip(RULES, _chances(data, data.folds >= 0).round(2).tolist(), strict=True)
        },
        confusion={
            true: dict(zip(POINTS, row, strict=True)) for true, row in zip(POINTS, counts.tolist(), strict=True)
        },
        curve=_curve(data, sizes, seeds, _told),
        chosen=_curve(data, sizes, seeds, _told, chosen=True),
        boosting=_boosting(data, sizes, seeds) if is_there() else None,
        shares=SharesQuality(estimated, counted, covered, width),
        exported={f"{declared:g}": _exported(data, found, declared) for declared in DECLARED},
    )


def _boosting(data: Data, sizes: Sequence[int], seeds: int) -> Boosting:
    features, labels = features_of(data.vectors), np.eye(len(POINTS))[data.truth]
    kept = np.argsort(hashes_of(columns_of(data.turns)), kind="stable")[: FailureConfig().sampled]

    def tell(_: Data, own: Integers, tested: Integers) -> Floats:
        return boosted(features[own], labels[own], features[tested])

    every = _held_out(data, tell)
    sampled = _held_out(data, lambda data, own, tested: tell(data, np.intersect1d(own, kept), tested))
    answers = data.answers
    return Boosting(
        quality=measure(answers, every),
        sampled=measure(answers, sampled),
        gain=gain(answers, every, sampled),
        curve=_curve(data, sizes, seeds, tell),
    )


def _held_out(data: Data, tell: Tell) -> Floats:
    """Return the probabilities of all turns, (turns, POINTS), told from the labels of the other folds' callers."""
    found = np.zeros((len(data.truth), len(POINTS)))
    for fold in range(OUTER_FOLDS):
        tested = np.flatnonzero(data.folds == fold)
        found[tested] = tell(data, np.flatnonzero(data.folds != fold), tested)
    return found


def _chances(data: Data, known: Booleans) -> Floats:
    """Return the share of POINTS in the known turns of which each rule is the first to hold, (rules, POINTS)."""
    held = data.vectors[known][:, RULED]
    counts = held.T @ np.eye(len(POINTS))[data.truth[known]]
    return np.asarray(counts / np.maximum(held.sum(axis=0), 1.0)[:, None])


def learned(turns: Sequence[Turn]) -> tuple[Diagnoser, Fit | None]:
    """Return what is published after some turns, and the fit that it is from; None if there are too few labels."""
    learner = FailurePoints(FailureConfig())
    delta = learner.learn(Judge(RewardConfig()).judge(columns_of(turns)))
    sums, at = MemorySums(delta), max(turn.query.ts for turn in turns)
    section = learner.solve(sums, {name: [] for name in delta}, at)
    solved = learner.fit(sums, at)
    return Diagnoser(live_rows(section)), solved and solved[1]


def probabilities(diagnoser: Diagnoser, vectors: Floats) -> Floats:
    """Return the probabilities of POINTS, (turns, POINTS); without enough labels every turn is correct."""
    found = np.zeros((len(vectors), len(POINTS)))
    if diagnoser.known is None:
        found[:, 0] = 1.0
        return found
    weights, model = diagnoser.known
    found[:, [POINTS.index(point) for point in weights.points]] = model.probabilities(vectors)
    return found


def _told(data: Data, own: Integers, tested: Integers) -> Floats:
    return probabilities(learned([data.turns[row] for row in own])[0], data.vectors[tested])


def _curve(data: Data, sizes: Sequence[int], seeds: int, tell: Tell, *, chosen: bool = False) -> dict[int, Quality]:
    """Return the mean quality with some labels of the other folds' callers, drawn at random or chosen."""
    measured: dict[int, list[list[float]]] = {size: [] for size in sorted(sizes)}
    for seed in range(seeds):
        found = {size: np.zeros((len(data.truth), len(POINTS))) for size in measured}
        for fold in range(OUTER_FOLDS):
            rng = np.random.default_rng((seed, fold))
            tested = np.flatnonzero(data.folds == fold)
            rest, own = rng.permutation(np.flatnonzero(data.folds != fold)), np.zeros(0, dtype=np.int64)
            for size in measured:
                while len(own) < min(size, len(own) + len(rest)):
                    wanted = min(max(len(own), size // 2), size - len(own)) if chosen else size - len(own)
                    known = learned([data.turns[row] for row in own])[0].known if chosen and len(own) else None
                    model = known and known[1]
                    taken = next_to_label(model, data.vectors[rest], wanted, rng)
                    own, rest = np.concatenate((own, rest[taken])), np.delete(rest, taken)
                found[size][tested] = tell(data, own, tested)
        for size, one in found.items():
            measured[size].append(values_of(data.answers, one))
    return {
        size: Quality(*(Estimate(float(np.mean(some)), min(some), max(some)) for some in zip(*every, strict=True)))
        for size, every in measured.items()
    }


def _shares(
    data: Data, tested: Integers, fit: Fit, points: Sequence[int], found: Floats
) -> list[tuple[float, float, bool, float]]:
    """Return error when corrected, error when counted, whether it is covered, and width, for each system and point."""
    errors = []
    systems = np.array(data.systems)[tested]
    for system in np.unique(systems):
        rows = tested[systems == system]
        estimates = dict(zip(points, fit.shares(data.vectors[rows].sum(axis=0), len(rows)), strict=True))
        told = found[rows].argmax(axis=1)
        for point, one in estimates.items():
            true = float((data.truth[rows] == point).mean())
            counted = abs(float((told == point).mean()) - true)
            errors.append((abs(one.value - true), counted, one.low <= true <= one.high, one.high - one.low))
    return errors


def _exported(data: Data, found: Floats, declared: float) -> Exported:
    confidences, right = found.max(axis=1), found.argmax(axis=1) == data.truth
    kept = np.zeros(len(data.truth), dtype=bool)
    for fold in range(OUTER_FOLDS):
        others = data.folds != fold
        sure = cut(list(zip(confidences[others].tolist(), right[others].tolist(), strict=True)), declared).confidence
        if sure is not None:
            kept |= ~others & (confidences >= sure)
    if not kept.any():
        return Exported(0.0, None)
    written, correct = np.bincount(data.callers, kept), np.bincount(data.callers, kept & right)
    callers = np.random.default_rng(0).integers(len(written), size=(SAMPLES, len(written)))
    low, high = np.quantile(correct[callers].sum(axis=1) / written[callers].sum(axis=1), (0.025, 0.975)).tolist()
    return Exported(float(kept.mean()), Estimate(float(right[kept].mean()), low, high))

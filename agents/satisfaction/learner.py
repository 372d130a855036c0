"""Satisfaction: what people say about answers and, where nobody said anything, what their signals say.

Turns with an explicit answer (`feedback`) add X'X and X'Y of their evidence (see `evidence`), by fold of people; all
turns add their evidence, or their answer, by day, device, intent and locale. At publish, a ridge regression on these
sums predicts the answers that nobody gave, calibrated on people that it has not seen (see `calibrated`). The rate
of a set of turns is a waterfall: the explicit answer, else the prediction (Park et al., "Large-scale hybrid approach
for predicting user satisfaction with conversational agents", 2020).

Assumptions, as `docs/design.md` asks of every learner:

- A turn whose question was asked with a logged probability counts by its inverse, so to ask more in one segment does
  not bias the model. Variances are those of the effective number of answers (Kish, "Survey sampling", 1965). Answers
  that were volunteered, or whose probability is unknown, count once: they stand for nobody else.
- Who does not answer when asked is not corrected for. Somebody who answers often counts often: what is asked is
  bounded by the budget, what is volunteered is not.
- Rates count turns, so who asks more counts more. Positions, depth and overlap do not enter.
"""

from typing import Annotated, Any, Final, Self

import msgspec
import numpy as np
from msgspec import Meta, Struct

from backchannel.agents.columnar.columns import Columns
from backchannel.agents.labelled.kinds import KINDS, published
from backchannel.agents.labelled.learner import LabelLearner
from backchannel.agents.labelled.ridge import Fit, LabelSums, Model
from backchannel.agents.learner import Changed
from backchannel.agents.outcomes.outcomes import Outcomes
from backchannel.agents.outcomes.said import said_of
from backchannel.agents.satisfaction.evidence import ENCODING, WIDTH, slots_of, vectors
from backchannel.agents.satisfaction.serving import Rate, Satisfaction, SatisfactionModel
from backchannel.agents.sums import ALL, GRID, Delta, Floats, Integers, SumReader
from backchannel.schemas.events import Feedback
from backchannel.schemas.snapshot import Estimate

LEAST_PROPENSITY: Final = 0.01
"""Answers to questions that were less probable count as if they had been asked with this probability."""


class SatisfactionConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """How satisfaction is learned from explicit answers."""

    answers_half_life_days: Annotated[
        float, Meta(ge=1, le=100_000, description="half-life of explicit answers, in days")
    ] = 180.0
    half_life_days: Annotated[
        float, Meta(ge=0.1, le=100_000, description="half-life of the turns that rates are of, in days")
    ] = 30.0
    min_answers: Annotated[
        float,
        Meta(ge=1, le=1e6, description="explicit answers of each kind, yes and no, below which nothing is predicted"),
    ] = 20.0


class SatisfactionLearner(LabelLearner):
    """The learner of satisfaction. Its section: "" -> `SatisfactionModel`; kind -> value -> `Rate`.

    A row of `turns` holds the number of turns; that of answers, and their values; the vectors of the turns without one.
    """

    name = Satisfaction.name
    serving = Satisfaction
    encoding = ENCODING
    width = WIDTH
    points = 2  # "no" and "yes"

    def __init__(self, config: SatisfactionConfig, rephrase_gap_s: float = 60.0) -> None:
        super().__init__(
            ("satisfaction_answers", config.answers_half_life_days), ("satisfaction_turns", config.half_life_days)
        )
        self.config: Final = config
        self._gap_s: Final = rephrase_gap_s

    @classmethod
    def configured(cls, config: Any) -> Self:
        """See `Learner.configured`."""
        return cls(config.satisfaction, config.rewards.rephrase_gap_s)

    def learn(self, outcomes: Outcomes) -> Delta:
        """See `Learner.learn`."""
        columns = outcomes.columns
        if not len(columns):
            return {}
        slots = slots_of(columns, outcomes.rephrased)
        said = np.rint(said_of(columns) * GRID) / GRID
        silent = np.isnan(said)

        def of_turns(places: Integers, values: int, weights: Floats) -> Floats:
            lines = (places[silent, None] * WIDTH + slots[silent]).ravel()
            masses = np.repeat(weights[silent], slots.shape[1])
            answered = places[~silent]
            return np.column_stack(
                (
                    np.bincount(places, weights, values),
                    np.bincount(answered, weights[~silent], values),
                    np.bincount(answered, (weights * said)[~silent], values),
                    np.bincount(lines, masses, values * WIDTH).reshape(values, WIDTH),
                )
            )

        delta = self._by_kind(columns, of_turns)
        rows = np.flatnonzero(~silent)
        if len(rows):
            found, counts = vectors(slots[rows]), weights_of(columns)[rows]
            answers = np.stack((1.0 - said[rows], said[rows]), axis=1)

            def of_answers(own: Integers, weights: Floats) -> LabelSums:
                return LabelSums.of(found[own], answers[own], counts[own], weights * counts[own])

            delta |= self._labelled(outcomes, rows, of_answers)
        return delta

    def solve(self, sums: SumReader, changed: Changed, at: int) -> dict[str, bytes | None]:
        """See `Learner.solve`. Model and rates are small, and solved anew whenever anything changed."""
        if not changed.keys() & {self.labels.name, self.turns.name}:
            return {}
        section: dict[str, bytes | None] = dict.fromkeys((ALL, *KINDS))
        fit = self.fit(sums, at)
        if fit is None:
            return section
        weights = calibrated(fit.model)
        no, yes = fit.model.labels.round(3).tolist()
        section[ALL] = msgspec.json.encode(
            SatisfactionModel(ENCODING, weights.round(6).tolist(), (no, yes), self._gap_s)
        )
        for kind, by_value in published(sums, self.turns, ENCODING, at).items():
            section[kind] = msgspec.json.encode(
                {value: _rate(fit, weights, total) for value, total in by_value.items()}
            )
        return section

    def fit(self, sums: SumReader, at: int) -> Fit | None:
        """Return the fit of what was answered by `at` (event time, ms); None if there are too few answers."""
        folds = self.folds(sums, at)
        if len(folds) < 2:
            return None
        # Of weights w, the effective number of answers is (sum of w)^2 / (sum of w^2).
        total = sum(float(one.labels.sum()) for one in folds)
        squares = sum(float(one.numbers.sum()) for one in folds)
        folds = [one.scaled(total / squares) for one in folds] if squares else folds
        if min(np.sum([one.labels for one in folds], axis=0)) < self.config.min_answers:
            return None
        return Fit.of(folds)


def calibrated(model: Model) -> Floats:
    """Return the weights of a yes, (WIDTH,), so that on held-out people probabilities are right on average.

    They are those of the ridge regression, times the slope of a regression of held-out answers on held-out scores, and
    with its intercept. On DSTC2 this ranks and calibrates better than the discriminant analysis of `Model`.
    """
    no, yes = model.labels / model.labels.sum()
    mean_no, mean_yes = model.means[1]
    covariance = no * yes * (mean_yes - mean_no)
    slope = covariance / (model.covariance[1, 1] + covariance * (mean_yes - mean_no))
    weights = slope * model.weights[:, 1]
    weights[0] += yes - slope * (no * mean_no + yes * mean_yes)  # the first column of vectors is constant
    return np.asarray(weights)


def weights_of(columns: Columns) -> Floats:
    """Return how many turns each turn stands for, (turns,): 1 over the probability with which it was asked about.

    It is 1 if it was not asked about, or nobody knows with which probability.
    """
    turns, fields = columns.others(Feedback)
    weights = np.ones(len(columns))
    for turn, one in zip(turns.tolist(), fields, strict=True):
        if one["asked"] and one["propensity"] is not None:
            weights[turn] = max(weights[turn], 1.0 / max(one["propensity"], LEAST_PROPENSITY))
    return np.rint(weights * GRID) / GRID


def _rate(fit: Fit, weights: Floats, total: Floats) -> Rate:
    """Return the rate of turns.

    Args:
        fit: the fit of the answers.
        weights: the weights of a yes, (WIDTH,); see `calibrated`.
        total: the sums of the turns, (3 + WIDTH,).
    """
    turns, answered, value = total[:3].tolist()
    silent = turns - answered
    predicted = np.zeros(3)
    if silent > 1e-9 * turns:
        mean = total[3:] / total[3]
        share, spread = float(weights @ mean), float(fit.spread(mean, silent)[1])
        predicted = np.clip((share, share - spread, share + spread), 0.0, 1.0)
    bounds = np.clip((value + silent * predicted) / turns, 0.0, 1.0).round(4).tolist()
    return Rate(round(turns, 3), round(answered / turns, 4), Estimate(*bounds))

"""The surrogate index: what a visit's signals say about a return, and what each strategy does beyond that.

With x the mean signals of a visit, after a 1, y whether a return followed, and v its weight, sums over the mature
visits give the index (Athey, Chetty, Imbens & Kang, "The surrogate index", NBER 26463, 2019):

    w = (sum v x x' + R)^-1 sum v x y,    R = RIDGE for every signal, 0 for the 1.

It predicts visits that are not mature. If it is all that is used, a strategy that drives people away but is clicked is
overrated for ever. So each strategy has a residual, a sum too, of its mature visits (M) among all its visits (A):

    predicted = mean of w'x over A,    residual = mean of y - w'x over M,    value = predicted + b residual.

With b = 1 that is right on average whether signals tell all or not, if A and M do not differ otherwise (Angelopoulos et
al., "Prediction-powered inference", Science 2023), but it varies nearly as much as the mean of y over M, as single
returns are mostly chance. With b = 0 it is the surrogate. So b is that of empirical Bayes: residuals of strategies are
taken to be normal around 0 with a variance t^2, the sum of LEAST^2 and of what is estimated from all of them
(DerSimonian & Laird, "Meta-analysis in clinical trials", 1986); a residual with standard error e has
b = t^2 / (t^2 + e^2). Where signals tell all, that is nearly the surrogate, and where they do not, it is nearly
corrected in full. For the setting, see McDonald et al., "Impatient bandits", KDD 2023, and arXiv 2501.07761.

Intervals are over people: the variance of a mean is the sum of the squares of what each person adds to its error, also
by way of w (Liang & Zeger, Biometrika 1986). To that is added (1.5 / people)^2, as after n visits without a return up
to 3 / n of them may be followed by one.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from msgspec.structs import replace

from backchannel.agents.horizon.serving import Cohort, Known, LongTerm, Surrogate
from backchannel.agents.horizon.visits import Times, Visits
from backchannel.agents.sums import ALL, Booleans, Floats, Integers
from backchannel.schemas.snapshot import Estimate

RIDGE: Final = 1.0
"""Prior strength, in visits, that pulls the weight of a signal to 0."""
PEOPLE: Final = 30
"""People with mature visits below which nothing is estimated."""
LEAST: Final = 0.02
"""The least standard deviation of residuals that is assumed."""
COHORTS: Final = 12
"""Cohorts that are published: the newest."""
_Z: Final = 1.96
_DAY_MS: Final = 86_400_000


class Index(NamedTuple):
    """The weights w, (1 + signals,), and what each person adds to their error, (all people, 1 + signals)."""

    weights: Floats
    errors: Floats


class _Mean(NamedTuple):
    """A weighted mean, what each person adds to its error, (all people,), and the number of people that it is over."""

    value: float
    errors: Floats
    people: int

    @property
    def deviation(self) -> float:
        """The standard error."""
        return float(np.hypot(np.linalg.norm(self.errors), 1.5 / self.people))

    def plus(self, errors: Floats) -> "_Mean":
        """Return the mean with more errors of each person, (all people,)."""
        return self._replace(errors=self.errors + errors)

    def estimate(self, least: float, deviation: float | None = None) -> Estimate:
        """Return the mean with its interval, both at least `least` and at most 1."""
        spread = _Z * (self.deviation if deviation is None else deviation)
        bounds = np.clip((self.value, self.value - spread, self.value + spread), least, 1.0)
        return Estimate(*bounds.round(6).tolist())


class _Part(NamedTuple):
    """What is known about a strategy before its residual is weighed; None where there are too few people."""

    known: LongTerm
    predicted: _Mean | None
    residual: _Mean | None

    def combined(self, variance: float) -> LongTerm:
        """Return everything that is known about the strategy, for a variance t^2 of residuals."""
        if self.predicted is None:
            return self.known
        mean, share = self.predicted, 0.0
        if self.residual is not None:
            share = variance / (variance + self.residual.deviation**2)
            errors = mean.errors + share * self.residual.errors
            mean = _Mean(mean.value + share * self.residual.value, errors, mean.people)
        deviation = float(np.hypot(mean.deviation, (1.0 - share) * variance**0.5))
        return replace(self.known, value=mean.estimate(0.0, deviation))


def summarize(visits: Visits, signals: Sequence[str], times: Times) -> Known:
    """Return what is known about all visits, and about those of each strategy.

    Args:
        visits: the visits.
        signals: the names of the signals.
        times: see `Times`.
    """
    mature = visits.mature
    people = _distinct(visits.people[mature])
    index = fit(visits, mature) if people >= PEOPLE else None
    surrogate = Surrogate(
        least_days=times.least_ms / _DAY_MS,
        days=times.most_ms / _DAY_MS,
        people=people,
        visits=len(mature),
        mature=int(mature.sum()),
        weights={} if index is None else dict(zip([ALL, *signals], index.weights.round(6).tolist(), strict=True)),
        cohorts=_cohorts(visits, times.most_ms),
    )
    parts = [_part(visits, index, visits.strategy == code) for code in range(len(visits.strategies))]
    variance = _variance([one.residual for one in parts if one.residual is not None])
    by_name = zip(visits.strategies, parts, strict=True)
    return Known(surrogate, {name: one.combined(variance) for name, one in by_name})


def fit(visits: Visits, chosen: Booleans) -> Index:
    """Return the index from the chosen visits, at least one, all of them mature."""
    x, y, mass, person = (each[chosen] for each in (visits.signals, visits.returned, visits.weights, visits.people))
    weighted = x.T * mass
    inverse = np.linalg.inv(weighted @ x + np.diag([0.0, *[RIDGE] * (x.shape[1] - 1)]))
    weights = inverse @ (weighted @ y)
    scores = weighted * (y - x @ weights)
    errors = np.array([np.bincount(person, one, _people(visits)) for one in scores]).T @ inverse
    return Index(weights, errors)


def _part(visits: Visits, index: Index | None, own: Booleans) -> _Part:
    """Return what is known about a strategy; `own` are its lines, (lines,)."""
    visit, shares = visits.visit[own], visits.shares[own]
    x, mature, person = visits.own[own], visits.mature[visit], visits.people[visit]
    mass = shares * visits.weights[visit]
    known = LongTerm(
        visits=round(float(shares.sum()), 3),
        mature=round(float(shares[mature].sum()), 3),
        people=_distinct(person[mature]),
        success=round(float(mass @ x[:, 1] / mass.sum()), 6),
    )
    if index is None or _distinct(person) < PEOPLE:
        return _Part(known, None, None)
    size = _people(visits)
    predicted = _mean(x @ index.weights, mass, person, size).plus(index.errors @ (mass @ x / mass.sum()))
    known = replace(known, predicted=round(predicted.value, 6))
    if known.people < PEOPLE:
        return _Part(known, predicted, None)
    x, y, mass, person = x[mature], visits.returned[visit][mature], mass[mature], person[mature]
    residual = _mean(y - x @ index.weights, mass, person, size)
    residual = residual.plus(-index.errors @ (mass @ x / mass.sum()))
    returned = _mean(y, mass, person, size).estimate(0.0)
    return _Part(replace(known, returned=returned, residual=residual.estimate(-1.0)), predicted, residual)


def _variance(residuals: Sequence[_Mean]) -> float:
    """Return the variance t^2 of the residuals of strategies."""
    weights = np.array([one.deviation**-2 for one in residuals])
    values = np.array([one.value for one in residuals])
    spare = weights.sum() - (weights**2).sum() / weights.sum() if len(residuals) else 0.0
    if spare <= 0.0:
        return LEAST**2
    excess = float(weights @ (values - np.average(values, weights=weights)) ** 2) - len(values) + 1
    return LEAST**2 + max(excess / spare, 0.0)


def _cohorts(visits: Visits, length: int) -> tuple[Cohort, ...]:
    """Return the newest cohorts, each predicted with what was mature when it began.

    A cohort is as long as the time to return. So when one begins, the visits of the last but one before it are mature.
    """
    number = visits.hours // length
    known = visits.mature
    found = []
    for one in np.unique(number[known]).tolist()[-COHORTS:]:
        own, before = known & (number == one), known & (number < one - 1)
        if min(_distinct(visits.people[chosen]) for chosen in (own, before)) < PEOPLE:
            continue
        index, x, y = fit(visits, before), visits.signals[own], visits.returned[own]
        mass, person, predicted = visits.weights[own], visits.people[own], x @ index.weights
        error = _mean(y - predicted, mass, person, _people(visits))
        error = error.plus(-index.errors @ (mass @ x / mass.sum()))
        told, came = (round(float(mass @ each / mass.sum()), 6) for each in (predicted, y))
        found.append(Cohort(one * length, int(own.sum()), told, came, error.estimate(-1.0)))
    return tuple(found)


def _people(visits: Visits) -> int:
    """Return the number of codes of people."""
    return int(visits.people.max()) + 1


def _mean(values: Floats, mass: Floats, person: Integers, people: int) -> _Mean:
    """Return the mean of `values`, (n,), with weights `mass`; `person` has codes below `people`."""
    total = mass.sum()
    mean = float(mass @ values / total)
    return _Mean(mean, np.bincount(person, mass * (values - mean), people) / total, _distinct(person))


def _distinct(person: Integers) -> int:
    return int(np.count_nonzero(np.bincount(person)))

"""The surrogate index: what a visit's signals say about a return, and what each strategy does beyond that.

With x the mean signals of a visit, after a 1, y whether a return followed, and v its weight, sums over the mature
visits give the index (Athey, Chetty, Imbens & Kang, "The surrogate index", NBER 26463, 2019):

    w = (sum v x x' + R)^-1 sum v x y,    R = RIDGE for every signal, 0 for the 1.

It predicts visits that are not mature. If it is all that is used, a strategy that drives people away but is clicked is
overrated for ever. So each strategy has a correction, a sum too, from its mature visits (M) among all its visits (A):

    value = mean of w'x over A + mean of y - w'x over M.

This is right on average whether signals tell all or not, if A and M do not differ otherwise (Angelopoulos et al.,
"Prediction-powered inference", Science 2023), and varies less than the mean of y over M the more signals tell. For the
setting, see McDonald et al., "Impatient bandits", KDD 2023, and arXiv 2501.07761.

Intervals are over people: a mean's variance is the sum of the squares of what each person adds to its error. To that is
added (1.5 / people)^2, as after n visits without a return up to 3 / n of them may be followed by one. That w is
estimated, too, is left out.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from msgspec.structs import replace

from backchannel.agents.horizon.serving import Cohort, LongTerm, Surrogate
from backchannel.agents.horizon.visits import Times, Visits
from backchannel.agents.sums import ALL, Booleans, Floats, Integers
from backchannel.schemas.snapshot import Estimate

RIDGE: Final = 1.0
"""Prior strength, in visits, that pulls the weight of a signal to 0."""
PEOPLE: Final = 30
"""People with mature visits below which nothing is estimated."""
COHORTS: Final = 12
"""Cohorts that are published: the newest."""
_Z: Final = 1.96
_DAY_MS: Final = 86_400_000


class _Mean(NamedTuple):
    """A weighted mean, and what each person adds to its error, (people,)."""

    value: float
    errors: Floats


def summarize(visits: Visits, signals: Sequence[str], times: Times) -> tuple[Surrogate, dict[str, LongTerm]]:
    """Return what is known about all visits, and about those of each strategy.

    Args:
        visits: the visits.
        signals: the names of the signals.
        times: see `Times`.
    """
    mature = visits.mature
    people = len(np.unique(visits.people[mature]))
    weights = fit(visits, mature) if people >= PEOPLE else None
    surrogate = Surrogate(
        least_days=times.least_ms / _DAY_MS,
        days=times.most_ms / _DAY_MS,
        people=people,
        visits=len(mature),
        mature=int(mature.sum()),
        weights={} if weights is None else dict(zip([ALL, *signals], weights.round(6).tolist(), strict=True)),
        cohorts=_cohorts(visits, times.most_ms),
    )
    codes = range(len(visits.strategies))
    return surrogate, {visits.strategies[code]: _strategy(visits, weights, visits.strategy == code) for code in codes}


def fit(visits: Visits, chosen: Booleans) -> Floats:
    """Return the weights w of the index, (1 + signals,), from the chosen visits, at least one, all of them mature."""
    x = visits.signals[chosen]
    weighted = x.T * visits.weights[chosen]
    ridge = np.diag([0.0, *[RIDGE] * (x.shape[1] - 1)])
    return np.asarray(np.linalg.solve(weighted @ x + ridge, weighted @ visits.returned[chosen]))


def _strategy(visits: Visits, weights: Floats | None, own: Booleans) -> LongTerm:
    """Return what the visits of a strategy are worth; `own` are its lines, (lines,)."""
    visit, shares = visits.visit[own], visits.shares[own]
    x, mature, person = visits.own[own], visits.mature[visit], visits.people[visit]
    mass = shares * visits.weights[visit]
    people = len(np.unique(person[mature]))
    known = LongTerm(
        visits=round(float(shares.sum()), 3),
        mature=round(float(shares[mature].sum()), 3),
        people=people,
        success=round(float(np.average(x[:, 1], weights=mass)), 6),
    )
    if weights is None:
        return known
    index, size = x @ weights, int(visits.people.max()) + 1
    predicted = _mean(index, mass, person, size)
    known = replace(known, predicted=round(predicted.value, 6))
    if people < PEOPLE:
        return known
    y, of_mature = visits.returned[visit][mature], (mass[mature], person[mature], size)
    residual = _mean(y - index[mature], *of_mature)
    value = _Mean(predicted.value + residual.value, predicted.errors + residual.errors)
    return replace(
        known,
        returned=_estimate(_mean(y, *of_mature), people, least=0.0),
        residual=_estimate(residual, people),
        value=_estimate(value, people, least=0.0),
    )


def _cohorts(visits: Visits, length: int) -> tuple[Cohort, ...]:
    """Return the newest cohorts, each predicted with what was mature when it began.

    A cohort is as long as the time to return. So when one begins, the visits of the last but one before it are mature.
    """
    number = visits.hours // length
    known = visits.mature
    found = []
    for one in np.unique(number[known]).tolist()[-COHORTS:]:
        own, before = known & (number == one), known & (number < one - 1)
        if min(len(np.unique(visits.people[chosen])) for chosen in (own, before)) < PEOPLE:
            continue
        mass, person = visits.weights[own], visits.people[own]
        predicted, returned = visits.signals[own] @ fit(visits, before), visits.returned[own]
        people = len(np.unique(person))
        error = _mean(returned - predicted, mass, person, int(person.max()) + 1)
        told, came = (round(float(np.average(each, weights=mass)), 6) for each in (predicted, returned))
        found.append(Cohort(one * length, int(own.sum()), told, came, _estimate(error, people)))
    return tuple(found)


def _mean(values: Floats, mass: Floats, person: Integers, people: int) -> _Mean:
    mean = float(np.average(values, weights=mass))
    return _Mean(mean, np.bincount(person, mass * (values - mean), people) / mass.sum())


def _estimate(mean: _Mean, people: int, least: float = -1.0) -> Estimate:
    spread = _Z * float(np.hypot(np.linalg.norm(mean.errors), 1.5 / people))
    bounds = np.clip((mean.value, mean.value - spread, mean.value + spread), least, 1.0)
    return Estimate(*bounds.round(6).tolist())

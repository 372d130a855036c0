"""How clicks depend on where an item stands on the page, learned from the clicked items themselves.

An item's *place* is the number of candidates that have a better rank than it, in the lists of all strategies: what
stands before it if lists are merged in turns. At place k it is examined in proportion to

    e(k) = (1 + k)^-a.

The exponent a has to be known to weigh clicks for another policy, which would show the items elsewhere. A clicked
item tells it: had it been clicked at any place alike, it would stand at each as often as the policy brought it there.
Instead it was clicked at k with probability P(k) e(k) / sum over j of P(j) e(j), where P(k) is the probability that the
decision brought it at place k. How attractive the item is cancels out, as in a conditional logit (McFadden, 1974). So

    sum over clicked items of  worth * (log(1 + k) - E[log(1 + k)]) = 0

estimates a: each item's term has mean zero, whatever it is worth, if that does not depend on its place. What each turn
adds to the error of a, and so to that of a value, is known to first order. If clicks fall otherwise than by a power
(nobody scrolls, say), the same terms of other functions of the place do not have mean zero. `misfit` tests that.
"""

from math import inf
from typing import Final, Self

import numpy as np
from msgspec import Struct

from backchannel.agents.ope.estimators import Terms
from backchannel.agents.sums import Floats, Integers

_KNOTS: Final = (2.0, 4.0)
"""Positions at which, for the test, the curve may bend."""
_STEEPEST: Final = 4.0
"""The largest exponent, of either sign; of clicks at the first place only, it would be infinite."""
_STEPS: Final = 40  # of bisection, to within 1e-11
_TINY: Final = 1e-9


class Items(Struct, frozen=True):
    """Clicked items.

    Attributes:
        turns: the index of each item's turn, (items,).
        worths: the worth of each, over the probability of looking its ranks up, (items,).
        logged: the probability that the logged decision brought it at each place, (items, places);
            each item's are not all 0.
        stood: the place where it stood, (items,).
    """

    turns: Integers
    worths: Floats
    logged: Floats
    stood: Integers


class Examination(Struct, frozen=True):
    """How clicks depend on places.

    Attributes:
        exponent: a, see the module.
        influences: what each turn adds to the error of the exponent, (turns,).
        misfit: how far clicks fall otherwise than by a power: if they do not, chi-squared with 2 degrees of freedom, or
            fewer where there are few places.
    """

    exponent: float
    influences: Floats
    misfit: float = 0.0

    @property
    def error(self) -> float:
        """The standard error of the exponent; infinite if no item might have stood elsewhere."""
        return float(np.sqrt(self.influences @ self.influences)) or inf

    @classmethod
    def flat(cls, turns: int) -> Self:
        """Return an examination for which places do not matter."""
        return cls(0.0, np.zeros(turns))

    @classmethod
    def of(cls, items: Items, turns: int) -> Self:
        """Learn from clicked items.

        Args:
            items: the clicked items.
            turns: the number of turns, with a click or without.
        """
        functions = _functions(items.logged.shape[1])
        if _covariances(items, functions, 0.0, items.worths)[0, 0] <= _TINY * items.worths.sum():
            return cls.flat(turns)
        low, high = -_STEEPEST, _STEEPEST
        for _ in range(_STEPS):
            exponent = (low + high) / 2.0
            scores = _scores(items, functions, exponent)
            # The sum grows with the exponent.
            low, high = (low, exponent) if scores[:, 0].sum() > 0.0 else (exponent, high)
        information = _covariances(items, functions, exponent, items.worths)
        influences = np.bincount(items.turns, -scores[:, 0] / information[0, 0], turns).astype(float)
        # What the bends have beyond what goes with the exponent; the clicks of a turn may all go together.
        beyond = np.column_stack((-information[1:, 0] / information[0, 0], np.eye(len(_KNOTS))))
        together = items.worths * np.bincount(items.turns, items.worths, turns)[items.turns]
        spread = beyond @ _covariances(items, functions, exponent, together) @ beyond.T
        # A little more, where items stand at so few places that there is nothing to test.
        spread += _TINY * together.sum() * np.eye(len(_KNOTS))
        bends = beyond @ scores.sum(axis=0)
        return cls(exponent, influences, float(bends @ np.linalg.solve(spread, bends)))


class Earnings(Struct, frozen=True):
    """What clicked items would earn for another policy, by turn.

    Attributes:
        values: the worth of a turn's clicked items, weighed for the policy, (turns,).
        slopes: how it changes with the exponent, (turns,).
    """

    values: Floats
    slopes: Floats

    @classmethod
    def of(cls, items: Items, brought: Floats, examination: Examination) -> Self:
        """Weigh clicked items for a policy.

        Args:
            items: the clicked items.
            brought: the probability that the policy brings each at each place, (items, places).
            examination: how clicks depend on places.
        """
        depths = _functions(items.logged.shape[1])[:, 0]
        examined = np.exp(-examination.exponent * depths)
        falls = -examined * depths
        logged, turns = items.logged @ examined, len(examination.influences)
        # A propensity next to 0 has a weight beyond all numbers: a fault, see `union.faults`.
        with np.errstate(over="ignore", invalid="ignore"):
            weights = brought @ examined / logged
            slopes = (brought @ falls - weights * (items.logged @ falls)) / logged
            by_turn = [np.bincount(items.turns, items.worths * some, turns).astype(float) for some in (weights, slopes)]
        return cls(*by_turn)

    def terms(self, examination: Examination) -> Terms:
        """Return terms, (turns,), whose mean is the policy's value, with what the exponent's error adds to theirs."""
        with np.errstate(invalid="ignore"):
            values = self.values + self.slopes.sum() * examination.influences
        return Terms(values, float(values.min(initial=0.0)), float(values.max(initial=0.0)))


def _functions(places: int) -> Floats:
    """Return log(1 + k), and what bends it at the knots, by place, (places, 3)."""
    depths = np.log1p(np.arange(places))
    return np.column_stack((depths, *(np.maximum(depths - np.log(knot), 0.0) for knot in _KNOTS)))


def _chances(items: Items, functions: Floats, exponent: float) -> Floats:
    """Return the probability of each place of each item, given that it is clicked, (items, places)."""
    chances = items.logged * np.exp(-exponent * functions[:, 0])
    found: Floats = chances / chances.sum(axis=1, keepdims=True)
    return found


def _scores(items: Items, functions: Floats, exponent: float) -> Floats:
    """Return each item's functions of its place less their expectation, times its worth, (items, functions)."""
    expected = _chances(items, functions, exponent) @ functions
    scores: Floats = items.worths[:, np.newaxis] * (functions[items.stood] - expected)
    return scores


def _covariances(items: Items, functions: Floats, exponent: float, weights: Floats) -> Floats:
    """Return the weighted sum of the items' covariances of the functions, (functions, functions)."""
    chances = _chances(items, functions, exponent)
    expected = chances @ functions
    covariances: Floats = (functions.T * (weights @ chances)) @ functions - (expected.T * weights) @ expected
    return covariances

"""The plans of budgets, made when they are first asked for, and their values in a context.

A budget of *distinct* candidates has one plan: the proportions in which lists are walked until there are so many. They
are those of the mean of the fills under draws from the whole posterior, in the mean context. Contexts have little left
to decide there, as what one strategy cannot bring others do: with full feedback on a real catalogue, plans chosen by
context were no better than one for all (docs/evidence.md). What is walked where the best list ends does decide. A
single fill seldom says that, as it asks others for little beside the best; the mean of many has all that may be good,
by how likely that is. They also decide who is on top of the page (see `plans`). Stand-ins are added: the strategies
that would be planned without the best one. Their share is so small that they bring nothing while its list goes on;
without them, everybody is walked once the planned lists end.

A random set of such a budget is walked beside the plan, not in its place: bad strategies on their own cost several
times as much, and tell little more. Stand-ins are as optional there as all others, or nobody would learn whether they
are better. Only where all decisions are random, sets are by themselves.
"""

from collections.abc import Collection, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
from msgspec import Struct, structs
from numpy.typing import NDArray

from backchannel.agents.bandit.mixture import Allocations, Counts, RandomSets
from backchannel.agents.bandit.plans import Overlap, Terms, corrections, plans, proportions, shares
from backchannel.agents.sums import Floats
from backchannel.schemas.events import MAX_DEPTH

MAX_BUDGET: Final = MAX_DEPTH
"""As many candidates of one strategy as an `impression` event can log."""
Precise: TypeAlias = NDArray[np.float32] | NDArray[np.float64]
_KEPT: Final = 128  # requests whose plans are kept: some 35 kB each with eight strategies, at most 270
_AHEAD: Final = 8  # of those, how many that nobody asks for are made for the next version, too
_DEEPEST: Final = 4  # most candidates of one strategy for each distinct candidate of the budget
_FINE: Final = 16  # proportions of distinct budgets are in these parts of a candidate
_STAND_INS: Final = 0.25  # candidates for all stand-ins together
_LEAST: Final = 1e-300  # worth that is told from none


class Asked(Struct, frozen=True):
    """A request for plans; see `Allocator.allocate`."""

    budget: int
    distinct: bool
    available: tuple[str, ...] | None

    @classmethod
    def of(cls, budget: int, *, distinct: bool, available: Collection[str] | None) -> "Asked":
        """Return the request that arguments of `Allocator.allocate` make."""
        return cls(budget, distinct, None if available is None else tuple(sorted(available)))


class Models(Struct, frozen=True):
    """Models of the strategies: first what is expected of them, then draws.

    Attributes:
        rates: c, (1 + draws, strategies, BUCKETS).
        phi: how contexts change the rates, (1 + draws, strategies, d).
        elasticities: of what pages earn, (1 + draws, strategies); see `elasticity`.
    """

    rates: Floats
    phi: Floats
    elasticities: Floats


class Plans(Struct, frozen=True):
    """The plans that decisions are made from.

    Attributes:
        allocations: candidates of each plan.
        sets: random sets of strategies; of a distinct budget, beside the plan.
        factors: how contexts change the strategies' rates: phi, plus 1 for the constant, (draws, strategies, d).
        worth: value of each strategy's part of each plan under each draw, relative to the largest, (draws, strategies,
            plans).
    """

    allocations: Allocations
    sets: RandomSets
    factors: Precise
    worth: Precise

    def values(self, vectors: Floats) -> Precise:
        """Return the value of each plan, (contexts, draws, plans).

        Args:
            vectors: encoded contexts, (contexts, strategies, d), or (contexts, 1, d) if all strategies have the same.
        """
        draws, strategies, dimension = self.factors.shape
        vectors = vectors.astype(self.factors.dtype, copy=False)
        if vectors.shape[1] == 1:
            factors = vectors[:, 0].dot(self.factors.reshape(-1, dimension).T).reshape(-1, draws, strategies)
        else:
            factors = np.einsum("nsd,csd->cns", self.factors, vectors)
        return np.asarray(np.matmul(factors.swapaxes(0, 1), self.worth).swapaxes(0, 1))


class Planner:
    """Makes plans.

    Args:
        strategies: names.
        minima: fewest candidates of each strategy, (strategies,).
        maxima: most candidates of each strategy, (strategies,); 0 if it is never asked.
        costs: cost of a candidate of each strategy, (strategies,).
        single: what to go by for a single candidate.
        several: what to go by for pages; its phi are what is evident, see `rates`.
        whole: rates in the mean context, under draws from the whole posterior, (draws, strategies, BUCKETS).
        overlap: what lists have in common.
        contexts: contexts to make plans for, (contexts, strategies, d), or (contexts, 1, d) if all strategies share
            them.
        beside: whether random sets of distinct budgets are walked beside the plan.
        precision: of plans' values.
    """

    def __init__(
        self,
        strategies: Sequence[str],
        minima: Counts,
        maxima: Counts,
        costs: Floats,
        *,
        single: Models,
        several: Models,
        whole: Floats,
        overlap: Overlap,
        contexts: Floats,
        beside: bool,
        precision: type[np.float32 | np.float64],
    ) -> None:
        self._strategies: Final = strategies
        self._minima: Final = minima
        self._maxima: Final = maxima
        self._costs: Final = costs
        self._single: Final = single
        self._several: Final = several
        self._whole: Final = whole
        self._overlap: Final = overlap
        self._contexts: Final = contexts
        self._beside: Final = beside
        self._precision: Final = precision
        self._least: Final = max(int(minima.sum()), 1)
        self._plans: Final[dict[Asked, Plans]] = {}
        self._ahead: Final[set[Asked]] = set()  # those that were only prepared for

    @property
    def known(self) -> list[Asked]:
        """The latest requests, and a few of those that were only prepared for, as some services are seldom asked."""
        every = list(self._plans)
        ahead = [asked for asked in every if asked in self._ahead]
        return ahead[-_AHEAD:] + [asked for asked in every if asked not in self._ahead]

    def prepare(self, asked: Asked) -> None:
        """Make the plans of a request that may come; raises what `plan` raises."""
        self.plan(asked)
        self._ahead.add(asked)

    def plan(self, asked: Asked) -> Plans:
        """Return the plans of a request; they are made the first time.

        Raises:
            ValueError: no budget, too much of it, or less than the strategies' minima; or no strategy is available.
        """
        found = self._plans.get(asked)
        if found is None:
            found = self._plans[asked] = self._make(asked)
            for oldest in list(self._plans)[:-_KEPT]:
                self._plans.pop(oldest, None)
        self._ahead.discard(asked)
        return found

    def worth(self, counts: Counts) -> Floats:
        """Return the expected value of each strategy's part of allocations, (allocations, strategies).

        Args:
            counts: the allocations, (allocations, strategies).
        """
        rates = np.einsum("psk,sk->ps", shares(counts, self._overlap, self._costs), self._single.rates[0])
        single = counts.sum(axis=1, keepdims=True) <= 1  # a single candidate is the whole page
        return np.asarray(rates * np.where(single, 1.0, corrections(counts, self._several.elasticities[:1]).T))

    def sets(self, asked: Asked) -> RandomSets:
        """Return random sets of strategies by themselves; raises what `plan` raises."""
        minima, maxima = self._limits(asked)
        return RandomSets(minima.tolist(), maxima.tolist(), asked.budget)

    def _limits(self, asked: Asked) -> tuple[Counts, Counts]:
        """Return the fewest and the most candidates of each strategy, both (strategies,)."""
        if not self._least <= asked.budget <= MAX_BUDGET:
            raise ValueError(f"budget: {asked.budget} candidates; draw at least {self._least} and at most {MAX_BUDGET}")
        minima, maxima = self._minima, self._maxima
        if asked.available is not None:
            up = np.isin(self._strategies, asked.available)
            minima, maxima = np.where(up, minima, 0), np.where(up, maxima, 0)
            if not maxima.any():
                known = ", ".join(name for name, most in zip(self._strategies, self._maxima, strict=True) if most)
                raise ValueError(f"available: {list(asked.available)} has no strategy that is on; name one of {known}")
        return minima, maxima

    def _make(self, asked: Asked) -> Plans:
        minima, maxima = self._limits(asked)
        most = np.minimum(maxima, _DEEPEST * asked.budget) if asked.distinct else maxima
        terms = Terms(minima, np.maximum(most, minima), self._costs, asked.budget, asked.distinct)
        models = self._single if asked.budget == 1 else self._several
        if asked.distinct:
            counts, beside = self._distinct(terms)
            models = structs.replace(models, elasticities=self._single.elasticities)
        else:
            counts, beside = self._fills(terms, models), None
        weights = shares(counts, self._overlap, self._costs)
        worth = np.einsum("psk,nsk->nsp", weights, models.rates)
        worth *= corrections(counts, models.elasticities)[:, np.newaxis]
        worth /= max(worth.max(), _LEAST)  # only ratios matter, and squares of the largest are finite
        sets = self.sets(asked) if beside is None or not self._beside else beside
        factors: Any = models.phi.astype(self._precision)
        factors[..., 0] += 1.0  # the first column of a context is 1
        return Plans(Allocations(counts), sets, factors, worth.astype(self._precision, order="C"))

    def _fills(self, terms: Terms, models: Models) -> Counts:
        """Return the plans of a budget of drawn candidates, (plans, strategies)."""
        contexts = self._contexts
        factors = np.maximum(1.0 + (models.phi[:, np.newaxis] * contexts).sum(axis=3), 0.0)  # (draws, contexts, s)
        rates = models.rates[:, np.newaxis] * factors[..., np.newaxis]
        return plans(
            rates.reshape(-1, *rates.shape[2:]),
            self._overlap,
            terms,
            models.elasticities.repeat(len(contexts), axis=0),
        )

    def _distinct(self, terms: Terms) -> tuple[Counts, RandomSets]:
        """Return the plan of a budget of distinct candidates, (1, strategies), and random sets beside it."""
        mean = proportions(self._whole, self._overlap, terms)
        # A random set beside it may be as many candidates again, and events log at most MAX_DEPTH.
        parts = min(_FINE, MAX_DEPTH / 2 / (mean.sum() + _STAND_INS))
        plan = np.rint(mean * parts).astype(np.int64)
        others = np.arange(len(mean)) != mean.argmax()
        if not (terms.most * others).any():
            return plan[np.newaxis], _beside(plan, terms, parts)
        without = structs.replace(terms, least=terms.least * others, most=terms.most * others)
        next_best = proportions(self._whole, self._overlap, without)
        return (plan + _dealt(next_best, _STAND_INS * parts))[np.newaxis], _beside(plan, terms, parts)


def _dealt(weights: Floats, total: float) -> Counts:
    """Return whole numbers, (strategies,), at least one in all, in proportion to weights, by the largest remainders."""
    exact = weights * (max(round(total), 1) / weights.sum())
    counts = np.floor(exact).astype(np.int64)
    left = round(exact.sum()) - int(counts.sum())
    counts[np.argsort(counts - exact, kind="stable")[:left]] += 1
    return np.asarray(counts)


def _beside(plan: Counts, terms: Terms, parts: float) -> RandomSets:
    """Return random sets of the strategies that are not planned, walked beside the plan in equal parts.

    Args:
        plan: the plan, without stand-ins, which are as optional as all others, (strategies,).
        terms: its terms.
        parts: the parts of a candidate that it is in.
    """
    minima = plan + np.rint(terms.least * parts).astype(np.int64)
    maxima = np.maximum(np.rint(2.0 * parts * terms.most).astype(np.int64), minima)
    return RandomSets(minima.tolist(), maxima.tolist(), int(max(2 * plan.sum(), minima.sum())))

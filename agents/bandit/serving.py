"""The strategy bandit, serving: which strategies to ask for a query, and how many candidates from each.

A decision is drawn from a known mixture of allocations (see `mixture`). By default its parts are the best of the
budget's plans (see `plans`) under DRAWS draws from the posterior of the strategies' rates: Thompson sampling (Agrawal &
Goyal, ICML 2013; Russo & Van Roy, "Learning to optimize via posterior sampling", 2014) over allocations.

For several candidates draws are wider, and each part is the plan that TOGETHER of them regret least, by the mean of
squares (Kitagawa, Lee & Qiu, "Treatment choice with nonlinear regret", arXiv:2205.08586, 2022): what is best if all is
as expected may be far from it if some is not, and a budget can be shared out so that it is never far.

The draws are made once for each section, by a seed that follows from it. So what a decision's probabilities are follows
from section and context, and to decide takes one product and one maximum per draw.
"""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import ClassVar, Final, Self
from zlib import crc32

import msgspec
import numpy as np
from msgspec import Struct, structs
from numpy.typing import NDArray

from backchannel.agents.bandit.belief import Belief, draw
from backchannel.agents.bandit.decision import NOTHING_KNOWN, Decision, Retrieval, Source, StrategyContext
from backchannel.agents.bandit.features import Encoder, Value
from backchannel.agents.bandit.mixture import Counts, Mixture, Mixtures, RandomSets
from backchannel.agents.bandit.planner import Asked, Models, Planner, Precise
from backchannel.agents.bandit.plans import Overlap, mean_context, overlap_of, references
from backchannel.agents.bandit.ranks import WIDTH, WORTH, covered
from backchannel.agents.bandit.section import Row, Segment, Settings, unseen_features
from backchannel.agents.serving import Sections
from backchannel.agents.sums import Floats
from backchannel.schemas.errors import BackchannelError
from backchannel.schemas.snapshot import Estimate, Snapshot

DRAWS: Final = 32
TOGETHER: Final = 8
"""Number of draws that are followed together where several candidates are asked for."""
APART: Final = 6.0
"""How many times as wide those draws are as one that is followed by itself."""
GAP_WEIGHT: Final = 3.0
"""SquareCB's learning rate, in units of sqrt(strategies * turns) over the best value."""
RANKS: Final = 32
"""Number of ranks of each strategy's list that `gains` covers."""
REFERENCES: Final = 16
"""Number of contexts that plans are made for."""
_CONTEXTS: Final = 256  # decided on together
_NORMAL: Final = 1.96  # half of a 95% interval, in standard deviations
_EVEN: Final = {together: np.full(DRAWS // together, together / DRAWS) for together in (1, TOGETHER)}
_GROUPS: Final = {TOGETHER: np.kron(np.eye(DRAWS // TOGETHER), np.ones(TOGETHER)).astype(np.float32)}
"""The draws to add up, (groups, DRAWS)."""


class StrategySummary(Struct, frozen=True):
    """What was learned about a strategy, for people.

    Attributes:
        weights: column of features -> its weight in the expected reward, and its standard deviation.
        segments: segments of queries; all queries first.
        doubled: by what share whole pages earn more than their candidates promise, relative to other pages, if twice as
            many are drawn from it, with a 95% interval; see `elasticity`.
    """

    weights: dict[str, tuple[float, float]]
    segments: list[Segment]
    doubled: Estimate


class EncodingError(BackchannelError, ValueError):
    """The policy was learned with another encoding of contexts than this version of Backchannel makes."""


class Allocator:
    """The bandit's section of a policy, ready to decide.

    Args:
        section: the section that `StrategyBandit.solve` wrote.

    Attributes:
        strategies: the strategies that it chooses from.
        encoder: the encoder of contexts.
        least: the smallest budget, in candidates.
        evidence: strategy -> turns in which it was asked (discounted), and their mean reward.
        unseen_features: features of contexts that were not, or only at their center, in any turn that was learned.
        changed: event time from which on rewards fell below what was expected, ms; None: they never did.

    Decisions weigh successes by what they are worth; what is told about rewards does not.

    Raises:
        EncodingError: contexts would not be encoded as they were when the section was learned.
    """

    name: ClassVar[str] = "bandit"

    def __init__(self, section: Mapping[str, bytes]) -> None:
        settings = msgspec.json.decode(section[""], type=Settings)
        self.encoder: Final = Encoder(settings.features)
        if self.encoder.fingerprint != settings.encoding:
            raise EncodingError(
                f"the policy's contexts have fingerprint {settings.encoding}, here the same features give "
                f"{self.encoder.fingerprint}: let publisher and reader run the same version of Backchannel"
            )
        self.strategies: Final = settings.strategies
        self.changed: Final = settings.changed
        self._settings: Final = settings
        rows = [msgspec.json.decode(section[name], type=Row) for name in self.strategies]
        self.evidence: Final = {name: (row.count, row.reward) for name, row in zip(self.strategies, rows, strict=True)}
        self._counts: Final = np.array([row.count for row in rows])
        rows = [structs.replace(row, evident=row.evident or row.theta) for row in rows]
        belief = Belief(*(np.array([getattr(row, field) for row in rows]) for field in Belief.__struct_fields__))
        self._belief: Final = belief
        seed = crc32(b"".join(section[key] for key in ("", *self.strategies)))
        rng = np.random.default_rng(seed)
        drawn, phi = draw(belief, settings.exploration, DRAWS, rng)
        apart = rng.standard_normal((DRAWS, len(rows))) @ np.array(settings.elasticities_whitener)
        seen = _seen(rows, self.encoder)
        contexts = np.stack([references(gram, REFERENCES, seed) for gram in seen], axis=1)
        mean = np.stack([mean_context(gram) for gram in seen])
        wide, shifted = draw(belief, 1.0, DRAWS, rng)
        shifted += belief.evident - belief.theta
        whole = wide * np.maximum(1.0 + (shifted * mean).sum(axis=2), 0.0)[..., np.newaxis]
        # The first are the expected rates.
        self._rates: Final = np.concatenate((belief.rates[np.newaxis], drawn))
        self._phi: Final = np.concatenate((belief.theta[np.newaxis], phi))
        self._thompson: Final = settings.policy == "thompson"
        width = settings.exploration
        if self._thompson:  # no wider than the posterior, unless exploration is
            width = max(width, min(APART * width, 1.0))
        several, evident = draw(belief, width, DRAWS, rng)
        evident += belief.evident - belief.theta
        cover = np.array([row.cover for row in rows])
        self._cover: Final = np.where(
            self._counts[:, np.newaxis] > 0, cover, self._counts @ cover / max(self._counts.sum(), 1e-9)
        )
        self._floor: Final = {"uniform": 1.0, "ucb": 0.0}.get(settings.policy, settings.floor)
        minima = np.array([limits.minimum if limits.on else 0 for limits in settings.limits])
        self._planner: Final = Planner(
            self.strategies,
            minima,
            np.array([limits.maximum if limits.on else 0 for limits in settings.limits]),
            # What a success is worth divides the cost of what brings it.
            np.array([limits.cost for limits in settings.limits])
            / np.array([settings.worth.get(name, 1.0) for name in self.strategies]),
            single=Models(self._rates, self._phi, np.zeros_like(self._phi[..., 0])),
            several=Models(
                np.concatenate((belief.rates[np.newaxis], several)),
                np.concatenate((belief.evident[np.newaxis], evident)),
                settings.elasticities + width * np.concatenate((np.zeros_like(apart[:1]), apart)),
            ),
            whole=whole,
            overlap=_overlap(rows),
            contexts=contexts,
            beside=self._floor < 1.0,
            # Draws are compared, and nothing else. SquareCB multiplies differences by thousands.
            precision=np.float32 if self._thompson else np.float64,
        )
        self._segments: Final = [row.segments for row in rows]
        self.unseen_features: Final = unseen_features(self.encoder, rows)
        self.least: Final = max(int(minima.sum()), 1)

    @classmethod
    def of(cls, sections: Sections, header: Snapshot) -> Self:  # noqa: ARG003 - Serving's
        """See `Serving.of`.

        Raises:
            KeyError: there is no policy of the bandit.
        """
        return cls(sections[cls.name])

    def prepare(self, like: "Allocator") -> None:
        """Make the plans of the budgets that another allocator was asked for, so that no decision has to wait for them.

        Most of what only versions before that were asked for is made when it is asked for again.

        Args:
            like: the allocator of the version before.
        """
        for asked in like._planner.known:
            with suppress(ValueError):  # it may not be allowed any more
                self._planner.prepare(asked)

    def utilities(
        self, context: Mapping[str, Value], strategy_context: StrategyContext = NOTHING_KNOWN
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return each strategy's expected reward and the standard deviation that is explored, both (strategies,).

        It is the weight of the clicks on what it brings when it is asked as deep as usual, whoever else brings it.
        """
        factors = self._factors(self._vectors(context, strategy_context))
        values = (self._rates * self._cover).sum(axis=2) * factors
        return values[0], values[1:].std(axis=0)

    def terms(
        self, context: Mapping[str, Value], strategy_context: StrategyContext = NOTHING_KNOWN
    ) -> dict[str, dict[str, float]]:
        """Return what each column of a context's features adds to each strategy's expected reward; see `utilities`.

        Columns that add nothing are left out. The column "1" is the reward where all others are zero.
        """
        added = self._weights() * self._vectors(context, strategy_context)
        return {
            name: {column: term for column, term in zip(self.encoder.columns, own, strict=True) if term}
            for name, own in zip(self.strategies, added.tolist(), strict=True)
        }

    def gains(
        self, context: Mapping[str, Value], strategy_context: StrategyContext = NOTHING_KNOWN
    ) -> dict[str, list[float]]:
        """Return the expected gains of each strategy's candidates, best rank first: for ranking their union."""
        factors = np.maximum(self._factors(self._vectors(context, strategy_context))[0], 0.0)
        gained = (np.repeat(self._rates[0], WIDTH, axis=1) * WORTH)[:, :RANKS] * factors[:, np.newaxis]
        return dict(zip(self.strategies, gained.tolist(), strict=True))

    def summaries(self) -> dict[str, StrategySummary]:
        """Return what was learned about each strategy."""
        means, widths = self._weights(), self._level() * np.linalg.norm(self._belief.whitener, axis=1)
        elasticity = np.array(self._settings.elasticities)
        half = _NORMAL * np.linalg.norm(self._settings.elasticities_whitener, axis=0)
        doubled = np.exp2([elasticity, elasticity - half, elasticity + half]).T - 1.0
        return {
            name: StrategySummary(
                dict(zip(self.encoder.columns, zip(*pair, strict=True), strict=True)), segments, Estimate(*own)
            )
            for name, *pair, segments, own in zip(
                self.strategies, means.tolist(), widths.tolist(), self._segments, doubled.tolist(), strict=True
            )
        }

    def allocate(
        self,
        context: Mapping[str, Value],
        budget: int,
        rng: np.random.Generator,
        strategy_context: StrategyContext = NOTHING_KNOWN,
        *,
        distinct: bool = False,
        available: Collection[str] | None = None,
    ) -> Decision:
        """Decide which strategies to ask, and how many candidates to draw from each.

        Args:
            context: the query's context; see `features.context_of`.
            budget: number of candidates to draw in all, 1 to MAX_BUDGET.
            rng: the random generator.
            strategy_context: strategy -> its context: the features named `strategy.` and so on.
            distinct: whether the budget is one of distinct candidates: those that two strategies bring count once.
            available: the strategies that can be asked now; None: all. Names that the policy does not know are ignored.

        Raises:
            ValueError: no budget, too much of it, or less than the strategies' minima; or no strategy is available.
        """
        mixture = self.mixture(context, budget, strategy_context, distinct=distinct, available=available)
        counts = mixture.draw(rng)
        strategies = self.strategies
        allocation = {name: count for name, count in zip(strategies, counts, strict=True) if count}
        propensities = dict(zip(strategies, mixture.propensities(), strict=True))
        return Decision(
            allocation,
            propensities,
            mixture.probability(counts),
            strategy_context,
            planned=allocation if distinct else {},
            distinct=budget if distinct else None,
        )

    def retrieval(
        self,
        context: Mapping[str, Value],
        budget: int,
        strategy_context: StrategyContext = NOTHING_KNOWN,
        *,
        available: Collection[str] | None = None,
    ) -> Retrieval:
        """Return what `allocate`, asked the same, brings; see there."""
        return Retrieval(
            (Source(self.strategies, self.mixture(context, budget, strategy_context, available=available)),)
        )

    def mixture(
        self,
        context: Mapping[str, Value],
        budget: int,
        strategy_context: StrategyContext = NOTHING_KNOWN,
        *,
        distinct: bool = False,
        available: Collection[str] | None = None,
    ) -> Mixture:
        """Return the allocations that `allocate` chooses from, with their probabilities; see there."""
        plan = self._planner.plan(Asked.of(budget, distinct=distinct, available=available))
        values = plan.values(self._vectors(context, strategy_context)[np.newaxis])[0]
        if self._thompson:
            together = _together(budget)
            return Mixture(plan.allocations, followed(values[1:], together), _EVEN[together], self._floor, plan.sets)
        parts, weights = self._explore(values)
        return Mixture(plan.allocations, parts, weights, self._floor, plan.sets)

    def mixtures(
        self,
        vectors: NDArray[np.float64],
        budget: int,
        *,
        distinct: bool = False,
        available: Collection[str] | None = None,
    ) -> Mixtures:
        """Return what `allocate` draws from in each of many contexts, with the same probabilities.

        Args:
            vectors: encoded contexts, (contexts, strategies, d), or (contexts, 1, d) if all strategies share them.
            budget: see `allocate`.
            distinct: see `allocate`.
            available: see `allocate`.

        Raises:
            ValueError: see `allocate`.
        """
        plan = self._planner.plan(Asked.of(budget, distinct=distinct, available=available))
        chosen, weights = [], []
        together = _together(budget)
        for first in range(0, len(vectors), _CONTEXTS):
            own = vectors[first : first + _CONTEXTS]
            values = plan.values(own)
            if self._thompson:
                chosen.append(followed(values[:, 1:], together))
                weights.append(np.broadcast_to(_EVEN[together], (len(own), DRAWS // together)))
            else:
                explored = [self._explore(each) for each in values]
                chosen.append(np.array([parts for parts, _ in explored]))
                weights.append(np.array([own for _, own in explored]))
        counts = plan.allocations.counts
        if not chosen:
            return Mixtures(counts[np.zeros((0, 1), dtype=np.int64)], np.ones((0, 1)), self._floor, plan.sets)
        return Mixtures(counts[np.concatenate(chosen)], np.concatenate(weights), self._floor, plan.sets)

    def random_sets(self, budget: int) -> RandomSets:
        """Return random sets of strategies, that the budget is dealt to.

        Raises:
            ValueError: see `allocate`.
        """
        return self._planner.sets(Asked.of(budget, distinct=False, available=None))

    def promised(
        self, context: Mapping[str, Value], counts: Counts, strategy_context: StrategyContext = NOTHING_KNOWN
    ) -> NDArray[np.float64]:
        """Return what allocations are expected to earn by what this policy has learned, whoever chose them.

        Args:
            context: see `allocate`.
            counts: the allocations, (allocations, strategies).
            strategy_context: see `allocate`.

        Returns:
            values, (allocations,), in the measure by which plans are chosen: only ratios matter.
        """
        vectors = self._vectors(context, strategy_context)
        single, several = (1.0 + (phi * vectors).sum(axis=1) for phi in (self._belief.theta, self._belief.evident))
        factors = np.where(counts.sum(axis=1, keepdims=True) <= 1, single, several)
        return np.asarray((self._planner.worth(counts) * factors).sum(axis=1))

    def worth(self, depth: int) -> NDArray[np.float64]:
        """Return the worth of a strategy's first 0, 1, ... `depth` candidates together, (strategies, depth + 1).

        It is a share of the worth of its whole list.
        """
        rates = self._rates[0]
        return np.asarray(covered(np.arange(depth + 1)) @ (rates / rates.sum(axis=1, keepdims=True)).T).T

    def expect(self, vectors: NDArray[np.float64], budget: int, worths: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return what `allocate` is expected to draw for each of many contexts, (measures, contexts, strategies).

        Args:
            vectors: encoded contexts, (contexts, strategies, d), or (contexts, 1, d) if all strategies share them.
            budget: see `allocate`.
            worths: in several measures, of a strategy's first 0, 1, ... `budget` candidates, (measures, strategies,
                budget + 1): numbers from 0 count them; see `worth`, too.

        Raises:
            ValueError: see `allocate`.
        """
        mixtures = self.mixtures(vectors, budget)
        expected = (worths[:, np.arange(len(self.strategies)), mixtures.parts] * mixtures.shares[..., np.newaxis]).sum(
            axis=2
        )
        at_random = self.expect_at_random(budget, worths)[:, np.newaxis]
        return np.asarray((1.0 - self._floor) * expected + self._floor * at_random)

    def expect_at_random(self, budget: int, worths: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return what a random set of strategies is expected to draw, (measures, strategies); see `expect`."""
        sets, probabilities = self._planner.plan(Asked.of(budget, distinct=False, available=None)).sets.every()
        expected: NDArray[np.float64] = probabilities @ worths[:, np.arange(len(self.strategies)), sets]
        return expected

    def _vectors(self, context: Mapping[str, Value], strategy_context: StrategyContext) -> Floats:
        """Return the encoded context, (strategies, d), or (1, d) if all strategies have the same."""
        if self.encoder.of_strategies:
            return self.encoder.encode_all([{**context, **strategy_context.get(name, {})} for name in self.strategies])
        return self.encoder.encode(context)[np.newaxis]

    def _level(self) -> Floats:
        """Return each strategy's expected reward where contexts change nothing, (strategies, 1)."""
        return np.asarray((self._rates[0] * self._cover).sum(axis=1)[:, np.newaxis])

    def _weights(self) -> Floats:
        """Return the weights of the columns in the expected reward, (strategies, d)."""
        level = self._level()
        weights = level * self._belief.theta
        weights[:, 0] += level[:, 0]
        return weights

    def _factors(self, vectors: Floats) -> Floats:
        """Return the factors by which a context changes rates, expected and drawn, (1 + DRAWS, strategies)."""
        return np.asarray(1.0 + (self._phi * vectors).sum(axis=2))

    def _explore(self, values: Floats) -> tuple[NDArray[np.intp], Floats]:
        """Return the plans that are a mixture's parts, (parts,), and their shares, from (1 + DRAWS, plans) values."""
        means = values[0].astype(float)
        if self._settings.policy == "squarecb":
            # The wider the gap to the best, the smaller a plan's share (Foster & Rakhlin, "Beyond UCB", ICML 2020).
            best = means.max()
            rate = GAP_WEIGHT * np.sqrt(len(self.strategies) * self._counts.sum()) / max(best, 1e-9)
            weights = 1.0 / (len(means) + rate * (best - means))
            leader = int(means.argmax())
            weights[leader] += 1.0 - weights.sum()
            return np.arange(len(means)), weights
        wide = values[1:].std(axis=0) if self._settings.policy == "ucb" else 0.0
        return np.array([int((means + wide).argmax())]), np.ones(1)


def followed(values: Precise, together: int) -> NDArray[np.intp]:
    """Return the plan that suits each group of draws: that with the least squared regret under them.

    Args:
        values: of each plan under each draw, (..., DRAWS, plans), at most some 1e15.
        together: the number of draws in a group.

    Returns:
        places among the plans, (..., groups).
    """
    best = values.argmax(axis=-1)
    if together == 1:
        return np.asarray(best)
    rows = values.reshape(-1, values.shape[-1])
    regrets = rows - rows[np.arange(len(rows)), best.ravel(), np.newaxis]
    regrets *= regrets
    return np.asarray(np.matmul(_GROUPS[together], regrets.reshape(values.shape)).argmin(axis=-1))


def _together(budget: int) -> int:
    """Return how many draws a decision follows together."""
    return 1 if budget == 1 else TOGETHER


def _overlap(rows: Sequence[Row]) -> Overlap:
    hazards, shown, available = (
        np.array([getattr(row, field) for row in rows]) for field in ("hazards", "shown", "available")
    )
    return overlap_of(hazards, shown, available)


def _seen(rows: Sequence[Row], encoder: Encoder) -> Floats:
    """Return x x' of the contexts seen, but for a factor, (strategies, d, d), or (1, d, d) if strategies share them."""
    grams = np.array([row.gram for row in rows])
    counts = np.array([row.count for row in rows])
    overall = np.tensordot(counts, grams, axes=1)[np.newaxis]
    return np.where(counts[:, np.newaxis, np.newaxis] > 0, grams, overall) if encoder.of_strategies else overall

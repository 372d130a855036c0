"""The strategy bandit, serving: which strategies to ask for a query, and how many candidates from each.

A decision is drawn from a known mixture of allocations (see `mixture`). By default its parts are DRAWS linear models of
all strategies, drawn from the posterior (linear Thompson sampling; Agrawal & Goyal, ICML 2013), of which each gives an
allocation: the budget goes, candidate by candidate, to the strategy whose next one gains most. The n-th of a strategy
gains its expected reward times the n-th point of its rank curve, over its cost.

The models are drawn once for each section, by a seed that follows from it. So what a decision's probabilities are
follows from section and context, and to decide takes no draws from the posterior.
"""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Final, Literal, Self, TypeAlias
from zlib import crc32

import msgspec
import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from backchannel.agents.bandit.features import Encoder, Feature, Value
from backchannel.agents.bandit.mixture import Counts, Mixture, Mixtures, RandomSets
from backchannel.agents.serving import Sections
from backchannel.schemas.errors import BackchannelError
from backchannel.schemas.events import Canary
from backchannel.schemas.snapshot import Snapshot

Exploration: TypeAlias = Literal["thompson", "greedy", "squarecb", "ucb", "uniform"]

StrategyContext: TypeAlias = Mapping[str, Mapping[str, Value]]
"""strategy -> what is known of it."""

DRAWS: Final = 32
MAX_BUDGET: Final = 10_000
"""As many candidates of one strategy as an `impression` event can log."""
GAP_WEIGHT: Final = 3.0
"""SquareCB's learning rate, in units of sqrt(strategies * turns) over the residual's standard deviation."""
NOTHING_KNOWN: Final[StrategyContext] = {}
_HEADS: Final = 3  # times the ranks that suffice if all strategies get the same
_BUDGETS: Final = 64  # of which the plans are kept
_CONTEXTS: Final = 256  # that are decided on together
_HOPELESS: Final = np.float32(1e-20)  # stands for expected rewards of zero and less: they come last, but come
_DEMANDED: Final = 1e30  # gains of what a limit demands: above all others even if hopeless. Rewards are at most 1
_EVEN: Final = np.full(DRAWS, 1.0 / DRAWS)


class Limits(Struct, frozen=True, forbid_unknown_fields=True):
    """What a strategy may be asked for."""

    minimum: Annotated[int, Meta(ge=0, le=MAX_BUDGET)] = 0
    maximum: Annotated[int, Meta(ge=1, le=MAX_BUDGET)] = MAX_BUDGET
    cost: Annotated[float, Meta(ge=0.001, le=1000)] = 1.0
    on: bool = True

    def __post_init__(self) -> None:
        if self.minimum > self.maximum:
            raise ValueError(f"minimum: {self.minimum} candidates are more than the maximum, {self.maximum}")


class Decision(Struct, frozen=True):
    """What to ask for one query; its fields go into the `impression` event as they are.

    Attributes:
        allocation: strategy -> number of candidates to draw, for the strategies to ask; adds up to the budget, or to
            what the limits leave of it.
        propensities: strategy -> probability with which it was to be asked, for all strategies; none if the decision
            was not left to chance (ucb).
        allocation_propensity: the probability of the whole allocation, likewise.
        strategy_context: what was known of each strategy.
        user_context: what was known of who asks, if the policy was told who.
        policy_version: of the policy that decided.
        canary: how it was decided, while another policy is on trial.
    """

    allocation: dict[str, int]
    propensities: dict[str, float]
    allocation_propensity: float | None = None
    strategy_context: StrategyContext = {}
    user_context: Mapping[str, float] = {}
    policy_version: int | None = None
    canary: Canary | None = None


class Segment(Struct, frozen=True, array_like=True):
    """How a strategy does on the queries with a listed value, or on all.

    Attributes:
        name: of the column of features; empty for all queries.
        turns: in which it was asked, as far as not faded.
        share: of these turns among those of all strategies.
        reward: expected of it, on average over these turns.
        deviation: standard deviation of that expectation.
    """

    name: str
    turns: float
    share: float
    reward: float
    deviation: float


class StrategySummary(Struct, frozen=True):
    """What was learned of a strategy, for people.

    Attributes:
        weights: column of features -> its weight in the expected reward, and the standard deviation of that.
        segments: all queries first.
    """

    weights: dict[str, tuple[float, float]]
    segments: list[Segment]


class _Settings(Struct, frozen=True):
    features: tuple[Feature, ...]
    encoding: str
    strategies: tuple[str, ...]
    policy: Exploration
    deviation: float
    exploration: float
    floor: float
    rank_decay: float
    limits: tuple[Limits, ...]
    changed: int | None = None


class _Posterior(Struct, frozen=True):
    count: float
    reward: float
    theta: list[float]
    whitener: list[list[float]]
    curve: list[float]
    segments: list[Segment]


class EncodingError(BackchannelError, ValueError):
    """The policy was learned with another encoding of contexts than this version of Backchannel makes."""


class Allocator:
    """The bandit's section of a policy, ready to decide.

    Args:
        section: as `StrategyBandit.solve` wrote it.

    Attributes:
        strategies: that it chooses from.
        encoder: of contexts.
        least: candidates that may be asked for in all.
        evidence: strategy -> turns in which it was asked, as far as not faded, and their mean reward.
        changed: event time from which on rewards fell below what was expected, ms; None: they never did.

    Raises:
        EncodingError: contexts would not be encoded as they were when the section was learned.
    """

    name: ClassVar[str] = "bandit"

    def __init__(self, section: Mapping[str, bytes]) -> None:
        settings = msgspec.json.decode(section[""], type=_Settings)
        self.encoder: Final = Encoder(settings.features)
        if self.encoder.fingerprint != settings.encoding:
            raise EncodingError(
                f"the policy's contexts have fingerprint {settings.encoding}, here the same features give "
                f"{self.encoder.fingerprint}: let publisher and reader run the same version of Backchannel"
            )
        self.strategies: Final = settings.strategies
        self.changed: Final = settings.changed
        self._settings: Final = settings
        posteriors = [msgspec.json.decode(section[name], type=_Posterior) for name in self.strategies]
        self.evidence: Final = {
            name: (posterior.count, posterior.reward)
            for name, posterior in zip(self.strategies, posteriors, strict=True)
        }
        # One product with a context gives the mean and, squared and summed, the explored variance of every strategy.
        self._stacked: Final = np.array([[posterior.theta, *posterior.whitener] for posterior in posteriors])
        self._deviations: Final = settings.deviation * np.linalg.norm(self._stacked[:, 1:], axis=1)
        self._stacked[:, 1:] *= settings.exploration * settings.deviation
        seed = crc32(b"".join(section[key] for key in ("", *self.strategies)))
        normal = np.random.default_rng(seed).standard_normal((len(posteriors), DRAWS, self.encoder.dimension))
        self._models: Final = self._stacked[:, :1] + normal @ self._stacked[:, 1:]
        self._floor: Final = {"uniform": 1.0, "ucb": 0.0}.get(settings.policy, settings.floor)
        turns = sum(posterior.count for posterior in posteriors)
        self._gap_weight: Final = GAP_WEIGHT * float(np.sqrt(len(posteriors) * turns)) / settings.deviation
        self._curves: Final = [posterior.curve for posterior in posteriors]
        self._minima: Final = [limits.minimum if limits.on else 0 for limits in settings.limits]
        self._maxima: Final = [limits.maximum if limits.on else 0 for limits in settings.limits]
        self._segments: Final = [posterior.segments for posterior in posteriors]
        self.least: Final = max(sum(self._minima), 1)
        self._plans: Final[dict[int, _Plan]] = {}

    @classmethod
    def of(cls, sections: Sections, header: Snapshot) -> Self:  # noqa: ARG003 - Serving's
        """See `Serving.of`.

        Raises:
            KeyError: there is no policy of the bandit.
        """
        return cls(sections[cls.name])

    def utilities(
        self, context: Mapping[str, Value], strategy_context: StrategyContext = NOTHING_KNOWN
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return each strategy's expected reward and the standard deviation that is explored, both (strategies,)."""
        projected = self._project(self._stacked, context, strategy_context)
        whitened = projected[:, 1:]
        return projected[:, 0], np.sqrt(np.vecdot(whitened, whitened))

    def gains(
        self, context: Mapping[str, Value], strategy_context: StrategyContext = NOTHING_KNOWN
    ) -> dict[str, list[float]]:
        """Return what each strategy's candidates are expected to gain, best rank first: for ranking their union."""
        means, _ = self.utilities(context, strategy_context)
        return {
            name: [max(mean, 0.0) * share for share in curve]
            for name, mean, curve in zip(self.strategies, means.tolist(), self._curves, strict=True)
        }

    def summaries(self) -> dict[str, StrategySummary]:
        """Return what was learned of each strategy."""
        theta, columns = self._stacked[:, 0], self.encoder.columns
        return {
            name: StrategySummary(dict(zip(columns, zip(*pair, strict=True), strict=True)), segments)
            for name, *pair, segments in zip(
                self.strategies, theta.tolist(), self._deviations.tolist(), self._segments, strict=True
            )
        }

    def allocate(
        self,
        context: Mapping[str, Value],
        budget: int,
        rng: np.random.Generator,
        strategy_context: StrategyContext = NOTHING_KNOWN,
    ) -> Decision:
        """Decide.

        Args:
            context: of the query, see `features.context_of`.
            budget: candidates to draw in all, 1 to MAX_BUDGET.
            rng: where chance comes from.
            strategy_context: strategy -> what is known of it; features named `strategy.` and so on.

        Raises:
            ValueError: no budget, too much of it, or less than the strategies' minima.
        """
        mixture = self.mixture(context, budget, strategy_context)
        counts = mixture.draw(rng)
        strategies = self.strategies
        allocation = {name: count for name, count in zip(strategies, counts, strict=True) if count}
        if self._settings.policy == "ucb":
            return Decision(allocation, {}, strategy_context=strategy_context)
        propensities = dict(zip(strategies, mixture.propensities().tolist(), strict=True))
        return Decision(allocation, propensities, mixture.probability(counts), strategy_context)

    def mixture(
        self, context: Mapping[str, Value], budget: int, strategy_context: StrategyContext = NOTHING_KNOWN
    ) -> Mixture:
        """Return the allocations that `allocate` chooses from, with their probabilities; see there."""
        plan = self._planned(budget)
        if self._settings.policy == "thompson":
            utilities, shares = self._project(self._models, context, strategy_context).T, _EVEN
        else:
            utilities, shares = self._explore(*self.utilities(context, strategy_context))
        return Mixture(_fill(utilities, plan), shares, self._floor, plan.sets)

    def mixtures(self, vectors: NDArray[np.float64], budget: int) -> Mixtures:
        """Return what `allocate` draws from in each of many contexts, with the very probabilities that it has there.

        Args:
            vectors: the contexts, encoded, (contexts, strategies, d), or (contexts, 1, d) if all strategies have one.
            budget: see `allocate`.

        Raises:
            ValueError: see `allocate`.
        """
        plan = self._planned(budget)
        if self._settings.policy == "thompson":
            utilities = np.einsum("kpd,nkd->npk", self._models, np.broadcast_to(vectors, self._broad(vectors)))
            shares = _EVEN[np.newaxis]
        else:
            projected = np.einsum("kpd,nkd->nkp", self._stacked, np.broadcast_to(vectors, self._broad(vectors)))
            utilities, shares = self._explore(projected[..., 0], np.linalg.norm(projected[..., 1:], axis=-1))
        parts = _fill(utilities.reshape(-1, len(self.strategies)), plan).reshape(utilities.shape)
        return Mixtures(parts, np.atleast_2d(shares), self._floor, plan.sets)

    def _broad(self, vectors: NDArray[np.float64]) -> tuple[int, int, int]:
        return len(vectors), len(self.strategies), self.encoder.dimension

    def worth(self, depth: int) -> NDArray[np.float64]:
        """Return what a strategy's first 0, 1, ... `depth` candidates are worth together, (strategies, depth + 1).

        It is a share of what its whole list is worth, by its rank curve.
        """
        return np.pad(
            np.array([self._curve(strategy, depth) for strategy in range(len(self.strategies))]).cumsum(1),
            ((0, 0), (1, 0)),
        )

    def expect(
        self,
        vectors: NDArray[np.float64],
        budget: int,
        worths: NDArray[np.float64],
        rng: np.random.Generator,
        draws: int = DRAWS,
    ) -> NDArray[np.float64]:
        """Return what `allocate` is expected to draw for each of many contexts, (measures, contexts, strategies).

        Of Thompson sampling's models others are drawn, for each context: it is the posterior that is judged here, and
        not the luck of its draws.

        Args:
            vectors: the contexts, encoded, (contexts, strategies, d), or (contexts, 1, d) if all strategies have one.
            budget: see `allocate`.
            worths: in several measures, of a strategy's first 0, 1, ... `budget` candidates, (measures, strategies,
                budget + 1): numbers from 0 count them; see `worth`, too.
            rng: where their chance comes from.
            draws: of them for each context.

        Raises:
            ValueError: see `allocate`.
        """
        plan = self._planned(budget)
        strategies = np.arange(len(self.strategies))
        expected = np.empty((len(worths), len(vectors), len(strategies)))
        for first in range(0, len(vectors), _CONTEXTS):
            rows = slice(first, first + _CONTEXTS)
            projected = vectors[rows].swapaxes(0, 1) @ self._stacked.swapaxes(1, 2)
            means, deviations = projected[:, :, 0].T, np.sqrt((projected[:, :, 1:] ** 2).sum(axis=2)).T
            if self._settings.policy == "thompson":
                normal = rng.standard_normal((len(means), draws, len(strategies)))
                utilities = means[:, np.newaxis] + normal * deviations[:, np.newaxis]
                shares = np.full(draws, 1.0 / draws)
            else:
                utilities, shares = self._explore(means, deviations)
            counts = _fill(utilities.reshape(-1, len(strategies)), plan).reshape(utilities.shape)
            expected[:, rows] = (worths[:, strategies, counts] * shares[..., np.newaxis]).sum(axis=2)
        return (1.0 - self._floor) * expected + self._floor * self.expect_at_random(budget, worths)[:, np.newaxis]

    def expect_at_random(self, budget: int, worths: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return what a random set of strategies is expected to draw, (measures, strategies); see `expect`."""
        plan = self._planned(budget)
        sets, probabilities = plan.sets.every()
        expected: NDArray[np.float64] = probabilities @ worths[:, np.arange(len(self.strategies)), sets]
        return expected

    def _project(
        self, models: NDArray[np.float64], context: Mapping[str, Value], strategy_context: StrategyContext
    ) -> NDArray[np.float64]:
        """What (strategies, n, d) linear models make of a context, (strategies, n)."""
        if self.encoder.of_strategies:
            contexts = [{**context, **strategy_context.get(name, {})} for name in self.strategies]
            return np.asarray(np.einsum("kij,kj->ki", models, self.encoder.encode_all(contexts)))
        projected = models.reshape(-1, self.encoder.dimension).dot(self.encoder.encode(context))
        return np.asarray(projected.reshape(models.shape[:2]))

    def _explore(
        self, means: NDArray[np.float64], deviations: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The utilities, (..., parts, strategies), that the mixture's parts stand for, and the parts' shares."""
        policy, size = self._settings.policy, means.shape[-1]
        if policy == "squarecb":
            # Each part lifts one strategy to the best. The wider the gap, the smaller its share (Foster & Rakhlin,
            # "Beyond UCB", ICML 2020).
            best = means.max(axis=-1, keepdims=True)
            shares = 1.0 / (size + self._gap_weight * (best - means))
            leader = np.arange(size) == means.argmax(axis=-1)[..., np.newaxis]
            shares += np.where(leader, 1.0 - shares.sum(axis=-1, keepdims=True), 0.0)
            lifted = np.where(np.eye(size, dtype=bool), best[..., np.newaxis], -np.inf)
            return np.maximum(means[..., np.newaxis, :], lifted), shares
        return (means + deviations if policy == "ucb" else means)[..., np.newaxis, :], np.ones(1)

    def _curve(self, strategy: int, depth: int) -> NDArray[np.float64]:
        """What a strategy's candidates are worth, (depth,), as shares of its list."""
        curve, ranks = self._curves[strategy], np.arange(depth)
        beyond = curve[-1] * self._settings.rank_decay ** np.maximum(ranks - len(curve) + 1, 0)
        return np.where(ranks < len(curve), np.resize(curve, depth), beyond)

    def _planned(self, budget: int) -> "_Plan":
        plan = self._plans.get(budget)
        if plan is None:
            if len(self._plans) == _BUDGETS:
                self._plans.clear()
            plan = self._plans[budget] = self._plan(budget)
        return plan

    def _plan(self, budget: int) -> "_Plan":
        if not self.least <= budget <= MAX_BUDGET:
            raise ValueError(f"budget: {budget} candidates; draw at least {self.least} and at most {MAX_BUDGET}")
        ranks = np.arange(budget)
        gains = np.full((len(self.strategies), budget + 1), -1.0, dtype=np.float32)
        for strategy, limits in enumerate(self._settings.limits):
            # The last factor is so that level stretches of a curve make no ties.
            gains[strategy, :-1] = self._curve(strategy, budget) / limits.cost * (1.0 - 1e-6 * ranks)
            gains[strategy, : self._minima[strategy]] = _DEMANDED
            gains[strategy, self._maxima[strategy] :] = -1.0
        affordable = min(budget, sum(self._maxima))
        dealt_evenly = np.minimum(ranks + 1, np.array(self._maxima)[:, np.newaxis]).sum(axis=0)
        heads = gains[:, : _HEADS * (int(dealt_evenly.searchsorted(affordable)) + 1) + 1].copy()
        heads[:, -1] = -1.0
        diagonal = np.zeros((len(heads), *heads.shape), dtype=np.float32)
        diagonal[np.arange(len(heads)), np.arange(len(heads))] = heads
        sets = RandomSets(self._minima, self._maxima, budget)
        return _Plan(affordable, gains, heads.shape[1], diagonal.reshape(len(heads), -1), sets)


class _Plan(Struct, frozen=True):
    """What follows from a budget alone.

    Attributes:
        budget: as far as the maxima allow.
        gains: of each candidate for an expected reward of 1, (strategies, ranks + 1): negative where a limit forbids
            it, or where there is none, which is in the last column.
        ranks: of which some are looked at first, which suffice unless a strategy gets far more than its even share.
        heads: their gains, (strategies, strategies * ranks), zero but for a strategy's own: a product with expected
            rewards gives each candidate's gain in one call.
        sets: random ones.
    """

    budget: int
    gains: NDArray[np.float32]
    ranks: int
    heads: NDArray[np.float32]
    sets: RandomSets


def _fill(utilities: NDArray[np.float64], plan: _Plan) -> Counts:
    """Fill the budget greedily by marginal gain, for each row of (parts, strategies) utilities."""
    usable = np.maximum(utilities, _HOPELESS).astype(np.float32)
    counts = _best(usable.dot(plan.heads), plan.ranks, plan.budget)
    if counts.max() == plan.ranks - 1:
        # Who has not used up its head has nothing better further down, as gains fall from rank to rank.
        deep = (counts == plan.ranks - 1).any(axis=1)
        gained = usable[deep][..., np.newaxis] * plan.gains
        counts[deep] = _best(gained.reshape(len(gained), -1), plan.gains.shape[1], plan.budget)
    return counts


def _best(gained: NDArray[np.float32], ranks: int, budget: int) -> Counts:
    """Return how many of each strategy's candidates are among the `budget` best, (parts, strategies).

    Args:
        gained: by each, (parts, strategies * ranks).
        ranks: see there.
        budget: at least 1.
    """
    # To sort whole rows in single precision takes less time than to find their best: it is done in vectors.
    last = np.sort(gained, axis=1)[:, -budget, np.newaxis]
    chosen = gained >= last
    shape = len(gained), -1, ranks
    # As gains fall from rank to rank, the first that is not chosen says how many are.
    counts: Counts = chosen.reshape(shape).argmin(axis=2)
    if np.count_nonzero(chosen) > len(counts) * budget:
        # What is as good as the last one counts in the order of the strategies, as far as the budget goes.
        better = (gained > last).reshape(shape).argmin(axis=2)
        equal = counts - better
        left = budget - better.sum(axis=1, keepdims=True) - (equal.cumsum(axis=1) - equal)
        counts = better + np.minimum(np.maximum(left, 0), equal)
    return counts

"""The strategy bandit, learning: per strategy a linear model of the reward, as sums.

Per strategy and time bucket it sums Z'Z, where a row of Z is an encoded context followed by the reward: Gram matrix,
reward moment, count and sum of squared rewards in one symmetric matrix. Contexts and rewards lie on a grid of 1/1024,
so the sums are exact and do not depend on order. Everything else happens when a policy is made: see `posterior`.
"""

from typing import Annotated, Any, Final, Self

import msgspec
import numpy as np
import orjson
from msgspec import Meta, Struct, field
from numpy.typing import NDArray

from backchannel.agents.bandit.features import Encoder, Feature, Numeric
from backchannel.agents.bandit.posterior import Bank, Evidence, Posterior, run_together
from backchannel.agents.bandit.serving import Allocator, Exploration, Limits
from backchannel.agents.learner import Changed, Learner
from backchannel.agents.outcomes import Outcomes
from backchannel.agents.sums import GRID, Delta, Key, Matrix, MemorySums, SumReader, Sums, SumTable
from backchannel.schemas.events import Name

RANKS: Final = 32
"""Of a strategy's list whose worth is learned one by one; deeper ones follow `rank_decay`."""
_CURVE_PRIOR: Final = 10.0  # clicks that the prior of a rank curve is worth


class BanditConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Which strategies there are, and how to learn when to ask them."""

    strategies: Annotated[
        tuple[Name, ...], Meta(min_length=1, max_length=32, description="retrieval strategies to choose from")
    ] = ("lexical", "semantic", "memory", "popular", "new")
    features: Annotated[
        tuple[Feature, ...],
        Meta(
            max_length=64,
            description="features of the query's context; of the strategy's context if the name begins with "
            "`strategy.`, and of the user if it begins with `user.`. Kinds: numeric, categorical,"
            " hashed and cross; see `Features` in docs/configuration.md",
        ),
    ] = (
        Numeric("query.words", center=4.0, scale=4.0),
        Numeric("query.interpreted"),
    )
    bucket_s: Annotated[float, Meta(ge=60, le=31_536_000, description="length of a time bucket")] = 3600.0
    half_lives_days: Annotated[
        tuple[Annotated[float, Meta(ge=0.01, le=100_000)], ...],
        Meta(
            max_length=6,
            description="half-lives of a turn's weight in the policy, in days. No forgetting is also tried; "
            "each is weighted by how well it predicted later rewards",
        ),
    ] = (8.0, 2.0, 0.5)
    ridges: Annotated[
        tuple[Annotated[float, Meta(ge=0.001, le=1e6)], ...],
        Meta(
            min_length=1,
            max_length=6,
            description="prior strengths, in turns, that pull a strategy towards the average; each is "
            "weighted by how well it predicted later rewards",
        ),
    ] = (1.0, 10.0, 100.0)
    history_half_life_days: Annotated[
        float,
        Meta(
            ge=0.01,
            le=100_000,
            description="half-life of the feature `strategy.history`, in days: how well a strategy has done "
            "on the query. It is learned if it is among the features",
        ),
    ] = 30.0
    user_half_life_days: Annotated[
        float,
        Meta(
            ge=0.01,
            le=100_000,
            description="half-life of the features `user.turns`, `user.reward` and `user.defects`, in days: "
            "how often a user asks, and how well that goes compared with other users. They are "
            "learned if one of them is among the features",
        ),
    ] = 30.0
    exploration: Annotated[
        float, Meta(ge=0, le=10, description="width of Thompson sampling, in standard deviations of the residual")
    ] = 0.2
    floor: Annotated[float, Meta(ge=0, le=1, description="share of decisions that ask a random set of strategies")] = (
        0.05
    )
    rank_decay: Annotated[
        float,
        Meta(
            gt=0,
            lt=1,
            description="value of a strategy's next candidate relative to the one before, until there are "
            "clicks to learn it from",
        ),
    ] = 0.8
    position_decay: Annotated[
        float,
        Meta(ge=0, le=4, description="exponent d of the probability p^-d that position p is examined"),
    ] = 0.7
    policy: Annotated[
        Exploration,
        Meta(
            description="how to explore. squarecb asks a strategy less often the further it is behind the "
            "best; ucb is deterministic, so it has no propensities"
        ),
    ] = "thompson"
    limits: Annotated[
        dict[Name, Limits],
        Meta(
            description="strategy -> fewest and most candidates if there is a budget (minimum, maximum), "
            "relative cost of a candidate (cost), and whether the strategy is asked at all (on)"
        ),
    ] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = [*self.strategies, *(feature.name for feature in self.features)]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"{name!r} stands twice in strategies or features")
        Encoder(self.features)  # says what is wrong with them
        for name in self.limits:
            if name not in self.strategies:
                raise ValueError(f"limits: {name!r} is none of the strategies")
        if not any(self.limits.get(name, Limits()).on for name in self.strategies):
            raise ValueError("limits: no strategy is on")


class StrategyBandit(Learner):
    """The learner of strategies' rewards. Its section: "" -> how to encode and explore; strategy -> its posterior."""

    name = Allocator.name
    serving = Allocator

    def __init__(self, config: BanditConfig) -> None:
        self.config: Final = config
        self.encoder: Final = Encoder(config.features)
        self.table: Final = SumTable(name="bandit", key=(("encoding", str), ("strategy", str), ("bucket", int)))
        self.tables = (self.table,)
        self._bucket_ms: Final = round(config.bucket_s * 1000)
        # One over the probability that a position is examined; positions that schemas.events admits.
        self._unseen: Final = np.arange(10_001.0) ** config.position_decay
        self._bank: Final = Bank([days * 86_400_000 for days in config.half_lives_days], config.ridges)
        self._code: Final = {strategy: code for code, strategy in enumerate(config.strategies)}
        width = self.encoder.dimension + 1
        self._triangle: Final = np.triu_indices(width)

    @classmethod
    def configured(cls, config: Any) -> Self:
        """See `Learner.configured`."""
        return cls(config.bandit)

    def learn(self, outcomes: Outcomes) -> Delta:
        """See `Learner.learn`. A strategy that is not configured is ignored."""
        asked = outcomes.asked_of(self.config.strategies)
        if not len(asked.rows):
            return {}
        ranks = np.zeros(len(asked.rows), dtype=np.int64)  # of what was clicked
        ranks[asked.credited] = asked.ranks
        lengths = np.minimum(np.maximum(asked.drawn, ranks), RANKS)  # so many it must have drawn
        ranks[ranks > RANKS] = 0
        rewards = np.zeros((2, len(asked.rows)))  # as they are, and over the probability of examination
        rewards[:, asked.credited] = asked.rewards * (np.ones(len(asked.rewards)), self._unseen[asked.positions])
        rewards = np.rint(rewards * GRID) / GRID
        observed = np.column_stack(
            (self.encoder.vectors_of(outcomes.columns, asked.rows, asked.codes, self.config.strategies), rewards[0])
        )
        buckets = outcomes.times[asked.rows] // self._bucket_ms
        strategies, first_bucket = self.config.strategies, int(buckets.min())
        groups = (buckets - first_bucket) * len(strategies) + asked.codes
        parts = by_group(observed, groups)
        order, counts = parts.order, parts.counts
        products = parts.products[:, *self._triangle]
        place = np.repeat(np.arange(len(counts)), counts) * (RANKS + 1)
        size = len(counts) * (RANKS + 1)
        # How many lists ended at each rank, 0 to RANKS; so, from the end, how many reached it.
        ended = np.bincount(place + lengths[order], minlength=size).reshape(-1, RANKS + 1)
        reached = ended[:, :0:-1].cumsum(axis=1)[:, ::-1]
        chosen = np.bincount(place + ranks[order], rewards[1, order], size).reshape(-1, RANKS + 1)[:, 1:]
        values = np.column_stack((products, reached, chosen))
        keys = []
        for group in parts.groups.tolist():
            bucket, code = divmod(group, len(strategies))
            keys.append((self.encoder.fingerprint, strategies[code], (first_bucket + bucket) * self._bucket_ms))
        return {self.table.name: Sums(self.table, keys, values)}

    def solve(self, sums: SumReader, changed: Changed, at: int) -> dict[str, bytes | None]:
        """See `Learner.solve`. Every strategy is solved whenever anything changed: they are few."""
        if self.table.name not in changed:
            return {}
        config, encoder = self.config, self.encoder
        evidence, ranks = self._evidence(sums)
        posterior = self._bank.infer(evidence, at)
        total = np.tensordot(posterior.discounts, evidence.sums, axes=1)
        curves = [
            rank_curve(reached, clicked, config.rank_decay)
            for reached, clicked in np.tensordot(posterior.discounts, ranks, axes=1)
        ]
        section: dict[str, bytes | None] = {
            strategy: orjson.dumps(
                {
                    "count": count,
                    "reward": reward / count if count else 0.0,
                    "theta": theta,
                    "whitener": whitener,
                    "curve": curve.tolist(),
                    "segments": segments,
                },
                option=orjson.OPT_SERIALIZE_NUMPY,
            )
            for strategy, (count, reward), theta, whitener, curve, segments in zip(
                config.strategies,
                total[:, 0, (0, -1)].tolist(),
                posterior.theta,
                posterior.whitener,
                curves,
                self._segments(total, posterior),
                strict=True,
            )
        }
        section[""] = orjson.dumps(
            {
                "features": msgspec.to_builtins(encoder.features),
                "encoding": encoder.fingerprint,
                "strategies": config.strategies,
                "policy": config.policy,
                "deviation": posterior.deviation,
                "exploration": config.exploration,
                "floor": config.floor,
                "rank_decay": config.rank_decay,
                "limits": [msgspec.to_builtins(config.limits.get(name, Limits())) for name in config.strategies],
                "changed": posterior.changed,
            }
        )
        return section

    def compact(self, sums: Sums, at: int) -> dict[Key, Key]:
        """See `Learner.compact`, and `posterior.run_together`."""
        evidence, _ = self._evidence(MemorySums({self.table.name: sums}))
        changes = self._bank.infer(evidence, at).changes
        became: dict[str, dict[int, int]] = {}
        for encoding in {encoding for encoding, _, _ in sums.keys}:
            starts = {start for one, _, start in sums.keys if one == encoding}
            own = changes if encoding == self.encoder.fingerprint else ()
            became[encoding] = run_together(starts, own, self._bucket_ms, at)
        return {
            (encoding, strategy, start): (encoding, strategy, became[encoding][start])
            for encoding, strategy, start in sums.keys
            if start in became[encoding]
        }

    def _segments(self, total: Matrix, posterior: Posterior) -> list[list[tuple[str, float, float, float, float]]]:
        """Each strategy's `allocation.Segment`s, of which somebody was asked in."""
        of_strategy: list[list[tuple[str, float, float, float, float]]] = [[] for _ in self.config.strategies]
        for name, column in {"": 0, **self.encoder.segments}.items():
            turns = total[:, 0, column]
            contexts = total[:, :-1, column] / np.maximum(turns, 1e-300)[:, np.newaxis]
            expected = (posterior.theta * contexts).sum(axis=1)
            deviations = posterior.deviation * np.linalg.norm(
                (posterior.whitener @ contexts[..., np.newaxis])[..., 0], axis=1
            )
            shares = turns / max(turns.sum(), 1e-300)
            for own, *row in zip(
                of_strategy, turns.tolist(), shares.tolist(), expected.tolist(), deviations.tolist(), strict=True
            ):
                if row[0]:
                    own.append((name, *row))
        return of_strategy

    def _evidence(self, sums: SumReader) -> tuple[Evidence, Matrix]:
        """The sums of this encoding, bucket by bucket; and those of ranks, (buckets, strategies, 2, RANKS)."""
        stored = sums.read(self.table, "encoding", [self.encoder.fingerprint])
        rows = [row for row, (_, strategy, _) in enumerate(stored.keys) if strategy in self._code]
        starts = sorted({stored.keys[row][2] for row in rows})
        width = self.encoder.dimension + 1
        products = np.zeros((len(starts), len(self._code), width, width))
        ranks = np.zeros((len(starts), len(self._code), 2, RANKS))
        place = {start: place for place, start in enumerate(starts)}
        for row in rows:
            _, strategy, start = stored.keys[row]
            target = place[start], self._code[strategy]
            products[target][self._triangle], ranks[target].flat = np.split(stored.values[row], [-2 * RANKS])
        products += np.triu(products, 1).swapaxes(-1, -2)
        return Evidence(np.array(starts, dtype=float), products), ranks


class _Parts(Struct, frozen=True):
    """Rows by group.

    Attributes:
        groups: that have rows, rising.
        counts: of their rows.
        order: that sorts the rows by group.
        products: Z'Z of each, (groups, d + 1, d + 1).
    """

    groups: NDArray[np.int64]
    counts: NDArray[np.int64]
    order: NDArray[np.intp]
    products: Matrix


def by_group(rows: Matrix, groups: NDArray[np.int64]) -> _Parts:
    """Return Z'Z of each group of `rows`, (rows, d + 1), given the group of each row, 0 and up."""
    # A stable sort of numbers of at most 16 bits is a radix sort.
    order = np.argsort(groups.astype(np.min_scalar_type(int(groups.max()))), kind="stable")
    ordered, sorted_groups = rows.take(order, axis=0), groups[order]
    starts = np.flatnonzero(np.diff(sorted_groups, prepend=-1))
    ends = np.append(starts[1:], len(rows))
    # A copy, as the product of a matrix with itself takes BLAS's symmetric routine, which is slower on small ones.
    transposed = ordered.T.copy()
    products = np.empty((len(starts), rows.shape[1], rows.shape[1]))
    for product, start, end in zip(products, starts.tolist(), ends.tolist(), strict=True):
        np.matmul(transposed[:, start:end], ordered[start:end], out=product)
    return _Parts(sorted_groups[starts], ends - starts, order, products)


def rank_curve(reached: Matrix, clicked: Matrix, decay: float) -> Matrix:
    """Return which share of a strategy's reward its n-th candidate brings, (ranks,), not rising.

    Args:
        reached: turns in which an n-th candidate was drawn, (ranks,).
        clicked: the reward of those in which it was the clicked one, (ranks,).
        decay: of the geometric curve that is believed in until clicks tell.
    """
    prior = (1.0 - decay) * decay ** np.arange(len(reached))
    expected = clicked.sum() * reached / max(reached[0], 1.0) + _CURVE_PRIOR
    shares: Matrix = (clicked + _CURVE_PRIOR * prior) / expected
    if (np.diff(shares) < 0.0).all():  # as it is until there are clicks
        return shares
    from scipy.optimize import isotonic_regression  # noqa: PLC0415 - slow to import, and seldom needed by small stores

    return np.asarray(isotonic_regression(shares, weights=expected, increasing=False).x)

"""The strategy bandit, learning: per strategy a linear model of the reward, as sums.

Per strategy and time bucket it sums Z'Z, where a row of Z is an encoded context followed by the reward: Gram matrix,
reward moment, count and sum of squared rewards in one symmetric matrix. Contexts and rewards lie on a grid of 1/1024,
so the sums are exact and do not depend on order. Discounting by age and solving (ridge regression, which is the
posterior mean of a Bayesian linear model; Agrawal & Goyal, "Thompson sampling for contextual bandits with linear
payoffs", ICML 2013) happen when a policy is made.
"""

from collections.abc import Iterable, Sequence
from typing import Annotated, Final

import msgspec
import numpy as np
import orjson
from msgspec import Meta, Struct

from backchannel.agents.features import GRID, Encoder, Feature, Numeric
from backchannel.agents.learner import Changed, Learner
from backchannel.agents.outcomes import Outcome
from backchannel.agents.sums import Delta, Key, Matrix, SumReader, Sums, SumTable
from backchannel.schemas.events import Name
from backchannel.schemas.turn import Turn


class BanditConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Which strategies there are, and how to learn when to ask them."""

    strategies: Annotated[
        tuple[Name, ...], Meta(min_length=1, max_length=32, description="the retrieval strategies to choose from")
    ] = ("lexical", "semantic", "memory", "popular", "new")
    features: Annotated[tuple[Feature, ...], Meta(max_length=64, description="what of a query's context counts")] = (
        Numeric("query.words", center=4.0, scale=4.0),
        Numeric("query.interpreted"),
    )
    bucket_s: Annotated[float, Meta(ge=60, le=31_536_000, description="length of a time bucket")] = 3600.0
    half_life_days: Annotated[
        float, Meta(ge=0.01, le=100_000, description="after which a turn counts half in the policy")
    ] = 30.0
    ridge: Annotated[float, Meta(ge=0.001, le=1e6, description="prior precision of each weight")] = 1.0
    exploration: Annotated[
        float, Meta(ge=0, le=10, description="Thompson sampling's width, in standard deviations of the residual")
    ] = 0.2
    floor: Annotated[
        float, Meta(ge=0, le=1, description="share of decisions in which a random set of strategies is asked")
    ] = 0.05
    rank_decay: Annotated[
        float, Meta(gt=0, lt=1, description="worth of a strategy's next candidate, relative to the one before")
    ] = 0.8

    def __post_init__(self) -> None:
        names = [*self.strategies, *(feature.name for feature in self.features)]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"{name!r} stands twice in strategies or features")


class StrategyBandit(Learner):
    """The learner of strategies' rewards. Its section: "" -> how to encode and explore; strategy -> its posterior."""

    name = "bandit"

    def __init__(self, config: BanditConfig) -> None:
        self.config: Final = config
        self.encoder: Final = Encoder(config.features)
        self.table: Final = SumTable(name="bandit", key=(("encoding", str), ("strategy", str), ("bucket", int)))
        self.tables = (self.table,)
        self._bucket_ms: Final = round(config.bucket_s * 1000)
        self._code: Final = {strategy: code for code, strategy in enumerate(config.strategies)}
        width = self.encoder.dimension + 1
        self._triangle: Final = np.triu_indices(width)

    def learn(self, outcomes: Sequence[Outcome]) -> Delta:
        """See `Learner.learn`. A strategy that is not configured is ignored."""
        rows, codes, rewards = self._observations(outcomes)
        if not rows:
            return {}
        contexts = self.encoder.encode_queries([outcome.turn.query for outcome in outcomes])
        observed = np.column_stack((contexts[rows], np.rint(np.array(rewards) * GRID) / GRID))
        buckets = np.array([outcome.turn.query.ts for outcome in outcomes])[rows] // self._bucket_ms
        strategies, first_bucket = self.config.strategies, int(buckets.min())
        groups = (buckets - first_bucket) * len(strategies) + codes
        # A stable sort of 16-bit numbers is a radix sort.
        order = np.argsort(groups.astype(np.min_scalar_type(int(groups.max()))), kind="stable")
        groups = groups[order]
        starts = np.flatnonzero(np.diff(groups, prepend=-1))
        parts = np.split(observed[order], starts[1:])
        values = np.stack([(part.T @ part)[self._triangle] for part in parts])
        keys = []
        for group in groups[starts].tolist():
            bucket, code = divmod(group, len(strategies))
            keys.append((self.encoder.fingerprint, strategies[code], (first_bucket + bucket) * self._bucket_ms))
        return {self.table.name: Sums(self.table, keys, values)}

    def solve(self, sums: SumReader, changed: Changed, at: int) -> dict[str, bytes | None]:
        """See `Learner.solve`. Every strategy is solved whenever anything changed: they are few."""
        if self.table.name not in changed:
            return {}
        config, encoder = self.config, self.encoder
        width = encoder.dimension + 1
        total = {strategy: np.zeros((width, width)) for strategy in config.strategies}
        stored = sums.read(self.table, "encoding", [encoder.fingerprint])
        for (_, strategy, bucket), packed in zip(stored.keys, stored.values, strict=True):
            if strategy in total:
                discount = 2.0 ** (-max(at - bucket, 0) / (config.half_life_days * 86_400_000))
                total[strategy][self._triangle] += discount * packed
        solved = {strategy: self._posterior(upper) for strategy, upper in total.items()}
        residual = sum(posterior["residual"] for posterior in solved.values())
        count = sum(posterior["count"] for posterior in solved.values())
        section: dict[str, bytes | None] = {
            strategy: orjson.dumps(
                {name: posterior[name] for name in ("count", "reward", "theta", "whitener")},
                option=orjson.OPT_SERIALIZE_NUMPY,
            )
            for strategy, posterior in solved.items()
        }
        section[""] = orjson.dumps(
            {
                "features": msgspec.to_builtins(encoder.features),
                "encoding": encoder.fingerprint,
                "strategies": config.strategies,
                # One turn of mean squared reward 1/4 keeps exploration alive until there is a residual to speak of.
                "width": config.exploration * float(np.sqrt((residual + 0.25) / (count + 1.0))),
                "floor": config.floor,
                "rank_decay": config.rank_decay,
            }
        )
        return section

    def compact(self, keys: Iterable[Key], at: int) -> dict[Key, Key]:
        """See `Learner.compact`. A bucket is at most about an eighth of its age long, so their number stays small.

        What a bucket becomes depends on `at` only, not on when it was compacted before: whether it reaches a length
        is asked of the bucket of that length.
        """
        coarser: dict[Key, Key] = {}
        for encoding, strategy, start in keys:
            became, length = start, 2 * self._bucket_ms
            while at - (start - start % length) >= 8 * length:
                became, length = start - start % length, 2 * length
            if became != start:
                coarser[encoding, strategy, start] = (encoding, strategy, became)
        return coarser

    def _observations(self, outcomes: Sequence[Outcome]) -> tuple[list[int], list[int], list[float]]:
        """Which strategies were asked in which turn, by position and code, and their rewards."""
        rows: list[int] = []
        codes: list[int] = []
        rewards: list[float] = []
        known = self._code
        for row, outcome in enumerate(outcomes):
            reward = strategy_rewards(outcome)
            for strategy in asked(outcome.turn):
                code = known.get(strategy)
                if code is not None:
                    rows.append(row)
                    codes.append(code)
                    rewards.append(reward.get(strategy, 0.0))
        return rows, codes, rewards

    def _posterior(self, upper: Matrix) -> dict[str, Matrix | float]:
        """Mean and whitener (the inverse of the precision's Cholesky factor) from the upper triangle of Z'Z."""
        dimension = self.encoder.dimension
        gram = upper[:dimension, :dimension] + np.triu(upper[:dimension, :dimension], 1).T
        moment = upper[:dimension, dimension]
        factor = np.linalg.cholesky(gram + self.config.ridge * np.eye(dimension))
        whitener = np.linalg.inv(factor)
        theta = whitener.T @ (whitener @ moment)
        count = float(gram[0, 0])
        return {
            "count": count,
            "reward": float(moment[0]) / count if count else 0.0,
            "theta": theta,
            "whitener": whitener,
            "residual": max(float(upper[dimension, dimension] - moment @ theta), 0.0),
        }


def asked(turn: Turn) -> set[str]:
    """The strategies that took part in a turn: those with candidates, or, if none are logged, those with results."""
    names = set()
    for impression in turn.impressions:
        for name, count in impression.allocation.items():
            if count:
                names.add(name)
    return names or {
        name for impression in turn.impressions for result in impression.results for name in result.strategies
    }


def strategy_rewards(outcome: Outcome) -> dict[str, float]:
    """The reward, in [0, 1], of each strategy that produced something that was clicked; of any other it is 0."""
    rewards: dict[str, float] = {}
    gains = outcome.gains
    if gains:
        for impression in outcome.turn.impressions:
            for result in impression.results:
                gain = gains.get(result.entity_id)
                if gain is not None:
                    for strategy in result.strategies:
                        rewards[strategy] = max(rewards.get(strategy, 0.0), gain)
    return rewards

"""The strategy bandit, learning: per strategy a linear model of the reward, as sums.

Per strategy and time bucket it sums Z'Z, where a row of Z is an encoded context followed by the reward: Gram matrix,
reward moment, count and sum of squared rewards in one symmetric matrix. Contexts and rewards lie on a grid of 1/1024,
so the sums are exact and do not depend on order. Everything else happens when a policy is made: see `posterior`.
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
from backchannel.agents.posterior import Bank, Evidence
from backchannel.agents.sums import Delta, Key, SumReader, Sums, SumTable
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
    half_lives_days: Annotated[
        tuple[Annotated[float, Meta(ge=0.01, le=100_000)], ...],
        Meta(
            max_length=6,
            description="after which a turn counts half in the policy. Never to forget is tried, too, and each counts "
            "as far as it has predicted the rewards that came",
        ),
    ] = (8.0, 2.0, 0.5)
    ridges: Annotated[
        tuple[Annotated[float, Meta(ge=0.001, le=1e6)], ...],
        Meta(
            min_length=1,
            max_length=6,
            description="of how many turns the weight is that a strategy works like all others; likewise",
        ),
    ] = (1.0, 10.0, 100.0)
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
        self._bank: Final = Bank([days * 86_400_000 for days in config.half_lives_days], config.ridges)
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
        evidence = self._evidence(sums)
        posterior = self._bank.infer(evidence, at)
        moments = np.tensordot(posterior.discounts, evidence.sums[:, :, 0, (0, -1)], axes=1)
        section: dict[str, bytes | None] = {
            strategy: orjson.dumps(
                {
                    "count": count,
                    "reward": reward / count if count else 0.0,
                    "theta": theta,
                    "whitener": whitener,
                },
                option=orjson.OPT_SERIALIZE_NUMPY,
            )
            for strategy, (count, reward), theta, whitener in zip(
                config.strategies, moments.tolist(), posterior.theta, posterior.whitener, strict=True
            )
        }
        section[""] = orjson.dumps(
            {
                "features": msgspec.to_builtins(encoder.features),
                "encoding": encoder.fingerprint,
                "strategies": config.strategies,
                "width": config.exploration * posterior.deviation,
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

    def _evidence(self, sums: SumReader) -> Evidence:
        """The sums of this encoding, bucket by bucket."""
        stored = sums.read(self.table, "encoding", [self.encoder.fingerprint])
        rows = [row for row, (_, strategy, _) in enumerate(stored.keys) if strategy in self._code]
        starts = sorted({stored.keys[row][2] for row in rows})
        width = self.encoder.dimension + 1
        packed = np.zeros((len(starts), len(self._code), width, width))
        place = {start: place for place, start in enumerate(starts)}
        for row in rows:
            _, strategy, start = stored.keys[row]
            packed[place[start], self._code[strategy]][self._triangle] = stored.values[row]
        return Evidence(np.array(starts, dtype=float), packed + np.triu(packed, 1).swapaxes(-1, -2))


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

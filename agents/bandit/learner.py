"""The strategy bandit, learning: turns -> sums, and sums -> posteriors of the strategies' rates.

The sums are those of `evidence`, per strategy and time bucket, and per pair of strategies and longer time bucket. They
lie on dyadic grids, so they are exact and do not depend on order. Everything else happens when a policy is made: model
averaging decides how much each time bucket still counts (`posterior`), and the discounted sums give the posterior
(`rates`).
"""

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Annotated, Any, Final, Self

import msgspec
import numpy as np
import orjson
from msgspec import Meta, Struct, field

from backchannel.agents.bandit.belief import Belief
from backchannel.agents.bandit.elasticity import counts_of, elasticities, plans_of, promised
from backchannel.agents.bandit.evidence import Layout, Pairs, clicked_pairs, rows_of, shown_pairs
from backchannel.agents.bandit.features import Encoder, Feature, Numeric
from backchannel.agents.bandit.pages import Integers, Pages, pages_of
from backchannel.agents.bandit.plans import overlap_of
from backchannel.agents.bandit.posterior import PAST, ModelAverage, Posterior, coarsen
from backchannel.agents.bandit.ranks import BUCKETS
from backchannel.agents.bandit.rates import available, believe, exposures, hazards, producers
from backchannel.agents.bandit.section import Exploration, Limits
from backchannel.agents.bandit.serving import Allocator, EncodingError
from backchannel.agents.learner import Changed, Learner
from backchannel.agents.outcomes.outcomes import MAX_STRATEGIES, Outcomes
from backchannel.agents.sums import Delta, Floats, Key, SumReader, Sums, SumTable
from backchannel.schemas.events import MAX_DEPTH, Name

PAIR_BUCKETS: Final = 24
"""Length of a time bucket of pairs, in those of rates: overlap changes with catalogues, not with clicks."""
MOST_PLANS: Final = 4096
"""Rows of allocations that are kept, the newest: random allocations may be as many as there are turns."""
USUAL: Final = ("lexical", "semantic", "memory", "popular", "new")
"""Strategies to choose from before any event has named one, if none are configured."""
COARSE: Final = 64
"""Time buckets are read no finer than one in this many parts of their age: a backlog of years has a few hundred."""


class BanditConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Which strategies there are, and how to learn when to ask them."""

    strategies: Annotated[
        tuple[Name, ...],
        Meta(
            max_length=MAX_STRATEGIES,
            description="retrieval strategies to choose from; without any, those that events name, and before that "
            "lexical, semantic, memory, popular and new. Name them if producers are not trusted",
        ),
    ] = ()
    features: Annotated[
        tuple[Feature, ...],
        Meta(
            max_length=64,
            description="features of the query's context; of the strategy's context if the name begins with "
            "`strategy.`, and of the user if it begins with `user.`. Kinds: numeric, categorical,"
            " hashed, binned, cyclic and cross; see `Features` in docs/configuration.md",
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
    ] = (8.0, 2.0, 0.5, 0.0625)
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
    ] = 0.1
    floor: Annotated[
        float,
        Meta(
            ge=0,
            le=1,
            description="share of decisions that ask a random set of strategies; if the budget is one of distinct "
            "candidates, beside the plan",
        ),
    ] = 0.02
    position_decay: Annotated[
        float,
        Meta(ge=0, le=4, description="exponent d of the probability p^-d that position p is examined"),
    ] = 0.7
    policy: Annotated[
        Exploration,
        Meta(
            description="how to explore. squarecb asks a strategy less often the further it is behind the "
            "best; ucb is deterministic, so its log tells of no other policy, and each leap is tried as a canary"
        ),
    ] = "thompson"
    long_term: Annotated[
        float,
        Meta(
            ge=0,
            le=1000,
            description="what a return is worth, in successes: the more, the more strategies are asked that people "
            "come back after. Needs `horizon.salt`; 0: only success counts",
        ),
    ] = 0.0
    goal: Annotated[
        float,
        Meta(
            ge=0,
            le=1000,
            description="what reaching a goal is worth, in successes: the more, the more strategies are asked whose "
            "successes end goals; 0: only success counts",
        ),
    ] = 0.0
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
                raise ValueError(f"{name!r} is listed twice in strategies or features")
        Encoder(self.features)  # raises if they are invalid
        for name in self.limits if self.strategies else ():
            if name not in self.strategies:
                raise ValueError(f"limits: {name!r} is none of the strategies")
        if self.strategies and not any(self.limits.get(name, Limits()).on for name in self.strategies):
            raise ValueError("limits: no strategy is on")

    @property
    def expected(self) -> tuple[str, ...]:
        """The strategies to expect before any event has named one."""
        return self.strategies or USUAL


class StrategyBandit(Learner):
    """The learner of strategies' rates. Its section: "" -> how to encode and explore; strategy -> its posterior."""

    name = Allocator.name
    serving = Allocator

    def __init__(self, config: BanditConfig) -> None:
        self.config: Final = config
        self.encoder: Final = Encoder(config.features)
        self.layout: Final = Layout(self.encoder.dimension)
        self.table: Final = SumTable(name="bandit", key=(("encoding", str), ("strategy", str), ("bucket", int)))
        self.pairs: Final = SumTable(name="bandit_pairs", key=(("strategy", str), ("other", str), ("bucket", int)))
        self.plans: Final = SumTable(name="bandit_plans", key=(("encoding", str), ("plan", str), ("bucket", int)))
        self.tables = (self.table, self.pairs, self.plans)
        self.bound = (self.plans, MOST_PLANS)
        self._bucket_ms: Final = round(config.bucket_s * 1000)
        self._pair_ms: Final = PAIR_BUCKETS * self._bucket_ms
        self._examined: Final = np.arange(1.0, MAX_DEPTH + 1.0) ** -config.position_decay
        self._average: Final = ModelAverage([days * 86_400_000 for days in config.half_lives_days], config.ridges)

    @classmethod
    def configured(cls, config: Any) -> Self:
        """See `Learner.configured`."""
        return cls(config.bandit)

    def learn(self, outcomes: Outcomes) -> Delta:
        """See `Learner.learn`. If some strategies are configured, all others are ignored."""
        if not len(outcomes):
            return {}
        strategies = outcomes.strategies_of(self.config.strategies)
        return self.learn_pages(pages_of(outcomes, self.encoder, strategies), strategies)

    def learn_pages(self, pages: Pages, strategies: Sequence[str]) -> Delta:
        """Return the delta that pages contribute; empty if no strategy was asked in any of them.

        Args:
            pages: turns as pages, encoded by `encoder`.
            strategies: names; their indexes are the codes in `pages`.
        """
        asked = pages.depths.any(axis=1)
        if not asked.any():
            return {}
        starts, rows = rows_of(pages, self._examined, pages.times // self._bucket_ms, self.layout)
        keys, values = [], []
        for start, of_strategies in zip((starts * self._bucket_ms).tolist(), rows, strict=True):
            for name, row in zip(strategies, of_strategies, strict=True):
                if row[0] or row.any():
                    keys.append((self.encoder.fingerprint, name, start))
                    values.append(row)
        delta = {self.table.name: Sums(self.table, keys, np.array(values))}
        keys, values = [], []
        groups = pages.times // self._bucket_ms
        for group in np.unique(groups[asked]).tolist():
            texts, own_rows = plans_of(pages.only(groups == group), strategies)
            keys += [(self.encoder.fingerprint, text, group * self._bucket_ms) for text in texts]
            values += [*own_rows]
        if keys:
            delta[self.plans.name] = Sums(self.plans, keys, np.array(values))
        keys, values = [], []
        groups = pages.times // self._pair_ms
        for group in np.unique(groups[asked]).tolist():
            own = pages.only(groups == group)
            pairs = clicked_pairs(own, self._examined), shown_pairs(own)
            packed = np.stack([each for pair in pairs for each in (pair.risk, pair.event)], axis=2)
            places = np.argwhere(packed.any(axis=(2, 3, 4)))
            for one, other in places.tolist():
                names = strategies[one], strategies[other]
                keys.append((*names, group * self._pair_ms))
                values.append(packed[one, other].ravel())
        if keys:
            delta[self.pairs.name] = Sums(self.pairs, keys, np.array(values))
        return delta

    def solve(self, sums: SumReader, changed: Changed, at: int) -> dict[str, bytes | None]:
        """See `Learner.solve`. Every strategy is solved whenever anything changed: they are few.

        Raises:
            EncodingError: the sums are those of an earlier version of Backchannel.
        """
        if self.table.name not in changed and self.pairs.name not in changed:
            return {}
        config, encoder = self.config, self.encoder
        strategies, gone, starts, by_start = self._rows(sums, at)
        posterior = self._infer(sums, strategies, starts, by_start, at)
        discounts = posterior.discounts
        total = self.layout.unpack(np.tensordot(discounts, by_start, axes=1))
        belief = believe(total)
        clicked, shown = self._pairs(sums, strategies, starts, discounts)
        met, met_shown, has = hazards(clicked).round(4), hazards(shown).round(4), available(shown)
        first = total.gram[:, 0, :, 0].sum(axis=1)
        turns = first[:, 0]
        counts, rows = self._plans(sums, strategies, starts, discounts)
        own = first / np.maximum(turns, 1.0)[:, np.newaxis] if encoder.of_strategies else None
        elastic = elasticities(counts, rows, promised(counts, rows, belief, overlap_of(met, met_shown, has), own))
        section: dict[str, bytes | None] = dict.fromkeys(gone)
        section |= {
            name: orjson.dumps(
                {
                    "count": float(turns[code]),
                    "reward": float(total.rewards[code] / turns[code]) if turns[code] else 0.0,
                    "clicks": belief.clicks[code],
                    "rates": belief.rates[code],
                    "prior": belief.prior[code],
                    "theta": belief.theta[code],
                    "whitener": belief.whitener[code],
                    "evident": belief.evident[code],
                    "hazards": met[code],
                    "shown": met_shown[code],
                    "available": has[code],
                    "gram": total.gram[code, 0].sum(axis=0) / max(turns[code], 1.0),
                    "cover": total.drawn[code] / max(turns[code], 1.0),
                    "segments": segments,
                },
                option=orjson.OPT_SERIALIZE_NUMPY,
            )
            for code, (name, segments) in enumerate(
                zip(strategies, self._segments(total.gram.sum(axis=2), belief), strict=True)
            )
        }
        section[""] = orjson.dumps(
            {
                "features": msgspec.to_builtins(encoder.features),
                "encoding": encoder.fingerprint,
                "strategies": strategies,
                "policy": config.policy,
                "exploration": config.exploration,
                "floor": config.floor,
                "elasticities": elastic.mean.tolist(),
                "elasticities_whitener": elastic.whitener.tolist(),
                "limits": [msgspec.to_builtins(config.limits.get(name, Limits())) for name in strategies],
                **({} if posterior.changed is None else {"changed": posterior.changed}),
            }
        )
        return section

    def compact(self, table: SumTable, keys: Sequence[Key], sums: SumReader, at: int) -> dict[Key, Key]:
        """See `Learner.compact`, and `posterior.coarsen`."""
        nothing: tuple[tuple[int, ...], int | None] = ((), None)
        known = nothing
        if table == self.table:
            strategies, _, starts, rows = self._rows(sums, at)
            posterior = self._infer(sums, strategies, starts, rows, at)
            known = posterior.changes, posterior.changed
        length = self._pair_ms if table == self.pairs else self._bucket_ms
        became: dict[str, dict[int, int]] = {}
        for first in {key[0] for key in keys}:
            changes, changed = known if first == self.encoder.fingerprint else nothing
            became[first] = coarsen({key[2] for key in keys if key[0] == first}, changes, length, at, changed)
        return {
            (first, second, start): (first, second, became[first][start])
            for first, second, start in keys
            if start in became[first]
        }

    def excess(self, sums: SumReader, crowded: Collection[str], at: int) -> Sequence[Key]:  # noqa: ARG002 - Learner's
        """See `Learner.excess`: the oldest allocations."""
        stored = {encoding: sums.read(self.plans, "encoding", [encoding]).keys for encoding in crowded}
        return [key for keys in stored.values() for key in set(keys).difference(_newest(keys))]

    def _infer(self, sums: SumReader, strategies: Sequence[str], starts: Floats, rows: Floats, at: int) -> Posterior:
        """Return how much each time bucket still counts; see `_rows`."""
        clicked, _ = self._pairs(sums, strategies, starts, np.ones(len(starts)))
        return self._average.infer(exposures(starts, self.layout.unpack(rows), producers(clicked)), at)

    def _segments(self, gram: Floats, belief: Belief) -> list[list[tuple[str, float, float, float, float]]]:
        """Return the `serving.Segment`s of each strategy in which it was asked.

        Args:
            gram: G, (strategies, BUCKETS, d, d).
            belief: the posterior of the rates.
        """
        of_strategy: list[list[tuple[str, float, float, float, float]]] = [[] for _ in gram]
        weighted = (belief.rates[..., np.newaxis, np.newaxis] * gram).sum(axis=1)
        for name, column in {"": 0, **self.encoder.segments}.items():
            turns = gram[:, 0, 0, column]
            contexts = weighted[:, :, column] / np.maximum(turns, 1e-300)[:, np.newaxis]
            expected = contexts[:, 0] + (belief.theta * contexts).sum(axis=1)
            deviations = np.linalg.norm((belief.whitener @ contexts[..., np.newaxis])[..., 0], axis=1)
            deviations = np.hypot(deviations, contexts[:, 0] / np.sqrt(belief.clicks.sum(axis=1) + 1.0))
            shares = turns / max(turns.sum(), 1e-300)
            for own, *row in zip(
                of_strategy, turns.tolist(), shares.tolist(), expected.tolist(), deviations.tolist(), strict=True
            ):
                if row[0]:
                    own.append((name, *row))
        return of_strategy

    def _rows(self, sums: SumReader, at: int) -> tuple[list[str], list[str], Floats, Floats]:
        """Return the strategies, those that may have been expected or learned before, the starts of time buckets, ms,
        and their rows, (time buckets, strategies, size).
        """
        stored = sums.read(self.table, "encoding", [self.encoder.fingerprint])
        if len(stored.keys) and stored.values.shape[1] != self.layout.size:
            raise EncodingError(
                f"table {self.table.name}: its rows have {stored.values.shape[1]} numbers, not {self.layout.size}. "
                "Another version of Backchannel added them up, and they cannot be converted. Learn anew from the log "
                "into a new store: `backchannel run LOG --store URL`, or a worker whose --store is new"
            )
        strategies, gone = list(self.config.strategies), list[str]()
        if not strategies:
            strategies = self._named(stored)
            gone = sorted({*USUAL, *(strategy for _, strategy, _ in stored.keys)} - {*strategies})
        code = {strategy: place for place, strategy in enumerate(strategies)}
        known = [row for row, (_, strategy, _) in enumerate(stored.keys) if strategy in code]
        begins = np.array([stored.keys[row][2] for row in known], dtype=np.int64)
        starts, place = np.unique(_coarse(begins, self._bucket_ms, at), return_inverse=True)
        rows = np.zeros((len(starts), len(code), self.layout.size))
        codes = np.array([code[stored.keys[row][1]] for row in known], dtype=np.int64)
        if known:
            np.add.at(rows, (place, codes), stored.values[known])
        return strategies, gone, starts.astype(float), rows

    def _named(self, stored: Sums) -> list[str]:
        """Return the strategies that events named: the usual ones first; of too many, those that most turns asked."""
        asked: Counter[str] = Counter()
        turns = self.layout.unpack(stored.values).gram[:, 0, :, 0, 0].sum(axis=1) if len(stored.keys) else ()
        for (_, strategy, _), own in zip(stored.keys, turns, strict=True):
            asked[strategy] += own
        most = sorted(asked, key=lambda name: (-asked[name], name))[:MAX_STRATEGIES]
        return sorted(most, key=lambda name: (name not in USUAL, USUAL.index(name) if name in USUAL else 0, name)) or [
            *USUAL
        ]

    def _plans(
        self, sums: SumReader, strategies: Sequence[str], starts: Floats, discounts: Floats
    ) -> tuple[Integers, Floats]:
        """Return the allocations and their rows, see `plans_of`, discounted like the time buckets they are from."""
        code = {strategy: place for place, strategy in enumerate(strategies)}
        stored = sums.read(self.plans, "encoding", [self.encoder.fingerprint])
        found: dict[str, Floats] = {}
        by_key = dict(zip(stored.keys, stored.values, strict=True))
        # Always in the same order, as sums of discounted rows depend on it.
        for key in _newest(stored.keys) if len(starts) else ():
            _, text, start = key
            row = by_key[key]
            found[text] = found.get(text, 0.0) + discounts[_last(starts, start + self._bucket_ms)] * row
        plans = [counts_of(text) for text in found]
        known = [place for place, plan in enumerate(plans) if plan.keys() <= code.keys()]
        counts = np.array([[plans[place].get(name, 0) for name in code] for place in known], dtype=np.int64)
        rows = np.array([*found.values()]).reshape(-1, 2 + self.encoder.dimension)[known]
        counts = counts.reshape(-1, len(code))
        return counts, rows

    def _pairs(
        self, sums: SumReader, strategies: Sequence[str], starts: Floats, discounts: Floats
    ) -> tuple[Pairs, Pairs]:
        """Return the pair sums of clicked and of shown items, discounted like the time buckets in which they end."""
        code = {strategy: place for place, strategy in enumerate(strategies)}
        size = len(code)
        total = np.zeros((size, size, 4, BUCKETS, BUCKETS))
        stored = sums.read(self.pairs)
        for (one, other, start), row in zip(stored.keys, stored.values, strict=True):
            if one in code and other in code and len(starts):
                discount = discounts[_last(starts, start + self._pair_ms)]
                total[code[one], code[other]] += discount * row.reshape(total.shape[2:])
        clicked_risk, clicked_event, shown_risk, shown_event = total.transpose(2, 0, 1, 3, 4)
        return Pairs(clicked_risk, clicked_event), Pairs(shown_risk, shown_event)


def _newest(plans: Sequence[Key]) -> list[Key]:
    """Return the keys of the newest allocations of one encoding, at most MOST_PLANS of them."""
    return sorted(plans, key=lambda key: (-key[2], key[1]))[:MOST_PLANS]


def _last(starts: Floats, end: int) -> int:
    """Return the place of the last time bucket that starts before `end`, ms."""
    return max(int(np.searchsorted(starts, end)) - 1, 0)


def _coarse(starts: Integers, bucket_ms: int, at: int) -> Integers:
    """Return the starts of the coarser time buckets, no shorter than a share of their age, that hold time buckets."""
    ages = np.maximum(at - starts, 0) / (COARSE * bucket_ms)
    lengths = bucket_ms * 2 ** np.ceil(np.log2(np.maximum(ages, 1.0))).astype(np.int64)
    return np.where(starts == PAST, PAST, starts - starts % lengths)

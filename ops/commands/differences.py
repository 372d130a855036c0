"""The differences between two policy versions, in words and numbers."""

from collections.abc import Iterator, Mapping
from typing import Final

import msgspec
import numpy as np
from msgspec import Struct
from sqlalchemy import Connection

from backchannel.agents.memory.serving import Memory
from backchannel.agents.ranking.serving import Summary
from backchannel.agents.serving import Sections
from backchannel.schemas.errors import BackchannelError
from backchannel.schemas.snapshot import Section, Snapshot
from backchannel.streams.clock import learned_up_to
from backchannel.streams.serving.policy import Policy
from backchannel.streams.snapshots import versions as snapshots
from backchannel.streams.snapshots.versions import CorruptPolicyError

DECISIONS: Final = 100
"""Number of decisions, for a query without context, over which a strategy's share of candidates is averaged."""


class StrategyChange(Struct, frozen=True):
    """A strategy in the older and the newer version; None where a version does not have it.

    Attributes:
        strategy: name of the strategy.
        turns: (decayed) number of turns that asked it.
        reward: mean reward of those turns.
        expected: expected reward for a query without context.
        share: share of the candidates for such a query, 0 to 1.
    """

    strategy: str
    turns: tuple[float | None, float | None]
    reward: tuple[float | None, float | None]
    expected: tuple[float | None, float | None]
    share: tuple[float | None, float | None]


class TargetChange(Struct, frozen=True):
    """A query's best entity with its score, or its rewrite with its probability, before and after; None if it has
    none.
    """

    query: str
    before: tuple[str, float] | None
    after: tuple[str, float] | None


class Differences(Struct, frozen=True):
    """What changed from one version to another.

    Attributes:
        older: header of the older version.
        newer: header of the newer version.
        rows: number of rows that differ, by section.
        strategies: every strategy of either version.
        rewrites: queries whose rewrite is new, gone or different, the most probable first.
        entities: queries whose best entity is new, gone or different, the highest score first.
        ranking: a summary of the order of results in each version.
    """

    older: Snapshot
    newer: Snapshot
    rows: dict[str, int]
    strategies: list[StrategyChange]
    rewrites: list[TargetChange]
    entities: list[TargetChange]
    ranking: tuple[Summary, Summary]

    def words(self, examples: int) -> Iterator[str]:
        """Describe the differences, one sentence or example per line.

        Args:
            examples: maximum number of examples of each kind.
        """
        older, newer = self.older, self.newer
        yield (
            f"From version {older.version}, {learned_up_to(older.watermark)}, "
            f"to version {newer.version}, {learned_up_to(newer.watermark)}:"
        )
        if older.fingerprint != newer.fingerprint:
            yield f"The configuration changed, from fingerprint {older.fingerprint} to {newer.fingerprint}."
        for name, count in self.rows.items():
            if count:
                yield f"{count:,} rows of {name} differ; there are {newer.rows.get(name, 0):,} now."
        for one in self.strategies:
            yield _strategy(one)
        yield from _ranking(*self.ranking)
        yield from _tally("rewrites", self.rewrites, examples)
        yield from _tally("best entities", self.entities, examples)


def loaded(header: Snapshot, sections: Sections) -> Policy:
    """Return a version as the policy that readers make of it.

    Raises:
        CorruptPolicyError: they would refuse it, because another version of Backchannel published it.
    """
    try:
        return Policy(header, sections, np.random.default_rng(0))
    except (BackchannelError, msgspec.ValidationError) as error:
        raise CorruptPolicyError(
            f"another version of Backchannel published version {header.version}, and readers of this one would refuse "
            f"it: {error}"
        ) from None


def differences(connection: Connection, older: Snapshot, newer: Snapshot, *, budget: int = 100) -> Differences:
    """Compare two retained versions, by what they would do with a `budget` of candidates.

    Raises:
        ValueError: the budget is below the strategies' minima in one of them.
    """
    sections = [
        {name: snapshots.section(connection, header.version, name) for name in header.rows} for header in (older, newer)
    ]
    names = sorted(sections[0].keys() | sections[1].keys())
    changed = {name: _changed(*(one.get(name, {}) for one in sections)) for name in names}
    before, after = (loaded(header, rows) for header, rows in zip((older, newer), sections, strict=True))
    rewrites = _changes(
        {query: (one.target, one.probability) for query, one in before.rewrites().items()},
        {query: (one.target, one.probability) for query, one in after.rewrites().items()},
    )
    queries = changed.get(Memory.name, set())
    return Differences(
        older,
        newer,
        {name: len(keys) for name, keys in changed.items()},
        list(_strategies(before, after, budget)),
        rewrites,
        _changes(_best(before, queries), _best(after, queries)),
        (before.ranking().summary(), after.ranking().summary()),
    )


def _changed(older: Section, newer: Section) -> set[str]:
    return {key for key in older.keys() | newer.keys() if older.get(key) != newer.get(key)}


def _best(policy: Policy, queries: set[str]) -> dict[str, tuple[str, float]]:
    found = {query: policy.recall(query, 1) for query in queries}
    return {query: (some[0].entity_id, some[0].score) for query, some in found.items() if some}


def _changes(before: Mapping[str, tuple[str, float]], after: Mapping[str, tuple[str, float]]) -> list[TargetChange]:
    changes = [
        TargetChange(query, before.get(query), after.get(query))
        for query in before.keys() | after.keys()
        if (before.get(query) or ("",))[0] != (after.get(query) or ("",))[0]
    ]
    return sorted(changes, key=lambda one: (-(one.after or one.before or ("", 0.0))[1], one.query))


def _strategies(before: Policy, after: Policy, budget: int) -> Iterator[StrategyChange]:
    numbers = [_numbers(policy, budget) for policy in (before, after)]
    for strategy in dict.fromkeys((*before.strategies, *after.strategies)):
        pairs = zip(*(one.get(strategy, (None,) * 4) for one in numbers), strict=True)
        yield StrategyChange(strategy, *pairs)


def _numbers(policy: Policy, budget: int) -> dict[str, tuple[float, float, float, float]]:
    """Return strategy -> turns, mean reward, expected reward, share."""
    rng = np.random.default_rng(0)
    shares = dict.fromkeys(policy.strategies, 0.0)
    for _ in range(DECISIONS):
        decision = policy.allocate({}, budget, rng)
        for strategy, count in decision.allocation.items():
            shares[strategy] += count / (DECISIONS * budget)
    expected = policy.utilities({})
    return {name: (*policy.evidence()[name], expected[name][0], shares[name]) for name in policy.strategies}


def _strategy(one: StrategyChange) -> str:
    (turns, now_turns), (_, reward), (expected, now_expected), (share, now_share) = (
        one.turns,
        one.reward,
        one.expected,
        one.share,
    )
    if turns is None or expected is None or share is None:
        return f"Strategy {one.strategy} is new."
    if now_turns is None or now_expected is None or now_share is None:
        return f"Strategy {one.strategy} is gone."
    return (
        f"Strategy {one.strategy}: {now_turns - turns:+z,.0f} turns, mean reward {reward:.3f}. For a query without "
        f"context: expected reward {expected:.3f} -> {now_expected:.3f}, candidates {share:.0%} -> {now_share:.0%}."
    )


def _ranking(before: Summary, after: Summary) -> Iterator[str]:
    if not after.lists:
        return
    yield str(after)
    known = {one.column: one.weight for one in before.weights}
    for one in after.weights:
        was = known.get(one.column)
        if was is None:
            yield f"  {one.column}: new, weight {one.weight:+.3g}"
        elif abs(one.weight - was) > max(one.deviation, 1e-9):
            yield f"  {one.column}: weight {was:+.3g} -> {one.weight:+.3g} ± {one.deviation:.2g}"


def _tally(what: str, changes: list[TargetChange], examples: int) -> Iterator[str]:
    new = sum(one.before is None for one in changes)
    gone = sum(one.after is None for one in changes)
    if not changes:
        yield f"No {what} changed."
        return
    yield f"{what.capitalize()}: {new:,} new, {gone:,} gone, {len(changes) - new - gone:,} different."
    for one in changes[:examples]:
        sides = ["nothing" if side is None else f"{side[0]!r} ({side[1]:.2f})" for side in (one.before, one.after)]
        yield f"  {one.query!r}: {sides[0]} -> {sides[1]}"
    if len(changes) > examples:
        yield f"  and {len(changes) - examples:,} more"

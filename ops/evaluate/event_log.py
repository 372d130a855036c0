"""Off-policy evaluation on an event file: learned policies on its second half, or given policies on all of it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Final

import numpy as np
from msgspec import structs

from backchannel.agents.bandit.learner import StrategyBandit
from backchannel.agents.bandit.serving import Allocator, Exploration
from backchannel.agents.columnar.columns import Columns
from backchannel.agents.columnar.interning import columns_of
from backchannel.agents.ope.decisions import (
    DecisionTable,
    LoggedDecision,
    decisions_of,
    is_logged,
    table_of,
    vectors_of,
)
from backchannel.agents.ope.estimators import Feedback, Terms
from backchannel.agents.ope.intervals import interval
from backchannel.agents.ope.sessions import Sessions, in_sessions, per_decision, weighted_per_decision
from backchannel.agents.ope.union import Lookup, earned, lookups_of
from backchannel.agents.ope.whole import Replayed
from backchannel.agents.outcomes import MAX_STRATEGIES, Judge
from backchannel.agents.serving import live_rows
from backchannel.agents.sums import Delta, Floats, MemorySums, merge
from backchannel.ops.evaluate.result import (
    Evaluation,
    Options,
    Pages,
    PolicyValue,
    assess,
    from_union,
    from_whole,
    over_sessions,
)
from backchannel.schemas.codec import EventDecoder, EventError
from backchannel.schemas.errors import BackchannelError
from backchannel.schemas.turn import Turn
from backchannel.streams.config import Config
from backchannel.streams.turns.assembler import TurnAssembler
from backchannel.streams.turns.event_file import EventFile

LEARNED: Final[tuple[Exploration, ...]] = ("thompson", "greedy", "squarecb")
"""Ways to explore that are evaluated for the learned policy."""
_TOPIC: Final = "events"
_BATCH: Final = 20_000


class UnloggedError(BackchannelError, ValueError):
    """A log lacks the propensities of its decisions; the message says what to log."""


def turns_of(path: str, config: Config, progress: Callable[[int], None]) -> list[Turn]:
    """Return the closed turns of an event file, in order of time. Invalid events are skipped.

    Raises:
        SourceError: the file cannot be read.
        TooManyOpenError: more turns are open than the configuration allows.
    """
    turns: list[Turn] = []
    assembler, decoder = TurnAssembler([_TOPIC], config.turns), EventDecoder(config=config.events)
    with EventFile(path) as file:
        for chunk in file.chunks():
            decoded = decoder.decode_many(chunk.lines)
            events = [None if isinstance(event, EventError) else event for event in decoded]
            assembler.add(_TOPIC, chunk.offsets, events)
            turns += assembler.advance()
            progress(len(decoded))
    turns += assembler.finish()
    return turns


def evaluate(
    path: str, config: Config, others: Mapping[str, Allocator], options: Options, progress: Callable[[int], None]
) -> Evaluation:
    """Evaluate policies on an event file.

    Without `others`, the strategy bandit learns from the first half of the turns and is evaluated on the second, with
    several ways to explore. Otherwise, `others` are evaluated on all turns.

    Args:
        path: the path of the file, "-" for standard input.
        config: the configuration of turns, rewards and the bandit.
        others: policies to evaluate, by name.
        options: the options of the evaluation.
        progress: called with the number of lines read since the last call.

    Raises:
        SourceError: the file cannot be read.
        TooManyOpenError: more turns are open than the configuration allows.
        UnloggedError: fewer than two decisions are logged with propensities, or a logged strategy is not configured.
        SupportError: a strategy was asked although its propensity is 0.
    """
    turns = turns_of(path, config, progress)
    if not config.bandit.strategies:
        names = tuple(columns_of(turns).pools.strategies[:MAX_STRATEGIES])
        config = structs.replace(config, bandit=structs.replace(config.bandit, strategies=names))
    half = 0 if others else len(turns) // 2
    bandit = StrategyBandit(config.bandit)
    policies = dict(others) or _learned(bandit, config, turns[:half])
    rest = turns[half:]
    columns = columns_of(rest)
    logged = np.flatnonzero(is_logged(columns)).tolist()
    if len(logged) < 2:
        raise UnloggedError(
            f"{path}: {len(logged)} of {len(rest):,} turns have an impression with `allocation` and `propensities`. "
            "Log both as returned by `Policy.allocate`: only randomised decisions can be evaluated"
        )
    outcomes = Judge(config.rewards).judge(columns)
    decisions = decisions_of(outcomes, logged)
    unknown = {name for one in decisions for name in one.allocation} - set(config.bandit.strategies)
    if unknown:
        raise UnloggedError(
            f"{path}: {', '.join(sorted(unknown))} occur in allocations but not in bandit.strategies: add them to the "
            "configuration, and pass it with --config"
        )
    lookups = lookups_of(outcomes, rest, logged)
    found = _evaluate(path, decisions, lookups, policies, options)
    return _sharing(structs.replace(found, left_out=len(rest) - len(logged)), _pages(columns, decisions))


def _pages(columns: Columns, decisions: Sequence[LoggedDecision]) -> Pages:
    brought = columns.turns.impressions.rows.results.rows.producers.counts
    return Pages(
        several=float(np.mean([len(one.decided) > 1 for one in decisions])),
        overlap=float((brought > 1).mean()) if len(brought) else 0.0,
    )


def _sharing(found: Evaluation, pages: Pages) -> Evaluation:
    """Note how strategies share pages and, if they do, rely only on estimates that are valid there."""
    found = structs.replace(found, pages=pages)
    if not found.shared:
        return found
    note = f"{pages}: estimates by strategy ignore that, and mostly overstate a change"
    policies = [structs.replace(one, faults=_faults(one)) for one in found.policies]
    return structs.replace(found, policies=policies, notes=[*found.notes, note])


def _evaluate(
    path: str,
    decisions: list[LoggedDecision],
    lookups: list[Lookup],
    policies: Mapping[str, Allocator],
    options: Options,
) -> Evaluation:
    rng = np.random.default_rng(options.seed)
    reference = next(iter(policies.values()))
    contexts = vectors_of(decisions, reference.encoder, reference.strategies)
    table = table_of(decisions, contexts, reference.strategies)
    worth = reference.worth(int(table.budgets.max()))
    modelled = table.modelled(worth)
    rewards = Terms(table.rewards.sum(axis=1), 0.0, float(table.rewards.shape[1]))
    values: list[PolicyValue] = []
    for name, allocator in policies.items():
        vectors = vectors_of(decisions, allocator.encoder, allocator.strategies)
        extents = table.expected(allocator, vectors, worth)
        log = table.feedback(extents, worth, modelled)
        whole = _whole(table, decisions, allocator)
        value = assess(name, log, rewards, options, rng, whole=whole)
        if whole is not None:
            sessions = _over_sessions(decisions, whole, options, rng)
            value = structs.replace(value, whole=from_whole(whole, options, rng), **sessions)
        if any(one.probability for one in lookups):
            terms = earned(Replayed(allocator), decisions, lookups)
            value = structs.replace(value, union=from_union(terms, lookups, options, rng))
        values.append(value)
    notes = [
        "by strategy: rewards are credited to strategies and added up, so that a turn may earn more than 1; a "
        "strategy's reward grows with the number of its candidates along its rank curve",
    ]
    if values[0].sessions:
        notes.append("whole allocations, replay and sessions: one reward per turn, its success")
    return Evaluation(
        log=path,
        kind="events",
        turns=len(decisions),
        left_out=0,
        strategies=len(reference.strategies),
        logged=interval(rewards, options.method, options.confidence, rng),
        options=options,
        policies=values,
        notes=notes,
    )


def _faults(value: PolicyValue) -> list[str]:
    """Return why the log cannot tell the value of a policy, if strategies share pages."""
    if value.of_pages is None:
        return [
            "strategies share pages, and allocations are logged without `allocation_propensity`: only with it can they "
            "be weighed as a whole"
        ]
    return [f"cannot tell: {fault}" for fault in value.of_pages.faults]


def _learned(bandit: StrategyBandit, config: Config, turns: list[Turn]) -> dict[str, Allocator]:
    """Return the policies learned from `turns`, and the uniform policy, by name."""
    judge, deltas, rest = Judge(config.rewards), list[Delta](), iter(turns)
    while batch := list(islice(rest, _BATCH)):
        deltas.append(bandit.learn(judge.judge(columns_of(batch))))
    sums = MemorySums(merge(deltas))
    at = turns[-1].query.ts if turns else 0
    names: Iterator[tuple[str, Exploration]] = iter(
        [("uniform", "uniform"), *((f"learned, {name}", name) for name in LEARNED)]
    )
    policies = {}
    for name, exploration in names:
        exploring = StrategyBandit(structs.replace(config.bandit, policy=exploration))
        section = exploring.solve(sums, {bandit.table.name: ()}, at)
        policies[name] = Allocator(live_rows(section))
    return policies


def _whole(table: DecisionTable, decisions: list[LoggedDecision], allocator: Allocator) -> Feedback | None:
    """Return the turns with whole allocations as actions; None unless all of these have propensities."""
    propensities = [one.allocation_propensity or 0.0 for one in decisions]
    if not all(propensities):
        return None
    weights = np.array(
        [
            allocator.mixture(one.context, int(budget), one.strategy_context).probability(counts) / propensity
            for one, budget, counts, propensity in zip(
                decisions, table.budgets, table.counts.tolist(), propensities, strict=True
            )
        ]
    )
    successes = np.array([one.success for one in decisions])
    return Feedback(weights[:, np.newaxis], successes[:, np.newaxis])


def _over_sessions(
    decisions: list[LoggedDecision], whole: Feedback, options: Options, rng: np.random.Generator
) -> dict[str, object]:
    ids = np.array([one.session_id for one in decisions])
    weights: Floats = in_sessions(ids, whole.weights[:, 0], 1.0)
    sessions = Sessions(weights, in_sessions(ids, whole.rewards[:, 0], 0.0))
    return over_sessions(sessions, {"PDIS": per_decision, "WPDIS": weighted_per_decision}, options, rng)

"""Off-policy evaluation on an event file: learned policies on its second half, or given policies on all of it."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import numpy as np
from msgspec import Struct, structs
from numpy.typing import NDArray

from backchannel.agents.bandit.learner import StrategyBandit
from backchannel.agents.bandit.planner import MAX_BUDGET
from backchannel.agents.bandit.section import Exploration
from backchannel.agents.bandit.serving import Allocator
from backchannel.agents.columnar.columns import Columns
from backchannel.agents.columnar.interning import columns_of
from backchannel.agents.goals.learner import ends_of
from backchannel.agents.ope.decisions import (
    LoggedDecision,
    decisions_of,
    is_logged,
    table_of,
    vectors_of,
)
from backchannel.agents.ope.estimators import Feedback, Terms
from backchannel.agents.ope.intervals import interval
from backchannel.agents.ope.places import Earnings, Examination
from backchannel.agents.ope.union import Lookup, brought, items_of, lookups_of
from backchannel.agents.ope.whole import Replayed
from backchannel.agents.outcomes.judge import Judge
from backchannel.agents.outcomes.outcomes import MAX_STRATEGIES
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
)
from backchannel.ops.evaluate.sessions import MOST, Walks
from backchannel.ops.progress import Progress
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


def turns_of(path: str, config: Config, progress: Progress) -> list[Turn]:
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
            progress("reading", file.consumed / file.size if file.size else 0.0)
    turns += assembler.finish()
    return turns


def evaluate(
    path: str, config: Config, others: Mapping[str, Allocator], options: Options, progress: Progress
) -> Evaluation:
    """Evaluate policies on an event file.

    Without `others`, the strategy bandit learns from the first half of the turns and is evaluated on the second, with
    several ways to explore. Otherwise, `others` are evaluated on all turns.

    Args:
        path: the path of the file, "-" for standard input.
        config: the configuration of turns, rewards and the bandit.
        others: policies to evaluate, by name.
        options: the options of the evaluation.
        progress: called on the way.

    Raises:
        SourceError: the file cannot be read.
        TooManyOpenError: more turns are open than the configuration allows.
        UnloggedError: there are no turns; fewer than two decisions are logged with propensities, or a logged strategy
            is not configured; or what is needed for sessions or users was not logged.
        SupportError: a strategy was asked although its propensity is 0.
    """
    turns = turns_of(path, config, progress)
    if not turns:
        raise UnloggedError(f"{path} has no valid `query` event: `backchannel run` says what is wrong with its lines")
    if not config.bandit.strategies:
        names = tuple(columns_of(turns).pools.strategies[:MAX_STRATEGIES])
        config = structs.replace(config, bandit=structs.replace(config.bandit, strategies=names))
    half = 0 if others else len(turns) // 2
    bandit = StrategyBandit(config.bandit)
    policies = dict(others) or _learned(bandit, config, turns[:half], progress)
    progress("preparing turns", 0.0)
    rest = turns[half:]
    columns = columns_of(rest)
    logged = np.flatnonzero(is_logged(columns)).tolist()
    if options.horizon == "user":
        logged = [row for row in logged if rest[row].query.user_id]
    if len(logged) < 2:
        raise UnloggedError(
            f"{path}: {len(logged)} of {len(rest):,} turns{' of the second half' if half else ''} have an impression "
            f"with `allocation` and `propensities`{' and a `user_id`' if options.horizon == 'user' else ''}. "
            "Log these as returned by `Policy.allocate`: only randomised decisions can be evaluated"
        )
    progress("judging turns", 0.2)
    outcomes = Judge(config.rewards).judge(columns)
    progress("preparing decisions", 0.4)
    decisions = decisions_of(outcomes, logged)
    unknown = {name for one in decisions for name in one.allocation} - set(config.bandit.strategies)
    if unknown:
        raise UnloggedError(
            f"{path}: {', '.join(sorted(unknown))} occur in allocations but not in bandit.strategies: add them to the "
            "configuration, and pass it with --config"
        )
    progress("preparing ranks", 0.6)
    lookups = lookups_of(outcomes, rest, logged)
    ids = None
    if options.horizon != "turn":
        if not all(one.allocation_propensity for one in decisions):
            raise UnloggedError(
                f"{path}: --horizon {options.horizon}: allocations lack an `allocation_propensity`. Log "
                "it as returned by `Policy.allocate`: over several turns, only whole decisions can be weighed"
            )
        ids = np.array([_walker(rest[row], options) for row in logged])
    if options.reward == "goals":
        reached = (ends_of(outcomes) * outcomes.unrephrased)[logged].tolist()
        decisions = [structs.replace(one, success=gain) for one, gain in zip(decisions, reached, strict=True)]
        lookups = [Lookup(0.0, (), one.success) for one in lookups]  # clicks do not tell of goals
    found, asked = _evaluate(path, _Log(decisions, lookups, ids), policies, options, progress)
    return _sharing(structs.replace(found, left_out=len(rest) - len(logged)), _pages(columns, decisions, asked))


class _Log(Struct, frozen=True):
    """Logged decisions, what their turns tell of clicked items, and their sessions or users, if these are asked for."""

    decisions: list[LoggedDecision]
    lookups: list[Lookup]
    ids: NDArray[np.str_] | None


def _pages(columns: Columns, decisions: Sequence[LoggedDecision], asked: float) -> Pages:
    brought = columns.turns.impressions.rows.results.rows.producers.counts
    return Pages(
        several=float(np.mean([len(one.decided) > 1 for one in decisions])),
        overlap=float((brought > 1).mean()) if len(brought) else 0.0,
        asked=asked,
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
    log: "_Log",
    policies: Mapping[str, Allocator],
    options: Options,
    progress: Progress,
) -> tuple[Evaluation, float]:
    """Return the evaluation, and the largest share of turns in which a policy would ask several strategies."""
    decisions, lookups, ids = structs.astuple(log)
    progress("fitting models of rewards", 0.8)
    rng = np.random.default_rng(options.seed)
    reference = next(iter(policies.values()))
    contexts = vectors_of(decisions, reference.encoder, reference.strategies)
    table = table_of(decisions, contexts, reference.strategies)
    worth = reference.worth(int(table.budgets.max()))
    modelled = table.modelled(worth)
    rewards = Terms(table.rewards.sum(axis=1), 0.0, float(table.rewards.shape[1]))
    walks = None if ids is None else Walks(ids, table, worth)
    items = items_of(lookups)
    examination = Examination.of(items, len(lookups))
    values: list[PolicyValue] = []
    asked = 0.0
    for place, (name, allocator) in enumerate(policies.items()):
        progress(f"evaluating {name}", place / len(policies))
        vectors = vectors_of(decisions, allocator.encoder, allocator.strategies)
        extents = table.expected(allocator, vectors, worth)
        by_strategy = table.feedback(extents, worth, modelled)
        probabilities, several = _replayed(decisions, vectors, allocator)
        asked = max(asked, several)
        whole = _whole(decisions, probabilities)
        value = assess(name, by_strategy, rewards, options, rng, whole=whole)
        if whole is not None:
            value = structs.replace(value, whole=from_whole(whole, options, rng))
            if walks is not None:
                sessions = walks.value(whole, extents, options, rng)
                value = structs.replace(value, sessions=sessions, faults=sessions.faults)
        if any(one.probability for one in lookups):
            earnings = Earnings.of(items, brought(Replayed(allocator), decisions, lookups), examination)
            value = structs.replace(value, union=from_union(earnings, examination, lookups, options, rng))
        values.append(value)
    notes = [
        "by strategy: rewards are credited to strategies and added up, so that a turn may earn more than 1; a "
        "strategy's reward grows with the number of its candidates along its rank curve",
    ]
    if values[0].whole is not None:
        earned_by = "its success" if options.reward == "success" else "the goals that it ends and that were reached"
        notes.append(f"whole allocations, replay and sessions: one reward per turn, {earned_by}")
    if walks is not None:
        notes.append(
            f"per {options.horizon}: rewards from its first turn in the log on, discounted by {options.discount:g} per "
            f"turn, of {MOST} turns at most"
        )
    found = Evaluation(
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
    return found, asked


def _faults(value: PolicyValue) -> list[str]:
    """Return why the log cannot tell the value of a policy, if strategies share pages."""
    if value.sessions is not None:
        return value.faults
    if value.of_pages is None:
        return [
            "strategies share pages, and allocations are logged without `allocation_propensity`: only with it can they "
            "be weighed as a whole"
        ]
    return [f"cannot tell: {fault}" for fault in value.of_pages.faults]


def _learned(bandit: StrategyBandit, config: Config, turns: list[Turn], progress: Progress) -> dict[str, Allocator]:
    """Return the policies learned from `turns`, and the uniform policy, by name."""
    judge, deltas = Judge(config.rewards), list[Delta]()
    for first in range(0, len(turns), _BATCH):
        progress("learning", first / len(turns))
        deltas.append(bandit.learn(judge.judge(columns_of(turns[first : first + _BATCH]))))
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


def _whole(decisions: list[LoggedDecision], probabilities: Floats) -> Feedback | None:
    """Return the turns with whole allocations as actions; None unless all of these have propensities.

    Args:
        decisions: the logged decisions.
        probabilities: the probability of each with the policy, (decisions,).
    """
    propensities = np.array([one.allocation_propensity or 0.0 for one in decisions])
    if not propensities.all():
        return None
    successes = np.array([one.success for one in decisions])
    return Feedback((probabilities / propensities)[:, np.newaxis], successes[:, np.newaxis])


def _replayed(decisions: list[LoggedDecision], vectors: Floats, allocator: Allocator) -> tuple[Floats, float]:
    """Return the probability of each logged allocation with a policy, and how often it would ask several strategies.

    Args:
        decisions: the logged decisions.
        vectors: their contexts, encoded for the policy; see `vectors_of`.
        allocator: the policy.

    Returns:
        The probabilities, (decisions,), and the share of the turns with several strategies, 0 to 1.
    """
    counts = np.array([[one.decided.get(name, 0) for name in allocator.strategies] for one in decisions])
    probabilities, alike = np.zeros(len(decisions)), defaultdict[tuple[int, bool], list[int]](list)
    several = 0.0
    for row, one in enumerate(decisions):
        alike[one.budget, bool(one.planned)].append(row)
    for (budget, distinct), rows in alike.items():
        if allocator.least <= budget <= MAX_BUDGET:
            mixtures = allocator.mixtures(vectors[rows], budget, distinct=distinct)
            probabilities[rows] = mixtures.probability(counts[rows])
            several += float(mixtures.several().sum())
    known = set(allocator.strategies)
    probabilities[[not known.issuperset(one.decided) for one in decisions]] = 0.0
    return probabilities, several / len(decisions)


def _walker(turn: Turn, options: Options) -> str:
    """Return the session or the user of a turn, by the horizon."""
    return turn.query.user_id or "" if options.horizon == "user" else turn.query.session_id

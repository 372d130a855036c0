"""Simulated worlds for the gate: a person wants one item, and clicks it if the page has it.

Strategy s has it with probability q_s, independently of the others unless they are twins, which have it together; its
rank in the list is geometric. So the probability of a click is that of the *union* of the candidates, and one from a
second strategy adds less than it would alone. With a budget of 1 a page is one strategy's best candidate.

Worlds differ in how the q_s change: not at all, at once (flip), or step by step (drift).
"""

from collections.abc import Sequence
from math import inf
from typing import Any, Final, Self, TypeAlias

import numpy as np
from msgspec import Struct
from numpy.random import Generator

from backchannel.agents.bandit.features import Categorical
from backchannel.agents.bandit.learner import BanditConfig, StrategyBandit
from backchannel.agents.bandit.mixture import Mixture
from backchannel.agents.bandit.serving import Allocator
from backchannel.agents.columnar.interning import columns_of
from backchannel.agents.ope.decisions import LoggedDecision, TurnSample
from backchannel.agents.ope.gate import HALF, REST, Case, Course, GateConfig, Judgement, Tried, course, judge
from backchannel.agents.ope.sequences import Contrast
from backchannel.agents.ope.trials import Trials
from backchannel.agents.outcomes import Judge, RewardConfig
from backchannel.agents.serving import live_rows
from backchannel.agents.sums import Delta, Floats, MemorySums, merge
from backchannel.schemas.events import Canary, Click, Impression, Query, Result
from backchannel.schemas.snapshot import Trial
from backchannel.schemas.turn import Turn

STRATEGIES: Final = ("lexical", "semantic", "memory", "popular")
DEVICES: Final = ("car", "phone")
TURN_MS: Final = 10_000
LOOK: Final = 50
"""Number of decisions between two looks at a trial."""
_DECAY: Final = 0.8  # ratio of the probabilities of successive ranks
_WORST: Final = 1 / 3  # relative to the best strategy's rate

Rates: TypeAlias = Floats
"""q of each strategy by device, (devices, strategies)."""


class GateWorld(Struct, frozen=True):
    """A description of a world.

    Attributes:
        kind: `stationary`, `flip` or `drift`.
        rate: clicks per turn of the best strategy with the whole budget.
        budget: the number of candidates drawn.
        turns: the total number of turns.
        refresh: turns between two versions of the policy, and until a reward is known.
        twins: whether the best two strategies have the same items.
    """

    kind: str = "flip"
    rate: float = 0.1
    budget: int = 1
    turns: int = 20_000
    refresh: int = 250
    twins: bool = False

    def rates(self, turn: int, seed: int) -> Rates:
        """Return q at `turn`."""
        rng = np.random.default_rng([seed, 7])
        levels = self.rate * np.linspace(1.0, _WORST, len(STRATEGIES))
        orders = [np.stack([levels[rng.permutation(len(levels))] for _ in DEVICES]) for _ in range(6)]
        done = turn / self.turns
        if self.kind == "flip":
            # The best strategies become the worst at half-time.
            return orders[0] if done < 0.5 else levels.max() + levels.min() - orders[0]
        if self.kind == "drift":
            place = done * (len(orders) - 1)
            first = min(int(place), len(orders) - 2)
            rates: Rates = orders[first] + (place - first) * (orders[first + 1] - orders[first])
            return rates
        return orders[0]

    def chances(self, allocations: Floats, rates: Floats) -> Floats:
        """Return the probability of a click for each of `allocations`, (n, strategies), given one device's q,
        (strategies,).
        """
        missed = 1.0 - rates * self.covered(allocations)
        if self.twins:
            first, second = np.argsort(-rates)[:2]
            missed[:, second] = np.minimum(missed[:, first], missed[:, second])
            missed[:, first] = 1.0
        chances: Floats = 1.0 - missed.prod(axis=1)
        return chances

    def covered(self, counts: Floats) -> Floats:
        """Return the probability that the wanted item is among the first `counts` of a list that has it."""
        covered: Floats = (1.0 - _DECAY**counts) / (1.0 - _DECAY**self.budget)
        return covered

    def best(self, rates: Floats) -> float:
        """Return the probability of a click of the best allocation, filled greedily."""
        counts = np.zeros(len(rates))
        for _ in range(self.budget):
            options = counts + np.eye(len(rates))
            counts = options[self.chances(options, rates).argmax()]
        return float(self.chances(counts[np.newaxis], rates)[0])

    def answer(self, counts: Floats, rates: Floats, rng: Generator) -> tuple[Result, ...]:
        """Return the results of one turn, given that the wanted item, the last one, is among them."""
        has = rates * self.covered(counts)
        if self.twins:
            first, second = np.argsort(-rates)[:2]
            has[second] = 0.0
        hit = rng.random(len(has)) < has
        # The first that has it, given that one of them does; those after it are independent.
        first_hit = has * np.concatenate(([1.0], np.cumprod(1.0 - has)[:-1]))
        leader = _drawn(first_hit.cumsum(), rng)
        hit[:leader], hit[leader] = False, True
        twin = {int(first), int(second)} if self.twins else set()
        results, producers = [], []
        for strategy in np.flatnonzero(hit).tolist():
            shares = _DECAY ** np.arange(counts[strategy])
            rank = _drawn(shares.cumsum(), rng)
            results += [Result(f"{strategy}-{one}", 1, (STRATEGIES[strategy],)) for one in range(rank)]
            producers.append(STRATEGIES[strategy])
            producers += [STRATEGIES[one] for one in twin - {strategy} if strategy in twin and counts[one] > rank]
        return (*results, Result("wanted", len(results) + 1, tuple(producers)))


def _turn(number: int, device: int, counts: list[int], results: tuple[Result, ...], logged: dict[str, Any]) -> Turn:
    """Return a turn in which `counts` were drawn, and the wanted item was clicked if there are `results`."""
    common: dict[str, Any] = {"ts": number * TURN_MS, "session_id": f"s{number}", "query_id": f"q{number}"}
    allocation = {name: count for name, count in zip(STRATEGIES, counts, strict=True) if count}
    shown = Impression(event_id="i", results=results, allocation=allocation, **logged, **common)
    query = Query(event_id="q", text="", context={"device": DEVICES[device]}, **common)
    clicks = [Click(event_id="c", entity_id="wanted", **common)] if results else []
    return Turn.of(query, [shown, *clicks])


class Supported(Struct, frozen=True):
    """All allocations that may be drawn for a page.

    Attributes:
        allocations: distinct allocations, (n, strategies).
        probabilities: their probabilities by policy, (policies, n).
    """

    allocations: Floats
    probabilities: Floats

    @classmethod
    def of(cls, mixtures: Sequence[Mixture]) -> Self:
        """Return the allocations that any of some mixtures of the same strategies may draw."""
        rows, weights = [], []
        for mixture in mixtures:
            sets, chances = mixture.sets.every()
            rows.append(np.concatenate((mixture.parts, sets)).astype(float))
            weights.append(np.concatenate(((1.0 - mixture.floor) * mixture.shares, mixture.floor * chances)))
        allocations, places = np.unique(np.concatenate(rows), axis=0, return_inverse=True)
        split = np.split(places.ravel(), np.cumsum([len(one) for one in rows])[:-1])
        found = [np.bincount(own, some, len(allocations)) for own, some in zip(split, weights, strict=True)]
        return cls(allocations, np.minimum(found, 1.0))


class Gated(Struct, frozen=True):
    """The results of a bandit in a world.

    Attributes:
        regret: expected clicks less than the best allocation's, by version, (versions,).
        judgements: the gate's judgements by version; empty without a gate.
    """

    regret: Floats
    judgements: list[Judgement]


class _Served(Struct, frozen=True):
    """The served policy, and the one on trial."""

    policy: Allocator
    tried: Allocator
    trial: Trial | None = None

    @property
    def share(self) -> float:
        """The share of decisions of the policy on trial."""
        return self.trial.share if self.trial else 0.0


def live(world: GateWorld, seed: int, gate: GateConfig | None) -> Gated:
    """Let the strategy bandit learn in a world, with a gate or without one. What happens depends on `seed` only."""
    rng = np.random.default_rng([seed, 1])
    bandit = StrategyBandit(
        BanditConfig(strategies=STRATEGIES, features=(Categorical("device", DEVICES),), position_decay=0.0)
    )
    trials, judge_of_turns = Trials(), Judge(RewardConfig())
    learned: Delta = {}
    clicked: list[int] = []
    sample: list[tuple[float, LoggedDecision]] = []
    regret, judgements = [], []

    def solve(at: int) -> Allocator:
        return Allocator(live_rows(bandit.solve(MemorySums(learned), {bandit.table.name: ()}, at)))

    start = solve(0)
    served = _Served(start, start)
    for version, first in enumerate(range(0, world.turns, world.refresh), 1):
        lost, turns = _serve(world, served, first, world.rates(first, seed), rng)
        regret.append(lost)
        outcomes = judge_of_turns.judge(columns_of(turns))
        learned = merge([learned, bandit.learn(outcomes), trials.learn(outcomes)])
        clicked += [one.query.ts for one in turns if one.clicks]
        at = turns[-1].query.ts
        candidate = solve(at)
        if gate is None:
            served = _Served(candidate, candidate)
            continue
        ranked = TurnSample(outcomes, gate.turns, {"device"}).below(np.inf)
        sample = sorted([*sample, *ranked], key=lambda one: one[0])[: gate.turns]
        tried = None
        if served.trial is not None:
            contrast = trials.contrast(MemorySums(learned), served.trial.number)
            tried = Tried(served.trial, served.tried, contrast)
        case = Case(
            candidate=candidate,
            served=served.policy,
            tried=tried,
            decisions=[one for _, one in sample],
            rewards=sum(ts >= (candidate.changed or 0) for ts in clicked),
            version=version,
            at=at,
        )
        judgements.append(judge(case, gate))
        made = judgements[-1]
        stays = served.tried if made.succeeds else served.policy
        served = _Served(candidate if made.verdict == "publish" else stays, candidate, made.trial)
    return Gated(np.array(regret), judgements)


def _serve(world: GateWorld, served: _Served, first: int, rates: Rates, rng: Generator) -> tuple[float, list[Turn]]:
    """Return the regret of the turns until the next version, and the turns."""
    policies = [served.policy, served.tried]
    pages = [Supported.of([one.mixture({"device": name}, world.budget) for one in policies]) for name in DEVICES]
    chances = [world.chances(page.allocations, own) for page, own in zip(pages, rates, strict=True)]
    drawn = [(1.0 - served.share) * page.probabilities[0] + served.share * page.probabilities[1] for page in pages]
    asked = [odds @ (page.allocations > 0) for odds, page in zip(drawn, pages, strict=True)]
    upto = [odds.cumsum() for odds in drawn]
    lacking = [
        world.best(own) - float(odds @ own_chances)
        for own, odds, own_chances in zip(rates, drawn, chances, strict=True)
    ]
    lost, turns = 0.0, []
    for number in range(first, first + world.refresh):
        device = int(rng.integers(len(DEVICES)))
        page = pages[device]
        row = _drawn(upto[device], rng)
        lost += lacking[device]
        counts = page.allocations[row]
        results = world.answer(counts, rates[device], rng) if rng.random() < chances[device][row] else ()
        logged: dict[str, Any] = {
            "propensities": dict(zip(STRATEGIES, np.minimum(asked[device], 1.0).tolist(), strict=True)),
            "allocation_propensity": min(float(drawn[device][row]), 1.0),
        }
        if served.trial is not None and served.share:
            own = float(page.probabilities[1, row])
            logged["canary"] = Canary(trial=served.trial.number, share=served.share, propensity=own)
        turns.append(_turn(number, device, counts.astype(int).tolist(), results, logged))
    return lost, turns


def _drawn(upto: Floats, rng: Generator) -> int:
    """Return an index drawn by weights whose cumulated sums are `upto`."""
    return min(int(upto.searchsorted(rng.random() * upto[-1], side="right")), len(upto) - 1)


class Tested(Struct, frozen=True):
    """The trials of a fixed policy, one after another, each after the rest of a lost one.

    Attributes:
        halved: the number of decisions until it first got more than the first share; infinite if it never did.
        live: the number of decisions until it first got all of them; infinite if it never did.
        lost: the number of decisions until it was first rejected; infinite if it never was.
        ideal: the number of decisions, with the same shares, of a sequential probability ratio test that knows the
            effect; infinite if more than there were.
        clicks: clicks lost by all decisions.
    """

    halved: float
    live: float
    lost: float
    ideal: float
    clicks: float


def put_on_trial(rate: float, ratio: float, decisions: int, gate: GateConfig, rng: Generator) -> Tested:
    """Put a policy on trial that earns `ratio` times the served policy's clicks, and never decides the same.

    Args:
        rate: clicks per turn of the served policy.
        ratio: clicks of the policy on trial, relative to `rate`.
        decisions: the number of decisions.
        gate: the gate's configuration; it looks every LOOK decisions.
        rng: the source of randomness.
    """
    first: dict[Course, float] = {}
    rows: dict[float, Floats] = {}
    share, began, until, losses = gate.first_share, 0, 0, 0
    llr, ideal, clicks, halved = 0.0, inf, 0.0, inf
    for done in range(LOOK, decisions + 1, LOOK):
        own = int(rng.binomial(LOOK, share))
        got = np.array([rng.binomial(own, min(rate * ratio, 1.0)), rng.binomial(LOOK - own, rate)], dtype=float)
        clicks += own * rate * (1.0 - ratio)
        # Where one of them decides alone, the ideal test tosses a coin of its own.
        asked = int(rng.binomial(LOOK, HALF))
        tested = got if 0.0 < share < 1.0 else rng.binomial([asked, LOOK - asked], [min(rate * ratio, 1.0), rate])
        odds = np.array([ratio, 1.0]) / (1.0 + (share if 0.0 < share < 1.0 else HALF) * (ratio - 1.0))
        llr += float(tested @ np.log(np.maximum(odds, 1e-12)))
        ideal = done if ratio != 1.0 and ideal == inf and llr >= -np.log1p(-gate.confidence) else ideal
        if share == 1.0 or done < until:
            continue
        if share == 0.0:
            share, began, rows = gate.first_share, done, {}
            continue
        rows[share] = rows.get(share, 0.0) + got
        shares = np.repeat(list(rows), 2)
        contrast = Contrast(
            shares, np.tile([1.0, 0.0], len(rows)), np.concatenate(list(rows.values())), float(done - began)
        )
        now = course(contrast, gate)
        first.setdefault(now, done)
        share = {"first": share, "half": max(share, HALF), "lost": 0.0}.get(now, 1.0)
        halved = min(halved, done if share > gate.first_share else inf)
        losses += now == "lost"
        until = done + REST**losses * (done - began) if now == "lost" else 0
    live = min(first.get("won", inf), first.get("expired", inf))
    return Tested(halved, live, first.get("lost", inf), ideal, clicks)

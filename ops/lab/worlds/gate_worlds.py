"""Simulated worlds for the gate: a person wants one item, and clicks it if the page has it.

Strategy s has it with probability q_s, independently of the others; its rank in the list is geometric. So the
probability of a click is that of the *union* of the candidates, and one from a second strategy adds less than it would
alone. With a budget of 1 a page is one strategy's best candidate.

Worlds differ in how the q_s change: not at all, at once (flip), or step by step (drift). Turns are made as arrays,
which the bandit learns from as from closed turns.
"""

from collections.abc import Sequence
from math import inf
from operator import itemgetter
from typing import Final, Self, TypeAlias

import numpy as np
from msgspec import Struct
from numpy.random import Generator

from backchannel.agents.bandit.features import Categorical
from backchannel.agents.bandit.learner import BanditConfig, StrategyBandit
from backchannel.agents.bandit.mixture import Mixture
from backchannel.agents.bandit.pages import Pages
from backchannel.agents.bandit.serving import Allocator
from backchannel.agents.ope.decisions import LoggedDecision, ranks_by
from backchannel.agents.ope.gate import HALF, REST, Case, Course, GateConfig, Judgement, Tried, course, judge
from backchannel.agents.ope.sequences import Contrast
from backchannel.agents.serving import live_rows
from backchannel.agents.sums import Booleans, Delta, Floats, Integers, MemorySums, merge
from backchannel.schemas.snapshot import Trial

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
    """

    kind: str = "flip"
    rate: float = 0.1
    budget: int = 1
    turns: int = 20_000
    refresh: int = 250

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
        chances: Floats = 1.0 - (1.0 - rates * self.covered(allocations)).prod(axis=1)
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


class _Turns(Struct, frozen=True):
    """The turns of a version.

    Attributes:
        times: event times, ms, (turns,).
        devices: indexes of devices, (turns,).
        counts: candidates drawn, (turns, strategies).
        asked: probabilities that the strategies are asked, (turns, strategies).
        drawn: probability of the whole allocation, (turns,).
        own: the probability that the policy on trial made the decision, (turns,).
        ranks: rank of the wanted item in each strategy's list, from 1; 0 if it did not bring it, (turns, strategies).
        lost: expected clicks less than the best allocation's.
    """

    times: Integers
    devices: Integers
    counts: Integers
    asked: Floats
    drawn: Floats
    own: Floats
    ranks: Integers
    lost: float

    @property
    def clicked(self) -> Booleans:
        """Whether the wanted item was clicked, (turns,)."""
        return np.asarray((self.ranks > 0).any(axis=1))

    def pages(self, contexts: Floats) -> Pages:
        """Return the turns as pages, of which only the clicked item is shown; `contexts`: encoded, (devices, d)."""
        clicked = np.flatnonzero(self.clicked)
        results, strategies = np.nonzero(self.ranks[clicked])
        return Pages(
            times=self.times,
            queries=self.times // TURN_MS,
            contexts=contexts[self.devices][:, np.newaxis],
            depths=self.counts,
            distinct=np.zeros(len(self.counts), dtype=bool),
            turns=clicked,
            positions=np.ones(len(clicked), dtype=np.int64),
            gains=np.ones(len(clicked)),
            results=results,
            strategies=strategies,
            ranks=self.ranks[clicked[results], strategies],
        )

    def decision(self, row: int) -> LoggedDecision:
        """Return the logged decision of a turn."""
        counts = self.counts[row].tolist()
        rewards = {name: 1.0 for name, rank in zip(STRATEGIES, self.ranks[row].tolist(), strict=True) if rank}
        return LoggedDecision(
            f"s{self.times[row]}",
            int(self.times[row]),
            {"device": DEVICES[self.devices[row]]},
            {name: count for name, count in zip(STRATEGIES, counts, strict=True) if count},
            dict(zip(STRATEGIES, self.asked[row].tolist(), strict=True)),
            rewards,
            float(bool(rewards)),
            float(self.drawn[row]),
        )


def live(world: GateWorld, seed: int, gate: GateConfig | None) -> Gated:
    """Let the strategy bandit learn in a world, with a gate or without one. What happens depends on `seed` only."""
    features = (Categorical("device", DEVICES),)
    bandit = StrategyBandit(BanditConfig(strategies=STRATEGIES, features=features, position_decay=0.0))
    contexts = bandit.encoder.encode_all([{"device": name} for name in DEVICES])
    learned: Delta = {}
    clicks = np.zeros(0, dtype=np.int64)
    sample: list[tuple[float, LoggedDecision]] = []
    trials: dict[int, list[tuple[float, _Turns]]] = {}
    regret, judgements = [], []

    def solve(at: int) -> Allocator:
        return Allocator(live_rows(bandit.solve(MemorySums(learned), {bandit.table.name: ()}, at)))

    start = solve(0)
    served = _Served(start, start)
    for version, first in enumerate(range(0, world.turns, world.refresh), 1):
        rng = np.random.default_rng([seed, version])
        turns = _serve(world, served, first, world.rates(first, seed), rng)
        regret.append(turns.lost)
        learned = merge([learned, bandit.learn_pages(turns.pages(contexts), STRATEGIES)])
        at = int(turns.times[-1])
        candidate = solve(at)
        if gate is None:
            served = _Served(candidate, candidate)
            continue
        clicks = np.concatenate((clicks, turns.times[turns.clicked]))
        ranks = ranks_by(rng.random(world.refresh), turns.times)
        newest = [(float(ranks[row]), turns.decision(row)) for row in np.argsort(ranks)[: gate.turns].tolist()]
        sample = sorted([*sample, *newest], key=itemgetter(0))[: gate.turns]
        tried = None
        if served.trial is not None:
            so_far = trials.setdefault(served.trial.number, [])
            so_far += [(served.share, turns)] if served.share else []
            tried = Tried(served.trial, served.tried, _contrast(so_far))
        case = Case(
            candidate=candidate,
            served=served.policy,
            tried=tried,
            decisions=[one for _, one in sample],
            rewards=float((clicks >= (candidate.changed or 0)).sum()),
            version=version,
            at=at,
        )
        made = judge(case, gate)
        judgements.append(made)
        stays = served.tried if made.succeeds else served.policy
        served = _Served(candidate if made.verdict == "publish" else stays, candidate, made.trial)
    return Gated(np.array(regret), judgements)


def _serve(world: GateWorld, served: _Served, first: int, rates: Rates, rng: Generator) -> _Turns:
    """Return the turns until the next version."""
    policies = [served.policy, served.tried]
    devices = rng.integers(len(DEVICES), size=world.refresh)
    chance, click = rng.random((2, world.refresh))
    counts, asked = (np.zeros((world.refresh, len(STRATEGIES))) for _ in range(2))
    drawn, own, clicked = np.zeros(world.refresh), np.zeros(world.refresh), np.zeros(world.refresh, dtype=bool)
    lost = 0.0
    for device, name in enumerate(DEVICES):
        page = Supported.of([one.mixture({"device": name}, world.budget) for one in policies])
        usual, tried = page.probabilities
        odds = (1.0 - served.share) * usual + served.share * tried
        chances = world.chances(page.allocations, rates[device])
        rows = np.flatnonzero(devices == device)
        upto = odds.cumsum()
        places = np.minimum(upto.searchsorted(chance[rows] * upto[-1], side="right"), len(odds) - 1)
        counts[rows], asked[rows] = page.allocations[places], odds @ (page.allocations > 0)
        drawn[rows], own[rows] = odds[places], served.share * tried[places] / odds[places]
        clicked[rows] = click[rows] < chances[places]
        lost += len(rows) * (world.best(rates[device]) - float(odds @ chances))
    return _Turns(
        times=(first + np.arange(world.refresh)) * TURN_MS,
        devices=devices,
        counts=counts.astype(np.int64),
        asked=np.minimum(asked, 1.0),
        drawn=np.minimum(drawn, 1.0),
        own=np.minimum(own, 1.0),
        ranks=_ranks(rates[devices] * world.covered(counts), counts, rng)
        * (clicked > 0)[:, np.newaxis].astype(np.int64),
        lost=lost,
    )


def _ranks(has: Floats, counts: Floats, rng: Generator) -> Integers:
    """Return in which strategies' candidates the wanted item is, given that it is in some, by its rank there; 0: it
    is not.

    Args:
        has: the probability that it is among each strategy's candidates, (turns, strategies).
        counts: the numbers of candidates, (turns, strategies).
        rng: the source of randomness.
    """
    before = np.column_stack((np.ones(len(has)), np.cumprod(1.0 - has, axis=1)[:, :-1]))
    leads = (has * before).cumsum(axis=1)
    leader = (leads < rng.random((len(has), 1)) * leads[:, -1:]).sum(axis=1)[:, np.newaxis]
    places = np.arange(has.shape[1])
    hit = (places == leader) | ((places > leader) & (rng.random(has.shape) < has))
    within = 1.0 - rng.random(has.shape) * (1.0 - _DECAY**counts)
    ranks = np.floor(np.log(within) / np.log(_DECAY)).astype(np.int64) + 1
    return np.where(hit, np.minimum(ranks, np.maximum(counts, 1).astype(np.int64)), 0)


def _contrast(trial: Sequence[tuple[float, _Turns]]) -> Contrast:
    """Return the rewards of both policies in the turns of a trial, with the share of the one on trial in each part."""
    rows = [(share, turns.own[turns.clicked]) for share, turns in trial]
    weights = np.concatenate([own for _, own in rows] or [np.zeros(0)])
    shares = np.concatenate([np.full(len(own), share) for share, own in rows] or [np.zeros(0)])
    total = float(sum(len(turns.times) for _, turns in trial))
    return Contrast(shares, weights, np.ones(len(weights)), total)


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

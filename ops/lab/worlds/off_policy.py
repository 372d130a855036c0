"""A simulated world for off-policy evaluation: strategies get clicks independently, so true values are known.

The expected reward of a strategy's whole list is 1 / (1 + exp(-z)), with z linear in three Gaussian numbers and a
device. The first n candidates get the share 1 - 0.8^n of that, and the click falls on each candidate in proportion. The
weights are drawn once, so that policies differ by some ten percent, as in practice.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import orjson
from msgspec import Struct, structs
from numpy.random import Generator

from backchannel.agents.bandit.features import Categorical, Numeric, Value, context_of
from backchannel.agents.bandit.learner import BanditConfig, StrategyBandit
from backchannel.agents.bandit.serving import Allocator
from backchannel.agents.columnar.interning import columns_of
from backchannel.agents.ope.decisions import LoggedDecision, table_of, vectors_of
from backchannel.agents.outcomes.judge import Judge
from backchannel.agents.outcomes.rewards import RewardConfig
from backchannel.agents.serving import live_rows
from backchannel.agents.sums import Floats, MemorySums
from backchannel.schemas.events import Click, Impression, Query, Result, Scalar
from backchannel.schemas.snapshot import Section
from backchannel.schemas.turn import Turn

STRATEGIES: Final = ("lexical", "semantic", "memory", "popular", "new")
DEVICES: Final = ("car", "phone")
BUDGET: Final = 10
NUMBERS: Final = ("a", "b", "c")

CONFIG: Final = BanditConfig(
    strategies=STRATEGIES,
    features=(*(Numeric(name) for name in NUMBERS), Categorical("device", DEVICES)),
    position_decay=0.0,  # every position is examined
)


class Logs(Struct, frozen=True):
    """A large log, from which smaller ones are drawn.

    Attributes:
        decisions: the live policy's decisions, without rewards.
        expected: expected reward of each strategy's whole list, (turns, strategies).
        chances: probability of a reward for each strategy's drawn candidates, (turns, strategies).
    """

    decisions: list[LoggedDecision]
    expected: Floats
    chances: Floats

    def draw(self, turns: int, rng: Generator) -> list[LoggedDecision]:
        """Return a log of `turns` distinct turns, with rewards."""
        rows = rng.choice(len(self.decisions), turns, replace=False)
        got = rng.random((turns, len(STRATEGIES))) < self.chances[rows]
        return [
            structs.replace(
                self.decisions[row], rewards={name: 1.0 for name, won in zip(STRATEGIES, own, strict=True) if won}
            )
            for row, own in zip(rows.tolist(), got.tolist(), strict=True)
        ]


class OffPolicyWorld:
    """The simulated world; the same seed makes the same world.

    Args:
        seed: the seed of the weights and of everything that is drawn.
        intercept: mean intercept of the strategies; the lower, the fewer clicks.
    """

    def __init__(self, seed: int, intercept: float = -1.5) -> None:
        self._rng = np.random.default_rng(seed)
        self._weights = np.column_stack(
            (
                self._rng.normal(intercept, 0.6, len(STRATEGIES)),
                self._rng.normal(0.0, 0.6, (len(STRATEGIES), len(NUMBERS) + len(DEVICES))),
            )
        )
        self._worth = 1.0 - 0.8 ** np.arange(BUDGET + 1.0)

    def learn(self, turns: int, serving: Allocator | None = None) -> Section:
        """Return what the strategy bandit learns from `turns` turns of `serving`, or of a uniform policy."""
        bandit = StrategyBandit(CONFIG)
        allocator = serving or Allocator(_whole(StrategyBandit(structs.replace(CONFIG, policy="uniform"))))
        judge, made = Judge(RewardConfig()), [self._turn(number, allocator) for number in range(turns)]
        return _whole(bandit, MemorySums(bandit.learn(judge.judge(columns_of(made)))))

    def log(self, serving: Allocator, turns: int) -> Logs:
        """Return a log of `turns` turns served by `serving`."""
        decisions = []
        for number in range(turns):
            context = self._context()
            decision = serving.allocate(context, BUDGET, self._rng)
            decisions.append(
                LoggedDecision(f"s{number}", 0, dict(context), decision.allocation, decision.propensities, rewards={})
            )
        expected = np.array([self._expected(one.context) for one in decisions])
        counts = np.array([[one.allocation.get(name, 0) for name in STRATEGIES] for one in decisions])
        return Logs(decisions, expected, expected * self._worth[counts])

    def value(self, policy: Allocator, logs: Logs) -> float:
        """Return a policy's true value on the contexts of `logs`, in expected rewards per turn."""
        worth = np.tile(self._worth, (len(STRATEGIES), 1))
        contexts = vectors_of(logs.decisions, policy.encoder, STRATEGIES)
        table = table_of(logs.decisions, contexts, STRATEGIES)
        extents = table.expected(policy, contexts, worth)
        return float((extents * logs.expected).sum(axis=1).mean())

    def _context(self) -> dict[str, Scalar]:
        numbers: list[float] = self._rng.standard_normal(len(NUMBERS)).tolist()
        return {**dict(zip(NUMBERS, numbers, strict=True)), "device": DEVICES[self._rng.integers(len(DEVICES))]}

    def _expected(self, context: Mapping[str, Value]) -> Floats:
        row = np.array(
            [1.0, *(context[name] for name in NUMBERS), *(context["device"] == name for name in DEVICES)], dtype=float
        )
        rewards: Floats = 1.0 / (1.0 + np.exp(-self._weights @ row))
        return rewards

    def _turn(self, number: int, serving: Allocator) -> Turn:
        context = self._context()
        common: dict[str, Any] = {"ts": 0, "session_id": f"s{number}", "query_id": f"q{number}"}
        query = Query(event_id="q", text="", context=context, **common)
        decision = serving.allocate(context_of(query), BUDGET, self._rng)
        results = [
            Result(f"{name}{place}", 1, (name,))
            for name, count in decision.allocation.items()
            for place in range(count)
        ]
        clicks = []
        for name, expected in zip(STRATEGIES, self._expected(context).tolist(), strict=True):
            # The click falls on a place in the whole list, of which only the first candidates were drawn.
            place = int(self._rng.geometric(0.2)) - 1
            if self._rng.random() < expected and place < decision.allocation.get(name, 0):
                clicks.append(Click(event_id=name, entity_id=f"{name}{place}", **common))
        shown = Impression(event_id="i", results=tuple(results), allocation=decision.allocation, **common)
        return Turn.of(query, [shown, *clicks])


def steered(world: OffPolicyWorld, live: Section, goal: Section, logs: Logs, ratio: float) -> Allocator:
    """Return a policy between `live` and `goal` whose true value is about `ratio` times that of `live`.

    Raises:
        ValueError: `goal` does not reach that value.
    """
    wanted = ratio * world.value(Allocator(live), logs)
    sign = 1.0 if ratio > 1.0 else -1.0
    if sign * world.value(Allocator(goal), logs) < sign * wanted:
        raise ValueError(f"goal: is worth less than {ratio} times the live policy")
    # Each policy has draws of its own, so values jump: a bisection could end far from where it should.
    tried, around = dict[float, float](), 0.5
    for width in (0.5, 0.05, 0.01):
        for share in np.clip(around + width * np.linspace(-1.0, 1.0, 33), 0.0, 1.0).tolist():
            tried[abs(world.value(_between(live, goal, share), logs) - wanted)] = share
        around = tried[min(tried)]
    return _between(live, goal, around)


def _between(one: Section, other: Section, share: float) -> Allocator:
    first, second = _means(one), _means(other)
    return Allocator(_with(one, {field: (1.0 - share) * first[field] + share * second[field] for field in first}))


def _means(section: Section) -> dict[str, Floats]:
    """Return the strategies' estimates: rates, (strategies, BUCKETS), and context weights, (strategies, d)."""
    rows = [orjson.loads(section[name]) for name in STRATEGIES]
    return {field: np.array([row[field] for row in rows]) for field in ("rates", "theta", "evident")}


def _with(section: Section, means: Mapping[str, Floats]) -> Section:
    """Return `section` with other estimates; see `_means`."""
    rows = {
        name: orjson.dumps(
            {**orjson.loads(section[name]), **{field: own[place].tolist() for field, own in means.items()}}
        )
        for place, name in enumerate(STRATEGIES)
    }
    return {**section, **rows}


def _whole(bandit: StrategyBandit, sums: MemorySums | None = None) -> Section:
    section = bandit.solve(sums or MemorySums({}), {bandit.table.name: ()}, 0)
    return live_rows(section)

"""Decisions: within budget, and with the very probabilities that they are logged with."""

from collections.abc import Iterator
from itertools import combinations, product
from math import comb
from typing import Any, cast

import msgspec
import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backchannel.agents.allocation import DRAWS, MAX_BUDGET, Allocator, Decision, EncodingError
from backchannel.agents.bandit import BanditConfig, StrategyBandit
from backchannel.agents.features import Categorical, Encoder, Numeric
from backchannel.agents.sums import Matrix, MemorySums
from backchannel.schemas.events import EventDecoder, Impression, encode
from backchannel.schemas.snapshot import Section
from tests.agents.turns import impression

ENCODER = Encoder([Numeric("hour", center=12, scale=4), Categorical("device", ("car", "phone"))])
CONTEXTS = st.fixed_dictionaries({"hour": st.floats(0, 24), "device": st.sampled_from(["car", "phone", "tv"])})


def section(count: int, seed: int = 0, floor: float = 0.1, rank_decay: float = 0.8, width: float = 0.3) -> Section:
    """A bandit's section with some posterior for each of `count` strategies."""
    rng = np.random.default_rng(seed)
    names = [f"strategy{number}" for number in range(count)]
    rows: dict[str, Any] = {
        name: {
            "count": 10.0,
            "reward": 0.5,
            "theta": rng.normal(0.1, 0.3, ENCODER.dimension).tolist(),
            "whitener": np.tril(rng.normal(0, 0.5, (ENCODER.dimension, ENCODER.dimension))).tolist(),
        }
        for name in names
    }
    rows[""] = {
        "features": msgspec.to_builtins(ENCODER.features),
        "encoding": ENCODER.fingerprint,
        "strategies": names,
        "width": width,
        "floor": floor,
        "rank_decay": rank_decay,
    }
    return {key: orjson.dumps(row) for key, row in rows.items()}


SECTIONS = st.builds(
    section,
    st.integers(1, 5),
    st.integers(0, 1000),
    floor=st.sampled_from([0.0, 0.05, 0.3, 1.0]),
    rank_decay=st.sampled_from([0.01, 0.5, 0.8, 0.99]),
    width=st.sampled_from([0.0, 0.2, 5.0]),
)


class Script:
    """Stands in for a numpy Generator: the same draws each time, then the one turn of chance that it is told."""

    def __init__(self, normals: Matrix, draw: int | None = None, asked: tuple[int, ...] = ()) -> None:
        self.normals = normals
        self.draw = draw
        self.asked = asked

    def standard_normal(self, size: tuple[int, int]) -> Matrix:
        assert size == self.normals.shape
        return self.normals

    def random(self) -> float:
        return 0.0 if self.draw is None else 1.0

    def integers(self, low: int, high: int | None = None, *, endpoint: bool = False) -> int:
        if self.draw is None:
            assert endpoint
            assert high is not None
            assert low <= len(self.asked) <= high
            return len(self.asked)
        assert (low, high) == (DRAWS, None)
        return self.draw

    def choice(self, count: int, *, size: int, replace: bool) -> np.ndarray[Any, Any]:
        assert not replace
        assert size == len(self.asked)
        assert max(self.asked) < count
        return np.array(self.asked)


def decide(allocator: Allocator, context: dict[str, Any], budget: int, script: Script) -> Decision:
    return allocator.allocate(context, budget, cast(np.random.Generator, script))


def every_turn_of_chance(normals: Matrix, floor: float, budget: int) -> Iterator[tuple[float, Script]]:
    """Everything that can follow the same draws, with its probability."""
    for draw in range(DRAWS):
        yield (1 - floor) / DRAWS, Script(normals, draw)
    strategies = normals.shape[1]
    most = min(strategies, budget)
    if floor:
        for size in range(1, most + 1):
            for asked in combinations(range(strategies), size):
                yield floor / most / comb(strategies, size), Script(normals, None, asked)


@given(SECTIONS, CONTEXTS, st.integers(1, 40), st.integers(0, 2**32))
def test_a_decision_is_valid(some: Section, context: dict[str, Any], budget: int, seed: int) -> None:
    allocator = Allocator(some)
    decision = allocator.allocate(context, budget, np.random.default_rng(seed))
    assert sum(decision.allocation.values()) == budget
    assert all(count > 0 for count in decision.allocation.values())
    assert decision.allocation.keys() <= set(allocator.strategies)
    assert tuple(decision.propensities) == allocator.strategies
    floor, strategies = orjson.loads(some[""])["floor"], len(allocator.strategies)
    least = floor * (min(strategies, budget) + 1) / (2 * strategies)
    assert all(least <= propensity <= 1 for propensity in decision.propensities.values())
    assert all(decision.propensities[name] > 0 for name in decision.allocation)
    # And its fields go into the event as they are.
    shown = impression(allocation=decision.allocation, propensities=decision.propensities)
    assert EventDecoder(Impression).decode(encode(shown)) == shown


@given(SECTIONS, CONTEXTS, st.integers(1, 8), st.integers(0, 2**32))
@settings(max_examples=30)
def test_propensities_are_exact(some: Section, context: dict[str, Any], budget: int, seed: int) -> None:
    """Given the draws, a strategy's propensity is its share of everything that can follow them."""
    allocator = Allocator(some)
    normals = np.random.default_rng(seed).standard_normal((DRAWS, len(allocator.strategies)))
    floor = orjson.loads(some[""])["floor"]
    shares = dict.fromkeys(allocator.strategies, 0.0)
    for probability, script in every_turn_of_chance(normals, floor, budget):
        decision = decide(allocator, context, budget, script)
        assert sum(decision.allocation.values()) == budget
        for name in decision.allocation:
            shares[name] += probability
    assert decision.propensities == pytest.approx(shares, abs=1e-12)


def test_propensities_are_frequencies() -> None:
    allocator, rng = Allocator(section(4, seed=5, floor=0.2)), np.random.default_rng(6)
    names, surprise, variance = allocator.strategies, np.zeros(4), np.zeros(4)
    for _ in range(3000):
        decision = allocator.allocate({"hour": 13.0, "device": "car"}, 3, rng)
        propensities = np.array(list(decision.propensities.values()))
        surprise += np.array([name in decision.allocation for name in names]) - propensities
        variance += propensities * (1 - propensities)
    assert (variance > 50).all()
    assert (np.abs(surprise) < 4 * np.sqrt(variance)).all()


@given(SECTIONS, CONTEXTS, st.integers(1, 4), st.integers(0, 2**32))
@settings(max_examples=30)
def test_a_budget_is_spent_as_well_as_can_be(some: Section, context: dict[str, Any], budget: int, seed: int) -> None:
    allocator, rank_decay = Allocator(some), orjson.loads(some[""])["rank_decay"]
    strategies = len(allocator.strategies)
    normals = np.random.default_rng(seed).standard_normal((DRAWS, strategies))
    means, deviations = allocator.utilities(context)

    def worth(counts: tuple[int, ...], utilities: Matrix) -> float:
        ranks = [sum(rank_decay**rank for rank in range(count)) for count in counts]
        return float(np.maximum(utilities, 0) @ ranks)

    for draw in (0, DRAWS - 1):
        allocation = decide(allocator, context, budget, Script(normals, draw)).allocation
        utilities = means + deviations * normals[draw]
        if utilities.max() <= 0:  # nothing looks good, so all are as good
            utilities = np.ones(strategies)
        best = max(
            worth(counts, utilities)
            for counts in product(range(budget + 1), repeat=strategies)
            if sum(counts) == budget
        )
        served = tuple(allocation.get(name, 0) for name in allocator.strategies)
        assert worth(served, utilities) == pytest.approx(best)


@given(SECTIONS, CONTEXTS)
def test_utilities_are_the_posteriors(some: Section, context: dict[str, Any]) -> None:
    allocator, vector, width = Allocator(some), ENCODER.encode(context), orjson.loads(some[""])["width"]
    means, deviations = allocator.utilities(context)
    for name, mean, deviation in zip(allocator.strategies, means, deviations, strict=True):
        row = orjson.loads(some[name])
        whitener = np.array(row["whitener"])
        assert mean == pytest.approx(np.array(row["theta"]) @ vector)
        assert deviation == pytest.approx(width * np.sqrt(vector @ whitener.T @ whitener @ vector))
    assert allocator.evidence == dict.fromkeys(allocator.strategies, (10.0, 0.5))


@pytest.mark.parametrize(
    "context",
    [
        {},
        {"hour": 1e300},
        {"hour": float("nan")},
        {"hour": float("-inf")},
        {"hour": "noon"},
        {"hour": None, "device": None},
        {"hour": True, "device": 4.0},
        {"unheard-of": "x"},
    ],
    ids=str,
)
def test_no_context_spoils_a_decision(context: dict[str, Any]) -> None:
    allocator = Allocator(section(3))
    means, deviations = allocator.utilities(context)
    assert np.isfinite(means).all()
    assert np.isfinite(deviations).all()
    assert sum(allocator.allocate(context, 10, np.random.default_rng(0)).allocation.values()) == 10


@pytest.mark.parametrize("budget", [0, -1, MAX_BUDGET + 1])
def test_a_budget_has_bounds(budget: int) -> None:
    allocator = Allocator(section(2))
    with pytest.raises(ValueError, match="budget: "):
        allocator.allocate({}, budget, np.random.default_rng(0))
    largest = allocator.allocate({}, MAX_BUDGET, np.random.default_rng(0))
    assert sum(largest.allocation.values()) == MAX_BUDGET


def test_another_encoding_is_refused() -> None:
    some = section(2)
    settings = orjson.loads(some[""])
    settings["encoding"] = "another"
    with pytest.raises(EncodingError, match=r"another.*same version of Backchannel"):
        Allocator({**some, "": orjson.dumps(settings)})


def test_it_reads_what_the_bandit_solved() -> None:
    bandit = StrategyBandit(BanditConfig())
    solved = bandit.solve(MemorySums({}), {"bandit": set()}, 0)
    allocator = Allocator({key: row for key, row in solved.items() if row is not None})
    assert allocator.strategies == bandit.config.strategies
    decision = allocator.allocate({}, 20, np.random.default_rng(0))
    assert sum(decision.allocation.values()) == 20

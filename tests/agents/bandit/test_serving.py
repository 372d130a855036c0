"""Decisions: within budget, and with the very probabilities that they are logged with."""

from collections.abc import Iterator
from itertools import combinations
from typing import Any, cast

import msgspec
import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backchannel.agents.bandit.learner import BanditConfig, StrategyBandit
from backchannel.agents.bandit.mixture import MANY, Mixture, RandomSets
from backchannel.agents.bandit.ranks import BUCKETS
from backchannel.agents.bandit.section import Limits
from backchannel.agents.bandit.serving import DRAWS, TOGETHER, Allocator, EncodingError, followed
from backchannel.agents.serving import live_rows
from backchannel.agents.sums import MemorySums
from backchannel.schemas.codec import EventDecoder, encode
from backchannel.schemas.events import Impression
from backchannel.schemas.snapshot import Section
from tests.support.bandits import CAR, ENCODER, section
from tests.support.turns import impression

CONTEXTS = st.fixed_dictionaries({"hour": st.floats(0, 24), "device": st.sampled_from(["car", "phone", "tv"])})


LIMITS = st.builds(
    Limits,
    minimum=st.sampled_from([0, 0, 1, 2]),
    maximum=st.sampled_from([2, 3, 10_000]),
    cost=st.sampled_from([0.5, 1.0, 3.0]),
    on=st.sampled_from([True, True, True, False]),
)
SECTIONS = st.builds(
    section,
    st.integers(1, 5),
    st.integers(0, 1000),
    floor=st.sampled_from([0.0, 0.05, 0.3, 1.0]),
    exploration=st.sampled_from([0.0, 0.4, 10.0]),
    policy=st.sampled_from(["thompson", "greedy", "squarecb", "uniform"]),
    # The first strategy is on, and can do without candidates.
    limits=st.none() | st.dictionaries(st.integers(1, 4), LIMITS, max_size=3),
)


def limits_of(some: Section) -> list[Limits]:
    return msgspec.convert(orjson.loads(some[""])["limits"], list[Limits])


def budgets(some: Section, most: int) -> range:
    """What there may be to spend: at least the minima."""
    least = max(sum(limits.minimum for limits in limits_of(some) if limits.on), 1)
    return range(least, least + most)


@given(SECTIONS, st.lists(CONTEXTS, min_size=1, max_size=3), st.integers(0, 9))
@settings(max_examples=50)
def test_many_contexts_at_once_have_the_mixtures_of_each(
    some: Section, contexts: list[dict[str, Any]], place: int
) -> None:
    allocator, budget = Allocator(some), budgets(some, 10)[place]
    vectors = allocator.encoder.encode_all(contexts)[:, np.newaxis]
    found = allocator.mixtures(vectors, budget)
    singles = [allocator.mixture(context, budget) for context in contexts]
    counts = np.array([one.parts[0] for one in singles])
    assert found.probability(counts) == pytest.approx(
        [one.probability(row) for one, row in zip(singles, counts.tolist(), strict=True)]
    )
    worths = np.tile(np.arange(budget + 1.0), (1, counts.shape[1], 1))
    for expected, one in zip(allocator.expect(vectors, budget, worths)[0], singles, strict=True):
        drawn = distribution(one, counts.shape[1])
        assert expected == pytest.approx(sum(share * np.array(row) for row, share in drawn.items()))


def test_pages_go_by_what_is_evident_and_a_single_candidate_by_the_weights() -> None:
    """So do their promises. A policy made before there was anything evident decides as it did."""
    some = section(2, exploration=0.0, floor=0.0)
    rows = {name: orjson.loads(row) for name, row in some.items()}
    for sign, name in ((1.0, "strategy0"), (-1.0, "strategy1")):
        own = {"theta": [0.0, 0.5 * sign, 0.0, 0.0], "rates": [0.1] * BUCKETS, "hazards": np.zeros((2, 8, 8)).tolist()}
        rows[name] |= own | {"evident": [0.0] * ENCODER.dimension}
    rows[""] |= {"elasticities": [0.0, 0.0], "elasticities_whitener": [[0.0, 0.0]] * 2}
    after = Allocator({name: orjson.dumps(row) for name, row in rows.items()})
    before = Allocator({name: orjson.dumps({**row, "evident": []}) for name, row in rows.items()})

    def first(allocator: Allocator, hour: float, budget: int) -> int:
        decision = allocator.allocate({"hour": hour, "device": "tv"}, budget, np.random.default_rng(1))
        return decision.allocation.get("strategy0", 0)

    assert [first(after, hour, 1) for hour in (4.0, 20.0)] == [0, 1]
    assert first(after, 4.0, 6) == first(after, 20.0, 6) == 3
    assert first(before, 4.0, 6) < 3 < first(before, 20.0, 6)

    def promised(allocator: Allocator, hour: float, counts: list[int]) -> float:
        return float(allocator.promised({"hour": hour, "device": "tv"}, np.array([counts]))[0])

    assert promised(after, 4.0, [1, 0]) < promised(after, 20.0, [1, 0])
    assert promised(after, 4.0, [6, 0]) == promised(after, 20.0, [6, 0])
    assert promised(before, 4.0, [6, 0]) < promised(before, 20.0, [6, 0])


def test_draws_that_are_followed_together_share_out_what_is_not_sure() -> None:
    values = np.zeros((DRAWS, 3), dtype=np.float32)
    values[::2, 0] = values[1::2, 1] = 1.0  # either is best under every other draw
    values[:, 2] = 0.45  # and this one is never far
    assert followed(values.copy(), 1).tolist() == [0, 1] * (DRAWS // 2)
    assert followed(values.copy(), TOGETHER).tolist() == [2] * (DRAWS // TOGETHER)
    values[:, 0] = 1.0
    assert followed(values.copy(), TOGETHER).tolist() == [0] * (DRAWS // TOGETHER)


@given(st.integers(0, 10_000))
def test_a_plan_that_is_worse_under_every_draw_is_not_followed(seed: int) -> None:
    values = np.random.default_rng(seed).random((2, DRAWS, 5)).astype(np.float32)
    values[..., 1] = values[..., 0] - 0.1
    assert not (followed(values, TOGETHER) == 1).any()


@pytest.mark.parametrize("seed", range(12))
def test_squared_regrets_are_finite_however_wild_the_draws(seed: int) -> None:
    allocator = Allocator(section(3, seed, exploration=10.0))
    allocator.mixture(CAR, 2000)  # makes the plans
    with np.errstate(over="raise", invalid="raise"):
        assert allocator.mixture(CAR, 2000).shares.sum() == 1.0


def test_of_very_many_sets_a_sample_stands_for_all() -> None:
    sets = RandomSets([0] * 14, [10] * 14, 5)
    drawn, probabilities = sets.every()
    assert len(drawn) == MANY
    assert probabilities @ (drawn > 0) == pytest.approx(sets.propensities, abs=0.05)


@given(SECTIONS, CONTEXTS, st.integers(0, 39), st.integers(0, 2**32))
def test_a_decision_keeps_to_the_budget_and_the_limits(
    some: Section, context: dict[str, Any], place: int, seed: int
) -> None:
    allocator, budget = Allocator(some), budgets(some, 40)[place]
    decision = allocator.allocate(context, budget, np.random.default_rng(seed))
    spent = sum(decision.allocation.values())
    assert (
        spent == budget if "uniform" not in str(some[""]) and not orjson.loads(some[""])["floor"] else spent <= budget
    )
    for name, limits in zip(allocator.strategies, limits_of(some), strict=True):
        count = decision.allocation.get(name, 0)
        if limits.on:
            assert limits.minimum <= count <= limits.maximum
        else:
            assert count == decision.propensities[name] == 0
    # Its fields go into the event as they are.
    shown = impression(
        allocation=decision.allocation,
        propensities=decision.propensities,
        allocation_propensity=decision.allocation_propensity,
    )
    assert EventDecoder(Impression).decode(encode(shown)) == shown


@given(SECTIONS, CONTEXTS, st.integers(0, 7), st.integers(0, 2**32))
def test_no_strategy_falls_below_the_floor(some: Section, context: dict[str, Any], place: int, seed: int) -> None:
    allocator, budget = Allocator(some), budgets(some, 8)[place]
    settings = orjson.loads(some[""])
    floor = 1.0 if settings["policy"] == "uniform" else settings["floor"]
    decision = allocator.allocate(context, budget, np.random.default_rng(seed))
    limits = limits_of(some)
    if budget > sum(one.minimum for one in limits if one.on):
        for name, one in zip(allocator.strategies, limits, strict=True):
            if one.on:
                assert floor / 2 / len(limits) <= decision.propensities[name] <= 1
    assert all(decision.propensities[name] > 0 for name in decision.allocation)


def distribution(mixture: Mixture, strategies: int) -> dict[tuple[int, ...], float]:
    """Everything that can be drawn, with its probability; random sets by enumeration of all chance that makes them."""
    shares: dict[tuple[int, ...], float] = {}
    for part, share in zip(mixture.parts.tolist(), mixture.shares.tolist(), strict=True):
        shares[tuple(part)] = shares.get(tuple(part), 0.0) + (1 - mixture.floor) * share
    for probability, script in every_set(mixture, strategies):
        counts = tuple(mixture.sets.draw(cast(np.random.Generator, script)))
        shares[counts] = shares.get(counts, 0.0) + mixture.floor * probability
    return shares


class Script:
    """Stands in for a numpy Generator: draws the size and the set that it is told."""

    def __init__(self, size: int, chosen: tuple[int, ...] = ()) -> None:
        self.size = size
        self.sizes = 0
        self.choices: list[int] = []
        self.chosen = chosen

    def integers(self, high: int) -> int:
        self.sizes = high
        return self.size

    def permutation(self, optional: list[int]) -> np.ndarray[Any, Any]:
        self.choices = optional
        first = [optional[place] for place in self.chosen]
        return np.array([*first, *(place for place in optional if place not in first)], dtype=int)


def every_set(mixture: Mixture, strategies: int) -> Iterator[tuple[float, Script]]:
    probe = Script(0)
    mixture.sets.draw(cast(np.random.Generator, probe))
    for size in range(probe.sizes):
        sized = Script(size)
        counts = mixture.sets.draw(cast(np.random.Generator, sized))
        drawn = sum(counts[place] > 0 for place in sized.choices)  # whoever is in a set gets something
        sets = list(combinations(range(len(sized.choices)), drawn))
        for chosen in sets:
            yield 1 / probe.sizes / len(sets), Script(size, chosen)


@given(SECTIONS, CONTEXTS, st.integers(0, 7))
@settings(max_examples=60)
def test_propensities_are_exact(some: Section, context: dict[str, Any], place: int) -> None:
    allocator, budget = Allocator(some), budgets(some, 8)[place]
    mixture = allocator.mixture(context, budget)
    shares = distribution(mixture, len(allocator.strategies))
    assert sum(shares.values()) == pytest.approx(1)
    asked = sum(share * (np.array(counts) > 0) for counts, share in shares.items())
    assert mixture.propensities() == pytest.approx(asked, abs=1e-12)
    for counts, share in shares.items():
        assert mixture.probability(list(counts)) == pytest.approx(share, abs=1e-12)


def test_probabilities_follow_from_section_and_context() -> None:
    """Whoever reads the same version knows them; a version that learned more has models of its own."""
    some = section(5)
    one, two = (Allocator(dict(sorted(some.items(), reverse=order))) for order in (False, True))
    assert (one.mixture(CAR, 20).parts == two.mixture(CAR, 20).parts).all()
    later = Allocator({**some, "strategy0": some["strategy0"] + b" "})
    assert (one.mixture(CAR, 20).parts != later.mixture(CAR, 20).parts).any()


@pytest.mark.parametrize("policy", ["thompson", "squarecb"])
def test_propensities_are_frequencies(policy: str) -> None:
    draws = 20_000
    allocator, rng = (
        Allocator(section(5, 5, floor=0.2, policy=policy, limits={1: Limits(1, 2)})),
        np.random.default_rng(6),
    )
    mixture = allocator.mixture({"hour": 13.0, "device": "car"}, 6)
    drawn, times = np.unique([mixture.draw(rng) for _ in range(draws)], axis=0, return_counts=True)
    for counts, found in zip(drawn.tolist(), times.tolist(), strict=True):
        expected = draws * mixture.probability(counts)
        assert abs(found - expected) < 5 * np.sqrt(expected) + 1
    asked = np.array(mixture.propensities())
    error = 5 * np.sqrt(draws * asked * (1 - asked))
    assert (np.abs(times @ (drawn > 0) - draws * asked) <= error + 1e-6).all()


def test_estimates_by_inverse_propensity_are_unbiased() -> None:
    """Of the reward of always asking all strategies for two each, and of what each strategy gets when asked."""
    allocator, rng = Allocator(section(3, 7, floor=0.5)), np.random.default_rng(8)
    worth, target = np.array([0.2, 0.5, 0.9]), {"strategy0": 2, "strategy1": 2, "strategy2": 2}
    whole, single = [], []
    for _ in range(6000):
        hour = float(rng.uniform(0, 24))
        decision = allocator.allocate({"hour": hour, "device": "car"}, 6, rng)
        asked = np.array([name in decision.allocation for name in allocator.strategies])
        reward = rng.random() < (worth * asked).mean() * hour / 24
        assert decision.allocation_propensity is not None
        whole.append(reward * (decision.allocation == target) / decision.allocation_propensity)
        single.append(worth * asked / np.array(list(decision.propensities.values())))
    for estimates, truth in ((np.array(whole), worth.mean() / 2), (np.array(single), worth)):
        error = estimates.std(axis=0) / np.sqrt(len(estimates))
        assert (np.abs(estimates.mean(axis=0) - truth) < 4 * error).all()


def test_what_is_not_left_to_chance_is_certain() -> None:
    allocator = Allocator(section(3, policy="ucb"))
    one, two = (allocator.allocate({"hour": 3.0}, 5, np.random.default_rng(seed)) for seed in (1, 2))
    assert one == two
    assert one.propensities == {name: float(name in one.allocation) for name in allocator.strategies}
    assert one.allocation_propensity == 1.0


@given(SECTIONS, CONTEXTS)
def test_utilities_are_what_the_usual_depth_brings(some: Section, context: dict[str, Any]) -> None:
    allocator, vector = Allocator(some), ENCODER.encode(context)
    means, deviations = allocator.utilities(context)
    assert (deviations >= 0).all()
    for name, mean in zip(allocator.strategies, means, strict=True):
        row = orjson.loads(some[name])
        assert mean == pytest.approx(sum(row["rates"]) * (1.0 + np.array(row["theta"]) @ vector))
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


def test_another_encoding_is_refused() -> None:
    some = section(2)
    settings = orjson.loads(some[""])
    settings["encoding"] = "another"
    with pytest.raises(EncodingError, match=r"another.*same version of Backchannel"):
        Allocator({**some, "": orjson.dumps(settings)})


def test_it_reads_what_the_bandit_solved() -> None:
    bandit = StrategyBandit(BanditConfig())
    solved = bandit.solve(MemorySums({}), {"bandit": set()}, 0)
    allocator = Allocator(live_rows(solved))
    assert allocator.strategies == bandit.config.expected
    decision = allocator.allocate({}, 20, np.random.default_rng(0))
    assert sum(decision.allocation.values()) == 20


def test_a_minimum_is_at_most_the_maximum() -> None:
    with pytest.raises(ValueError, match="minimum: 3"):
        Limits(minimum=3, maximum=2)


def test_summaries_say_what_pages_earn_with_twice_the_candidates() -> None:
    rows = section(2)
    settings = orjson.loads(rows[""]) | {"elasticities": [-1.0, 0.0], "elasticities_whitener": [[0.0, 0.3], [0.0, 0.4]]}
    none, wide = (each.doubled for each in Allocator(rows | {"": orjson.dumps(settings)}).summaries().values())
    assert (none.value, none.low, none.high) == (-0.5, -0.5, -0.5)
    assert wide.value == 0.0
    assert (wide.low, wide.high) == pytest.approx((2**-0.98 - 1, 2**0.98 - 1))

"""A canary's decisions have exact probabilities, and what comes of them adds up to what either policy earns."""

from typing import Any

import numpy as np
import pytest
from msgspec import structs

from backchannel.agents.bandit.decision import Decision
from backchannel.agents.bandit.features import Categorical
from backchannel.agents.bandit.learner import BanditConfig, StrategyBandit
from backchannel.agents.ope.canary import SECTION, Shared
from backchannel.agents.ope.trials import Trials
from backchannel.agents.serving import live_rows
from backchannel.agents.sums import Delta, MemorySums, merge
from backchannel.schemas.events import Canary
from backchannel.schemas.snapshot import Section, Snapshot, Trial
from backchannel.schemas.turn import Turn
from tests.support.turns import click, closed_turn, impression, judged, query

CONTEXT = {"device": "car"}


def section(*strategies: str, floor: float = 0.2, policy: Any = "thompson") -> Section:
    config = BanditConfig(
        strategies=strategies, features=(Categorical("device", ("car",)),), floor=floor, policy=policy, exploration=1.0
    )
    bandit = StrategyBandit(config)
    return live_rows(bandit.solve(MemorySums({}), {bandit.table.name: ()}, 0))


def shared(share: float = 0.25, **policies: Section) -> Shared:
    sections = {"bandit": section("a", "b", "c"), SECTION: section("b", "c", "d", floor=0.6), **policies}
    header = Snapshot(
        version=3,
        parent=2,
        created=0,
        watermark=0,
        positions={},
        fingerprint="",
        rows={},
        checksum="",
        trial=Trial(number=3, began=0, share=share),
    )
    found = Shared.of(sections, header)
    assert found is not None
    return found


def test_probabilities_of_a_mixture_are_exact() -> None:
    both, rng, many = shared(), np.random.default_rng(0), 6000
    drawn: dict[tuple[tuple[str, int], ...], list[Decision]] = {}
    for _ in range(many):
        one = both.allocate(CONTEXT, 2, rng)
        drawn.setdefault(tuple(sorted(one.allocation.items())), []).append(one)
    for allocation, decisions in drawn.items():
        first = decisions[0]
        assert {one.allocation_propensity for one in decisions} == {first.allocation_propensity}
        assert first.allocation_propensity is not None
        assert len(decisions) / many == pytest.approx(first.allocation_propensity, abs=0.03)
        assert first.canary is not None
        alone = both.tried.mixture(CONTEXT, 2)
        known = all(name in both.tried.strategies for name, _ in allocation)
        counts = [dict(allocation).get(name, 0) for name in both.tried.strategies]
        assert first.canary.propensity == (alone.probability(counts) if known else 0.0)
    asked = [sum(name in one.allocation for some in drawn.values() for one in some) / many for name in "abcd"]
    assert [first.propensities[name] for name in "abcd"] == pytest.approx(asked, abs=0.03)
    total = sum(some[0].allocation_propensity or 0.0 for some in drawn.values())
    assert total == pytest.approx(1.0, abs=0.02)


def test_policies_without_chance_have_the_coin() -> None:
    both = shared(0.5, bandit=section("a", "b", policy="ucb"), canary=section("b", "c", policy="ucb"))
    found = both.allocate(CONTEXT, 2, np.random.default_rng(0))
    assert found.allocation_propensity == 0.5
    assert found.canary is not None
    assert found.canary.propensity in (0.0, 1.0)


def test_gains_are_those_of_both() -> None:
    both = shared()
    gains = both.gains(CONTEXT)
    assert set(gains) == set("abcd")
    usual, own = both.served.gains(CONTEXT), both.tried.gains(CONTEXT)
    assert gains["b"][0] == pytest.approx(0.75 * usual["b"][0] + 0.25 * own["b"][0])
    assert gains["d"][0] == pytest.approx(0.25 * own["d"][0])


def test_without_a_share_nobody_else_decides() -> None:
    header = Snapshot(
        version=3, parent=2, created=0, watermark=0, positions={}, fingerprint="", rows={}, checksum="", trial=None
    )
    assert Shared.of({"bandit": section("a")}, header) is None


def turns(many: int, seed: int, share: float = 0.25, clicks: float = 0.5) -> list[Turn]:
    """Turns of a trial in which the one on trial earns half: where only it would have done so, half as many click."""
    rng, made = np.random.default_rng(seed), []
    for number in range(many):
        own = float(rng.choice([0.0, 0.4, 1.0]))
        weight = share * own / (share * own + 1.0 - share)
        own_query = structs.replace(query(session_id=f"s{seed}-{number}"), query_id=f"q{number}")
        shown = impression(
            allocation={"a": 1},
            allocation_propensity=share * own + 1.0 - share,
            canary=Canary(trial=5, share=share, propensity=own),
        )
        clicked = rng.random() < clicks * (1.0 - weight / 2)
        made.append(closed_turn(own_query, [shown], [click("e1")] if clicked else []))
    return made


def learned(some: list[Turn]) -> Delta:
    return Trials().learn(judged(some))


def test_the_sums_are_equal_to_the_last_bit_in_any_order() -> None:
    some = turns(300, 0)
    every, several = learned(some), merge(learned(some[place::3]) for place in (2, 0, 1))
    assert set(every) == {"trial", "trial_goals"}
    for name, whole in every.items():
        parts = several[name]
        assert dict(zip(whole.keys, whole.values.tolist(), strict=True)) == dict(
            zip(parts.keys, parts.values.tolist(), strict=True)
        )


def test_what_adds_up_is_what_was_logged() -> None:
    some = turns(4000, 1)
    contrast = Trials().contrast(MemorySums(learned(some)), 5)
    assert contrast.turns == 4000
    assert contrast.rewards.sum() == sum(bool(one.clicks) for one in some)
    # No query follows, so each turn ends a goal.
    reached = Trials().reached(MemorySums(learned(some)), 5)
    assert reached.rewards.tolist() == contrast.rewards.tolist()
    exact = [
        one.impressions[0].canary.share
        * one.impressions[0].canary.propensity
        / one.impressions[0].allocation_propensity
        for one in some
        if one.clicks and one.impressions[0].canary and one.impressions[0].allocation_propensity
    ]
    # Rounding to the grid of weights is right on average.
    assert contrast.weights @ contrast.rewards / contrast.rewards.sum() == pytest.approx(np.mean(exact), abs=1e-3)


def test_only_its_own_trial_counts_and_only_what_tells() -> None:
    (one,) = turns(1, 2)
    blind = closed_turn(one.query, [impression(allocation={"a": 1}, canary=one.impressions[0].canary)])
    assert learned([blind, closed_turn(query())]) == {}
    assert Trials().contrast(MemorySums(learned(turns(50, 3))), 6).turns == 0

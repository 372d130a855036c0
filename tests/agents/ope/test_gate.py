"""The gate: what it lets through, what it tries, what it holds, and that it says why."""

from typing import Any

import msgspec
import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from backchannel.agents.bandit.features import Categorical
from backchannel.agents.bandit.learner import BanditConfig, StrategyBandit
from backchannel.agents.bandit.serving import Allocator
from backchannel.agents.ope.decisions import LoggedDecision
from backchannel.agents.ope.gate import REST, Case, GateConfig, Judgement, Tried, judge
from backchannel.agents.ope.sequences import Contrast
from backchannel.agents.serving import live_rows
from backchannel.agents.sums import MemorySums
from backchannel.schemas.snapshot import Section, Trial

CONFIG = BanditConfig(
    strategies=("lexical", "semantic", "memory"),
    features=(Categorical("device", ("car", "phone")),),
    policy="greedy",
    floor=0.3,
)
KNOWN = 1000.0
"""Rewards that make what is served established."""
CAREFUL = GateConfig(first_share=0.25)
WORKS = {"lexical": 0.2, "semantic": 0.3, "memory": 0.6}


def section(changed: int | None = None, known: float = KNOWN, **preferred: float) -> Section:
    """A bandit's section that expects so much more of some strategies than of others."""
    bandit = StrategyBandit(CONFIG)
    rows = {
        key: orjson.loads(row)
        for key, row in live_rows(bandit.solve(MemorySums({}), {bandit.table.name: ()}, 0)).items()
    }
    for name in CONFIG.strategies:
        rows[name]["theta"][0] = rows[name]["evident"][0] = 100.0 * preferred.get(name, 0.0)
        rows[name] |= {"count": known, "reward": 0.5}
    rows[""]["changed"] = changed
    return {key: orjson.dumps(row) for key, row in rows.items()}


def policy(changed: int | None = None, known: float = KNOWN, **preferred: float) -> Allocator:
    return Allocator(section(changed, known, **preferred))


def log(serving: Allocator, turns: int, seed: int = 0) -> list[LoggedDecision]:
    """Pages of one candidate."""
    rng = np.random.default_rng(seed)
    decisions = []
    for number in range(turns):
        context: dict[str, Any] = {"device": ("car", "phone", "tv")[number % 3]}
        made = serving.allocate(context, 1, rng)
        (asked,) = made.allocation
        success = float(rng.random() < WORKS[asked])
        decisions.append(
            LoggedDecision(
                f"s{number}",
                number,
                context,
                made.allocation,
                made.propensities,
                {asked: success},
                success,
                made.allocation_propensity,
            )
        )
    return decisions


LIVE = policy(semantic=0.5)
LOG = log(LIVE, 2000)
GOOD, BAD = policy(memory=0.5), policy(lexical=0.5)


def case(candidate: Allocator, **given: Any) -> Case:
    return Case(**{"served": LIVE, "decisions": LOG, "rewards": KNOWN, "candidate": candidate, **given})


def tried(own: float, others: float, share: float = 0.25, **trial: Any) -> Tried:
    """A trial of BAD, as rewards say; both have 1000 turns for each share of their own."""
    contrast = Contrast(np.full(2, share), np.array([1.0, 0.0]), np.array([own * share, others * (1 - share)]), 4000.0)
    return Tried(Trial(number=7, began=1000, share=share, **trial), BAD, contrast)


def test_the_first_version_goes_live() -> None:
    found = judge(Case(candidate=LIVE, served=None), CAREFUL)
    assert (found.verdict, found.reason) == ("publish", "the first version")


def test_small_steps_and_early_learning_go_live() -> None:
    assert judge(case(policy(semantic=0.4)), CAREFUL).reason.startswith("a small step")
    early = judge(case(BAD, rewards=50.0), CAREFUL)
    assert (early.verdict, early.trial) == ("publish", None)
    assert early.reason.startswith("early learning: 50 rewards are known")
    assert judge(case(BAD, decisions=[]), CAREFUL).verdict == "publish"
    new = Allocator(live_rows(StrategyBandit(CONFIG).solve(MemorySums({}), {"bandit": ()}, 0)))
    assert "what is served knows 0 rewards" in judge(case(GOOD, served=new), CAREFUL).reason


def test_where_old_rewards_tell_little_a_leap_goes_live_unless_it_does_not_do_what_it_learned() -> None:
    moving = judge(case(policy(known=100.0, lexical=0.5)), CAREFUL)
    assert (moving.verdict, moving.trial) == ("publish", None)
    assert moving.reason.startswith("the world moves: 1,000 rewards tell as much as 150 new ones")
    for known, rewards in ((100.0, KNOWN), (KNOWN, 50.0)):
        rows = section(known=known, semantic=0.5, lexical=0.1)
        header = orjson.loads(rows[""])
        header["limits"][1]["on"] = False
        broken = Allocator({**rows, "": orjson.dumps(header)})
        assert judge(case(broken, rewards=rewards), CAREFUL).verdict == "canary"


def test_other_features_begin_anew_beside_what_is_served() -> None:
    other = StrategyBandit(structs.replace(CONFIG, features=(*CONFIG.features, Categorical("site", ("de", "fr")))))
    nothing = Allocator(live_rows(other.solve(MemorySums({}), {"bandit": ()}, 0)))
    assert judge(case(nothing), CAREFUL).verdict == "canary"
    assert judge(case(nothing, served=policy(known=10.0, semantic=0.5)), CAREFUL).verdict == "publish"


def test_where_old_rewards_tell_little_what_has_lost_a_trial_does_not_go_live() -> None:
    moving = policy(known=100.0, lexical=0.5)
    assert judge(case(moving, tried=tried(500.0, 500.0)), CAREFUL).verdict == "publish"
    assert judge(case(moving, tried=tried(500.0, 1000.0)), CAREFUL).verdict == "hold"
    waiting = tried(500.0, 500.0, until=5000, lost=1)
    assert judge(case(moving, tried=waiting, at=4000), CAREFUL).verdict == "hold"
    assert judge(case(moving, tried=waiting, at=5000), CAREFUL).verdict == "canary"


def test_a_step_is_not_small_if_it_is_large_in_a_segment() -> None:
    rows = {key: orjson.loads(row) for key, row in section(semantic=0.5).items()}
    rows["memory"]["theta"][1] = 300.0  # in cars
    found = judge(
        case(Allocator({key: orjson.dumps(row) for key, row in rows.items()})), structs.replace(CAREFUL, max_change=0.5)
    )
    assert found.change is not None
    assert (found.change.segment, found.change.size > 0.5) == ("device=car", True)


def test_what_the_log_speaks_for_goes_live_and_what_it_does_not_is_tried() -> None:
    good = judge(case(GOOD), CAREFUL)
    assert good.verdict == "publish"
    assert good.evidence is not None
    assert good.evidence.gains["live"].low > 0
    bad = judge(case(BAD, version=9, at=77), CAREFUL)
    assert (bad.verdict, bad.trial) == ("canary", Trial(number=9, began=77, share=0.25))
    assert bad.evidence is not None
    assert bad.evidence.gains["live"].high < 0


def test_without_support_one_cannot_tell_and_it_is_tried() -> None:
    few = judge(case(GOOD, decisions=LOG[:50]), CAREFUL)
    assert few.verdict == "canary"
    assert few.evidence is not None
    assert few.evidence.gains == {}
    elsewhere = [structs.replace(one, allocation_propensity=None) for one in LOG]
    assert judge(case(GOOD, decisions=elsewhere), CAREFUL).verdict == "canary"
    # What is from before the world changed tells nothing.
    assert judge(case(policy(changed=1990, memory=0.5)), CAREFUL).verdict == "canary"


@pytest.mark.parametrize(
    ("own", "others", "verdict", "share"),
    [
        (5.0, 5.0, "canary", 0.25),
        (200.0, 200.0, "canary", 0.5),
        (2000.0, 1000.0, "publish", None),
        (500.0, 1000.0, "hold", 0.0),
        (0.0, 60.0, "hold", 0.0),
        (8500.0, 10_000.0, "hold", 0.0),
        (10_000.0, 10_000.0, "publish", None),
    ],
)
def test_a_trial_ends_when_it_has_told(own: float, others: float, verdict: str, share: float | None) -> None:
    found = judge(case(BAD, tried=tried(own, others), at=2000), CAREFUL)
    assert found.verdict == verdict
    assert (found.trial.share if found.trial else None) == share
    if verdict == "hold":
        assert found.trial is not None
        assert (found.trial.until, found.trial.lost) == (2000 + REST * 1000, 1)
        assert found.trial.gain is not None
        assert found.trial.gain.high < 0
    assert "decisions with" in found.reason


def test_what_has_lost_waits_and_is_tried_again() -> None:
    lost = tried(0.0, 60.0, until=6000, lost=1)
    assert judge(case(BAD, tried=lost, at=5999), CAREFUL).trial == lost.trial
    again = judge(case(BAD, tried=lost, at=6000, version=8), CAREFUL)
    assert (again.verdict, again.trial) == ("canary", Trial(number=8, began=6000, share=0.25, lost=1))
    twice = judge(case(BAD, tried=tried(0.0, 60.0, lost=1), at=2000), CAREFUL)
    assert twice.trial is not None
    assert (twice.trial.until, twice.trial.lost) == (2000 + REST**2 * 1000, 2)


def test_who_leaps_again_leaves_what_did_no_worse() -> None:
    leapt = policy(memory=0.9)
    well = judge(case(leapt, tried=tried(80.0, 60.0), decisions=LOG[:50], version=9, at=2000), CAREFUL)
    assert (well.verdict, well.succeeds, well.trial) == ("canary", True, Trial(number=9, began=2000, share=0.25))
    for rewards in ((50.0, 60.0), (3.0, 2.0)):  # worse, and too few to tell that it is not broken
        badly = judge(case(leapt, tried=tried(*rewards), decisions=LOG[:50]), CAREFUL)
        assert (badly.verdict, badly.succeeds) == ("canary", False)


def test_a_leap_that_keeps_what_is_earned_goes_live_unless_it_has_lost() -> None:
    def deep(**preferred: float) -> Allocator:
        rows = section(None, **preferred)
        settings = orjson.loads(rows[""])
        return Allocator({**rows, "": orjson.dumps({**settings, "floor": 0.0})})

    served, leapt = deep(semantic=0.5), deep(semantic=0.5, memory=0.5)
    rng, pages = np.random.default_rng(0), []
    for number in range(600):
        made = served.allocate({"device": "car"}, 20, rng)
        won = {"semantic": 1.0} if rng.random() < 0.5 and "semantic" in made.allocation else {}
        pages.append(
            LoggedDecision(
                f"s{number}",
                number,
                {"device": "car"},
                made.allocation,
                made.propensities,
                won,
                float(bool(won)),
                made.allocation_propensity,
            )
        )
    about = {"served": served, "decisions": pages}
    assert judge(case(leapt, **about), structs.replace(CAREFUL, max_change=0.0)).reason.startswith("it surely keeps")
    assert judge(case(leapt, **about), structs.replace(CAREFUL, max_change=0.0, max_risk=0.0)).verdict == "canary"
    assert judge(case(deep(lexical=0.5), **about), structs.replace(CAREFUL, max_change=0.0)).verdict == "canary"
    lost = structs.replace(tried(0.0, 60.0, until=6000), policy=leapt)
    again = judge(case(leapt, tried=lost, at=6000, **about), structs.replace(CAREFUL, max_change=0.0))
    assert again.reason.startswith("on trial again")


def test_a_trial_expires() -> None:
    found = judge(case(BAD, tried=tried(40.0, 40.0), at=2000), structs.replace(CAREFUL, trial_turns=3000))
    assert (found.verdict, found.trial) == ("publish", None)
    assert found.reason.startswith("cannot be told")


def test_evidence_is_cut_where_the_policy_leaps_or_the_world_changes() -> None:
    on = tried(40.0, 40.0)
    leapt = judge(case(policy(lexical=0.5, memory=0.9), tried=on, decisions=LOG[:50]), CAREFUL)
    assert leapt.trial == Trial(number=1, began=0, share=0.25)
    changed = judge(case(policy(changed=1500, lexical=0.5), tried=on, at=2000), CAREFUL)
    assert changed.trial == Trial(number=1, began=2000, share=0.25)
    before = judge(case(policy(changed=500, lexical=0.5), tried=on, at=2000), CAREFUL)
    assert before.trial is not None
    assert before.trial.number == 7


def test_strategies_may_come_and_go() -> None:
    bandit = StrategyBandit(BanditConfig(strategies=("memory", "new"), features=CONFIG.features))
    candidate = Allocator(live_rows(bandit.solve(MemorySums({}), {bandit.table.name: ()}, 0)))
    for served, other in ((LIVE, candidate), (candidate, LIVE)):
        found = judge(case(other, served=served), structs.replace(CAREFUL, max_change=0.0))
        assert found.change is not None
        assert found.verdict in ("publish", "canary")


@given(
    st.dictionaries(st.sampled_from(CONFIG.strategies), st.floats(-0.3, 1.0)),
    st.integers(0, 400),
    st.sampled_from([0.0, 1000.0]),
    st.sampled_from([None, tried(5.0, 5.0), tried(100.0, 100.0), tried(0.0, 60.0), tried(0.0, 9.0, until=3000)]),
    st.builds(
        GateConfig,
        minimum_effective=st.sampled_from([2.0, 100.0, 1000.0]),
        max_loss=st.sampled_from([0.0, 0.05, 1.0]),
        confidence=st.sampled_from([0.5, 0.95]),
        max_change=st.sampled_from([0.0, 0.3, 1.0]),
    ),
)
@settings(max_examples=40, deadline=None)
def test_a_judgement_is_a_function_of_its_arguments(
    preferred: dict[str, float], turns: int, rewards: float, on: Tried | None, config: GateConfig
) -> None:
    def once() -> Judgement:
        given = case(policy(None, **preferred), decisions=LOG[:turns], rewards=rewards, tried=on, at=2000)
        return judge(given, config)

    found = once()
    assert found == once()
    assert (found.trial is None) == (found.verdict == "publish")
    # As a version's header has it: JSON knows no NaN.
    for part in (found.evidence, found.trial):
        assert part is None or msgspec.json.decode(msgspec.json.encode(part), type=type(part)) == part

"""What followed the decisions of a trial: scores add up, and say what deciding by the policy on trial adds later."""

from typing import Any

import numpy as np
import pytest
from msgspec import structs

from backchannel.agents.checks import CHECKS
from backchannel.agents.horizon.learner import HorizonConfig, Returns
from backchannel.agents.horizon.rest import GAP_MS, RestOfSession
from backchannel.agents.ope.followed import Followed
from backchannel.agents.ope.sequences import FEWEST, UNKNOWN, ratio_bounds
from backchannel.agents.sums import Delta, MemorySums, merge
from backchannel.schemas.events import Canary
from backchannel.schemas.snapshot import Trial
from backchannel.schemas.turn import Turn
from tests.support.turns import DAY, click, closed_turn, impression, judged, query

MINUTE = 60_000
CONFIG = HorizonConfig(salt="a salt for tests only", discount=1.0, least_days=0.5, days=1.0)
LEARNER = Followed(CONFIG)
LEARNERS = (LEARNER, RestOfSession(CONFIG), Returns(CONFIG))
TRIAL = Trial(number=5, began=0, share=0.5)
LATE = 10 * DAY


def turn(session: str, ts: int, own: bool, *, clicked: bool = False, share: float = 0.5, **fields: Any) -> Turn:
    """A turn of a trial, decided by the policy on trial or by the served one."""
    asked = structs.replace(query(session_id=session), ts=ts, query_id=f"{session}{ts}", **fields)
    shown = impression(
        allocation={"bait" if own else "plain": 1},
        allocation_propensity=share if own else 1.0 - share,
        canary=Canary(trial=5, share=share, propensity=float(own)),
    )
    return closed_turn(asked, [shown], [click("e1")] if clicked else [])


def learned(turns: list[Turn]) -> MemorySums:
    return MemorySums(merge(learner.learn(judged(turns)) for learner in LEARNERS))


def test_scores_are_what_was_tossed() -> None:
    turns = [turn("s", 1, True, clicked=True, share=0.25), turn("s", 2, False, share=0.25)]
    delta: Delta = LEARNER.learn(judged(turns))
    table = delta["trial_turns"]
    assert [key[2:] for key in table.keys] == [(1, "5"), (2, "5")]
    assert table.values == pytest.approx(np.array([[1.0, 4.0, 1.0], [1.0, -4 / 3, 0.0]]), abs=1e-3)
    plain = closed_turn(query(), [impression(allocation={"plain": 1})])
    assert LEARNER.learn(judged([plain, turn("s", 1, True, share=1.0)])) == {}


@pytest.mark.parametrize("check", CHECKS)
def test_it_keeps_the_contract(check: Any) -> None:
    rng = np.random.default_rng(2)
    turns = [
        turn(f"s{n % 5}", int(rng.integers(90)) * MINUTE + n, bool(rng.integers(2)), user_id=[None, "u", "v"][n % 3])
        for n in range(60)
    ]
    check(LEARNER, turns, rng)


def sessions(many: int, harm: float, seed: int) -> list[Turn]:
    """Sessions of three turns. The policy on trial is clicked in 70% of its turns and the other one in 40%, but with
    probability `harm` nothing is clicked any more after the former.
    """
    rng, turns = np.random.default_rng(seed), []
    for number in range(many):
        spoilt = False
        for place in range(3):
            own = bool(rng.integers(2))
            clicked = not spoilt and rng.random() < (0.7 if own else 0.4)
            turns.append(turn(f"s{number}", number * 1000 + place * MINUTE, own, clicked=clicked))
            spoilt |= own and rng.random() < harm
    return turns


def worth(share: float, harm: float) -> float:
    """The success of a session, of which the policy on trial makes a share of the decisions."""
    return sum((1.0 - harm * share) ** place * (0.4 + 0.3 * share) for place in range(3))


@pytest.mark.parametrize("harm", [0.0, 1.0])
def test_what_sessions_bring_is_found(harm: float) -> None:
    gain, goals = LEARNER.sessions(learned(sessions(800, harm, 1)), TRIAL, LATE, 0.95)
    truth = (worth(0.51, harm) - worth(0.49, harm)) / 0.02 / worth(0.5, harm)
    assert gain.low < truth < gain.high
    assert gain.value == pytest.approx(truth, abs=0.25)
    assert (gain.low > 0.0, gain.high < 0.0) == (not harm, bool(harm))
    assert goals == gain  # no query follows any, so each turn ends a goal


def test_sessions_that_have_not_ended_and_other_trials_do_not_count() -> None:
    sums = learned(sessions(100, 1.0, 2))
    for trial, at in ((TRIAL, GAP_MS), (structs.replace(TRIAL, number=6), LATE)):
        for gain in LEARNER.sessions(sums, trial, at, 0.95):
            assert gain == UNKNOWN or gain.value == 0.0


@pytest.mark.parametrize("harm", [0.0, 0.8])
def test_what_returns_follow_is_found(harm: float) -> None:
    """People who meet the policy on trial come back less often the next day."""
    rng, turns = np.random.default_rng(3), []
    for person in range(600):
        own = bool(rng.integers(2))
        turns.append(turn(f"s{person}", person * 1000, own, user_id=f"u{person}"))
        if rng.random() < 0.6 * (1.0 - harm * own):
            later = closed_turn(query(person * 1000 + DAY, session_id=f"t{person}", user_id=f"u{person}"))
            turns.append(later)
    sums = learned(turns)
    gain = LEARNER.returns(sums, TRIAL, LATE, 0.95)
    truth = -harm / (1.0 - harm / 2.0)
    assert gain.low < truth < gain.high
    assert (gain.high < 0.0) == bool(harm)
    assert LEARNER.returns(sums, TRIAL, DAY // 2, 0.95) == UNKNOWN


def test_bounds_hold_at_all_looks_together() -> None:
    """Each bound fails in at most 5% of sequences, at whichever of 60 looks."""
    rng, failed = np.random.default_rng(0), np.zeros(2)
    for _ in range(400):
        totals = rng.poisson(1.5, 3000).astype(float)
        changes = rng.choice([-2.0, 2.0], 3000) * totals - 0.1 * totals
        bounds = [ratio_bounds(changes[:looked], totals[:looked], 0.95) for looked in range(FEWEST, 3001, 50)]
        failed += max(one.low for one in bounds) > -0.1, min(one.high for one in bounds) < -0.1
    assert (failed / 400 <= 0.05).all()


def test_of_few_nothing_is_known() -> None:
    assert ratio_bounds(np.ones(FEWEST - 1), np.ones(FEWEST - 1), 0.95) == UNKNOWN
    assert ratio_bounds(np.ones(100), np.zeros(100), 0.95) == UNKNOWN
    assert np.isfinite(ratio_bounds(np.ones(100), np.ones(100), 0.5).low)

"""What people said about answers: where more is asked, nothing looks better or worse for that."""

from collections.abc import Iterator

import numpy as np
import pytest

from backchannel.agents.bandit.learner import BanditConfig, StrategyBandit
from backchannel.agents.bandit.serving import Allocator
from backchannel.agents.checks import changes
from backchannel.agents.ope.decisions import decisions_of
from backchannel.agents.outcomes.outcomes import Outcomes
from backchannel.agents.outcomes.rewards import RewardConfig
from backchannel.agents.sums import Floats, MemorySums
from backchannel.schemas.events import Result, Signal
from backchannel.schemas.turn import Turn
from tests.support.turns import click, feedback, impression, judged, query

ASKED = {"often": 0.5, "seldom": 0.02}
"""How often two strategies' turns are asked about. Both are clicked in 60% of the turns, and satisfy in 30%."""
TURNS = 4000


def world(rng: np.random.Generator) -> Iterator[Turn]:
    for number in range(TURNS):
        for strategy, propensity in ASKED.items():
            shown = impression(
                Result("e", 1, (strategy,)), allocation={strategy: 1}, propensities={"often": 0.5, "seldom": 0.5}
            )
            signals: list[Signal] = [shown]
            if rng.random() < 0.6:
                signals.append(click("e"))
            if rng.random() < propensity:
                signals.append(feedback(answered=bool(rng.random() < 0.3), asked=True, propensity=propensity))
            yield Turn.of(query(text=f"query {number % 50}", context={"segment": strategy}), signals)


@pytest.fixture(scope="module")
def both() -> dict[float, Outcomes]:
    """What is judged if answers always count in full, and if they count by the inverse of how often was asked."""
    turns = list(world(np.random.default_rng(0)))
    return {least: judged(turns, RewardConfig(least_propensity=least)) for least in (1.0, 0.02)}


def of_segments(values: Floats) -> tuple[float, float]:
    return float(values[::2].mean()), float(values[1::2].mean())


def test_asking_more_biases_no_mean(both: dict[float, Outcomes]) -> None:
    often, seldom = of_segments(both[1.0].success)
    assert often < seldom - 0.1  # the bias
    often, seldom = of_segments(both[0.02].success)
    assert often == pytest.approx(0.6 + 0.02 * (0.3 - 0.6), abs=0.02)
    assert often == pytest.approx(seldom, abs=0.03)
    assert of_segments(both[1.0].defects)[0] > 0.3
    assert of_segments(both[0.02].defects) == pytest.approx((0.014, 0.014), abs=0.006)


def test_asking_more_biases_no_strategy_of_the_bandit_nor_logged_decisions(both: dict[float, Outcomes]) -> None:
    bandit = StrategyBandit(BanditConfig(strategies=tuple(ASKED), features=(), half_lives_days=(), ridges=(1.0,)))
    ratios, logged = {}, {}
    for least, outcomes in both.items():
        delta = bandit.learn(outcomes)
        section = bandit.solve(MemorySums(delta), changes(delta), 0)
        allocator = Allocator({key: row for key, row in section.items() if row is not None})
        often, seldom = (allocator.gains({})[name][0] for name in ASKED)
        ratios[least] = often / seldom
        decisions = decisions_of(outcomes, range(len(outcomes)))
        earned = [sum(one.rewards.values()) for one in decisions]
        logged[least] = np.mean(earned[::2]) / np.mean(earned[1::2])
    assert ratios[1.0] < 0.75
    assert logged[1.0] < 0.75
    assert ratios[0.02] == pytest.approx(1.0, abs=0.05)
    assert logged[0.02] == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize(
    ("answers", "success"),
    [
        ([{"answered": False}], 0.0),  # volunteered
        ([{"answered": False, "asked": True}], 0.0),  # nobody logged how often was asked
        ([{"answered": False, "asked": True, "propensity": 1.0}], 0.9),
        ([{"answered": False, "asked": True, "propensity": 0.4}], 0.75),
        (
            [{"answered": False, "asked": True, "propensity": 0.01}],
            0.0,
        ),  # less often than configured: in full
        ([{"answered": True, "asked": True, "propensity": 0.4}, {"answered": False, "event_id": "f"}], 0.5),
        ([{"asked": True, "propensity": 0.4, "comment": "in words"}], 1.0),
    ],
)
def test_what_was_asked_for_counts_by_the_inverse_of_how_often(
    answers: list[dict[str, object]], success: float
) -> None:
    turn = Turn.of(query(), [impression(Result("e", 1)), click("e"), *(feedback(**one) for one in answers)])
    assert judged([turn], RewardConfig(least_propensity=0.1)).success.tolist() == [pytest.approx(success)]

"""What clicks are worth, and what takes their worth back."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backchannel.agents.outcomes import Outcome, RewardConfig
from backchannel.schemas.events import Rewrite
from backchannel.schemas.turn import Turn
from tests.agents.turns import DAY, barge_in, click, impression, judged, query, turns

SHARES = st.floats(0, 1)
CONFIGS = st.builds(
    RewardConfig,
    click_gain=st.dictionaries(st.sampled_from(["click", "play"]), SHARES),
    barge_in_weight=SHARES,
    rephrase_weight=SHARES,
    rephrase_gap_s=st.floats(0.001, 86_400),
)


def outcome(turn: Turn, config: RewardConfig | None = None) -> Outcome:
    (found,) = judged([turn], config)
    return found


def rephrased(one: str, two: str, gap: int = 1000, barged_in: bool = False) -> float:
    return outcome(Turn(query(text=one), barge_ins=(barge_in(),) * barged_in, next=query(gap, two))).rephrased


@given(turns(st.integers(0, DAY)), CONFIGS)
def test_everything_lies_within_0_and_1(turn: Turn, config: RewardConfig) -> None:
    found = outcome(turn, config)
    assert found.gains.keys() == {event.entity_id for event in turn.clicks}
    assert all(0 <= gain <= 1 for gain in found.gains.values())
    assert found.success == max(found.gains.values(), default=0)
    assert 0 <= found.rephrased <= 1
    assert turn.next or not found.rephrased


@given(turns(st.integers(0, DAY)), CONFIGS)
def test_taking_back_never_gives(turn: Turn, config: RewardConfig) -> None:
    untroubled = outcome(msgspec.structs.replace(turn, barge_ins=(), next=None), config)
    troubled = outcome(turn, config)
    assert all(gain <= untroubled.gains[entity] for entity, gain in troubled.gains.items())
    kept = 1 - config.rephrase_weight * troubled.rephrased
    kept *= 1 - config.barge_in_weight * bool(turn.barge_ins)
    assert troubled.gains == pytest.approx({entity: kept * gain for entity, gain in untroubled.gains.items()})


def test_the_best_click_counts() -> None:
    config = RewardConfig(click_gain={"click": 0.25, "skip": 0.0})
    turn = Turn(
        query(), clicks=(click("a", "skip"), click("a"), click("a", "skip"), click("b", "play"), click("c", "skip"))
    )
    assert outcome(turn, config).gains == {"a": 0.25, "b": 1.0, "c": 0.0}


@pytest.mark.parametrize(("dwell_s", "gain"), [(None, 1.0), (0, 0.0), (5, 0.25), (20, 1.0), (300, 1.0)])
def test_a_click_that_is_left_soon_is_worth_less(dwell_s: int | None, gain: float) -> None:
    dwelt = msgspec.structs.replace(click("a"), dwell_ms=None if dwell_s is None else 1000 * dwell_s)
    assert outcome(Turn(query(), clicks=(dwelt,)), RewardConfig(dwell_s=20)).gains == {"a": gain}
    assert outcome(Turn(query(), clicks=(dwelt,))).gains == {"a": 1.0}


@pytest.mark.parametrize(("times", "gain"), [(0, 1.0), (1, 0.75), (2, 0.75)])
def test_a_barge_in_takes_its_share_back_once(times: int, gain: float) -> None:
    turn = Turn(query(), clicks=(click("a"),), barge_ins=(barge_in(),) * times)
    assert outcome(turn, RewardConfig(barge_in_weight=0.25)).success == gain


def test_a_rephrase_takes_its_share_back() -> None:
    turn = Turn(query(), clicks=(click("a"),), next=query(1000, "Play jazz!"))
    assert outcome(turn).success == 0
    assert outcome(turn, RewardConfig(rephrase_weight=0.25)).success == 0.75


def test_the_likelihood_of_a_rephrase_rises_with_similarity() -> None:
    assert rephrased("play jazz", "play jazz") == 1
    assert rephrased("play jazz", "Play  JAZZ!") == 1
    assert rephrased("play jazz", "weather tomorrow") == 0
    # Of 9 + 10 characters the two have "play " twice in common: similarity 10/19, between 0.45 and 0.85.
    assert rephrased("play jazz", "play blues") == pytest.approx((10 / 19 - 0.45) / 0.4)
    assert rephrased("play jazz", "play blues", barged_in=True) == pytest.approx((10 / 19 + 0.1 - 0.45) / 0.4)


def test_a_rephrase_follows_soon() -> None:
    assert rephrased("play jazz", "play jazz", gap=60_000) == 1
    assert rephrased("play jazz", "play jazz", gap=60_001) == 0


def test_a_rewrite_is_what_the_results_were_for() -> None:
    shown = impression(rewrite=Rewrite(source="play jass", target="Play JAZZ"))
    found = outcome(Turn(query(text="play jass"), (impression(), shown)))
    assert (found.query, found.rewritten) == ("play jazz", True)
    found = outcome(Turn(query(text="Play jass"), (impression(),)))
    assert (found.query, found.rewritten) == ("play jass", False)


@pytest.mark.parametrize("bounds", [(0.5, 0.5), (0.6, 0.4), (-0.1, 0.5), (0.5, 1.1), (float("nan"), 0.5)])
def test_a_ramp_rises(bounds: Any) -> None:
    with pytest.raises(msgspec.ValidationError, match="rephrase_similarity"):
        msgspec.convert({"rephrase_similarity": bounds}, RewardConfig)

"""What clicks are worth, and what takes their worth back."""

import pickle

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from backchannel.agents.bandit.learner import BanditConfig, StrategyBandit
from backchannel.agents.bandit.serving import Allocator
from backchannel.agents.checks import changes
from backchannel.agents.memory.learner import MemoryConfig, MemoryIndex
from backchannel.agents.outcomes.outcomes import defects
from backchannel.agents.outcomes.rewards import RewardConfig
from backchannel.agents.quality.delays import ClickDelays
from backchannel.agents.quality.learner import SUMS, AnswerQuality, QualityConfig
from backchannel.agents.sums import MemorySums
from backchannel.schemas.events import Feedback, Result, Rewrite, Signal
from backchannel.schemas.turn import Turn
from tests.support.oracle import Outcome
from tests.support.turns import (
    DAY,
    barge_in,
    click,
    closed_turn,
    feedback,
    impression,
    judged,
    outcomes_of,
    query,
    turns,
)

SHARES = st.floats(0, 1)
CONFIGS = st.builds(
    RewardConfig,
    click_gain=st.dictionaries(st.sampled_from(["click", "play"]), SHARES | SHARES.map(lambda share: -share)),
    barge_in_weight=SHARES,
    rephrase_weight=SHARES,
    rephrase_gap_s=st.floats(0.001, 86_400),
)


def outcome(turn: Turn, config: RewardConfig | None = None) -> Outcome:
    (found,) = outcomes_of([turn], config)
    return found


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
    untroubled = outcome(Turn.of(turn.query, [*turn.impressions, *turn.clicks]), config)
    troubled = outcome(turn, config)
    assert all(gain <= untroubled.gains[entity] for entity, gain in troubled.gains.items())
    kept = 1 - config.rephrase_weight * troubled.rephrased
    kept *= 1 - config.barge_in_weight * bool(turn.barge_ins)
    assert troubled.gains == pytest.approx({entity: kept * gain for entity, gain in untroubled.gains.items()})


def test_the_best_click_counts() -> None:
    config = RewardConfig(click_gain={"click": 0.25, "skip": 0.0})
    turn = closed_turn(
        query(), clicks=(click("a", "skip"), click("a"), click("a", "skip"), click("b", "play"), click("c", "skip"))
    )
    assert outcome(turn, config).gains == {"a": 0.25, "b": 1.0, "c": 0.0}


@pytest.mark.parametrize("kind", ["dislike", "skip", "hide", "report", "thumbs_down", "Thumbs-Down"])
def test_a_dislike_is_no_success(kind: str) -> None:
    disliked = closed_turn(query(), clicks=(click("a", kind), click("b", kind)))
    assert outcome(disliked).gains == {"a": 0.0, "b": 0.0}
    assert outcome(disliked).success == 0.0
    assert outcome(disliked, RewardConfig(click_gain={kind: 0.5})).success == 0.5


def test_a_negative_worth_takes_back_what_the_same_entity_earned() -> None:
    config = RewardConfig(click_gain={"click": 0.75, "dislike": -0.5, "report": -1.0})
    turn = closed_turn(
        query(), clicks=(click("a"), click("a", "dislike"), click("b"), click("c", "report"), click("c"))
    )
    assert outcome(turn, config).gains == {"a": 0.25, "b": 0.75, "c": 0.0}


@pytest.mark.parametrize(("dwell_s", "gain"), [(None, 1.0), (0, 0.0), (5, 0.25), (20, 1.0), (300, 1.0)])
def test_a_click_that_is_left_soon_is_worth_less(dwell_s: int | None, gain: float) -> None:
    dwelt = msgspec.structs.replace(click("a"), dwell_ms=None if dwell_s is None else 1000 * dwell_s)
    assert outcome(closed_turn(query(), clicks=(dwelt,)), RewardConfig(dwell_s=20)).gains == {"a": gain}
    assert outcome(closed_turn(query(), clicks=(dwelt,))).gains == {"a": 1.0}


@pytest.mark.parametrize(("times", "gain"), [(0, 1.0), (1, 0.75), (2, 0.75)])
def test_a_barge_in_takes_its_share_back_once(times: int, gain: float) -> None:
    turn = closed_turn(query(), clicks=(click("a"),), barge_ins=(barge_in(),) * times)
    assert outcome(turn, RewardConfig(barge_in_weight=0.25)).success == gain


def test_a_rephrase_takes_its_share_back() -> None:
    turn = closed_turn(query(text="play some jass"), clicks=(click("a"),), next=query(8000, "play some jazz"))
    found = outcome(turn)
    assert 0 < found.rephrased < 1
    assert (found.success, found.unrephrased) == (1 - found.rephrased, 1)
    assert outcome(turn, RewardConfig(rephrase_weight=0.25)).success == 1 - found.rephrased / 4


def test_a_rephrase_follows_soon() -> None:
    config = RewardConfig(rephrase_gap_s=8)
    for gap, says in ((8_000, True), (8_001, False)):
        turn = closed_turn(query(text="play some jass"), next=query(gap, "play some jazz"))
        assert (outcome(turn, config).rephrased > 0) == says


@pytest.mark.parametrize(("text", "following"), [("", "play jazz"), ("play jazz", ""), ("", "")])
def test_what_was_not_recognised_is_not_rephrased(text: str, following: str) -> None:
    assert outcome(closed_turn(query(text=text), next=query(8000, following))).rephrased == 0


@given(st.lists(turns(st.integers(0, DAY)), max_size=6))
def test_turns_are_judged_one_by_one(some: list[Turn]) -> None:
    assert outcomes_of(some) == [outcome(turn) for turn in some]


def test_a_rewrite_of_an_interpretation_is_one() -> None:
    shown = impression(rewrite=Rewrite(source="Play(jass)", target="Play(jazz)"))
    found = outcome(closed_turn(query(text="play jass", interpretation="Play(jass)"), (shown,)))
    assert found.rewritten == "Play(jazz)"


def test_a_rewrite_is_what_the_results_were_for() -> None:
    shown = impression(rewrite=Rewrite(source="play jass", target="Play JAZZ"))
    found = outcome(closed_turn(query(text="play jass"), (impression(), shown)))
    assert (found.query, found.rewritten) == ("play jazz", "play jazz")
    found = outcome(closed_turn(query(text="Play jass"), (impression(),)))
    assert (found.query, found.rewritten) == ("play jass", None)


def test_who_goes_on_without_a_click_may_be_content() -> None:
    config = RewardConfig(unclicked_gain=0.5, barge_in_weight=0.5)
    on = query(8_000, "weather tomorrow")
    assert outcome(closed_turn(query(), next=on), config).success == 0.5
    assert outcome(closed_turn(query(), barge_ins=(barge_in(),), next=on), config).success == 0.25
    assert outcome(closed_turn(query()), config).success == 0
    assert outcome(closed_turn(query(), next=on)).success == 0
    again = outcome(closed_turn(query(text="play some jass"), next=query(8_000, "play some jazz")), config)
    assert (again.unrephrased, again.success) == (0.5, 0.5 * (1 - again.rephrased))
    assert again.gains == {}


def test_success_without_a_click_is_the_single_results_and_of_a_page_nobodys() -> None:
    config, on = RewardConfig(unclicked_gain=0.5), query(8_000, "weather tomorrow")
    spoken = impression(Result("a", 1, ("lexical",)), allocation={"lexical": 2, "memory": 1})
    found = outcome(closed_turn(query(), [spoken], barge_ins=(barge_in(),), next=on), config)
    assert (found.gains, found.credited) == ({"a": 0.25}, {"lexical": (0.25, 1, 1)})
    page = impression(Result("a", 1, ("lexical",)), Result("b", 2, ("memory",)))
    assert outcome(closed_turn(query(), [page], next=on), config).gains == {}
    assert outcome(closed_turn(query(), [spoken, spoken], next=on), config).gains == {}
    assert outcome(Turn.of(query(), [spoken, feedback(thumbs_up=True)])).gains == {"a": 1.0}
    assert outcome(Turn.of(query(), [spoken, feedback(thumbs_up=False)], on), config).gains == {}
    assert outcome(closed_turn(query(), [spoken], [click("b")], next=on), config).gains == {"b": 1.0}


def test_success_without_a_click_is_no_click() -> None:
    config, on = RewardConfig(unclicked_gain=0.5), query(8_000, "weather tomorrow")
    spoken = impression(Result("a", 1, ("lexical",)), allocation={"lexical": 1})
    found = judged([closed_turn(query(), [spoken], next=on), closed_turn(query(), [spoken], [click("a")])], config)
    assert ClickDelays(()).learn(found)["delay"].values.tolist() == [[1.0]]
    quality = AnswerQuality(QualityConfig(), ("lexical",)).learn(found)["quality"]
    assert quality.values[quality.keys.index(("lexical", 0)), SUMS.index("clicked")] == 1.0
    index = MemoryIndex(MemoryConfig())
    for table in ("memory", "examination"):  # evidence of the entity, but not of positions
        clicked = index.learn(judged([closed_turn(query(), [spoken], [click("a")])], config))[table]
        unclicked = index.learn(judged([closed_turn(query(), [spoken], next=on)], config))[table]
        without = index.learn(judged([closed_turn(query(), [spoken])], config))[table]
        assert (table == "examination") == np.array_equal(unclicked.values, without.values)
        assert not np.array_equal(clicked.values, without.values)


def test_the_bandit_finds_the_better_strategy_where_nobody_clicks() -> None:
    rng, succeeds = np.random.default_rng(7), {"lexical": 0.4, "memory": 0.8}
    turns = [
        closed_turn(
            query(1000 * number),
            [impression(Result("a", 1, (name,)), allocation={name: 1}, propensities=dict.fromkeys(succeeds, 0.5))],
            next=query(1000 * number + 500, "weather tomorrow") if rng.random() < succeeds[name] else None,
        )
        for number, name in enumerate(rng.choice(list(succeeds), 1000).tolist())
    ]
    bandit = StrategyBandit(BanditConfig(strategies=tuple(succeeds), features=(), half_lives_days=(), ridges=(1.0,)))
    delta = bandit.learn(judged(turns, RewardConfig(unclicked_gain=1.0)))
    section = bandit.solve(MemorySums(delta), changes(delta), 0)
    allocator = Allocator({key: row for key, row in section.items() if row is not None})
    gains = {name: gain[0] for name, gain in allocator.gains({}).items()}
    assert gains == pytest.approx(succeeds, abs=0.06)


def test_a_turn_is_a_defect_if_it_was_interrupted_or_rephrased_and_not_for_want_of_a_click() -> None:
    found = judged([closed_turn(query()), closed_turn(query(), barge_ins=(barge_in(),))])
    assert found.defects.tolist() == [0.0, 1.0]
    assert defects([False, False, True], [0.0, 0.75, 0.75]).tolist() == [0.0, 0.75, 1.0]


def test_an_explicit_no_is_a_defect() -> None:
    said = [(), (feedback(answered=False),), (feedback(answered=True),), (feedback(rating=0.25),)]
    turns = [Turn.of(query(), some) for some in said] + [Turn.of(query(), [barge_in(), feedback(answered=True)])]
    assert judged(turns).defects.tolist() == [0.0, 1.0, 0.0, 0.75, 1.0]


ANSWERS = st.builds(
    feedback,
    answered=st.none() | st.booleans(),
    rating=st.none() | SHARES,
    thumbs_up=st.none() | st.booleans(),
    comment=st.none() | st.just("in words"),
)


@given(turns(st.integers(0, DAY)), CONFIGS, st.lists(ANSWERS, max_size=3), SHARES)
def test_what_somebody_says_takes_the_place_of_what_signals_say(
    turn: Turn, config: RewardConfig, answers: list[Feedback], weight: float
) -> None:
    answers = [structs.replace(one, event_id=str(place)) for place, one in enumerate(answers)]
    config = structs.replace(config, feedback_weight=weight)
    signals: list[Signal] = [*turn.impressions, *turn.clicks, *turn.barge_ins]
    unsaid, said = outcome(turn, config), outcome(Turn.of(turn.query, [*signals, *answers], turn.next), config)
    values = [one.value for one in answers if one.value is not None]
    if not values:
        assert (said.success, said.unrephrased, said.gains, said.credited) == (
            unsaid.success, unsaid.unrephrased, unsaid.gains, unsaid.credited
        )  # fmt: skip
        return
    mean = sum(values) / len(values)
    assert said.success == pytest.approx((1 - weight) * unsaid.success + weight * mean)
    assert said.unrephrased == pytest.approx((1 - weight) * unsaid.unrephrased + weight * mean)
    assert all(0 <= gain <= 1 for gain in said.gains.values())
    if unsaid.success > 1e-300 and turn.clicks:
        assert max(said.gains.values()) == pytest.approx(said.success)
        best = max(unsaid.gains, key=unsaid.gains.__getitem__)
        assert said.gains[best] == max(said.gains.values())
    assert said.rephrased == unsaid.rephrased


def test_of_one_answer_the_plainest_statement_counts_and_words_are_not_kept() -> None:
    assert feedback(answered=False, rating=1.0, thumbs_up=True).value == 0.0
    assert feedback(rating=0.75, thumbs_up=True).value == 0.75
    assert feedback(thumbs_up=True).value == 1.0
    assert feedback(comment="never again").value is None
    turn = Turn.of(query(), [feedback(answered=True, comment="a secret")])
    columns = judged([turn]).columns
    assert columns.others(Feedback)[1] == [
        {"answered": True, "rating": None, "thumbs_up": None, "asked": False, "propensity": None}
    ]
    assert b"a secret" not in pickle.dumps(columns)

"""What the detector takes for a rephrase."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backchannel.agents.columnar.interning import columns_of
from backchannel.agents.rephrases.detector import FLOOR, RephraseDetector, features
from backchannel.agents.rephrases.weights import WEIGHTS
from backchannel.agents.sums import GRID
from backchannel.schemas.events import Earlier, Result
from backchannel.schemas.turn import Turn
from tests.support.turns import DAY, barge_in, click, closed_turn, impression, query, turns

PAIRS = st.lists(turns(st.integers(0, DAY)).filter(lambda turn: turn.next is not None), max_size=6)


def found(some: Sequence[Turn]) -> list[float]:
    probabilities: list[float] = RephraseDetector().probabilities(columns_of(some), np.arange(len(some))).tolist()
    return probabilities


def probability(text: str, following: str, *, gap_s: float = 8, barged_in: bool = False, chosen: bool = False) -> float:
    shown = (impression(Result("e1", 1)),)
    turn = closed_turn(
        query(text=text),
        shown,
        (click("e1"),) * chosen,
        (barge_in(),) * barged_in,
        query(round(gap_s * 1000), following),
    )
    return found([turn])[0]


def spoken(gap_s: float, earlier: Earlier | None = None, *, answered: bool = False) -> float:
    asked = query(text="play some music by queen", earlier=earlier)
    shown = (impression(Result("e1", 1)),) * answered
    return found([closed_turn(asked, shown, next=query(round(gap_s * 1000), "play the music of queens"))])[0]


def test_of_slow_speakers_what_comes_later_is_a_rephrase_too() -> None:
    slow = Earlier(turns=4, seconds=80.0)
    assert spoken(20.0, slow) > 0.5 > spoken(20.0)
    assert spoken(60.0, slow) < 0.5
    for usual in (Earlier(turns=0), Earlier(turns=4, seconds=26.0), Earlier(turns=4, seconds=8.0)):
        assert spoken(20.0, usual) == spoken(20.0)


def test_where_results_were_shown_the_pace_tells_nothing() -> None:
    assert spoken(20.0, Earlier(turns=4, seconds=80.0), answered=True) == spoken(20.0, answered=True)


@given(st.builds(Earlier, turns=st.integers(0, 10**9), seconds=st.floats(0.0, 1e9)))
def test_a_pause_is_no_pace(earlier: Earlier) -> None:
    assert spoken(300.0, earlier) < 0.5


@given(PAIRS)
def test_probabilities_are_on_the_grid_and_each_its_own(some: Sequence[Turn]) -> None:
    probabilities = found(some)
    assert all(one == 0 or FLOOR <= one <= 1 for one in probabilities)
    assert all((one * GRID).is_integer() for one in probabilities)
    assert probabilities == [found([turn])[0] for turn in some]


def test_every_feature_has_its_weight() -> None:
    turn = closed_turn(query(), next=query(1))
    assert list(features(columns_of([turn]))) == list(WEIGHTS)


@pytest.mark.parametrize(
    ("text", "following"),
    [
        ("play the song velvet knight", "play the song velvet night"),
        ("velvt night", "velvet night"),
        ("what's the wether in boston", "what's the weather in boston"),
        ("remind me to stop surfers this afternoon", "no i said remind me to start supper this afternoon"),
    ],
)
def test_what_sounds_alike_soon_after_is_a_rephrase(text: str, following: str) -> None:
    assert probability(text, following) > 0.5


@pytest.mark.parametrize(
    ("text", "following", "gap_s"),
    [
        ("play jazz", "weather tomorrow", 8),
        ("gun control", "gun control violence", 35),
        ("heart attack", "heart attack statistics", 50),
        ("boston tourism", "nyc tourism", 55),
    ],
)
def test_who_goes_on_does_not_rephrase(text: str, following: str, gap_s: float) -> None:
    assert probability(text, following, gap_s=gap_s) < 0.25


def test_a_barge_in_makes_it_likelier() -> None:
    pair = ("play some music by queen", "play the music of queens")
    assert probability(*pair, barged_in=True) > probability(*pair)


def test_a_correction_makes_it_likelier() -> None:
    assert probability("play queen now", "no play the queen") > probability("play queen now", "on play the queen")

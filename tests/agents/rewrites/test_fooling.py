"""What must not become a rewrite: opposites, what one person says however often, and one of two meanings."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backchannel.agents.checks import changes
from backchannel.agents.outcomes.rewards import RewardConfig
from backchannel.agents.rewrites.config import RephraseConfig
from backchannel.agents.rewrites.learner import RephraseGraph
from backchannel.agents.rewrites.meanings import Change, change, same_meaning
from backchannel.agents.rewrites.personal import PersonalRewrites
from backchannel.agents.rewrites.rows import PersonalRow, RewriteRow
from backchannel.agents.sums import ALL, MemorySums
from backchannel.schemas.events import Hypothesis, Recognition, Result, Rewrite
from backchannel.schemas.turn import Turn
from tests.support.turns import barge_in, click, closed_turn, impression, judged, query

VOICE = RewardConfig(unclicked_gain=1.0)
"""Nobody clicks: going on to something else is a success."""


def said(person: str, text: str, following: str, gap_s: float = 9, heard: Sequence[str] = ()) -> Turn:
    asr = Recognition(hypotheses=tuple(Hypothesis(one, -1.0) for one in heard))
    first = query(0, text, person, user_id=person, asr=asr if heard else None)
    return closed_turn(first, next=query(round(gap_s * 1000), following, person, user_id=person))


def corrected(person: str, text: str, following: str, heard: Sequence[str] = ()) -> list[Turn]:
    """Somebody says another query 9 s later, and then goes on."""
    return [said(person, text, following, heard=heard), said(person, following, "what is the weather in paris", 50)]


def succeeded(person: str, text: str, heard: Sequence[str] = ()) -> Turn:
    return said(person, text, "what is the weather in paris", 50, heard)


def rows(turns: Iterable[Turn]) -> Mapping[str, RewriteRow]:
    graph = RephraseGraph(RephraseConfig(held_out=0.0))
    delta = graph.learn(judged(turns, VOICE))
    section = graph.solve(MemorySums(delta), changes(delta), 0)
    return {state: msgspec.json.decode(row, type=RewriteRow) for state, row in section.items() if row and state != ALL}


def rewrites(turns: Iterable[Turn]) -> dict[str, str]:
    return {state: row.target for state, row in rows(turns).items() if row.target}


def own_rewrites(turns: Iterable[Turn]) -> dict[str, dict[str, str]]:
    learner = PersonalRewrites(RephraseConfig())
    delta = learner.learn(judged(turns, VOICE))
    section = learner.solve(MemorySums(delta), changes(delta), 0)
    found = {user: msgspec.json.decode(row, type=PersonalRow) for user, row in section.items() if row}
    return {user: {state: target for state, (target, _) in row.items()} for user, row in found.items()}


def test_an_error_of_the_recogniser_is_rewritten() -> None:
    turns = [turn for one in range(12) for turn in corrected(f"p{one}", "play imagin dragons", "play imagine dragons")]
    assert rewrites(turns) == {"play imagin dragons": "play imagine dragons"}


@pytest.mark.parametrize(
    ("locale", "other", "rewritten"),
    [("de-DE", "en_US", False), ("de-DE", "de-AT", True), ("de-DE", None, True), ("", "en", True)],
)
def test_what_it_is_in_another_language_is_no_rewrite(locale: str, other: str | None, rewritten: bool) -> None:
    text, following, turns = "licht an", "light on", []
    for number in range(20):
        ids: dict[str, Any] = {"session_id": f"s{number}", "user_id": f"p{number}"}
        right = query(5000, following, locale=other, **ids)
        turns += [
            closed_turn(query(0, text, locale=locale, **ids), barge_ins=[barge_in()], next=right),
            closed_turn(right, next=query(50_000, "what is the weather in paris", locale=other, **ids)),
        ]
    assert rewrites(turns) == ({text: following} if rewritten else {})
    assert own_rewrites(turns) == {}
    graph = RephraseGraph(RephraseConfig(held_out=0.0))
    absorbed = graph.learn(judged(turns, VOICE))[graph.absorptions.name]
    success, failure = absorbed.values[absorbed.keys.index((text,))].reshape(2, -1).sum(axis=1)
    rephrased = judged(turns[:1]).rephrased[0]
    assert rephrased > 0.5
    kept = 0.5 * (1.0 - rephrased)
    assert success / 20 == pytest.approx(kept, rel=1e-6)
    assert failure / 20 == pytest.approx(kept if rewritten else 1.0 - kept, rel=1e-6)


@pytest.mark.parametrize(("speaker", "rewritten"), [("child", False), ("parent", True), (None, True)])
def test_what_another_user_says_in_the_session_is_no_rewrite(speaker: str | None, rewritten: bool) -> None:
    text, following, turns = "play frozen sound track", "play frozen soundtrack", []
    for number in range(8):
        asked = query(0, text, f"s{number}", user_id="parent")
        again = query(5000, following, f"s{number}", user_id=speaker)
        turns += [closed_turn(asked, next=again), succeeded("parent", following)]
    assert own_rewrites(turns) == ({"parent": {text: following}} if rewritten else {})
    assert judged(turns[:1]).rephrased[0] > 0.5


@pytest.mark.parametrize(
    ("text", "following"),
    [
        ("turn on the kitchen light", "turn off the kitchen light"),
        ("set timer 5", "set timer 10 minutes"),
        ("set the timer to five minutes", "set the timer to nine minutes"),
        ("set a timer for 20 minutes", "set a timer for 20 seconds"),
        ("lock the front door", "unlock the front door"),
        ("play songs with drums", "play songs without drums"),
        ("mach das licht an", "mach das licht aus"),
        ("音量を上げて", "音量を下げて"),
        ("ارفع الصوت", "اخفض الصوت"),
        ("आवाज़ बढ़ाओ", "आवाज़ घटाओ"),
    ],
)
@pytest.mark.parametrize(("people", "others"), [(5, 0), (60, 0), (60, 12)])
def test_an_opposite_is_no_rewrite(text: str, following: str, people: int, others: int) -> None:
    turns = [turn for one in range(people) for turn in corrected(f"p{one}", text, following)]
    turns += [succeeded(f"q{one}", text) for one in range(others)]
    assert rewrites(turns) == {}
    assert own_rewrites(turns * 3) == {}


ON, OFF = "turn on the kitchen light", "turn off the kitchen light"


@pytest.mark.parametrize(
    ("text", "following"),
    [
        (ON, OFF),
        ("set the timer to fifteen minutes", "set the timer to fifty minutes"),
        ("set the timer of the oven to 20 minutes", "set the timer of the oven to 20 seconds"),
        ("play songs without drums", "play songs with drums"),
        ("flights to rome", "flights from rome"),
    ],
)
def test_an_opposite_needs_far_more_evidence_from_those_whom_the_recogniser_may_have_heard_say_both(
    text: str, following: str
) -> None:
    def gone_on(people: int, heard: Sequence[str]) -> list[Turn]:
        return [turn for one in range(people) for turn in corrected(f"p{one}", text, following, heard)]

    both, other = (text, following), (text, f"{text} please")
    many = gone_on(40, both)
    row = rows(many)[text]
    assert (row.target, row.heard) == (following, True)
    assert rewrites(gone_on(12, both)) == {}  # three turns are enough for others
    assert rewrites(gone_on(40, other)) == {}
    assert rewrites([*gone_on(40, other), *gone_on(12, both)]) == {}
    content = [succeeded(f"q{one}", text, both) for one in range(10)]
    assert rewrites([*many, *content]) == {}
    assert rewrites([*many, *(said(f"q{one}", text, f"{text} now", 9, both) for one in range(10))]) == {}
    assert own_rewrites(many * 3) == {}


def test_one_person_does_not_bring_about_an_opposite() -> None:
    others = [turn for one in range(40) for turn in corrected(f"p{one}", ON, OFF)]
    flood = [turn for _ in range(200) for turn in corrected("bot", ON, OFF, (ON, OFF))]
    assert rewrites([*others, *flood]) == {}


def test_opposites_are_told_by_text() -> None:
    outcomes = judged([said("ann", ON, OFF, heard=("turn it on", OFF)), said("ann", ON, OFF, heard=(ON, ON))], VOICE)
    assert "heard_both" not in RephraseGraph(RephraseConfig()).learn(outcomes)


@pytest.mark.parametrize(("text", "following"), [("cats", "dogs"), ("call anna", "call hanna")])
def test_one_thing_for_another_needs_most_askers(text: str, following: str) -> None:
    few = [turn for one in range(4) for turn in corrected(f"p{one}", text, following)]
    assert rewrites(few) == {}
    half = [turn for one in range(30) for turn in corrected(f"p{one}", text, following)]
    half += [succeeded(f"p{one}", text) for one in range(30, 55)]
    assert rewrites(half) == {}


def test_two_meanings_half_and_half_are_not_rewritten_to_one() -> None:
    def asked(first: int, second: int) -> list[Turn]:
        turns = [turn for one in range(first) for turn in corrected(f"p{one}", "play jaz radio", "play jazz radio fm")]
        for one in range(second):
            turns += corrected(f"q{one}", "play jaz radio", "play jay z radio")
        return turns

    assert rewrites(asked(20, 20)) == {}
    assert rewrites(asked(40, 2)) == {"play jaz radio": "play jazz radio fm"}


def test_one_bot_and_an_accomplice_do_not_hijack_a_query() -> None:
    honest = [succeeded(f"p{one}", "play the morning news") for one in range(90)]
    honest += [said(f"f{one}", "play the morning news", "what is the weather in paris", 70) for one in range(10)]
    assert rewrites(honest) == {}
    attack = [turn for _ in range(150) for turn in corrected("bot", "play the morning news", "play the morning gnus")]
    attack += corrected("accomplice", "play the morning news", "play the morning gnus")
    assert rewrites(honest + attack) == {}


def test_one_person_does_not_have_a_rewrite_withdrawn() -> None:
    graph = RephraseGraph(RephraseConfig(held_out=0.3))
    learned_from = [turn for one in range(60) for turn in corrected(f"p{one}", "play imagin", "play imagine")]

    def tried(person: str, *, well: bool) -> Turn:
        asked = query(0, "play imagin", person, user_id=person)
        served = impression(Result("e", 1), rewrite=Rewrite(source="play imagin", target="play imagine"))
        return closed_turn(asked, (served,), (click("e"),) if well else ())

    def withdrawn(turns: list[Turn]) -> str:
        delta = graph.learn(judged([*learned_from, *turns], VOICE))
        row = graph.solve(MemorySums(delta), changes(delta), 0)["play imagin"]
        assert row is not None
        return msgspec.json.decode(row, type=RewriteRow).withdrawn

    people = [tried(f"q{one}", well=True) for one in range(60)]
    held_out = [succeeded(f"r{one}", "play imagin") for one in range(40)]
    assert not withdrawn([*people, *held_out])
    assert not withdrawn([*people, *held_out, *[tried("bot", well=False)] * 500])
    assert withdrawn([*[tried(f"q{one}", well=False) for one in range(60)], *held_out])


@given(st.integers(0, 20), st.integers(16, 60), st.sampled_from([50, 500, 5000]))
@settings(max_examples=15)
def test_turns_of_one_person_move_a_score_by_no_more_than_a_bound(name: int, people: int, turns: int) -> None:
    honest = [turn for one in range(people) for turn in corrected(f"p{one}", "play jaz radio", "play some jazz radio")]
    honest += [succeeded(f"q{one}", "play jaz radio") for one in range(people // 8)]
    before = rows(honest)["play jaz radio"]
    flood = [succeeded(f"bot-{name}", "play jaz radio")] * turns
    after = rows(honest + flood).get("play jaz radio", RewriteRow())
    # The fullest bucket is at most twice the median of eight: a fifth of the mass, wherever there are many people.
    assert after.support <= before.support + 2 * max(3.0, people / 4)
    if after.target:
        assert after.probability >= before.probability * 0.6


@pytest.mark.parametrize("script", [("猫", "狗"), ("кошка", "мышь"), ("قطة", "كلب"), ("고양이", "멍멍개")])
def test_what_has_no_phonetic_code_does_not_sound_alike(script: tuple[str, str]) -> None:
    outcomes = judged([said("ann", *script), said("ann", "cat", "weather")], VOICE)
    assert outcomes.rephrased[0] <= 0.5
    turns = [turn for one in range(5) for turn in corrected(f"p{one}", *script)]
    assert rewrites(turns) == {}


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("twenty five", "25", Change.WORDING),
        ("channel for", "channel 4", Change.WORDING),
        ("play imagin dragons", "play imagine dragons", Change.SPELLING),
        ("call anna", "call hanna", Change.WORD),
        ("кошка", "мышка", Change.WORD),
        ("flights from rome to oslo", "flights from oslo to rome", Change.OPPOSITE),
        ("set(volume=up)", "set(volume=down)", Change.OPPOSITE),
        ("warte ٥ minuten", "warte ٧ minuten", Change.OPPOSITE),
        ("do call", "don't call", Change.OPPOSITE),
        ("able", "unable", Change.OPPOSITE),
        ("licht in der küche an", "licht in der küche aus", Change.OPPOSITE),
        ("fernseher einschalten", "fernseher ausschalten", Change.OPPOSITE),
        ("fünf minuten", "fünfzehn minuten", Change.OPPOSITE),
        ("musik an", "musik bach", Change.WORD),
        ("éteins la lumière", "allume la lumière", Change.OPPOSITE),
        ("enciende la luz", "apaga la luz", Change.OPPOSITE),
        ("台所の電気をつけて", "台所の電気を消して", Change.OPPOSITE),
        ("電気オン", "電気オフ", Change.OPPOSITE),
        ("五分のタイマー", "十五分のタイマー", Change.OPPOSITE),
        ("十五分のタイマー", "15 分のタイマー", Change.WORD),
        ("上を剥いて歩こう", "上を向いて歩こう", Change.WORD),
        ("شغل النور في المطبخ", "اطفئ النور في المطبخ", Change.OPPOSITE),
        ("रसोई की बत्ती चालू करो", "रसोई की बत्ती बंद करो", Change.OPPOSITE),
        ("तुम भी हो चलाओ", "तुम ही हो चलाओ", Change.WORD),
        ("दिन बताओ", "दीन बताओ", Change.WORD),
        ("打开客厅的灯", "关闭客厅的灯", Change.OPPOSITE),
        ("거실 불 켜 줘", "거실 불 꺼 줘", Change.OPPOSITE),
    ],
)
def test_changes_of_meaning(one: str, other: str, expected: Change) -> None:
    assert change(one, other) == expected
    assert not same_meaning(one, other) or expected == Change.WORDING
    assert change(one, one) == Change.WORDING


def test_support_is_bounded_by_bucket() -> None:
    turns = [said("bot", "a b c", "a b", 9)] * 100 + [said(f"p{one}", "x y", "z", 50) for one in range(3)]
    delta = RephraseGraph(RephraseConfig(held_out=0.0)).learn(judged(turns, VOICE))
    assert np.isclose(delta["absorptions"].values.sum() + delta["transitions"].values.sum(), 103)

"""The ranker of habits: what it is trained on, and when it is published."""

from collections.abc import Sequence

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backchannel.agents.checks import changes
from backchannel.agents.outcomes.rewards import RewardConfig
from backchannel.agents.rewrites.config import RephraseConfig
from backchannel.agents.rewrites.habit_ranking import HabitRanking
from backchannel.agents.rewrites.habitual import NAMES, described
from backchannel.agents.rewrites.online import OnlineRewrites
from backchannel.agents.rewrites.ranker import Ranker
from backchannel.agents.rewrites.rows import Habit, HabitRow, Settings, Usual
from backchannel.agents.serving import live_rows
from backchannel.agents.sums import ALL, Delta, MemorySums, Sums, merge
from backchannel.schemas.snapshot import Section
from backchannel.schemas.turn import Turn
from tests.support.turns import closed_turn, judged, query

VOICE = RewardConfig(unclicked_gain=1.0)
CONFIG = RephraseConfig(online_odds=12.0)
LEARNER = HabitRanking(CONFIG)
HABITS = {
    "play the songs of abba": "play(artist=abba)",
    "wake me up tomorrow morning": "alarm(day=tomorrow)",
    "what is the weather in paris": "weather(place=paris)",
    "call my sister anna please": "call(who=anna)",
}


def said(person: str, text: str, form: str | None, following: tuple[str, str | None] | None = None) -> Turn:
    """Return a turn that succeeds, or one that is rephrased."""
    first = query(0, text, person, user_id=person, interpretation=form)
    if following is None:
        return closed_turn(first, next=query(50_000, "thank you", person, user_id=person, interpretation="bye()"))
    return closed_turn(first, next=query(4_000, following[0], person, user_id=person, interpretation=following[1]))


def misheard(text: str, rng: np.random.Generator) -> str:
    place = int(rng.integers(5, len(text)))
    return f"{text[:place]}x{text[place:]}"


def person(name: str, rng: np.random.Generator, *, telling: bool, forms: bool = True) -> list[Turn]:
    """Return the turns of a person with four habits, who says something near to each of them.

    If habits are `telling`, that fails, and the person goes on to the habit; otherwise half of it is something else.
    """
    turns = []
    for text, meaning in HABITS.items():
        form, near = meaning if forms else None, misheard(text, rng)
        turns += [said(name, text, form)] * 3
        if telling or rng.random() < 0.5:
            turns.append(said(name, near, form and form.replace("=", "=x"), (text, form)))
        else:
            turns.append(said(name, near, form and form.replace("=", "=y")))
        other = f"tell me news about {rng.integers(1_000)} people"
        turns.append(said(name, other, "news()" if forms else None))
    return turns


def ranker(turns: Sequence[Turn], learner: HabitRanking = LEARNER) -> Ranker | None:
    delta = learner.learn(judged(turns, VOICE))
    row = learner.solve(MemorySums(delta), changes(delta), 0)[ALL]
    return None if row is None else msgspec.json.decode(row, type=Ranker)


def people(count: int, *, telling: bool, forms: bool = True) -> list[Turn]:
    rng = np.random.default_rng(1)
    return [turn for one in range(count) for turn in person(f"p{one}", rng, telling=telling, forms=forms)]


@pytest.mark.parametrize("forms", [True, False])
def test_habits_are_served_where_those_of_others_told_what_was_meant(forms: bool) -> None:
    found = ranker(people(40, telling=True, forms=forms))
    assert found is not None
    assert np.isfinite(found.least(12.0))
    habits: HabitRow = {text: Habit(3.0, 0.0, form if forms else "") for text, form in HABITS.items()}
    online = OnlineRewrites(rows={ALL: msgspec.json.encode(Settings(odds=12.0, first=1))})
    heard = "call(who=xanna)" if forms else ""
    served = online.rewrite("call myx sister anna please", None, Usual(habits, found), form=heard)
    assert served is not None
    assert served.habit
    assert served.target == ("call(who=anna)" if forms else "call my sister anna please")
    assert online.rewrite("tell me news about 7 people", None, Usual(habits, found), form=heard) is None


@pytest.mark.parametrize("forms", [True, False])
def test_where_habits_do_not_tell_what_was_meant_no_ranker_is_published(forms: bool) -> None:
    assert ranker(people(40, telling=False, forms=forms)) is None


def test_few_people_do_not_suffice_and_one_person_counts_as_few() -> None:
    assert ranker(people(3, telling=True)) is None
    rng, bot = np.random.default_rng(2), list[Turn]()
    for _ in range(40):
        bot += person("bot", rng, telling=True)
    assert ranker(bot) is None


def test_the_success_that_followed_a_query_is_no_habit_because_of_that() -> None:
    rng, turns = np.random.default_rng(3), list[Turn]()
    for one in range(60):
        for text, form in HABITS.items():
            turns += [said(f"p{one}", misheard(text, rng), None, (text, None)), said(f"p{one}", text, None)]
            turns.append(said(f"p{one}", form, None))
    assert ranker(turns) is None


@given(st.lists(st.integers(0, 12), min_size=1, max_size=12), st.integers(1, 30))
@settings(max_examples=20, deadline=None)
def test_the_sample_is_the_same_whatever_was_dropped_on_the_way(who: list[int], size: int) -> None:
    learner, rng = HabitRanking(CONFIG, size), np.random.default_rng(4)
    name = learner.table.name
    deltas = [learner.learn(judged(person(f"p{one}", rng, telling=True)[:7], VOICE)) for one in who]
    every, kept = MemorySums(merge(deltas)), Sums(learner.table)
    for delta in deltas:
        kept = kept.merge(delta[name])
        dropped = set(learner.excess(MemorySums({name: kept}), {key[0] for key in kept.keys}, 0))
        left = [row for row, key in enumerate(kept.keys) if key not in dropped]
        kept = Sums(learner.table, [kept.keys[row] for row in left], kept.values[left], kept.landmark)
        assert len(left) <= size
    assert learner._sampled(MemorySums({name: kept}), 0) == learner._sampled(every, 0)


def solved(delta: Delta, section: Section, at: int, learner: HabitRanking = LEARNER) -> dict[str, bytes | None]:
    """Return what changes if the next version builds on one with a `section`."""
    return learner.solve(MemorySums(delta, {learner.name: section}), changes(delta), at)


def test_a_fit_is_kept_until_a_twentieth_of_the_sample_is_new() -> None:
    rng = np.random.default_rng(6)
    total = LEARNER.learn(judged(people(40, telling=True), VOICE))
    section = live_rows(solved(total, {}, 0))
    fits = []
    for count in range(1, 9):
        total = merge([total, LEARNER.learn(judged(person(f"new {count}", rng, telling=True), VOICE))])
        if rows := solved(total, section, 0):
            assert rows == solved(total, {}, 0)  # from all that is known by now
            section = live_rows(rows)
            fits.append(count)
    assert fits == [3, 6]  # the first with two of 42 people new is too early: 40 are 95.2%


def test_a_fit_is_kept_until_a_twentieth_has_decayed() -> None:
    delta, day = LEARNER.learn(judged(people(40, telling=True), VOICE)), 86_400_000
    section = live_rows(solved(delta, {}, 0))
    assert not solved(delta, section, 2 * day)  # 2^(-2 / 30) is 95.5%
    assert solved(delta, section, 3 * day) == solved(delta, {}, 3 * day)


def test_a_fit_is_kept_until_a_twentieth_of_the_people_has_been_displaced() -> None:
    rng, learner = np.random.default_rng(7), HabitRanking(CONFIG, size=200)
    everybody = sorted((f"p{one}" for one in range(60)), key=learner.key_of)
    deltas = [learner.learn(judged(person(one, rng, telling=True), VOICE)) for one in everybody]
    without = merge([*deltas[:3], *deltas[6:]])  # 200 rows are 14 people or so
    section = live_rows(solved(without, {}, 0, learner))
    assert not solved(merge([without, deltas[-1]]), section, 0, learner)
    assert solved(merge([without, *deltas[3:6]]), section, 0, learner)


def test_a_fit_without_a_ranker_is_kept_too() -> None:
    delta = LEARNER.learn(judged(people(40, telling=False), VOICE))
    rows = solved(delta, {}, 0)
    assert rows[ALL] is None
    assert not solved(delta, live_rows(rows), 0)


def test_a_replay_gives_the_same_ranker_as_what_was_learned_bit_by_bit() -> None:
    turns = people(40, telling=True)
    order = np.random.default_rng(5).permutation(len(turns)).tolist()
    deltas = [LEARNER.learn(judged([turns[place] for place in order[part::7]], VOICE)) for part in range(7)]
    live = merge(deltas)
    assert LEARNER.solve(MemorySums(live), changes(live), 0)[ALL] == msgspec.json.encode(ranker(turns))


def test_who_asks_is_kept_as_a_hash() -> None:
    delta = LEARNER.learn(judged(people(1, telling=True), VOICE))
    assert {key[1] for key in delta[LEARNER.table.name].keys} == {LEARNER.key_of("p0")}
    assert not LEARNER.is_personal


def test_what_describes_a_habit() -> None:
    habits = {text: Habit(3.0, 1.0, form) for text, form in HABITS.items()}
    found = {
        text: dict(zip(NAMES, numbers, strict=True))
        for text, numbers in described("play the songs of alba", "play(artist=alba)", habits)
    }
    nearest, *others = found.values()
    assert next(iter(found)) == "play the songs of abba"
    assert nearest["lead"] > 0 > max(one["lead"] for one in others)
    assert (nearest["intent"], nearest["slots"], nearest["values"]) == (1.0, 1.0, 0.0)
    assert nearest["lead in meaning"] == 2.0
    assert nearest["unknown"] == 0.2
    assert (nearest["own success"], nearest["own failure"]) == (np.log1p(3.0), 1.0)
    assert {one["intent"] for one in others} == {0.0}
    same = dict(described("play the songs of alba", "play(artist=abba)", habits))
    assert "play the songs of abba" not in same

"""Tastes: which attribute values a user chooses, beside what was taught and what everybody chooses."""

from collections.abc import Sequence

import numpy as np
import pytest

from backchannel.agents.bandit.features import Categorical, Numeric
from backchannel.agents.checks import everything
from backchannel.agents.ranking.learner import EXAMINED, RankingConfig, ResultRanking
from backchannel.agents.ranking.personal import PersonalRanking
from backchannel.agents.ranking.serving import DRAWS, Candidate, Ranker, Ranking
from backchannel.agents.ranking.sums import Lists, sums_of, unpacked
from backchannel.agents.ranking.tastes import Tastes
from backchannel.agents.serving import live_rows
from backchannel.agents.sums import MemorySums, Sums
from backchannel.schemas.events import Result
from backchannel.schemas.turn import Turn
from tests.support.turns import DAY, click, closed_turn, impression, judged, query

CUISINES = ("greek", "italian", "thai")
CONFIG = RankingConfig(
    features=(Numeric("score"), Categorical("cuisine", CUISINES), Categorical("garden", ("true",))),
    personal=("cuisine", "garden"),
)
LEARNER = PersonalRanking(ResultRanking(CONFIG))
CANDIDATES = [
    Candidate(f"{cuisine} {number}", {"score": 6.0 - 2 * number - place / 9, "cuisine": cuisine})
    for number in range(2)
    for place, cuisine in enumerate(CUISINES)
]


def turn(chosen: str, user: str | None = "ann", ts: int = 0) -> Turn:
    """One restaurant of each cuisine, of which one is chosen."""
    results = [Result(name, place, features={"cuisine": name}) for place, name in enumerate(CUISINES, 1)]
    return closed_turn(
        query(ts, f"query {ts % 40}", user_id=user), (impression(*results),), () if chosen is None else (click(chosen),)
    )


def section(turns: Sequence[Turn], at: int = 0) -> dict[str, bytes]:
    delta = LEARNER.learn(judged(turns))
    return live_rows(LEARNER.solve(MemorySums(delta), everything(LEARNER, delta), at))


def tastes(turns: Sequence[Turn], at: int = 0) -> Tastes:
    return Tastes(section(turns, at), at)


def ranked(found: Tastes, user: str | None, liked: dict[tuple[str, str], int] | None = None) -> Ranking:
    return Ranker({}).rank({}, CANDIDATES, 6, np.random.default_rng(0), tastes=found.weights(user, liked or {}))


def first(ranking: Ranking) -> str:
    return str(ranking.results[0].features["cuisine"])


def crowd(count: int = 60, ts: int = 0) -> list[Turn]:
    """People with different tastes."""
    return [turn(CUISINES[number % 3], f"u{number}", ts) for number in range(count)]


ITALIAN = {("cuisine", "italian"): 0}


def test_the_sums_are_those_of_the_rankings_least_squares_for_one_column() -> None:
    rng = np.random.default_rng(0)
    made, gains, vectors = [], [], []
    for _ in range(30):
        shown = [(f"e{place}", str(rng.choice(CUISINES))) for place in range(5)]
        clicked = [name for name, _ in shown if rng.random() < 0.3]
        results = [Result(name, place, features={"cuisine": value}) for place, (name, value) in enumerate(shown, 1)]
        made.append(closed_turn(query(user_id="ann"), (impression(*results),), [click(name) for name in clicked]))
        gains.append([float(name in clicked) for name, _ in shown])
        vectors.append([[float(value == "thai")] for _, value in shown])
    lengths, groups = np.full(30, 5), np.zeros(30, dtype=np.int64)
    examined = np.array(EXAMINED[:5] * 30)
    row = sums_of(
        Lists(lengths, np.concatenate(vectors), examined, np.concatenate(gains), groups, groups.astype(bool)), 1
    )[0]
    (gram,), moment = unpacked(row, 1)
    delta = LEARNER.learn(judged(made))["tastes"]
    sums = dict(zip(delta.keys, delta.at(0).tolist(), strict=True))
    assert sums["ann", "cuisine", "thai"] == pytest.approx([moment[0], gram[0]], rel=0.02)
    assert sums["", "cuisine", "thai"] == sums["ann", "cuisine", "thai"]


def test_what_a_user_chooses_comes_first_for_that_user_alone() -> None:
    found = tastes([*crowd(), *[turn("thai")] * 30])
    assert first(ranked(found, "ann")) == "thai"
    stranger = ranked(found, "stranger")
    assert stranger == ranked(found, None) == ranked(Tastes({}, 0), "ann") == ranked(found, "")
    assert first(stranger) == "greek"
    alone = section([*crowd(), *[turn("thai")] * 30])
    assert {user: row for user, row in alone.items() if user.startswith("u")} == {
        user: row for user, row in section(crowd()).items() if user
    }


def test_what_everybody_chooses_is_nobodys_taste() -> None:
    everybody = [turn("thai", f"u{number % 20}") for number in range(600)]
    weights = tastes([*everybody, *[turn("thai")] * 30]).weights("ann", {})
    assert max(abs(weight) for weight in weights["cuisine"].values()) < 0.01


def test_a_liked_value_comes_first_at_once_and_choices_overrule_it() -> None:
    found = tastes(crowd())
    assert first(ranked(found, "ann", ITALIAN)) == "italian"
    assert first(ranked(Tastes({}, 0), None, ITALIAN)) == "italian"  # also where nothing is learned
    assert first(ranked(tastes([*crowd(), *[turn("italian")] * 5]), "ann", ITALIAN)) == "italian"
    overruled = tastes([*crowd(), *[turn("thai")] * 60])
    assert first(ranked(overruled, "ann", ITALIAN)) == "thai"
    assert overruled.weights("ann", ITALIAN)["cuisine"]["italian"] < 0.1
    assert overruled.weights("ann", ITALIAN)["cuisine"]["italian"] > overruled.weights("ann", {})["cuisine"]["italian"]


def test_a_choice_far_down_says_more_than_one_on_top() -> None:
    lifts = []
    for name in (CUISINES[0], CUISINES[-1]):
        delta = LEARNER.learn(judged([turn(name)]))["tastes"]
        lifts.append(dict(zip(delta.keys, delta.at(0)[:, 0].tolist(), strict=True))["ann", "cuisine", name])
    assert lifts[1] > lifts[0] + 0.1


def test_tastes_and_likes_fade() -> None:
    late = 300 * DAY
    own = [turn("thai")] * 30
    assert first(ranked(tastes([*crowd(ts=late), *own], late), "ann")) == "greek"
    assert first(ranked(tastes(crowd(ts=late), late), "ann", ITALIAN)) == "greek"
    assert first(ranked(tastes([*crowd(ts=late), *own], late), "ann", {("cuisine", "italian"): late})) == "italian"


def test_the_reasons_say_what_is_the_users() -> None:
    weights = tastes(crowd()).weights("ann", ITALIAN)
    found = Ranker({}).rank({}, CANDIDATES, 6, np.random.default_rng(0), explain=True, tastes=weights)
    assert [str(one) for one in found.results[0].reasons][-1].startswith("cuisine=italian raises it by 0.")
    assert next(str(one) for one in found.results[0].reasons if one.personal).endswith("for this user")
    for result in found.results:
        assert result.score == pytest.approx(sum(one.contribution for one in result.reasons), abs=1e-9)


def test_a_drawn_order_has_the_users_tastes_and_its_probability_is_the_share_of_the_models() -> None:
    learner = ResultRanking(RankingConfig(features=CONFIG.features, evidence=0.0, max_shift=2))
    made = [turn(CUISINES[number % 3], f"u{number % 7}", number) for number in range(200)]
    delta = learner.learn(judged(made))
    ranker = Ranker(live_rows(learner.solve(MemorySums(delta), everything(learner, delta), 200)))
    assert ranker.settings.factor
    weights = Tastes({}, 0).weights("ann", {("cuisine", "italian"): 0})
    drawn = [ranker.rank({}, CANDIDATES, 3, np.random.default_rng(seed), tastes=weights) for seed in range(40)]
    assert {first(one) for one in drawn} == {"italian"}
    assert all((one.propensity * DRAWS).is_integer() for one in drawn)
    shares = {tuple(result.entity_id for result in one.results): one.propensity for one in drawn}
    assert sum(shares.values()) == pytest.approx(1.0)


@pytest.mark.parametrize("user", [None, ""])
def test_who_has_no_id_has_no_tastes(user: str | None) -> None:
    assert LEARNER.learn(judged([turn("thai", user)])) == {}


def test_a_user_has_at_most_as_many_rows_as_there_are_values() -> None:
    table, most = LEARNER.bound or (LEARNER.table, 0)
    delta = LEARNER.learn(judged([turn(CUISINES[number % 3], ts=number * DAY) for number in range(50)]))
    assert most == 4 == len(CUISINES) + 1
    assert len([key for key in delta["tastes"].keys if key[0] == "ann"]) == 3
    old = [("ann", "cuisine", f"old {number}") for number in range(5)]
    both = Sums(table, [*delta["tastes"].keys, *old], np.ones((len(delta["tastes"].keys) + 5, 2)))
    assert LEARNER.excess(MemorySums({"tastes": both}), {"ann"}, 0) == old


def test_only_choices_can_be_tastes() -> None:
    with pytest.raises(ValueError, match="personal: 'score' is not a categorical feature: cuisine"):
        RankingConfig(features=CONFIG.features[:2], personal=("score",))


@pytest.mark.parametrize(("spread", "low", "high"), [(0.25, 0.03, 1.0), (0.0, -0.03, 0.0)], ids=["differ", "are alike"])
def test_tastes_pay_where_people_differ_and_cost_little_where_they_are_alike(
    spread: float, low: float, high: float
) -> None:
    """People choose by their own tastes, of a given standard deviation, and by a score; with and without tastes."""
    rng, people, shown = np.random.default_rng(5), 20, 5
    attraction = np.clip(0.3 + rng.normal(0.0, spread, (people, 3)), 0.0, 1.0)
    examined, ranker = np.array(EXAMINED[:shown]), Ranker({})
    found, made, gained = Tastes({}, 0), list[Turn](), np.zeros(2)
    for number in range(30 * people):
        person = number % people
        if person == 0 and number % (5 * people) == 0:
            found = tastes(made, number)
        score, cuisine = 0.05 * rng.normal(size=12), rng.integers(3, size=12)
        attracted = np.clip(attraction[person, cuisine] + score, 0.0, 1.0)
        attracts = dict(zip(map(str, range(12)), attracted.tolist(), strict=True))
        candidates = [
            Candidate(name, {"score": float(score[place]), "cuisine": CUISINES[cuisine[place]]})
            for place, name in enumerate(attracts)
        ]
        known = found.weights(f"u{person}", {})
        # The ranker's scores are in deviations of the caller's score, so these weights are, too.
        scaled = {name: {value: weight / 0.05 for value, weight in own.items()} for name, own in known.items()}
        for arm, weights in enumerate(({}, scaled)):
            ranking = ranker.rank({}, candidates, shown, rng, tastes=weights)
            names = [one.entity_id for one in ranking.results]
            gained[arm] += examined @ [attracts[name] for name in names]
        clicks = [click(name) for name, p in zip(names, examined, strict=True) if rng.random() < p * attracts[name]]
        results = [
            Result(one.entity_id, one.position, features={"cuisine": str(one.features["cuisine"])})
            for one in ranking.results
        ]
        asked = query(number, f"query {number % 40}", user_id=f"u{person}")
        made.append(closed_turn(asked, (impression(*results),), clicks))
    assert low <= gained[1] / gained[0] - 1.0 <= high

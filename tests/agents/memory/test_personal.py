"""The personal layer beside what works for everybody."""

import orjson
import pytest

from backchannel.agents.checks import changes
from backchannel.agents.memory.learner import MemoryConfig, MemoryIndex
from backchannel.agents.memory.personal import PersonalMemory
from backchannel.agents.memory.serving import Memory, Recalled
from backchannel.agents.memory.similar import SimilarQueries
from backchannel.agents.serving import live_rows
from backchannel.agents.sums import MemorySums, merge
from backchannel.schemas.events import Result
from backchannel.schemas.turn import Turn
from tests.support.turns import DAY, click, closed_turn, impression, judged, query

CONFIG = MemoryConfig(personal=3, personal_kappa=10.0, half_life_days=10.0)
SHOWN = impression(Result("pop", 1), Result("jazz", 1))


def turn(clicked: str, user: str | None = None, ts: int = 0, text: str = "music") -> Turn:
    return closed_turn(query(ts, text, user_id=user), (SHOWN,), (click(clicked),))


def crowd(clicked: str, ts: int = 0) -> list[Turn]:
    return [turn(clicked, f"u{number}", ts) for number in range(200)]


def solved(turns: list[Turn], at: int = 0) -> tuple[dict[str, bytes], dict[str, bytes]]:
    index = MemoryIndex(CONFIG)
    personal = PersonalMemory(index)
    outcomes = judged(turns)
    total = merge([index.learn(outcomes), personal.learn(outcomes)])
    sums, changed = MemorySums(total), changes(total)
    sections = []
    for learner in (index, personal):
        own = {table.name: changed.get(table.name, set()) for table in learner.tables}
        sections.append(live_rows(learner.solve(sums, own, at)))
    everybody, users = sections
    return everybody, users


def memory(turns: list[Turn], at: int = 0) -> Memory:
    return Memory(*solved(turns, at), at)


def names(recalled: list[Recalled]) -> list[str]:
    return [one.entity_id for one in recalled]


def test_a_users_own_evidence_counts_more() -> None:
    found = memory([*crowd("pop"), *[turn("jazz", "fan")] * 12])
    assert names(found.recall("music", 2)) == names(found.recall("music", 2, "u1")) == ["pop", "jazz"]
    assert names(found.recall("music", 2, "fan")) == ["jazz", "pop"]
    assert names(found.recall("music", 1, "fan")) == ["jazz"]


def test_little_of_it_counts_little_and_none_nothing() -> None:
    found = memory([*crowd("pop"), turn("jazz", "once")])
    assert names(found.recall("music", 2, "once")) == ["pop", "jazz"]
    assert found.recall("music", 2, "stranger") == found.recall("music", 2)


def test_it_fades() -> None:
    own = [turn("jazz", "fan")] * 12
    fresh = memory([*crowd("pop"), *own])
    faded = memory([*crowd("pop", 80 * DAY), *own], 80 * DAY)
    assert [names(one.recall("music", 1, "fan")) for one in (fresh, faded)] == [["jazz"], ["pop"]]


def test_what_only_the_user_knows_is_recalled() -> None:
    found = memory([turn("jazz", "fan", text="my list")])
    everybody, users = solved([turn("jazz", "fan", text="my list")])
    alone = Memory({"": everybody[""]}, users, 0)
    assert names(alone.recall("My list", 5, "fan")) == names(found.recall("my list", 5)) == ["jazz"]
    assert alone.recall("my list", 5) == []


def test_a_guess_is_as_the_known_query_is_for_the_user() -> None:
    everybody, users = solved([turn("pop"), turn("jazz", "fan"), turn("jazz", "fan")])
    found = Memory(everybody, users, 0, SimilarQueries(0.9).updated(everybody, everybody))
    guessed = found.recall("musics", 5, "fan")
    assert names(guessed) == names(found.recall("music", 5, "fan"))
    assert {one.guess.query for one in guessed if one.guess} == {"music"}
    assert names(found.recall("music", 1, "fan")) == ["jazz"]


def test_only_so_many_pairs_are_published_of_a_user() -> None:
    _, users = solved([turn("jazz", "fan", text=f"query {number}") for number in range(5)])
    _, queries = orjson.loads(users["fan"])
    assert sum(map(len, queries.values())) == 3


def test_the_ledger_keeps_twice_as_many() -> None:
    personal = PersonalMemory(MemoryIndex(CONFIG))
    some = [turn("jazz", "fan", text=f"query {number}") for number in range(5)]
    delta = personal.learn(judged([*some, some[3], some[4]]))
    assert (len(delta["personal"].keys), personal.bound) == (10, (personal.table, 6))
    dropped = personal.excess(MemorySums(delta), {"fan"}, 0)
    assert sorted(dropped) == [("fan", f"query {number}", "pop") for number in (0, 1, 2, 4)]


@pytest.mark.parametrize("user", [None, ""])
def test_who_has_no_id_is_not_remembered(user: str | None) -> None:
    assert PersonalMemory(MemoryIndex(CONFIG)).learn(judged([turn("jazz", user)])) == {}


def test_who_likes_something_is_recalled_it_until_they_choose_otherwise() -> None:
    found = memory(crowd("pop"))
    assert names(found.recall("music", 2, "fan", liked={"jazz": 0})) == ["jazz", "pop"]
    assert names(found.recall("music", 1, "fan", liked={"unseen": 0})) == ["unseen"]
    assert names(found.recall("music", 2, "fan", liked={"jazz": 0}, without={"jazz"})) == ["pop"]
    chosen = memory([*crowd("pop"), *[turn("pop", "fan")] * 40])
    assert names(chosen.recall("music", 2, "fan", liked={"jazz": 0})) == ["pop", "jazz"]


def test_what_was_liked_fades() -> None:
    old = memory(crowd("pop", 100 * DAY), 100 * DAY)
    assert names(old.recall("music", 2, "fan", liked={"jazz": 0})) == ["pop", "jazz"]
    assert names(old.recall("music", 2, "fan", liked={"jazz": 100 * DAY})) == ["jazz", "pop"]

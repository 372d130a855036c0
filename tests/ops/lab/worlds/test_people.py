from collections import Counter, defaultdict
from itertools import islice

import numpy as np
import pytest

from backchannel.ops.lab.worlds.catalogue import make_catalogue, misheard, misspelt
from backchannel.ops.lab.worlds.people import EXAMINED, SHOWN, START, STRAY, WANTED, Answer, Person, SearchWorld
from backchannel.ops.lab.worlds.servers import BestServer, Retrieval, UniformServer
from backchannel.schemas.codec import EventDecoder, encode
from backchannel.schemas.events import Result


@pytest.fixture(scope="module")
def world() -> SearchWorld:
    return SearchWorld(seed=1, turns=5_000)


@pytest.fixture(scope="module")
def people(world: SearchWorld) -> list[Person]:
    return list(islice(world.people(), 2_000))


def test_a_world_is_determined_by_its_seed(world: SearchWorld, people: list[Person]) -> None:
    again, other = SearchWorld(seed=1, turns=5_000), SearchWorld(seed=2, turns=5_000)
    assert again.catalogue == world.catalogue
    assert list(islice(again.people(), 100)) == people[:100]
    assert list(islice(other.people(), 100)) != people[:100]
    assert [again.visit(person, BestServer(again)) for person in people[:100]] == [
        world.visit(person, BestServer(world)) for person in people[:100]
    ]


def test_people_arrive_in_order_and_want_released_entities(world: SearchWorld, people: list[Person]) -> None:
    arrivals = [person.start for person in people]
    assert arrivals == sorted(arrivals)
    assert arrivals[0] >= START
    assert all(world.entities[want.entity_id].released <= person.start for person in people for want in person.wants)


def test_events_are_valid_and_in_time_order(world: SearchWorld, people: list[Person]) -> None:
    decoder = EventDecoder()
    for person in people[:200]:
        events = [event for turn in world.visit(person, BestServer(world)) for event in turn.events]
        assert [decoder.decode(encode(event)) for event in events] == events
        assert [event.ts for event in events] == sorted(event.ts for event in events)


@pytest.mark.parametrize("position", [1, 2, 5, SHOWN])
def test_clicks_follow_the_examination_curve(world: SearchWorld, people: list[Person], position: int) -> None:
    """The wanted entity, shown at one position among strays, is clicked if it is examined and attracts."""

    def clicks(person: Person) -> list[bool]:
        want = person.wants[0]
        strays = [entity.entity_id for entity in world.catalogue if entity.entity_id != want.entity_id][: SHOWN - 1]
        shown = [*strays[: position - 1], want.entity_id, *strays[position - 1 :]]
        answer = Answer(tuple(Result(entity, rank) for rank, entity in enumerate(shown, start=1)), {}, {})
        turn = world.visit(Person(person.session_id, person.start, (want,)), lambda request: answer)[0]
        return [getattr(event, "entity_id", None) == want.entity_id for event in turn.events]

    rate = np.mean([any(clicks(person)) for person in people])
    expected = WANTED * EXAMINED[position - 1]
    assert rate == pytest.approx(expected, abs=4 * np.sqrt(expected * (1 - expected) / len(people)))


def test_titles_are_garbled_always_in_the_same_way(people: list[Person]) -> None:
    heard = defaultdict(set)
    turns = Counter[str]()
    for person in people:
        for want in person.wants:
            for attempt in want.attempts:
                if attempt.kind == "garbled":
                    heard[want.entity_id, attempt.context["device"] == "speaker"].add(attempt.text)
                    turns[attempt.text] += 1
    assert all(len(texts) == 1 for texts in heard.values())
    assert turns.total() > 2 * len(turns)


def test_garbled_titles_are_not_titles_and_are_distinct() -> None:
    titles = {entity.title for entity in make_catalogue(np.random.default_rng(0), 1_000, 0, 1_000)}
    garbled = [garble(title) for garble in (misheard, misspelt) for title in titles]
    assert titles.isdisjoint(garbled)
    assert len(set(garbled)) == len(garbled)


def test_a_garbled_title_is_mostly_repeated(people: list[Person]) -> None:
    garbled = [want for person in people for want in person.wants if want.attempts[0].kind == "garbled"]
    understood = [want for want in garbled if want.attempts[-1].kind == "title"]
    assert 0.6 < len(understood) / len(garbled) < 0.9


def test_people_who_speak_barge_in_on_poor_answers(world: SearchWorld, people: list[Person]) -> None:
    def rate(answer: Answer, spoken: bool) -> float:
        return float(
            np.mean(
                [
                    turn.barged_in
                    for person in people
                    if (person.wants[0].attempts[0].context["device"] == "speaker") is spoken
                    for turn in world.visit(person, lambda request: answer)
                ]
            )
        )

    nothing = Answer((), {}, {})
    assert rate(nothing, spoken=True) > 0.3
    assert rate(nothing, spoken=False) == 0
    good = [turn.barged_in for person in people for turn in world.visit(person, BestServer(world))]
    assert np.mean(good) < 0.05


def test_shares_of_wanted_entities_add_up(world: SearchWorld, people: list[Person]) -> None:
    for person in people[:200]:
        for want in person.wants:
            found = world.wanted(want.meaning, person.start)
            assert sum(share for _, share in found) == pytest.approx(1)
            assert [share for _, share in found] == sorted((share for _, share in found), reverse=True)
            assert want.entity_id in {entity.entity_id for entity, _ in found}


def test_attractiveness_is_highest_for_the_wanted_entity(world: SearchWorld) -> None:
    entity = world.catalogue[0]
    assert world.attractiveness(entity.title, world.end) == {entity.entity_id: WANTED}
    assert world.attractiveness(misheard(entity.title), world.end) == {entity.entity_id: WANTED}
    described = world.attractiveness(f"{entity.mood} {entity.style} {entity.kind}s", world.end)
    assert STRAY < described[entity.entity_id] <= WANTED
    assert world.attractiveness("who ever said this", world.end) == {}


def test_a_rewrite_is_right_if_it_is_what_was_meant(world: SearchWorld) -> None:
    title, other = world.catalogue[0].title, world.catalogue[1].title
    assert world.is_right(misheard(title), title)
    assert not world.is_right(misheard(title), other)
    assert not world.is_right(misheard(title), misspelt(title))
    assert world.is_right("new songs", "latest songs")
    assert not world.is_right("new songs", "new albums")
    assert not world.is_right("who ever said this", title)


def test_the_best_server_beats_the_uniform_one_by_far(world: SearchWorld, people: list[Person]) -> None:
    uniform = UniformServer(Retrieval(world.catalogue), np.random.default_rng(0))
    rates = [
        np.mean([turn.clicked for person in people for turn in world.visit(person, server)])
        for server in (uniform, BestServer(world))
    ]
    assert rates[1] - rates[0] > 0.3

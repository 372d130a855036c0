"""The simulated world: people who want something, say it well or badly, and react to what they are shown.

Nothing here was measured on people. Every number is an assumption, chosen so that every learner has something to learn:

- A session has one to three wants. The wanted entity follows Zipf's law, or is new.
- A want is voiced as a *title* ("velvet night"), as a *description* ("mellow jazz songs"), as a wish for something
  *fresh* ("new songs") or as an *open* one ("popular songs"). A title may reach the server *garbled*, misheard or
  misspelt ("velvet knight"), always in the same wrong form.
- People examine position k with probability `EXAMINED[k - 1]`, whatever is shown there, and click an examined result if
  it attracts them: the position-based model (Chuklin et al., "Click Models for Web Search", 2015). Unlike in that
  model, they stop after clicking the wanted entity.
- People who speak barge in on a poor answer. People who did not find what they wanted rephrase or give up; those whose
  title was garbled mostly repeat it, and are then understood.

A person's luck is drawn before anything is served, so that servers are compared on the same people with the same luck
(common random numbers): they differ only in what they show.
"""

from bisect import bisect
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import accumulate, count
from typing import Final, TypeAlias

import numpy as np
from numpy.random import Generator

from backchannel.agents.outcomes.outcomes import defects
from backchannel.ops.lab.worlds.catalogue import CatalogueEntity, make_catalogue, misheard, misspelt
from backchannel.schemas.events import BargeIn, Canary, Click, Event, Impression, Query, Result, Rewrite, Scalar

QUERY_KINDS: Final = ("title", "description", "fresh", "open", "garbled")
"""The kinds of query. Servers do not know the kind; the context hints at it."""

SHOWN: Final = 10
"""Maximum number of results in an answer."""

EXAMINED: Final = tuple(position**-0.8 for position in range(1, SHOWN + 1))
"""Probabilities that positions 1, 2, 3 ... are examined."""

WANTED: Final = 0.9
"""Probability that the wanted entity is clicked when examined."""
FITTING: Final = 0.15
"""Probability that another entity that fits the query is clicked when examined."""
STRAY: Final = 0.01
"""Probability that any other entity is clicked when examined."""

START: Final = 1_767_225_600_000
"""The start of the world: 2026-01-01 00:00 UTC, ms since the Unix epoch."""

DEVICES: Final = {"speaker": 0.5, "phone": 0.3, "desktop": 0.2}
"""Devices and the share of people who use them."""

_MIX: Final = {"title": 0.25, "description": 0.25, "fresh": 0.15, "open": 0.1, "garbled": 0.25}
_SESSION_GAP_MS: Final = 60_000
_TURNS_PER_SESSION: Final = 2.5
_FRESH: Final = tuple(
    0.6**age for age in range(6)
)  # relative frequency with which the newest, second newest ... entity is wanted


@dataclass(frozen=True, slots=True)
class Meaning:
    """The true meaning of a query.

    Attributes:
        kind: `title`, `description`, `fresh` or `open`.
        terms: the title; or mood, style and kind of entity; or the kind of entity alone.
    """

    kind: str
    terms: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt at voicing a want, with its luck.

    Attributes:
        kind: one of `QUERY_KINDS`.
        text: the text that reaches the server.
        context: the context that the server knows besides the text.
        luck: 2 * `SHOWN` + 4 numbers in [0, 1): `SHOWN` for examining the positions, `SHOWN` for clicking, one for
            barging in, and three for the pauses before the answer, the reactions and the next query.
    """

    kind: str
    text: str
    context: dict[str, Scalar]
    luck: list[float]


@dataclass(frozen=True, slots=True)
class Want:
    """A person's want. The next attempt is made only if the previous one failed."""

    entity_id: str
    meaning: Meaning
    attempts: tuple[Attempt, ...]


@dataclass(frozen=True, slots=True)
class Person:
    """One person's session, which begins at `start` (event time, ms since the Unix epoch)."""

    session_id: str
    start: int
    wants: tuple[Want, ...]


@dataclass(frozen=True, slots=True)
class Request:
    """A request to a server. Only `BestServer`, which cheats, uses `meaning`."""

    query: Query
    meaning: Meaning


@dataclass(frozen=True, slots=True)
class Answer:
    """A server's answer, with the fields of an impression."""

    results: tuple[Result, ...]
    allocation: dict[str, int]
    propensities: dict[str, float]
    policy_version: int | None = None
    rewrite: Rewrite | None = None
    allocation_propensity: float | None = None
    canary: Canary | None = None


Server: TypeAlias = Callable[[Request], Answer]


@dataclass(frozen=True, slots=True)
class SimulatedTurn:
    """The result of one attempt: the logged events, and facts that only the world knows.

    Attributes:
        kind: the query's kind, one of `QUERY_KINDS`.
        text: the query's text.
        answer: the server's answer.
        events: the logged events, in time order.
        clicked, barged_in, rephrased: whether the person clicked, barged in and rephrased.
    """

    kind: str
    text: str
    answer: Answer
    events: tuple[Event, ...]
    clicked: bool
    barged_in: bool
    rephrased: bool

    @property
    def defect(self) -> bool:
        """Whether the turn was a defect; see `agents.outcomes.defects`."""
        return bool(defects(self.barged_in, self.rephrased))


class SearchWorld:
    """A catalogue and the people who search it. The same arguments make the same world.

    Args:
        seed: the seed of all randomness.
        turns: approximate number of turns, over which the releases of new entities are spread.
        size: the number of entities.

    Attributes:
        catalogue: the entities, in order of release.
        entities: the entities by id.
        end: event time of the last release, ms since the Unix epoch.
    """

    def __init__(self, seed: int, turns: int, size: int = 400) -> None:
        catalogue_seed, self._people_seed = np.random.SeedSequence(seed).spawn(2)
        self.end = START + round(turns / _TURNS_PER_SESSION * _SESSION_GAP_MS)
        self.catalogue = make_catalogue(np.random.default_rng(catalogue_seed), size, START, self.end)
        self.entities = {entity.entity_id: entity for entity in self.catalogue}
        self._popularity = list(accumulate(entity.popularity for entity in self.catalogue))
        self._by_meaning: defaultdict[Meaning, list[CatalogueEntity]] = defaultdict(list)
        self._meanings: dict[str, Meaning] = {}
        self._garbled: set[str] = set()
        for entity in sorted(self.catalogue, key=lambda entity: -entity.popularity):
            for kind in _MIX:
                meaning = _meaning(kind, entity)
                if kind == "garbled":
                    self._garbled.update(_wordings(kind, entity))
                else:
                    self._by_meaning[meaning].append(entity)
                self._meanings.update(dict.fromkeys(_wordings(kind, entity), meaning))

    def people(self) -> Iterator[Person]:
        """Yield people in order of arrival, without end. Every iterator yields the same people."""
        rng = np.random.default_rng(self._people_seed)
        now = float(START)
        for number in count():
            now += rng.exponential(_SESSION_GAP_MS)
            device = _pick(rng, DEVICES)
            wants = tuple(self._want(rng, int(now), device) for _ in range(rng.integers(1, 4)))
            yield Person(f"s{number}", int(now), wants)

    def visit(self, person: Person, serve: Server) -> list[SimulatedTurn]:
        """Simulate one session with `serve` and return its turns."""
        turns: list[SimulatedTurn] = []
        clock = person.start
        for want in person.wants:
            fitting = {entity.entity_id for entity, _ in self.wanted(want.meaning, clock)}
            last = want.attempts[-1]
            for attempt in want.attempts:
                query = _query(person.session_id, f"{person.session_id}-{len(turns)}", clock, attempt)
                answer = serve(Request(query, want.meaning))
                reaction = _react(attempt, answer, want.entity_id, fitting)
                events = (query, *_signals(query, attempt, answer, reaction))
                rephrased = attempt is not last and not reaction.satisfied
                turns.append(
                    SimulatedTurn(
                        attempt.kind,
                        attempt.text,
                        answer,
                        events,
                        clicked=bool(reaction.clicked),
                        barged_in=reaction.barged_in,
                        rephrased=rephrased,
                    )
                )
                clock = events[-1].ts + round(3_000 + 5_000 * attempt.luck[-1])
                if not rephrased:
                    break
            clock += round(10_000 + 90_000 * last.luck[-2])
        return turns

    def wanted(self, meaning: Meaning, now: int) -> list[tuple[CatalogueEntity, float]]:
        """Return the entities that fit `meaning` at event time `now` (ms), with probabilities of being wanted.

        The newest come first for a `fresh` meaning, else the most popular. The probabilities sum to 1.
        """
        found = [entity for entity in self._by_meaning[meaning] if entity.released <= now]
        if meaning.kind == "fresh":
            found = sorted(found, key=lambda entity: -entity.released)[: len(_FRESH)]
            weights = list(_FRESH[: len(found)])
        else:
            weights = [entity.popularity for entity in found]
        total = sum(weights)
        return [(entity, weight / total) for entity, weight in zip(found, weights, strict=True)]

    def attractiveness(self, text: str, now: int) -> dict[str, float]:
        """Return the probability that each entity is clicked when examined; `STRAY` for those not included."""
        meaning = self._meanings.get(text)
        found = self.wanted(meaning, now) if meaning else []
        return {entity.entity_id: WANTED * share + FITTING * (1 - share) for entity, share in found}

    def is_right(self, source: str, target: str) -> bool:
        """Return whether `target` is a proper wording of what people mean by `source`."""
        meaning = self._meanings.get(source)
        return meaning is not None and self._meanings.get(target) == meaning and target not in self._garbled

    def _want(self, rng: Generator, now: int, device: str) -> Want:
        kind = _pick(rng, _MIX)
        while (popular := self.catalogue[_draw(rng, self._popularity)]).released > now:
            pass
        meaning = _meaning(kind, popular)
        found = self.wanted(meaning, now)
        entity, _ = found[_draw(rng, list(accumulate(share for _, share in found)))]
        attempts = tuple(
            Attempt(kind, text, _context(rng, kind, device), rng.random(2 * SHOWN + 4).tolist())
            for kind, text in _said(rng, kind, entity, device)
        )
        return Want(entity.entity_id, meaning, attempts)


def _draw(rng: Generator, cumulated: Sequence[float]) -> int:
    return bisect(cumulated, rng.random() * cumulated[-1], hi=len(cumulated) - 1)


def _pick(rng: Generator, weights: Mapping[str, float]) -> str:
    return tuple(weights)[_draw(rng, tuple(accumulate(weights.values())))]


def _meaning(kind: str, entity: CatalogueEntity) -> Meaning:
    match kind:
        case "title" | "garbled":
            return Meaning("title", (entity.title,))
        case "description":
            return Meaning(kind, (entity.mood, entity.style, entity.kind))
        case _:
            return Meaning(kind, (entity.kind,))


def _wordings(kind: str, entity: CatalogueEntity) -> tuple[str, str]:
    """Return the two texts that voice a want, the usual one first; for a garbled title, as misheard and as misspelt."""
    match kind:
        case "title":
            return entity.title, f"the {entity.kind} {entity.title}"
        case "garbled":
            return misheard(entity.title), misspelt(entity.title)
        case "description":
            return (
                f"{entity.mood} {entity.style} {entity.kind}s",
                f"{entity.style} {entity.kind}s that are {entity.mood}",
            )
        case "fresh":
            return f"new {entity.kind}s", f"latest {entity.kind}s"
        case _:
            return f"popular {entity.kind}s", f"best {entity.kind}s"


def _said(rng: Generator, kind: str, entity: CatalogueEntity, device: str) -> list[tuple[str, str]]:
    """Draw the attempts at voicing a want, as kind and text; each is made only if the previous one failed."""
    first, second = (kind, _wordings(kind, entity)[0]), (kind, _wordings(kind, entity)[1])
    again = rng.random()
    if kind == "garbled":
        garbled = first if device == "speaker" else second
        title = ("title", entity.title)
        return [garbled, garbled, title] if again < 0.1 else [garbled, title] if again < 0.75 else [garbled]
    if rng.random() < 0.25:
        first, second = second, first
    return [first, second] if again < 0.3 else [first]


def _context(rng: Generator, kind: str, device: str) -> dict[str, Scalar]:
    """Draw the query's context: hints at its kind from a tagger and a recogniser, which err."""
    looks_like = "title" if kind == "garbled" else kind
    if rng.random() < 0.1:
        looks_like = QUERY_KINDS[rng.integers(4)]
    confidence = rng.beta(4, 4) if kind == "garbled" else rng.beta(8, 2)
    return {"confidence": round(confidence, 3), "device": device, "looks_like": looks_like}


@dataclass(frozen=True, slots=True)
class _Reaction:
    clicked: list[Result]
    satisfied: bool
    barged_in: bool


def _react(attempt: Attempt, answer: Answer, wanted: str, fitting: Set[str]) -> _Reaction:
    """Examine and click from the top until the wanted entity is clicked; barge in, mostly on a poor answer."""
    shown = [result.entity_id for result in answer.results]
    clicked: list[Result] = []
    satisfied = False
    for index, entity_id in enumerate(shown):
        attraction = WANTED if entity_id == wanted else FITTING if entity_id in fitting else STRAY
        if attempt.luck[index] < EXAMINED[index] and attempt.luck[SHOWN + index] < attraction:
            clicked.append(answer.results[index])
            satisfied = entity_id == wanted
            if satisfied:
                break
    impatience = 0.4 if fitting.isdisjoint(shown[:2]) else 0.03
    barged_in = attempt.context["device"] == "speaker" and attempt.luck[2 * SHOWN] < impatience
    return _Reaction(clicked, satisfied, barged_in)


def _query(session_id: str, query_id: str, now: int, attempt: Attempt) -> Query:
    return Query(
        event_id=f"{query_id}-q",
        ts=now,
        session_id=session_id,
        query_id=query_id,
        text=attempt.text,
        context=attempt.context,
    )


def _signals(query: Query, attempt: Attempt, answer: Answer, reaction: _Reaction) -> Iterator[Event]:
    """Yield the impression and the signals after it, in time order."""
    shown_at = query.ts + 200 + round(400 * attempt.luck[-3])
    yield Impression(
        event_id=f"{query.query_id}-i",
        ts=shown_at,
        session_id=query.session_id,
        query_id=query.query_id,
        results=answer.results,
        allocation=answer.allocation,
        propensities=answer.propensities,
        allocation_propensity=answer.allocation_propensity,
        policy_version=answer.policy_version,
        canary=answer.canary,
        rewrite=answer.rewrite,
    )
    if reaction.barged_in:
        offset_ms = 800 + round(1_000 * attempt.luck[-2])
        yield BargeIn(
            event_id=f"{query.query_id}-b",
            ts=shown_at + offset_ms,
            session_id=query.session_id,
            query_id=query.query_id,
            offset_ms=offset_ms,
        )
    for result in reaction.clicked:
        yield Click(
            event_id=f"{query.query_id}-c{result.position}",
            ts=shown_at + round((1_000 + 1_000 * result.position) * (1 + attempt.luck[-2])),
            session_id=query.session_id,
            query_id=query.query_id,
            entity_id=result.entity_id,
        )

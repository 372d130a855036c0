"""The simulated servers: one with the learned policy, one that knows nothing, and one that knows everything."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import ClassVar, Final
from zlib import crc32

import numpy as np
from numpy.random import Generator

from backchannel.agents.bandit.features import context_of
from backchannel.ops.lab.worlds.catalogue import KINDS, CatalogueEntity
from backchannel.ops.lab.worlds.people import SHOWN, Answer, Request, SearchWorld
from backchannel.schemas.events import Result, Rewrite
from backchannel.streams.serving.reader import NoPolicyError, PolicyReader

STRATEGIES: Final = ("lexical", "semantic", "memory", "popular", "new")
"""The bandit's strategies. `memory` recalls from the policy; the others search the catalogue."""


class Retrieval:
    """The strategies that search the catalogue. Each is good at one kind of query and poor at the others.

    - `lexical` finds only titles that share words with the query.
    - `semantic` matches kind, mood, style and title, with noise that depends on the text only.
    - `popular` ranks entities of the kind named in the query by last season's chart.
    - `new` ranks entities of the kind named in the query by release, newest first.
    """

    def __init__(self, catalogue: Sequence[CatalogueEntity]) -> None:
        self._catalogue = catalogue
        self._words = [frozenset(entity.title.split()) for entity in catalogue]
        self._attributes = [
            frozenset((entity.mood, entity.style, entity.kind, f"{entity.kind}s")) for entity in catalogue
        ]
        self._rankings: dict[tuple[str, str], list[CatalogueEntity]] = {}

    def candidates(self, strategy: str, text: str, count: int, now: int) -> list[str]:
        """Return the ids of at most `count` entities released by event time `now` (ms), best first."""
        ranking = self._rankings.get((strategy, text))
        if ranking is None:
            ranking = self._rankings[strategy, text] = self._rank(strategy, text)
        return list(islice((entity.entity_id for entity in ranking if entity.released <= now), count))

    def _rank(self, strategy: str, text: str) -> list[CatalogueEntity]:
        words = frozenset(text.split())
        match strategy:
            case "lexical":
                noise = np.random.default_rng(crc32(text.encode())).random(len(self._catalogue))
                scores = [len(words & title) + blur for title, blur in zip(self._words, noise, strict=True)]
                return self._ranked(score if score >= 1 else 0.0 for score in scores)
            case "semantic":
                noise = np.random.default_rng(crc32(text.encode())).normal(0, 0.3, len(self._catalogue))
                return self._ranked(
                    len(words & attributes) + 0.7 * len(words & title) + 3 + blur
                    for attributes, title, blur in zip(self._attributes, self._words, noise, strict=True)
                )
        kind = next((kind for kind in KINDS if words & {kind, f"{kind}s"}), None)
        named = [entity.kind == kind or kind is None for entity in self._catalogue]
        if strategy == "popular":
            return self._ranked(entity.chart * fits for entity, fits in zip(self._catalogue, named, strict=True))
        return self._ranked(entity.released * fits for entity, fits in zip(self._catalogue, named, strict=True))

    def _ranked(self, scores: Iterable[float]) -> list[CatalogueEntity]:
        """Return the entities with a positive score, best first."""
        scored = [(score, number) for number, score in enumerate(scores) if score > 0]
        return [self._catalogue[number] for _, number in sorted(scored, reverse=True)]


def blend(candidates: Mapping[str, Sequence[str]]) -> tuple[Result, ...]:
    """Return the candidates of all strategies as one list.

    The strategy with the most candidates left places its next one, the first strategy on a tie; a candidate that is
    already placed is skipped, at the cost of that turn. So the favoured strategy leads, and every strategy's first
    candidate is near the top. A result names every strategy that produced it.
    """
    left = {strategy: list(reversed(found)) for strategy, found in candidates.items()}
    placed: dict[str, list[str]] = {}
    for _ in range(sum(map(len, left.values()))):
        strategy = max(left, key=lambda strategy: len(left[strategy]))
        placed.setdefault(left[strategy].pop(), []).append(strategy)
    return tuple(
        Result(entity_id, position, tuple(strategies))
        for position, (entity_id, strategies) in enumerate(placed.items(), start=1)
    )


def rank(candidates: Mapping[str, Sequence[str]], gains: Mapping[str, Sequence[float]]) -> tuple[Result, ...]:
    """Return the candidates of all strategies as one list, in descending order of expected gain.

    The expected gain of a candidate is the sum over the strategies that produced it; its result names all of them.

    Args:
        candidates: strategy -> candidates, best first.
        gains: strategy -> expected gain of a candidate at each rank.
    """
    expected: dict[str, float] = {}
    produced: dict[str, list[str]] = {}
    for strategy, found in candidates.items():
        for entity_id, gain in zip(found, gains[strategy], strict=False):
            expected[entity_id] = expected.get(entity_id, 0.0) + gain
            produced.setdefault(entity_id, []).append(strategy)
    order = sorted(expected, key=lambda entity_id: -expected[entity_id])
    return tuple(Result(entity_id, place, tuple(produced[entity_id])) for place, entity_id in enumerate(order, start=1))


class UniformServer:
    """Knows nothing: asks a random set of strategies for equal numbers of candidates, and rewrites no query.

    A policy that explores does the same. `memory` is not asked, because it is empty.
    """

    def __init__(self, retrieval: Retrieval, rng: Generator) -> None:
        self._retrieval = retrieval
        self._rng = rng

    def __call__(self, request: Request) -> Answer:
        query = request.query
        searching = [strategy for strategy in STRATEGIES if strategy != "memory"]
        asked = self._rng.choice(
            searching, self._rng.integers(1, len(searching), endpoint=True), replace=False
        ).tolist()
        # Dealt out like cards: equal numbers, with the remainder going to the first strategies.
        allocation = {strategy: len(range(number, SHOWN, len(asked))) for number, strategy in enumerate(asked)}
        results = blend(
            {
                strategy: self._retrieval.candidates(strategy, query.text, count, query.ts)
                for strategy, count in allocation.items()
            }
        )
        return Answer(results, allocation, {})


class LearnedServer:
    """Serves the learned policy: rewrites, allocates and recalls with the reader's newest policy.

    Until there is a policy, it serves like `UniformServer`.

    Attributes:
        rewrites: whether rewrites are served.
        logs_rewrites: whether impressions name the rewrite.
    """

    rewrites: ClassVar[bool] = True
    logs_rewrites: ClassVar[bool] = True

    def __init__(self, reader: PolicyReader, retrieval: Retrieval, rng: Generator) -> None:
        self._reader = reader
        self._retrieval = retrieval
        self._rng = rng
        self._unlearned = UniformServer(retrieval, rng)

    def __call__(self, request: Request) -> Answer:
        try:
            policy = self._reader.policy
        except NoPolicyError:
            return self._unlearned(request)
        query = request.query
        rewriting = policy.rewrite(query.text, session=query.session_id) if self.rewrites else None
        text = rewriting.target if rewriting else query.text
        context = context_of(query)
        decision = policy.allocate(context, SHOWN, self._rng)
        results = rank(
            {
                strategy: [recalled.entity_id for recalled in policy.recall(text, count)]
                if strategy == "memory"
                else self._retrieval.candidates(strategy, text, count, query.ts)
                for strategy, count in decision.allocation.items()
            },
            policy.gains(context),
        )
        return Answer(
            results,
            decision.allocation,
            decision.propensities,
            decision.policy_version,
            Rewrite(source=query.text, target=text) if rewriting and self.logs_rewrites else None,
            decision.allocation_propensity,
            decision.canary,
        )


class BestServer:
    """Cheats: knows each query's meaning and the probability that an entity is wanted; shows the likeliest first.

    No server without knowledge of the wanted entity itself can do better at getting it clicked.
    """

    def __init__(self, world: SearchWorld) -> None:
        self._world = world

    def __call__(self, request: Request) -> Answer:
        found = self._world.wanted(request.meaning, request.query.ts)[:SHOWN]
        results = tuple(Result(entity.entity_id, position) for position, (entity, _) in enumerate(found, start=1))
        return Answer(results, {}, {})

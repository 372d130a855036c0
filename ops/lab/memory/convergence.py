"""How fast Q2E scores approach the truth, in the simulated world.

Simulated people are served at random (`UniformServer`). At each checkpoint the scores of the entities shown are
compared with the true probabilities of a click when examined.
"""

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from msgspec import Struct

from backchannel.agents.columnar.interning import columns_of
from backchannel.agents.memory.learner import MemoryConfig, MemoryIndex
from backchannel.agents.memory.proposals import Entity, Predictor
from backchannel.agents.memory.serving import Memory
from backchannel.agents.outcomes.judge import Judge
from backchannel.agents.outcomes.rewards import RewardConfig
from backchannel.agents.serving import live_rows
from backchannel.agents.sums import Delta, MemorySums, Sums, merge
from backchannel.ops.lab.worlds.people import STRAY, SearchWorld
from backchannel.ops.lab.worlds.servers import Retrieval, UniformServer
from backchannel.schemas.events import Event
from backchannel.schemas.text import normalize
from backchannel.schemas.turn import Turn
from backchannel.streams.turns.assembler import TurnAssembler, TurnConfig

VARIANTS: Final = ("no position bias", "configured curve", "learned curve", "learned curve, predictions")


class Convergence(Struct, frozen=True):
    """The distance of one variant's scores from the truth after some turns.

    Attributes:
        variant: one of `VARIANTS`.
        turns: the number of turns learned from.
        error: mean absolute error of the score, with pairs weighted by how often they were shown.
        ranked: attractiveness of the entity ranked first for a query, as a share of that of the query's most attractive
            entity; the mean over queries weighted by how often they were asked.
    """

    variant: str
    turns: int
    error: float
    ranked: float


def converge(seed: int, checkpoints: Sequence[int], decay: float) -> Iterator[Convergence]:
    """Yield each variant's distance from the truth at each checkpoint.

    Args:
        seed: the seed of the world and the server.
        checkpoints: numbers of turns, ascending.
        decay: the decay of the configured curve; the world's is 0.8.
    """
    world = SearchWorld(seed, checkpoints[-1])
    turns = _turns(world, checkpoints[-1], seed)
    learned = MemoryIndex(MemoryConfig(position_decay=decay))
    flat = MemoryIndex(MemoryConfig(position_decay=0.0))
    totals: dict[str, Delta] = {variant: {} for variant in VARIANTS}
    before = 0
    for upto in checkpoints:
        outcomes = Judge(RewardConfig()).judge(columns_of(turns[before:upto]))
        before = upto
        for variant in VARIANTS:
            index = flat if variant == VARIANTS[0] else learned
            delta = index.learn(outcomes)
            if not variant.startswith("learned"):
                del delta[index.examination.table.name]
            totals[variant] = merge([totals[variant], delta])
            total = dict(totals[variant])
            if variant.endswith("predictions"):
                total |= {index.priors.name: _predictions(world, index, turns[:upto])}
            yield _measured(world, index, total, turns[:upto], variant)


def _turns(world: SearchWorld, number: int, seed: int) -> list[Turn]:
    server = UniformServer(Retrieval(world.catalogue), np.random.default_rng(seed))
    events: list[Event] = []
    asked = 0
    for person in world.people():
        visit = world.visit(person, server)
        asked += len(visit)
        events += [event for turn in visit for event in turn.events]
        if asked >= number:
            break
    events.sort(key=lambda event: event.ts)
    assembler = TurnAssembler(["log"], TurnConfig())
    assembler.add("log", range(len(events)), events)
    return (assembler.advance() + assembler.finish())[:number]


def _predictions(world: SearchWorld, index: MemoryIndex, turns: Sequence[Turn]) -> Sums:
    """Return the built-in predictor's scores for the whole catalogue, given the queries in `turns`."""
    asked: dict[str, float] = {}
    for turn in turns:
        text = normalize(turn.query.text)
        asked[text] = asked.get(text, 0.0) + 1.0
    entities = [
        Entity(one.entity_id, one.title, (), {"mood": one.mood, "style": one.style, "kind": (one.kind, f"{one.kind}s")})
        for one in world.catalogue
    ]
    proposals = {(query, entity): score for query, entity, score in Predictor(entities, asked).proposals()}
    return Sums(index.priors, list(proposals), np.array(list(proposals.values()))[:, np.newaxis])


def _measured(world: SearchWorld, index: MemoryIndex, total: Delta, turns: Sequence[Turn], variant: str) -> Convergence:
    now = turns[-1].query.ts
    shown: dict[str, dict[str, int]] = {}
    for turn in turns:
        of_query = shown.setdefault(normalize(turn.query.text), {})
        for impression in turn.impressions:
            for result in impression.results:
                of_query[result.entity_id] = of_query.get(result.entity_id, 0) + 1
    solved = index.solve(MemorySums(total), {index.table.name: shown.keys()}, now)
    memory = Memory(live_rows(solved), {}, now)
    errors, weights, ranked, asked = [], [], [], []
    for query, entities in shown.items():
        truth = world.attractiveness(query, now)
        recalled = memory.recall(query, 1000)
        scores = {one.entity_id: one.score for one in recalled}
        for entity, times in entities.items():
            errors.append(abs(scores.get(entity, 0.0) - truth.get(entity, STRAY)))
            weights.append(times)
        if truth:
            ranked.append(truth.get(recalled[0].entity_id, STRAY) / max(truth.values()) if recalled else 0.0)
            asked.append(sum(entities.values()))
    return Convergence(
        variant, len(turns), float(np.average(errors, weights=weights)), float(np.average(ranked, weights=asked))
    )

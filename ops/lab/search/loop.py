"""The closed loop: the server serves people a policy learned from earlier people, and learns from their clicks.

Learning takes the real path: events, turns, ledger, publisher, reader. A policy has learned only from turns that had
ended, in event time, when it was published. The first is published after 50 turns, each later one when the turns have
grown by a tenth, but by at least 50 and at most 500.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Final

import numpy as np
from msgspec import Meta, Struct, structs
from numpy.typing import NDArray

from backchannel.agents.bandit.features import Numeric
from backchannel.agents.bandit.learner import BanditConfig
from backchannel.agents.ranking.features import MEMORY_SCORE, RANK, SCORE
from backchannel.agents.ranking.learner import RankingConfig
from backchannel.ops.lab.search.clicked import most_clicked
from backchannel.ops.lab.search.harness import Allocations, Harness, Queries
from backchannel.ops.lab.search.people import ClickModel, People
from backchannel.ops.lab.search.server import FUSED, MEMORY, REMEMBERED, SearchServer, impression
from backchannel.ops.lab.search.union import unite
from backchannel.schemas.events import Click, Event, Query
from backchannel.streams.config import Config
from backchannel.streams.pipeline.local import LocalPipeline
from backchannel.streams.serving.reader import PolicyReader

START: Final = 1_767_225_600_000
"""Arrival of the first person: 2026-01-01 00:00 UTC, ms since the Unix epoch."""
GAP_MS: Final = 5_000
"""Time between two people, ms."""
RELEASES: Final = 8
"""Number of times at which new documents appear in a run, if any do."""
OFTEN: Final = 5
"""Number of turns from which a query counts as repeated."""


class Settings(Struct, frozen=True):
    """The settings of a run.

    Attributes:
        turns: the number of people, who ask one query each.
        budget: the budget of candidates.
        distinct: whether the budget is of distinct candidates; see `union`.
        model, zipf: the click model, and the Zipf exponent of queries; see `people`.
        memory: whether the memory index is a strategy.
        ranked: whether the policy orders the results, too.
        drift: whether the best and the worst strategy swap their results at half-time.
        new: the share of documents that appear only during the run, 0 to 1.
        checkpoints: numbers of turns at which the policy is measured, besides the end.
        seed: the seed of people and server.
    """

    turns: Annotated[int, Meta(ge=100)] = 8_000
    budget: int = 20
    distinct: bool = False
    model: ClickModel = "position"
    zipf: float = 0.8
    memory: bool = False
    ranked: bool = False
    drift: bool = False
    new: float = 0.0
    checkpoints: tuple[int, ...] = (500, 2_000, 8_000, 30_000)
    seed: int = 1


class Checkpoint(Struct, frozen=True):
    """The policy served after a number of turns.

    Attributes:
        turns: the number of turns so far.
        version: the version of the policy.
        allocations: its allocation for every held-out query, (queries, strategies).
        recall: the recall of every held-out query at the run's budget, (queries,).
    """

    turns: int
    version: int
    allocations: Allocations
    recall: NDArray[np.float64]


class Run(Struct, frozen=True):
    """The results of a run.

    Attributes:
        settings: the settings of the run.
        harness: the harness at the end, after drift and with all documents.
        fixed: the best fixed allocation of that harness, found on training queries.
        clicked: the fixed allocation of that harness that earns the most clicks of other people.
        checkpoints: the checkpoints, in order of turns.
        clicks: server -> clicks of each turn, (turns,): `learned` and, on the same people with the same luck, `even`,
            `fixed` and `clicked`.
        drawn, distinct: numbers of candidates drawn in each turn, and of distinct ones, (turns,).
        asked: query -> number of turns that asked it.
        repeated: queries asked at least OFTEN times.
        remembered: query -> the documents that the memory index recalls for it at the end; empty without memory index.
        ranked: the distinct unions of the final and of the best fixed allocations, in the policy's
            order: `learned` or `fixed` -> held-out query -> documents as indexes into the corpus. Empty
            unless the policy orders the results.
    """

    settings: Settings
    harness: Harness
    fixed: Allocations
    clicked: Allocations
    checkpoints: list[Checkpoint]
    clicks: dict[str, NDArray[np.int64]]
    drawn: NDArray[np.int64]
    distinct: NDArray[np.int64]
    asked: Counter[int]
    repeated: Queries
    repeated_allocations: Allocations
    remembered: dict[int, list[int]]
    ranked: dict[str, dict[int, list[int]]]


def configuration(harness: Harness, memory: bool = False, ranked: bool = False, **bandit: object) -> Config:
    """Return the default configuration, with the harness's strategies and features.

    Args:
        harness: the harness.
        memory: whether the memory index is a strategy.
        ranked: whether to learn an order of the results.
        bandit: further fields of `BanditConfig` to set.
    """
    strategies = (*harness.strategies, MEMORY) if memory else harness.strategies
    features = (*harness.bandit_features, Numeric(REMEMBERED, center=1.0)) if memory else harness.bandit_features
    ranking = ranking_of(strategies) if ranked else RankingConfig()
    return Config(bandit=structs.replace(BanditConfig(strategies, features), **bandit), ranking=ranking)


def ranking_of(strategies: Sequence[str]) -> RankingConfig:
    """Return the features to rank results by: place in the union, rank fusion, ranks, and the memory index's
    features.
    """
    own = [Numeric(f"{RANK}{name}", scale=0.25) for name in strategies]
    if MEMORY in strategies:
        own.append(Numeric(MEMORY_SCORE, scale=0.25))
    return RankingConfig(features=(Numeric(SCORE), Numeric(FUSED), *own), normalized=(SCORE, FUSED))


def run(
    harness: Harness,
    settings: Settings,
    config: Config | None = None,
    progress: Callable[[int, float], None] = lambda _turns, _clicks: None,
) -> Run:
    """Run the loop.

    Args:
        harness: queries, judgements and results of the strategies.
        settings: the settings of the run.
        config: the configuration of the learners; by default that of `configuration`.
        progress: called every 100 turns with the number of turns and the clicks per turn so far.
    """
    with TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/loop.db"
        with (
            LocalPipeline(url, config or configuration(harness, settings.memory, settings.ranked), "search") as driver,
            closing(PolicyReader(url)) as reader,
        ):
            return _Loop(harness, settings, driver, reader).run(progress)


class _Loop:
    def __init__(self, harness: Harness, settings: Settings, driver: LocalPipeline, reader: PolicyReader) -> None:
        self.settings = settings
        self.driver = driver
        self.reader = reader
        self.stages = _stages(harness, settings)
        self.harness = self.stages[0][1]
        people_seed, server_seed, others_seed = np.random.SeedSequence(settings.seed).generate_state(3).tolist()
        self.people = People(harness, people_seed, settings.model, settings.zipf)
        self.others = People(harness, others_seed, settings.model, settings.zipf)
        strategies = (*harness.strategies, MEMORY) if settings.memory else harness.strategies
        self.strategies = strategies
        self.doc_ids = [document.doc_id for document in harness.corpus.documents]
        self.server = SearchServer(
            reader,
            strategies,
            self.doc_ids,
            settings.budget,
            np.random.default_rng(server_seed),
            distinct=settings.distinct,
            ranked=settings.ranked,
        )
        self.distinct = settings.budget if settings.distinct else None

    def run(self, progress: Callable[[int, float], None]) -> Run:
        settings = self.settings
        clicks = {name: np.zeros(settings.turns, np.int64) for name in ("learned", "even", "fixed", "clicked")}
        drawn, distinct = np.zeros((2, settings.turns), np.int64)
        asked: Counter[int] = Counter()
        checkpoints: list[Checkpoint] = []
        events: list[Event] = []
        stages, due, total = list(self.stages), 50, 0
        baselines: dict[str, Allocations] = {}
        orders: dict[tuple[str, int], list[int]] = {}
        lists: dict[int, dict[str, list[int]]] = {}
        for turn, visit in zip(range(settings.turns), self.people.visits(), strict=False):
            if stages and turn >= stages[0][0]:
                self.harness = stages.pop(0)[1]
                baselines = self._baselines(baselines)
                orders, lists = {}, {}
            query = visit.query
            if query not in lists:
                own = self.harness.lists_of(query)
                lists[query] = {name: found[: settings.budget] for name, found in own.items()}
            asked[query] += 1
            at = START + turn * GAP_MS
            text = self.harness.corpus.queries[query].text
            page = self.server.serve(text, self.harness.context(query), lists[query])
            clicked = self.people.clicks(visit, page.shown)
            drawn[turn], distinct[turn] = page.union.drawn, len(page.shown)
            clicks["learned"][turn] = len(clicked)
            for name, allocation in baselines.items():
                if (name, query) not in orders:
                    orders[name, query] = self.harness.order(query, allocation, self.distinct)
                clicks[name][turn] = len(self.people.clicks(visit, orders[name, query]))
            ids: dict[str, Any] = {"session_id": f"s{turn}", "query_id": f"s{turn}-0"}
            asking = Query(event_id=f"s{turn}-q", ts=at, text=text, context=dict(page.context), **ids)
            events += [asking, impression(asking, page, self.doc_ids, at + 200, distinct=self.distinct)]
            events += [
                Click(event_id=f"s{turn}-c{place}", ts=at + 500 + 100 * number, entity_id=self.doc_ids[place], **ids)
                for number, place in enumerate(clicked)
            ]
            total += len(clicked)
            done = turn + 1
            if done % 100 == 0:
                progress(done, total / done)
            if done >= due or done in settings.checkpoints or done == settings.turns:
                due = done + min(max(done // 10, 50), 500)
                self._learn(events)
                events = []
            if done in settings.checkpoints or done == settings.turns:
                checkpoints.append(self._measure(done))
        repeated = np.array(sorted(query for query, count in asked.items() if count >= OFTEN), dtype=np.intp)
        remembered = {}
        if settings.memory:
            for query in [*self.harness.held_out.tolist(), *repeated.tolist()]:
                remembered[query] = self._remembered(query)
        return Run(
            settings,
            self.harness,
            baselines["fixed"],
            baselines["clicked"],
            checkpoints,
            clicks,
            drawn,
            distinct,
            asked,
            repeated,
            self._allocations(repeated),
            remembered,
            self._ranked(checkpoints[-1]) if settings.ranked else {},
        )

    def _baselines(self, before: Mapping[str, Allocations]) -> dict[str, Allocations]:
        """Return the fixed allocations that serve the same people, given those of the stage before."""
        even = self.harness.even(self.settings.budget)
        fixed = self.harness.best_fixed(self.settings.budget, self.distinct)
        starts = [before["clicked"]] if before else [fixed, even]
        clicked = most_clicked(self.harness, self.others, starts, self.distinct, self.settings.turns)
        return {"even": even, "fixed": fixed, "clicked": clicked}

    def _learn(self, events: Sequence[Event]) -> None:
        self.driver.feed(events)
        self.driver.commit()
        self.driver.publish()
        self.reader.refresh()

    def _measure(self, turns: int) -> Checkpoint:
        queries = self.harness.held_out
        allocations = self._allocations(queries)
        known = allocations[:, : len(self.harness.strategies)]
        recall = self.harness.recall_at(known, queries, self.distinct)
        return Checkpoint(turns, self.reader.policy.version, allocations, recall)

    def _ranked(self, last: Checkpoint) -> dict[str, dict[int, list[int]]]:
        """Return the distinct unions of the last checkpoint and of the best fixed allocation, in the policy's order."""
        policy, rng = self.reader.policy, np.random.default_rng([self.settings.seed, 41])
        budget, queries = self.settings.budget, self.harness.held_out
        fixed = np.tile(self.harness.best_fixed(budget, budget), (len(queries), 1))
        found: dict[str, dict[int, list[int]]] = {"learned": {}, "fixed": {}}
        for name, allocations in (("learned", last.allocations), ("fixed", fixed)):
            for query, allocation in zip(queries.tolist(), allocations.tolist(), strict=True):
                asked = {strategy: count for strategy, count in zip(self.strategies, allocation, strict=False) if count}
                union = unite(self.harness.lists_of(query), asked, budget)
                text = self.harness.corpus.queries[query].text
                ranking = self.server.rank(policy, union, text, self._context(query), rng)
                found[name][query] = self.server.places(ranking)
        return found

    def _remembered(self, query: int) -> list[int]:
        found = self.server.memory.find(self.harness.corpus.queries[query].text, self.settings.budget)
        places: list[int] = found.places.tolist()
        return places

    def _context(self, query: int) -> dict[str, float]:
        context = self.harness.context(query)
        if self.settings.memory:
            context[REMEMBERED] = float(np.log1p(len(self._remembered(query))))
        return context

    def _allocations(self, queries: Queries) -> Allocations:
        """Return the policy's allocation for each query as served, including floor and exploration."""
        policy = self.reader.policy
        rng = np.random.default_rng([self.settings.seed, 31])
        rows = np.zeros((len(queries), len(self.strategies)), np.int64)
        for row, query in enumerate(queries.tolist()):
            context = self._context(query)
            decision = policy.allocate(context, self.settings.budget, rng, distinct=self.settings.distinct)
            allocation = decision.allocation
            rows[row] = [allocation.get(name, 0) for name in self.strategies]
        return rows


def _stages(harness: Harness, settings: Settings) -> list[tuple[int, Harness]]:
    """Return the harnesses of the run's stages, each with its first turn."""
    stages = [(0, harness)]
    if settings.new > 0:
        rng = np.random.default_rng([settings.seed, 37])
        late = rng.random(len(harness.corpus.documents)) < settings.new
        when = rng.integers(1, RELEASES, len(late), endpoint=True) * late
        stages = [
            (settings.turns * stage // (RELEASES + 1), harness.without(when > stage)) for stage in range(RELEASES + 1)
        ]
    if settings.drift:
        worth = {
            name: float(harness.recall_at(harness.alone(name, settings.budget), harness.train).mean())
            for name in harness.strategies
        }
        best, worst = max(worth, key=lambda name: worth[name]), min(worth, key=lambda name: worth[name])
        half = settings.turns // 2
        kept = [stage for stage in stages if stage[0] < half]
        stages = [*kept, (half, kept[-1][1]), *(stage for stage in stages if stage[0] > half)]
        stages = [(turn, stage if turn < half else stage.swapped(best, worst)) for turn, stage in stages]
    return stages

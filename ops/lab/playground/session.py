"""The playground's state: people search, click and rephrase, and what is learned changes the next results.

Everything takes the real path, with a store in memory or on disk: events, turns, ledger, publisher, reader. A person's
session is learned from when the next person comes.
"""

import threading
import time
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from msgspec import Struct, structs

from backchannel.agents.bandit.features import Numeric
from backchannel.agents.bandit.learner import BanditConfig
from backchannel.agents.ranking.serving import Reason
from backchannel.agents.rewrites.serving import Rewriting
from backchannel.ops.lab.search.build import Engine
from backchannel.ops.lab.search.corpus import Corpus
from backchannel.ops.lab.search.loop import ranking_of
from backchannel.ops.lab.search.people import ETAS, attraction
from backchannel.ops.lab.search.query_features import numeric_features
from backchannel.ops.lab.search.server import MEMORY, REMEMBERED, Page, SearchServer, impression
from backchannel.schemas.events import Click, Event, Query, Rewrite
from backchannel.streams.config import Config
from backchannel.streams.pipeline.local import LocalPipeline
from backchannel.streams.serving.policy import Policy
from backchannel.streams.serving.reader import NoPolicyError, PolicyReader

BUDGET: Final = 12
SAMPLE: Final = 40
"""Maximum number of the corpus's queries that simulated people ask, and that features are scaled on."""
EXAMPLES: Final = 8

_THINKING_MS: Final = 6_000  # between a person's answer and their next query
_GAP_MS: Final = 60_000  # between two people


class Shown(Struct, frozen=True):
    """A result, explained.

    Attributes:
        doc_id, title, body, brand: fields of the document.
        ranks: strategy -> rank in its list.
        remembered: its Q2E score for the query, 0 to 1; None if it is not in the memory index.
        score: its expected gain relative to the average candidate; None before the first policy.
        reasons: the contributions to the score, largest first.
        moved: number of places that it was moved up from its place in the union; negative if it was moved down.
    """

    doc_id: str
    title: str
    body: str
    brand: str
    ranks: dict[str, int]
    remembered: float | None
    score: float | None
    reasons: list[Reason]
    moved: int


class Asked(Struct, frozen=True):
    """The candidates taken from a strategy, and the reason.

    Attributes:
        candidates: number of candidates that its list was walked for.
        found: number of candidates that it has for the query.
        reward, deviation: its expected reward on this query, and the standard deviation; None before the first policy.
    """

    strategy: str
    candidates: int
    found: int
    reward: float | None
    deviation: float | None


class Answer(Struct, frozen=True):
    """The answer to one query.

    Attributes:
        query_id: the query's id, for clicks.
        text, served: the query as typed, and as searched for.
        rewriting: the rewrite; None if the query was left as it is.
        version: version of the policy; None before the first.
        order: a summary of the order of results.
        understood: the parts of the query that are field values, as role and words.
        milliseconds: duration of the search.
    """

    query_id: str
    text: str
    served: str
    rewriting: Rewriting | None
    version: int | None
    order: str
    understood: list[tuple[str, str]]
    asked: list[Asked]
    results: list[Shown]
    milliseconds: float


class Learned(Struct, frozen=True):
    """A summary of what was learned so far.

    Attributes:
        person: number of the current person.
        version: version of the policy; None before the first.
        turns, clicks: numbers of turns and clicks so far.
        remembered: number of queries in the memory index.
        rewrites: the served rewrites, as source and target.
    """

    person: int
    version: int | None
    turns: int
    clicks: int
    remembered: int
    rewrites: list[tuple[str, str]]


class About(Struct, frozen=True):
    """The catalogue on the playground."""

    corpus: str
    origin: str
    documents: int
    strategies: list[str]
    examples: list[str]


class Playground:
    """A catalogue to search, and a learner that learns from it. Thread-safe.

    Args:
        corpus: the catalogue; its queries serve as examples and for simulated people.
        engine: the generators over it.
        url: SQLAlchemy URL of an empty store.
        seed: the seed of all randomness.
    """

    def __init__(self, corpus: Corpus, engine: Engine, url: str, seed: int = 1) -> None:
        self._corpus: Final = corpus
        self._engine: Final = engine
        self._rng: Final = np.random.default_rng(seed)
        picked = self._rng.permutation(len(corpus.queries))[:SAMPLE].tolist()
        self._sample: Final = [corpus.queries[place] for place in picked]
        self._strategies: Final = (*engine.generators, MEMORY)
        self._doc_ids: Final = [document.doc_id for document in corpus.documents]
        self._pipeline: Final = LocalPipeline(url, self._config(), "playground")
        self._reader: Final = PolicyReader(self._pipeline.store)
        self._server: Final = SearchServer(
            self._reader, self._strategies, self._doc_ids, BUDGET, self._rng, distinct=True, ranked=True, explained=True
        )
        self._lock: Final = threading.RLock()
        self._events: list[Event] = []
        self._now = time.time_ns() // 1_000_000
        self._person = 1
        self._count = {"turn": 0, "click": 0}
        self._open: dict[str, list[str]] = {}  # query_id of this person -> the documents shown

    def about(self) -> About:
        """Describe the catalogue."""
        examples = [query.text for query in self._sample[:EXAMPLES]]
        return About(self._corpus.name, self._corpus.origin, len(self._doc_ids), list(self._strategies), examples)

    def search(self, text: str, *, rewrite: bool = True) -> Answer:
        """Answer a query of the current person.

        Args:
            text: the query as typed.
            rewrite: whether to apply a learned rewrite.
        """
        with self._lock:
            return self._search(text, rewrite=rewrite)

    def click(self, query_id: str, doc_id: str) -> None:
        """Record a click of the current person.

        Raises:
            KeyError: the document was not shown for this query of the current person.
        """
        with self._lock:
            if doc_id not in self._open[query_id]:
                raise KeyError(doc_id)
            self._now += 500
            self._count["click"] += 1
            ids: dict[str, Any] = {"session_id": self._session, "query_id": query_id}
            self._events.append(Click(event_id=f"{query_id}-{doc_id}", ts=self._now, entity_id=doc_id, **ids))

    def next_person(self) -> Learned:
        """Learn from the current person's session, and begin the next person's."""
        with self._lock:
            self._leave()
            self._learn()
            return self.learned()

    def simulate(self, people: int) -> Learned:
        """Simulate people who ask the corpus's queries and click according to its judgements."""
        with self._lock:
            self._leave()
            for _ in range(people if self._sample else 0):
                query = self._sample[int(self._rng.zipf(1.6)) % len(self._sample)]
                answer = self._search(query.text, rewrite=True)
                eta = float(self._rng.choice(ETAS))
                for position, one in enumerate(answer.results, start=1):
                    attracts = attraction(query.grades.get(one.doc_id, 0.0), self._corpus.top_grade)
                    if self._rng.random() < attracts * position**-eta:
                        self.click(answer.query_id, one.doc_id)
                self._leave()
            self._learn()
            return self.learned()

    def learned(self) -> Learned:
        """Return a summary of what was learned so far."""
        with self._lock:
            policy = self._policy()
            rewrites = policy.rewrites() if policy else {}
            served = [(source, one.target) for source, one in rewrites.items() if not one.withdrawn]
            return Learned(
                self._person,
                policy.version if policy else None,
                self._count["turn"],
                self._count["click"],
                policy.remembered if policy else 0,
                sorted(served)[:50],
            )

    def close(self) -> None:
        """Close the store."""
        self._reader.close()
        self._pipeline.close()

    @property
    def _session(self) -> str:
        return f"p{self._person}"

    def _config(self) -> Config:
        rows = [self._engine.features(one.text, self._engine.find(one.text, BUDGET)) for one in self._sample]
        features: Sequence[Numeric] = ()
        if rows:
            features = numeric_features(list(rows[0]), np.array([list(row.values()) for row in rows]))
        bandit = BanditConfig(self._strategies, (*features, Numeric(REMEMBERED, center=1.0)))
        return Config(bandit=bandit, ranking=ranking_of(self._strategies))

    def _policy(self) -> Policy | None:
        try:
            return self._reader.policy
        except NoPolicyError:
            return None

    def _search(self, text: str, *, rewrite: bool) -> Answer:
        began = time.perf_counter()
        policy = self._policy()
        rewriting = policy.rewrite(text) if policy and rewrite else None
        served = rewriting.target if rewriting else text
        found = self._engine.find(served, BUDGET)
        features = self._engine.features(served, found)
        lists = {name: one.places.tolist() for name, one in found.items()}
        page = self._server.serve(served, features, lists)
        milliseconds = 1000 * (time.perf_counter() - began)

        self._now += _THINKING_MS
        self._count["turn"] += 1
        query_id = f"{self._session}-{len(self._open)}"
        ids: dict[str, Any] = {"session_id": self._session, "query_id": query_id}
        query = Query(event_id=f"{query_id}-q", ts=self._now, text=text, context=dict(page.context), **ids)
        logged = impression(query, page, self._doc_ids, self._now + 200, distinct=BUDGET)
        if rewriting:
            logged = structs.replace(logged, rewrite=Rewrite(source=text, target=served))
        self._events += [query, logged]
        self._now += 200
        self._open[query_id] = [result.entity_id for result in logged.results]

        scores = {one.entity_id: one.score for one in policy.recall(served, BUDGET)} if policy else {}
        utilities = policy.utilities(page.context) if policy else {}
        totals = {name: one.total for name, one in found.items()} | {MEMORY: len(scores)}
        return Answer(
            query_id,
            text,
            served,
            rewriting,
            page.policy_version,
            str(policy.ranking().summary()) if policy else "",
            [(one.role, one.words) for one in self._engine.understanding.take_apart(served).constraints],
            [
                Asked(
                    name,
                    min(page.union.depth.get(name, 0), totals[name]),
                    totals[name],
                    *utilities.get(name, (None, None)),
                )
                for name in self._strategies
            ],
            self._shown(page, scores),
            milliseconds,
        )

    def _shown(self, page: Page, remembered: dict[str, float]) -> list[Shown]:
        """Return the results of a page, explained."""
        before = {one.item: (place, one.ranks) for place, one in enumerate(page.union.candidates)}
        ranked = {one.entity_id: one for one in page.ranking.results} if page.ranking else {}
        shown = []
        for place, item in enumerate(page.shown):
            document, (was, ranks) = self._corpus.documents[item], before[item]
            doc_id, own = document.doc_id, ranked.get(document.doc_id)
            shown.append(
                Shown(
                    doc_id,
                    document.title,
                    document.body[:240],
                    document.brand,
                    dict(ranks),
                    remembered.get(doc_id),
                    own.score if own else None,
                    list(own.reasons) if own else [],
                    was - place,
                )
            )
        return shown

    def _leave(self) -> None:
        if self._open:
            self._person += 1
            self._open = {}
            self._now += _GAP_MS

    def _learn(self) -> None:
        self._pipeline.feed(self._events)
        self._events = []
        self._pipeline.finish()
        self._pipeline.commit()
        self._pipeline.publish()
        self._reader.refresh()

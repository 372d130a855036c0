"""How well learned scores rank results by relevance, on a TREC Session Track log with graded judgements.

Cross-validated by session: a session's results are ranked by scores learned from the other folds; results without a
score follow in the order shown. A query is identified by its text, as in serving, or by its topic, as if all wordings
of a need were one query, because few texts occur in two sessions.
"""

import gzip
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Final, Literal, TypeAlias
from xml.etree import ElementTree

import numpy as np
from msgspec import Struct, structs
from numpy.random import Generator
from numpy.typing import NDArray

from backchannel.agents.columnar.frames import MISSING
from backchannel.agents.columnar.interning import columns_of
from backchannel.agents.memory.learner import MemoryConfig, MemoryIndex
from backchannel.agents.memory.serving import Memory
from backchannel.agents.memory.similar import SimilarQueries
from backchannel.agents.outcomes.judge import Judge
from backchannel.agents.outcomes.outcomes import Outcomes
from backchannel.agents.outcomes.rewards import RewardConfig
from backchannel.agents.serving import live_rows
from backchannel.agents.sums import Delta, MemorySums, merge
from backchannel.ops.lab.convert import trec_session
from backchannel.schemas.snapshot import Estimate
from backchannel.schemas.turn import Turn
from backchannel.streams.turns.assembler import TurnAssembler, TurnConfig

KnownBy: TypeAlias = Literal["text", "topic"]
Scores: TypeAlias = Mapping[str, float]
Ranker: TypeAlias = Callable[[str], Scores]
"""A function from a query's key to the scores of its known entities."""

DEPTH: Final = 10
RESAMPLES: Final = 2000
GUESSING_FROM: Final = (0.6, 0.9)
"""Minimum similarities tried for guessing that an unseen query is a known one."""
_CONFIG: Final = MemoryConfig(half_life_days=100_000.0, top=1000)  # the log has no dates
_TURNS: Final = TurnConfig(window_s=3600.0)


class Judged(Struct, frozen=True):
    """A log with its judgements.

    Attributes:
        turns: the log's turns.
        topics: session id -> topic.
        grades: topic -> document -> grade, negative for spam.
    """

    turns: list[Turn]
    topics: dict[str, str]
    grades: dict[str, dict[str, int]]


class RankingQuality(Struct, frozen=True):
    """The quality of one ranking.

    Attributes:
        ranking: the ranking's name.
        ndcg: nDCG@10 of the impressions with a relevant document.
        auc: probability that a relevant document is ranked above an irrelevant judged one, where both are shown.
        ndcg_gain: nDCG@10 less that of the order shown, paired by impression.
        auc_gain: AUC less that of the order shown, paired by impression.
    """

    ranking: str
    ndcg: Estimate
    auc: Estimate
    ndcg_gain: Estimate
    auc_gain: Estimate


class Relevance(Struct, frozen=True):
    """The quality of all rankings.

    Attributes:
        known_by: how queries are identified.
        sessions: number of sessions with a ranked impression.
        impressions: number of ranked impressions, those with a relevant document.
        informed: share of them in which a shown document was clicked in another session, 0 to 1.
        examined: examination probabilities learned from the whole log, of positions 1 to 10.
        everywhere: quality on all ranked impressions.
        where_informed: quality on the informed impressions.
    """

    known_by: KnownBy
    sessions: int
    impressions: int
    informed: float
    examined: list[float]
    everywhere: list[RankingQuality]
    where_informed: list[RankingQuality]


def read(log: Path, judgements: Path) -> Judged:
    """Read sessiontrack2013.xml and qrels.txt, plain or gzipped.

    Raises:
        ConversionError: the log is not a Session Track log.
        ValueError: the judgements are not in the format of qrels.txt.
    """
    content = _content(log)
    events = list(trec_session.events(BytesIO(content), 0))
    assembler = TurnAssembler(["log"], _TURNS)
    assembler.add("log", range(len(events)), events)
    turns = assembler.advance() + assembler.finish()
    root = ElementTree.fromstring(content)  # noqa: S314 - the user's own file
    topics = {
        f"{root.tag}/{session.get('num')}": topic.get("num", "")
        for session in root.iter("session")
        for topic in session.iter("topic")
    }
    grades: dict[str, dict[str, int]] = {}
    for number, line in enumerate(_content(judgements).decode().splitlines(), start=1):
        try:
            topic, _, document, grade = line.split()
            grades.setdefault(topic, {})[document] = int(grade)
        except ValueError:
            raise ValueError(
                f"{judgements}:{number}: {line!r} is not 'topic 0 document grade': use the published qrels.txt"
            ) from None
    return Judged(turns, topics, grades)


def _content(path: Path) -> bytes:
    content = path.read_bytes()
    return gzip.decompress(content) if path.suffix == ".gz" else content


def evaluate(judged: Judged, known_by: KnownBy, folds: int, rng: Generator) -> Relevance:
    """Rank the results of each session by scores learned from the other folds.

    Args:
        judged: the log with its judgements.
        known_by: how queries are identified.
        folds: the number of folds of sessions.
        rng: the random generator, which draws folds and resamples.
    """
    topics = judged.topics if known_by == "topic" else None
    sessions = list(dict.fromkeys(turn.query.session_id for turn in judged.turns))
    fold = dict(zip(sessions, rng.permutation(len(sessions)) % folds, strict=True))
    parts = [[turn for turn in judged.turns if fold[turn.query.session_id] == number] for number in range(folds)]
    lines: list[tuple[str, bool, list[tuple[float, float]]]] = []
    rankings: list[str] = []
    for number, held_out in enumerate(parts):
        learned_from = [turn for other, part in enumerate(parts) if other != number for turn in part]
        rankers = _rankers(_outcomes(learned_from, topics))
        rankings = list(rankers)
        tested = _outcomes(held_out, topics)
        for turn, query in zip(held_out, tested.query.tolist(), strict=True):
            session = turn.query.session_id
            grades = judged.grades.get(judged.topics[session], {})
            for impression in turn.impressions:
                shown = [result.entity_id for result in impression.results][:DEPTH]
                if not any(grades.get(entity, 0) > 0 for entity in shown):
                    continue
                known = [ranker(tested.keys[query]) for ranker in rankers.values()]
                measured = [_measures(_ranked(shown, scores), grades) for scores in known]
                lines.append((session, any(entity in known[-1] for entity in shown), measured))
    informed = np.array([line[1] for line in lines])
    values = np.array([line[2] for line in lines])
    owners = np.unique([line[0] for line in lines], return_inverse=True)[1]
    whole = MemoryIndex(_CONFIG)
    curve = whole.examination.curve(MemorySums(whole.learn(_outcomes(judged.turns, topics))))
    return Relevance(
        known_by,
        int(owners.max()) + 1,
        len(lines),
        float(informed.mean()),
        curve.examined[:DEPTH].round(3).tolist(),
        _results(rankings, values, owners, rng),
        _results(rankings, values[informed], owners[informed], rng),
    )


def _outcomes(turns: Sequence[Turn], topics: Mapping[str, str] | None) -> Outcomes:
    """Judge turns; with the topics of sessions, queries are known by these."""
    outcomes = Judge(RewardConfig()).judge(columns_of(turns))
    if topics is None:
        return outcomes
    names = [f"topic {topics[turn.query.session_id]}" for turn in turns]
    keys, codes = np.unique(names, return_inverse=True)
    unknown = np.full(len(turns), MISSING, dtype=np.int64)
    return structs.replace(
        outcomes, keys=keys.tolist(), query=codes, state=unknown, following=unknown, rewritten=unknown
    )


def _rankers(learned_from: Outcomes) -> dict[str, Ranker]:
    """Return the rankers by name; the last one is Backchannel's default, with a learned examination curve."""
    clicks: dict[str, dict[str, float]] = {}
    clicked, entities = learned_from.columns.turns.clicks, learned_from.columns.pools.entities
    for turn, entity in zip(clicked.parents.tolist(), clicked.rows.entity.tolist(), strict=True):
        of_query = clicks.setdefault(learned_from.keys[learned_from.query[turn]], {})
        of_query[entities[entity]] = of_query.get(entities[entity], 0.0) + 1.0
    return {
        "order shown": lambda _: {},
        "number of clicks": lambda query: clicks.get(query, {}),
        "Q2E, no click taken back": _memory(_untaken(learned_from), _CONFIG, learn_curve=True),
        "Q2E, no position bias": _memory(learned_from, structs.replace(_CONFIG, position_decay=0.0), learn_curve=False),
        "Q2E, configured curve": _memory(learned_from, _CONFIG, learn_curve=False),
        **{
            f"Q2E, guessing from {least:.0%}": _memory(learned_from, _CONFIG, learn_curve=True, guess_from=least)
            for least in GUESSING_FROM
        },
        "Q2E, learned curve": _memory(learned_from, _CONFIG, learn_curve=True),
    }


def _untaken(outcomes: Outcomes) -> Outcomes:
    """Return the outcomes with the full gain for every click, as if no rephrase or barge-in reduced it."""
    gains = outcomes.gains
    return structs.replace(outcomes, gains=structs.replace(gains, gains=np.ones(len(gains.gains))))


def _memory(
    learned_from: Outcomes, config: MemoryConfig, *, learn_curve: bool, guess_from: float | None = None
) -> Ranker:
    index = MemoryIndex(config)
    delta: Delta = merge([index.learn(learned_from)])
    if not learn_curve:
        del delta[index.examination.table.name]
    at = int(learned_from.times.max())
    changed = {index.table.name: {query for query, *_ in delta[index.table.name].keys}}
    section = live_rows(index.solve(MemorySums(delta), changed, at))
    similar = SimilarQueries(guess_from).updated(section, section) if guess_from else None
    memory = Memory(section, {}, at, similar)
    # The score breaks ties between bounds, such as bounds of 0.
    return lambda query: {one.entity_id: one.lower + 1e-6 * one.score for one in memory.recall(query, config.top)}


def _ranked(shown: Sequence[str], scores: Scores) -> list[str]:
    return sorted(shown, key=lambda entity: -scores.get(entity, 0.0))


def _measures(ranked: Sequence[str], grades: Mapping[str, int]) -> tuple[float, float]:
    """Return nDCG and AUC; AUC is NaN where it is undefined."""
    gains = np.array([2.0 ** max(grades.get(entity, 0), 0) - 1 for entity in ranked])
    discounts = 1 / np.log2(np.arange(2, len(ranked) + 2))
    ndcg = float(gains @ discounts / (np.sort(gains)[::-1] @ discounts))
    relevant = np.array([grades[entity] > 0 for entity in ranked if entity in grades])
    pairs = relevant.sum() * (~relevant).sum()
    above = (np.cumsum(relevant) * ~relevant).sum()
    return ndcg, float(above / pairs) if pairs else np.nan


def _results(
    rankings: Sequence[str], values: NDArray[np.float64], owners: NDArray[np.intp], rng: Generator
) -> list[RankingQuality]:
    """Return each ranking's means, with intervals from sessions drawn with replacement.

    Args:
        rankings: the rankings' names; the first is the baseline.
        values: nDCG and AUC, (impressions, rankings, 2).
        owners: the session number of each impression, (impressions,).
        rng: the random generator.
    """
    if not len(values):
        return []
    sessions = int(owners.max()) + 1
    drawn = rng.multinomial(sessions, np.full(sessions, 1 / sessions), size=RESAMPLES)
    weights = np.vstack([np.ones(sessions), drawn])[:, owners]  # the first row is the sample itself

    def interval(measured: NDArray[np.float64]) -> Estimate:
        there = ~np.isnan(measured)
        totals = weights[:, there].sum(axis=1)
        means = (weights[:, there] @ measured[there])[totals > 0] / totals[totals > 0]
        low, high = np.percentile(means[1:], [2.5, 97.5])
        return Estimate(float(means[0]), float(low), float(high))

    gains = values - values[:, :1]
    return [
        RankingQuality(
            name,
            interval(values[:, number, 0]),
            interval(values[:, number, 1]),
            interval(gains[:, number, 0]),
            interval(gains[:, number, 1]),
        )
        for number, name in enumerate(rankings)
    ]

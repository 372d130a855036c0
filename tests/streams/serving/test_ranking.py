"""Ranking through the whole pipeline: served, logged, learned and published again."""

from contextlib import closing
from pathlib import Path

import numpy as np
from msgspec import structs

from backchannel.agents.bandit.features import Numeric
from backchannel.agents.ranking.learner import EXAMINED, RankingConfig, ResultRanking
from backchannel.agents.ranking.serving import Candidate
from backchannel.agents.ranking.sums import Lists, sums_of
from backchannel.schemas.events import Click, Event, Query
from backchannel.schemas.turn import Turn
from backchannel.streams.config import Config
from backchannel.streams.pipeline.local import LocalPipeline
from backchannel.streams.serving.impressions import impression_of
from backchannel.streams.serving.reader import PolicyReader
from tests.support.turns import judged

CONFIG = Config(
    ranking=RankingConfig(
        features=(Numeric("score"), Numeric("fresh"), Numeric("rank.lexical"), Numeric("memory.score")),
        normalized=("score",),
    )
)
START = 1_767_225_600_000  # 2026-01-01
CANDIDATES = [
    Candidate("stale", {"score": 2.0, "fresh": 0.0}, {"lexical": 1}),
    Candidate("middling", {"score": 1.5, "fresh": 0.5}, {"lexical": 2}),
    Candidate("fresh", {"score": 1.0, "fresh": 1.0}, {"lexical": 3, "new": 1}),
]


def test_what_is_ranked_is_logged_learned_from_and_ranked_anew(tmp_path: Path) -> None:
    url, rng = f"sqlite:///{tmp_path / 'store.db'}", np.random.default_rng(0)
    with LocalPipeline(url, CONFIG, "log") as pipeline:
        pipeline.publish()
        with closing(PolicyReader(url)) as reader:
            before = reader.policy.rank({}, CANDIDATES, 3, query="news")
            assert [one.entity_id for one in before.results] == ["stale", "middling", "fresh"]
            assert not before.learned
            events: list[Event] = []
            for number in range(400):
                asked = Query(
                    event_id=f"q{number}",
                    ts=START + number * 200_000,
                    session_id=f"s{number}",
                    query_id=f"q{number}",
                    text=f"news {number % 20}",
                )
                ranking = reader.policy.rank({}, CANDIDATES, 3, query=asked.text, rng=rng)
                shown = impression_of(asked, ranking, ts=asked.ts)
                events += [asked, shown]
                if rng.random() < 0.7:
                    events.append(
                        Click(
                            event_id=f"c{number}",
                            ts=asked.ts + 1,
                            session_id=asked.session_id,
                            query_id=asked.query_id,
                            entity_id="fresh",
                        )
                    )
            pipeline.feed(events)
            pipeline.finish()
            pipeline.commit()
            assert pipeline.publish() is not None
            reader.refresh()
            rankings = [reader.policy.rank({}, CANDIDATES, 3, query="news 1", rng=rng) for _ in range(100)]
    assert all(after.learned and after.policy_version == 2 for after in rankings)
    # Also by draws, though the memory index's scores, which it has only now, may mean anything.
    firsts = [after.results[0] for after in rankings]
    assert [one.entity_id for one in firsts].count("fresh") > 75
    assert {one.features["memory.score"] for one in firsts if one.entity_id != "fresh"} <= {0.0}
    assert 0.0 not in {one.features["memory.score"] for one in firsts if one.entity_id == "fresh"}
    assert shown.results[0].ranks == {"lexical": 1}
    assert shown.results[0].features == {"score": 2.0, "fresh": 0.0, "memory.score": 0.0, "memory.evidence": 0.0}


def test_what_the_policy_supplies_is_logged_and_learned_from_as_it_was_ranked_by(tmp_path: Path) -> None:
    """The memory index's score and evidence, and ranks in strategies' lists, also of candidates that are not shown."""
    ranking = RankingConfig(
        features=(Numeric("score"), *map(Numeric, ("memory.score", "memory.evidence", "rank.lexical", "rank.new"))),
        normalized=("score", "memory.evidence"),
        prior={"memory.score": 1.0},
    )
    config, url = Config(ranking=ranking), f"sqlite:///{tmp_path / 'store.db'}"
    asked = Query(event_id="q", ts=0, session_id="s", query_id="q", text="news")
    clicked = Click(event_id="c", ts=1, session_id="s", query_id="q", entity_id="fresh")
    with LocalPipeline(url, config, "log") as pipeline:
        pipeline.publish()
        with closing(PolicyReader(url)) as reader:
            shown = impression_of(asked, reader.policy.rank({}, CANDIDATES, 3, query="news"), ts=0)
            pipeline.feed([asked, shown, clicked])
            pipeline.finish()
            pipeline.commit()
            assert pipeline.publish() is not None
            reader.refresh()
            policy = reader.policy
            ranked = policy.rank({}, CANDIDATES, 2, query="News!")
            (known, *_) = [one for one in policy.recall("news", 9) if one.entity_id == "fresh"]
    assert ranked.results[0].entity_id == "fresh"
    by_entity = {one.entity_id: one for one in policy.rank({}, CANDIDATES, 3, query="news").results}
    assert by_entity["fresh"].features["memory.score"] == known.score > 0.0
    assert by_entity["fresh"].features["memory.evidence"] == known.evidence > 0.0
    assert by_entity["fresh"].ranks == {"lexical": 3, "new": 1}
    # What is learned from the log is what the order was computed from.
    learner, encoder, size = ResultRanking(ranking), ranking.encoder(), np.array([2])
    log = impression_of(asked, ranked, ts=0)
    again = structs.replace(clicked, entity_id=log.results[0].entity_id)
    learned = learner.learn(judged([Turn.of(asked, [log, again])]))["ranking"].values[0]
    features, ranks = [one.features for one in ranked.results], [one.ranks for one in ranked.results]
    means, deviations = (
        np.array([[getattr(ranked.normalizers[name], field) for name in encoder.normalized]])
        for field in ("mean", "deviation")
    )
    vectors = encoder.encode(encoder.numbers(features, ranks), (means, deviations), features, ({},), size)
    assert vectors.any(axis=0).all()  # each of them had a say
    examined = np.array(ranked.examined[:2] or EXAMINED[:2])
    expected = Lists(size, vectors, examined, np.array([1.0, 0.0]), np.zeros(1, dtype=np.int64), np.ones(1, dtype=bool))
    assert learned[1:].tolist() == sums_of(expected, 1)[0, 1:].tolist()

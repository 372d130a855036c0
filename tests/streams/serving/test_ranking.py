"""Ranking through the whole pipeline: served, logged, learned and published again."""

from contextlib import closing
from pathlib import Path

import numpy as np

from backchannel.agents.bandit.features import Numeric
from backchannel.agents.ranking.learner import RankingConfig
from backchannel.agents.ranking.serving import Candidate
from backchannel.schemas.events import Click, Event, Query
from backchannel.streams.config import Config
from backchannel.streams.pipeline.local import LocalPipeline
from backchannel.streams.serving.impressions import impression_of
from backchannel.streams.serving.reader import PolicyReader

CONFIG = Config(
    ranking=RankingConfig(
        features=(Numeric("score"), Numeric("fresh"), Numeric("rank.lexical"), Numeric("memory.score")),
        normalized=("score",),
    )
)
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
                    ts=number * 200_000,
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
            after = reader.policy.rank({}, CANDIDATES, 3, query="news 1", rng=rng)
    assert after.learned
    assert after.results[0].entity_id == "fresh"
    assert after.results[0].features["memory.score"] > after.results[1].features["memory.score"]  # type: ignore[operator]
    assert after.policy_version == 2
    assert shown.results[0].ranks == {"lexical": 1}
    assert shown.results[0].features == {"score": 2.0, "fresh": 0.0, "memory.score": 0.0, "memory.evidence": 0.0}

"""Priming: predictions in the ledger, together with what is learned."""

from pathlib import Path

import pytest

from backchannel.agents.memory.learner import MemoryConfig
from backchannel.streams.config import Config
from backchannel.streams.pipeline.local import LocalPipeline
from backchannel.streams.pipeline.priming import Primer
from backchannel.streams.serving.reader import PolicyReader
from backchannel.streams.store.ledger import FencedError
from tests.support.ledgers import assert_same, contents, sqlite_url
from tests.support.pipelines import learn, turn

DAY = 86_400_000


def score(url: str, query: str = "jazz") -> float:
    reader = PolicyReader(url)
    try:
        recalled = reader.policy.recall(query, 1)
        return recalled[0].score if recalled else 0.0
    finally:
        reader.close()


@pytest.fixture
def url(store_url: str) -> str:
    return store_url


def test_evidence_takes_over_from_a_prediction(url: str) -> None:
    """The score moves from the prediction to the click rate."""
    with Primer(url, Config()) as primer:
        primer.put({("jazz", "a"): 0.8})
        primer.publish()
    found = [score(url)]
    with LocalPipeline(url, Config(), "test") as pipeline:
        for upto in (5, 500):
            learn(pipeline, [event for number in range(upto // 10, upto) for event in turn(number, number % 5 == 0)])
            found.append(score(url))
    assert found[0] == pytest.approx(0.8, abs=1e-5)
    assert 0.35 < found[1] < 0.6  # the mean of prediction and clicks
    assert found[2] == pytest.approx(0.2, abs=0.02)


def test_priming_does_not_disturb_learning(tmp_path: Path) -> None:
    alone, together = sqlite_url(tmp_path, "alone.db"), sqlite_url(tmp_path, "together.db")
    first = [event for number in range(10) for event in turn(number, True)]
    second = [event for number in range(10, 20) for event in turn(number, False)]
    for url, primed in ((alone, False), (together, True)):
        with LocalPipeline(url, Config(), "test") as pipeline:
            learn(pipeline, first)
            if primed:
                with Primer(url, Config()) as primer:
                    primer.put({("jazz", "a"): 0.5, ("jazz", "b"): 0.25})
            learn(pipeline, second)
    one, other = contents(alone, Config()), contents(together, Config())
    assert other.pop("priors") == {("jazz", "a"): 0.5, ("jazz", "b"): 0.25}
    one.pop("priors")
    for name in ("counts", "positions"):
        one[name], other[name] = dict(one[name]), dict(other[name])
    assert other["counts"].pop("primed") == 2
    assert other["positions"].pop(("prime", 0))
    assert_same(one, other)


def test_a_concurrent_primer_is_fenced(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Primer(url, Config()) as one, Primer(url, Config()) as other:
        claim = one._ledger.claim

        def claim_and_be_overtaken(source: str, number: int) -> object:
            mine = claim(source, number)
            other.put({("jazz", "a"): 0.7})
            return mine

        monkeypatch.setattr(one._ledger, "claim", claim_and_be_overtaken)
        with pytest.raises(FencedError):
            one.put({("jazz", "a"): 0.2})
        other.publish()
    assert score(url) == pytest.approx(0.7, abs=1e-5)


def test_decayed_rows_leave_ledger_and_policy(url: str) -> None:
    config = Config(memory=MemoryConfig(half_life_days=1))
    with LocalPipeline(url, config, "test") as pipeline:
        learn(pipeline, turn(0, True, 0, "old"))
        learn(pipeline, turn(1, True, 5 * DAY, "new"))
        assert {query for query, *_ in contents(url, config)["memory"]} == {"old", "new"}
        learn(pipeline, turn(2, True, 12 * DAY, "newer"))
        assert {query for query, *_ in contents(url, config)["memory"]} == {"new", "newer"}
        learn(pipeline, turn(3, True, 12 * DAY + 9_000_000, "newest"))
    assert score(url, "old") == 0
    assert score(url, "new") > 0
    reader = PolicyReader(url)
    assert reader.policy.remembered == 3
    reader.close()


def test_a_query_is_withheld_until_enough_people_asked_it(url: str) -> None:
    config = Config(memory=MemoryConfig(min_users=3))
    with LocalPipeline(url, config, "test") as pipeline:
        learn(pipeline, [event for number in range(9) for event in turn(number, True, user=f"u{number % 2}")])
        assert score(url) == 0
        with Primer(url, config) as primer:
            primer.put({("jazz", "a"): 0.25})
            primer.publish()
        assert score(url) == pytest.approx(0.25, abs=1e-5)  # predictions are not withheld
        learn(pipeline, turn(9, True, user="u2"))
    assert score(url) > 0.5

"""The gate in the publisher: trials, from the first decision that a canary makes to its end, in a closed loop."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Any

import numpy as np
import orjson
import pytest
from click.testing import CliRunner
from msgspec import structs

from backchannel.agents.bandit.decision import Decision
from backchannel.agents.bandit.learner import BanditConfig
from backchannel.agents.bandit.ranks import BUCKETS
from backchannel.agents.bandit.section import Limits
from backchannel.agents.ope.gate import REST, GateConfig, Judgement
from backchannel.agents.ope.trials import Trials
from backchannel.agents.rewrites.learner import RephraseGraph
from backchannel.agents.sums import SumReader, Sums
from backchannel.ops.cli import main
from backchannel.schemas.events import Click, Event, Impression, Query, Result
from backchannel.schemas.snapshot import Snapshot, Trial
from backchannel.streams.config import Config
from backchannel.streams.pipeline import judging
from backchannel.streams.pipeline.local import LocalPipeline
from backchannel.streams.serving.reader import PolicyReader
from backchannel.streams.snapshots import versions as snapshots
from backchannel.streams.store.engine import Store
from backchannel.streams.store.ledger import Contribution, LedgerSums

STRATEGIES = ("lexical", "memory")
CLICKS = {"lexical": 0.1, "memory": 0.8}
CONFIG = Config(
    bandit=BanditConfig(strategies=STRATEGIES, features=(), policy="greedy"),
    gate=GateConfig(established=20, minimum_effective=50, first_share=0.25),
)
SECOND = 1_000_000


class Loop:
    """Serves what was learned, and learns from what comes of it."""

    def __init__(self, url: str) -> None:
        self.pipeline = LocalPipeline(url, CONFIG, "s")
        self.reader = PolicyReader(url, rng=np.random.default_rng(0))
        self.url = url
        self._rng = np.random.default_rng(1)
        self._turn = 0

    def turns(self, many: int, log: Callable[[Decision], dict[str, Any]] = lambda _: {}) -> None:
        """Have so many turns, and learn from them."""
        self.reader.refresh()
        decide: Callable[[], Decision]
        if self.reader.status.version is None:
            decide = lambda: Decision({STRATEGIES[self._rng.integers(2)]: 1}, dict.fromkeys(STRATEGIES, 0.5), 0.5)  # noqa: E731
        else:
            decide = lambda: self.reader.policy.allocate({}, 1)  # noqa: E731
        events: list[Event] = []
        for _ in range(many):
            self._turn += 1
            at: dict[str, Any] = {
                "ts": SECOND * self._turn,
                "session_id": f"s{self._turn % 5}",
                "query_id": f"q{self._turn}",
            }
            made = decide()
            (asked,) = made.allocation
            fields: dict[str, Any] = {
                "allocation": made.allocation,
                "propensities": made.propensities,
                "allocation_propensity": made.allocation_propensity,
                "canary": made.canary,
                **log(made),
            }
            shown = Impression(event_id="i", results=(Result("e", 1, (asked,)),), **fields, **at)
            events += [Query(event_id="q", text="x", **at), shown]
            if self._rng.random() < CLICKS[asked]:
                events.append(Click(event_id="c", entity_id="e", **at))
        self.pipeline.feed(events)
        self.pipeline.commit()

    def publish(self, now: int | None = None) -> Snapshot:
        made = self.pipeline._publisher.publish(now)
        assert made is not None
        self.reader.refresh()
        assert self.reader.status.error is None
        return made

    def section(self, name: str) -> dict[str, bytes]:
        with closing(Store(self.url)) as store, store.read() as connection:
            version = snapshots.current(connection).version
            return snapshots.section(connection, version or 0, name)

    def trials(self) -> list[str]:
        table = Trials().table
        with closing(Store(self.url)) as store, store.read() as connection:
            store.declare([table])
            return sorted({key[0] for key in LedgerSums(store, connection).read(table).keys})

    def asked(self, strategy: str) -> float:
        """The share of decisions that ask a strategy."""
        return float(np.mean([strategy in self.reader.policy.allocate({}, 1).allocation for _ in range(600)]))


@pytest.fixture
def loop(store_url: str) -> Iterator[Loop]:
    loop = Loop(store_url)
    with loop.pipeline, closing(loop.reader):
        loop.turns(300)
        assert loop.publish().reason == "the first version"
        yield loop


def breaks(monkeypatch: pytest.MonkeyPatch, loop: Loop, worths: Sequence[float] = (0.9, 0.0)) -> None:
    """Let the learner prefer what nobody clicks."""
    learner = loop.pipeline._publisher._learning.learners[0]

    def broken(sums: SumReader, changed: Any, at: int) -> dict[str, bytes | None]:
        section = type(learner).solve(learner, sums, changed, at)
        for name, worth in zip(STRATEGIES if section else (), worths, strict=bool(section)):
            row = orjson.loads(section[name] or b"")
            believed = {"rates": [max(worth, 1e-3)] * BUCKETS, "clicks": [1e6] * BUCKETS, "prior": [0.0] * BUCKETS}
            section[name] = orjson.dumps({**row, **believed, "theta": [0.0]})
        return section

    monkeypatch.setattr(learner, "solve", broken)


def test_ordinary_learning_goes_live_at_once(loop: Loop) -> None:
    for _ in range(4):
        loop.turns(40)
        made = loop.publish()
        assert (made.verdict, made.trial, made.held) == ("publish", None, None)
        assert made.rows.get("canary", 0) == 0
    assert loop.trials() == []


def test_a_broken_policy_gets_the_first_share_and_is_held_and_tried_again(
    loop: Loop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    good = loop.section("bandit")
    breaks(monkeypatch, loop)
    loop.turns(20)
    made = loop.publish(4_000)
    assert (made.verdict, made.held) == ("canary", None)
    assert made.trial is not None
    assert (made.trial.number, made.trial.share) == (made.version, 0.25)
    assert loop.section("bandit") == good
    assert loop.section("canary") != good
    assert loop.asked("lexical") == pytest.approx(0.25, abs=0.07)
    first = made.trial
    while made.verdict == "canary":
        assert made.trial is not None
        assert (made.trial.number, made.trial.share) == (first.number, 0.25)
        loop.turns(40)
        made = loop.publish(5_000)
        assert loop.trials() == [str(first.number)]
    assert (made.verdict, made.held) == ("hold", 5_000)
    assert made.trial is not None
    assert made.trial.turns < 400
    assert made.trial.gain is not None
    assert made.trial.gain.high < 0
    assert "keeps the served bandit" in caplog.text
    assert loop.section("bandit") == good
    assert loop.asked("lexical") < 0.07
    assert loop.reader.policy.allocate({}, 1).canary is None
    # What else was learned is served; since when the bandit waits is remembered, be it judged again or not.
    rules, claim = RephraseGraph(CONFIG.rephrases).rules, loop.pipeline.ledger.claim("rules", 0)
    pin = {rules.name: Sums(rules, [("x", "y")], np.array([[1.0, 0.0]]))}
    loop.pipeline.ledger.commit([Contribution(claim, claim.position, pin, {})])
    unjudged = loop.publish(6_000)
    assert (unjudged.verdict, unjudged.held, unjudged.trial) == ("hold", 5_000, made.trial)
    # The hold expires.
    waited = 0
    while made.verdict == "hold":
        loop.turns(200)
        waited += 200
        made = loop.publish(7_000)
    assert (made.verdict, made.held) == ("canary", None)
    assert waited < 2 * (REST + 1) * first_length(unjudged)
    # What learns well again goes live at once.
    monkeypatch.undo()
    loop.turns(20)
    mended = loop.publish()
    assert (mended.verdict, mended.trial) == ("publish", None)
    assert mended.rows["bandit"] == len(STRATEGIES) + 1
    assert mended.rows.get("canary", 0) == 0
    assert loop.trials() == []


def test_a_policy_that_succeeds_is_served_beside_the_next_one(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    breaks(monkeypatch, loop)
    loop.turns(20)
    made = loop.publish()
    assert made.verdict == "canary"
    shown = CliRunner().invoke(main, ["snapshots", "show", str(made.version), "--store", loop.url]).output
    assert "decides 25% of the queries" in shown
    assert f"since version {made.version}" in shown
    tried = loop.section("canary")
    trial = Trial(number=9, began=0, share=0.25)
    monkeypatch.setattr(judging, "judge", lambda *_: Judgement("canary", "it leapt again", trial, succeeds=True))
    loop.turns(20)
    assert loop.publish().trial == trial
    assert loop.section("bandit") == tried != loop.section("canary")


def test_a_configuration_that_turns_the_best_strategy_off_is_tried(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    learner, config = loop.pipeline._publisher._learning.learners[0], CONFIG.bandit
    monkeypatch.setattr(learner, "config", structs.replace(config, limits={"memory": Limits(on=False)}))
    loop.turns(20)
    assert loop.publish().verdict == "canary"
    assert loop.asked("memory") == pytest.approx(0.75, abs=0.07)


def first_length(lost: Snapshot) -> float:
    assert lost.trial is not None
    return lost.trial.turns


def test_a_policy_that_is_no_number_decides_nothing(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    good = loop.section("bandit")
    breaks(monkeypatch, loop, (float("nan"), 0.0))
    loop.turns(20)
    made = loop.publish(4_000)
    assert (made.verdict, made.held, made.trial) == ("hold", 4_000, None)
    assert "cannot be read" in str(made.reason)
    assert loop.section("bandit") == good


def test_a_policy_that_was_bad_goes_live_when_the_world_has_turned(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    breaks(monkeypatch, loop)
    monkeypatch.setitem(CLICKS, "lexical", 0.8)
    monkeypatch.setitem(CLICKS, "memory", 0.1)
    verdicts: list[str | None] = []
    while "publish" not in verdicts:
        loop.turns(40)
        verdicts.append(loop.publish().verdict)
    assert len(verdicts) < 8
    assert loop.asked("lexical") > 0.9


def test_decisions_that_are_not_logged_as_made_tell_nothing(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    breaks(monkeypatch, loop)
    for _ in range(4):
        loop.turns(100, log=lambda _: {"canary": None})
        made = loop.publish()
    assert made.verdict == "canary"
    assert made.trial is not None
    assert made.trial.turns == 0
    assert "too little is known" in str(made.reason)

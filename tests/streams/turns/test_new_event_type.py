"""An event type is its struct and its worth: here a fifth one goes all the way into the ledger, and is judged."""

from pathlib import Path
from typing import Annotated, ClassVar, Final, cast

import msgspec
import numpy as np
import pytest
from msgspec import Meta, structs

from backchannel.agents.columnar.columns import Columns
from backchannel.agents.outcomes.judge import Judge
from backchannel.agents.outcomes.outcomes import Outcomes
from backchannel.agents.outcomes.rewards import RewardConfig
from backchannel.schemas import events
from backchannel.schemas.codec import EventDecoder
from backchannel.schemas.documents import documents
from backchannel.schemas.events import EVENT_TYPES, Query, Signal, name_of
from backchannel.streams.config import Config
from backchannel.streams.kafka.config import KafkaConfig
from backchannel.streams.kafka.topics import topic_names
from backchannel.streams.monitoring.metrics import Metrics
from backchannel.streams.pipeline.commits import commit
from backchannel.streams.pipeline.learners import Learning
from backchannel.streams.store.engine import Store
from backchannel.streams.store.ledger import Ledger
from backchannel.streams.turns.assembler import TurnAssembler
from backchannel.streams.turns.partition import Partition
from backchannel.streams.turns.rows import RowAssembler
from tests.support.ledgers import contents, sqlite_url


class Stars(events._Event, frozen=True, gc=False, kw_only=True, tag="stars"):
    """Somebody said how good the answer was."""

    topic: ClassVar[str] = "stars"

    stars: Annotated[int, Meta(ge=1, le=5)]


STARS: Final = cast("type[Signal]", Stars)
CONFIG: Final = Config()


def record(event_type: str, event_id: str, ts: int, query_id: str, **fields: object) -> bytes:
    common = {
        "type": event_type,
        "event_id": event_id,
        "ts": 1_700_000_000_000 + ts,
        "session_id": "s",
        "query_id": query_id,
    }
    return msgspec.json.encode({**common, **fields})


def test_a_fifth_event_type_goes_through_assembler_and_ledger(tmp_path: Path) -> None:
    url = sqlite_url(tmp_path)
    learning, store = Learning(CONFIG), Store(url)
    store.create(learning.tables)
    ledger = Ledger(store, learning.tables)
    types = [*EVENT_TYPES.values(), STARS]
    decoders = {event_type.topic: EventDecoder(event_type) for event_type in types}
    partition = Partition(ledger.claim("test", 0), decoders, CONFIG.turns)
    asked = record("query", "q1", 1000, "a", text="play jazz")
    said = [record("stars", f"f{number}", 2000, "a", stars=number) for number in (4, 5)]
    nonsense = record("stars", "f3", 2000, "a", stars=6)
    assert partition.add("queries", [0], [asked], 1_700_000_005_000) == []
    (dead,) = partition.add("stars", [0, 1, 2, 3], [*said, said[0], nonsense], 1_700_000_005_000)
    assert dead.reason.startswith("stars: ")
    assert partition.finish() == 1
    commit(learning, ledger, [partition.batch()])
    store.close()
    found = contents(url, CONFIG)
    assert found["counts"] == {"query": 1, "stars": 3, "duplicate": 1, "turn": 1, "learned": 3, "dead_letter": 1}
    assert b'"stars":{"read":4' in found["positions"]["test", 0][1]


def test_a_turn_has_signals_of_a_fifth_type() -> None:
    assembler = TurnAssembler(["events"], CONFIG.turns)
    asked = Query(event_id="q1", ts=1000, session_id="s", query_id="a", text="play jazz")
    said = [
        cast("Signal", Stars(event_id=f"f{stars}", ts=2000, session_id="s", query_id="a", stars=stars))
        for stars in (4, 5)
    ]
    assembler.add("events", range(3), [asked, *said])
    (turn,) = assembler.finish()
    assert [event.stars for event in cast("tuple[Stars, ...]", turn.all(STARS))] == [4, 5]
    assert turn.signals.keys() == {"stars"}


class _StarJudge(Judge):
    """What `agents.outcomes` would say of a fifth type."""

    def judge(self, columns: Columns) -> Outcomes:
        outcomes = super().judge(columns)
        turns, said = columns.others(STARS)
        success = outcomes.success.copy()
        np.maximum.at(success, turns, np.array([fields["stars"] / 5 for fields in said]))
        return structs.replace(outcomes, success=success)


def test_a_signal_of_a_fifth_type_is_judged_in_one_place() -> None:
    assembler = RowAssembler(["events"], CONFIG.turns)
    asked = [
        Query(event_id=f"q{turn}", ts=1000 * turn, session_id="s", query_id=f"{turn}", text="stop") for turn in range(3)
    ]
    said = [
        cast("Signal", Stars(event_id=f"f{stars}", ts=2000, session_id="s", query_id="1", stars=stars))
        for stars in (4, 2)
    ]
    assembler.add("events", range(5), [*asked, *said])
    assembler.finish()
    (columns,) = assembler.take()
    turns, fields = columns.others(STARS)
    assert (turns.tolist(), fields) == ([1, 1], [{"stars": 4}, {"stars": 2}])
    assert _StarJudge(RewardConfig()).judge(columns).success.tolist() == [0.0, 0.8, 0.0]


def test_topics_documents_and_metrics_follow_from_the_struct(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EVENT_TYPES, name_of(STARS), STARS)
    kafka = KafkaConfig(topic_prefix="eu.")
    assert kafka.event_topics["stars"] == "eu.stars"
    assert "eu.stars" in topic_names(kafka)
    files = documents()
    assert "stars" in files["stars.schema.json"]["$defs"]["Stars"]["properties"]
    assert files["asyncapi.json"]["channels"]["stars"]["address"] == "stars"
    assert Metrics([]).registry.get_sample_value("backchannel_events_total", {"type": "stars"}) == 0

"""Questions of the service: one process of a host asks, and answers say with which probability they were asked for."""

import asyncio
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest
from litestar.testing import TestClient

from backchannel.agents.satisfaction.asking import AskConfig, Asker
from backchannel.agents.satisfaction.budget import DAY_MS, Budget
from backchannel.ops.serve.answering import application_of
from backchannel.ops.serve.asking import HostAsker, lock_of
from backchannel.ops.serve.completion import completed
from backchannel.ops.serve.contract import DecideRequest
from backchannel.ops.serve.metrics import ServiceMetrics
from backchannel.ops.serve.processes import Plan
from backchannel.ops.serve.service import Service
from backchannel.ops.serve.sinks import Nowhere, Sink
from backchannel.schemas.events import Earlier, Feedback, Prefer, Query
from backchannel.streams.config import Config
from backchannel.streams.serving.reader import PolicyReader
from tests.ops.serve.conftest import Kept

ON = AskConfig(probability=1.0, per_day=4)


def service(store: str, config: AskConfig, sink: Sink | None = None, metrics: ServiceMetrics | None = None) -> Service:
    reader = PolicyReader(store)
    reader.refresh()
    asker = Asker(config, Budget(config.per_day, 0))
    return Service(
        reader,
        ("lexical",),
        sink or Nowhere(),
        asker=lambda _: asker,
        on_question=(metrics or ServiceMetrics(shared=False)).question,
        rng=np.random.default_rng(1),
    )


def test_the_answer_to_a_question_has_its_probability(learned: str) -> None:
    asked = service(learned, ON).decide(
        DecideRequest(text="x", session_id="s", budget=3, user_id="ann", earlier=Earlier(turns=1, seconds=4.0))
    )
    assert (asked.ask, asked.ask_propensity, asked.offers) == ("satisfaction", 1.0, ())
    sent = {"type": "feedback", "event_id": "f", "decision_id": asked.decision_id, "answered": True}
    event, _ = completed(msgspec.json.encode(sent), 5)
    assert isinstance(event, Feedback)
    assert (event.asked, event.propensity, event.answered, event.query_id) == (True, 1.0, True, asked.query_id)
    query, _ = completed(msgspec.json.encode({"type": "query", "decision_id": asked.decision_id}), 5)
    assert isinstance(query, Query)
    assert query.earlier == Earlier(turns=1, seconds=4.0)


def test_what_they_mean_is_asked_with_rules_to_choose_from(learned: str) -> None:
    teaching = service(learned, AskConfig(teach=1.0, per_day=4))
    asked = teaching.decide(
        DecideRequest(
            text="what was asked first", session_id="s", budget=3, user_id="ann", earlier=Earlier(turns=1, repeats=1)
        )
    )
    assert (asked.ask, asked.ask_propensity) == ("teach", 1.0)
    assert 2 <= len(asked.offers) <= 3
    assert isinstance(asked.offers[0], Prefer)
    again = teaching.decide(DecideRequest(text="x", session_id="s", budget=3, user_id="ann"))
    assert (again.ask, again.ask_propensity, again.offers) == (None, None, ())


def test_questions_asked_refused_and_answered_are_counted(learned: str, kept: Kept) -> None:
    metrics = ServiceMetrics(shared=False)
    asking = service(learned, AskConfig(probability=1.0, teach=0.5), kept, metrics)
    plain = DecideRequest(text="x", session_id="s", budget=3, user_id="ann")
    first, second = asking.decide(plain), asking.decide(plain)
    assert (first.ask, second.ask) == ("satisfaction", None)
    for number, said in enumerate(({"answered": True}, {"answered": True, "asked": False})):
        sent = {"type": "feedback", "event_id": f"f{number}", "decision_id": first.decision_id, **said}
        asyncio.run(asking.accept(msgspec.json.encode(sent), lines=False))
    text = metrics.text().decode()
    for happened in ("asked", "refused", "answered"):
        assert f'backchannel_serve_questions_total{{happened="{happened}",kind="satisfaction"}} 1.0' in text


def test_by_default_nobody_is_asked(learned: str) -> None:
    reader = PolicyReader(learned)
    reader.refresh()
    asked = Service(reader, ("lexical",), Nowhere()).decide(
        DecideRequest(text="x", session_id="s", budget=3, user_id="ann")
    )
    assert (asked.ask, asked.ask_propensity) == (None, None)
    assert HostAsker(AskConfig(), Path("/nowhere")).current(0) is None


def test_one_process_of_a_host_asks_and_its_successor_from_the_next_window_on(tmp_path: Path) -> None:
    first, second = (HostAsker(ON, tmp_path / "lock") for _ in range(2))
    now = time.time_ns() // 1_000_000 // DAY_MS * DAY_MS
    asks = first.current(now)
    assert asks is not None
    assert asks.budget.spend("ann", now)
    assert second.current(now) is None
    first.close()
    successor = second.current(now + 1)
    assert successor is not None
    assert not successor.budget.spend("ann", now + 1)
    assert successor.budget.spend("ann", now + DAY_MS // 4)
    second.close()


def test_a_process_holds_its_place_from_its_beginning_on(
    learned: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise it would ask nothing in the window in which the first request comes."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    plan = Plan(
        store=learned,
        config=Config(ask=ON),
        events="none",
        journal=tmp_path,
        tokens=(),
        guess_from=None,
        log="text",
        host="127.0.0.1",
        port=0,
        processes=1,
    )
    other = HostAsker(ON, lock_of(learned))
    with TestClient(application_of(plan)):
        assert other.current(0) is None
    assert other.current(0) is not None
    other.close()


def test_services_of_a_store_share_a_lock() -> None:
    assert lock_of("sqlite:///a.db") == lock_of("sqlite:///a.db") != lock_of("sqlite:///b.db")


def test_a_place_that_somebody_else_has_taken_asks_nobody(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for name in ("folder", "link"):
        assert HostAsker(AskConfig(probability=1.0), tmp_path / name).current(0) is None
    assert not (tmp_path / "elsewhere").exists()

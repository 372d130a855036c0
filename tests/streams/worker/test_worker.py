"""When a worker publishes next, and what it says if it cannot."""

import asyncio
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock, Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backchannel.streams.store.engine import StoreAwayError
from backchannel.streams.worker import worker
from backchannel.streams.worker.worker import COMMIT_S, FIRST_VERSIONS, Worker, pause_between

SECONDS = st.floats(0.001, 60.0)
FEW = st.integers(0, FIRST_VERSIONS - 1)


@given(SECONDS, SECONDS, FEW)
def test_a_store_without_news_is_looked_at_no_more_often_than_commits_are_made(
    publish_s: float, taken_s: float, version: int
) -> None:
    assert pause_between(publish_s, taken_s, version, version) == min(publish_s, COMMIT_S)


@given(SECONDS, SECONDS, FEW)
def test_a_new_version_among_the_first_is_followed_at_once(publish_s: float, taken_s: float, version: int) -> None:
    assert pause_between(publish_s, taken_s, version - 1, version) == min(publish_s, 10 * taken_s)


@given(SECONDS, SECONDS, st.integers(FIRST_VERSIONS, 10**6), st.integers(0, 1))
def test_later_versions_are_as_far_apart_as_configured(
    publish_s: float, taken_s: float, version: int, news: int
) -> None:
    assert pause_between(publish_s, taken_s, version - news, version) == publish_s


@pytest.mark.parametrize("first", [True, False])
def test_only_who_publishes_says_that_it_cannot(
    first: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    away = StoreAwayError("it is away")
    monkeypatch.setattr(worker, "version_status", Mock(side_effect=away))
    one: Any = SimpleNamespace(_publisher=SimpleNamespace(publish=AsyncMock(side_effect=away)), _store=None)
    assert asyncio.run(Worker._publish(one, first=first)) is None
    assert ("cannot publish: it is away" in caplog.text) == first

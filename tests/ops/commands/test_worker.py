"""`backchannel worker`: what it does before it learns."""

import asyncio
import socket
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from backchannel.ops.commands.worker import TRACES_VARIABLES, _traces, _work
from backchannel.schemas.errors import BackchannelError
from backchannel.streams.config import Config, MetricsConfig
from backchannel.streams.extras import install
from backchannel.streams.kafka.config import KafkaConfig
from tests.support.ledgers import sqlite_url


@pytest.fixture(autouse=True)
def no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in TRACES_VARIABLES:
        monkeypatch.delenv(name, raising=False)


def test_without_an_address_there_are_no_traces(caplog: pytest.LogCaptureFixture) -> None:
    assert _traces(AsyncExitStack()) is None
    assert not caplog.records


@pytest.mark.parametrize("variable", TRACES_VARIABLES)
def test_traces_that_are_wanted_but_not_installed_are_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, variable: str
) -> None:
    monkeypatch.setenv(variable, "http://127.0.0.1:1")
    monkeypatch.setitem(sys.modules, "backchannel.streams.monitoring.tracing", None)
    assert _traces(AsyncExitStack()) is None
    assert install("tracing") in caplog.text


def test_a_port_for_metrics_that_is_taken_is_an_expected_end(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config = Config(metrics=MetricsConfig(host="127.0.0.1", port=port))
        with pytest.raises(BackchannelError, match=rf"{port}.*address already in use.*--metrics-port"):
            asyncio.run(_work(sqlite_url(tmp_path), config, KafkaConfig(), accept_loss=False))

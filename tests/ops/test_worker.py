"""`backchannel worker`: what it does before it learns."""

import sys
from contextlib import AsyncExitStack

import pytest

from backchannel.ops.worker import TRACES_VARIABLES, _traces


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
    monkeypatch.setitem(sys.modules, "backchannel.streams.tracing", None)
    assert _traces(AsyncExitStack()) is None
    assert "pip install 'backchannel[tracing]'" in caplog.text

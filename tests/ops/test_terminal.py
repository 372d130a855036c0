"""A line of the log is one JSON object, whatever is logged, and libraries do not flood it."""

import json
import logging

import pytest

from backchannel.ops.terminal import JsonFormatter, OnceAWhile


def test_a_line_has_what_the_call_names(caplog: pytest.LogCaptureFixture) -> None:
    try:
        raise ValueError("why")
    except ValueError:
        logging.getLogger("here").exception("version %d\nfailed", 3, extra={"version": 3, "when": object})
    line = JsonFormatter().format(caplog.records[0])
    assert "\n" not in line
    found = json.loads(line)
    assert found["time"].endswith("+00:00")
    assert (found["level"], found["logger"], found["message"]) == ("error", "here", "version 3\nfailed")
    assert found["version"] == 3
    assert "ValueError: why" in found["error"]


def test_a_message_of_a_library_is_said_once_a_minute() -> None:
    now = 0.0
    once = OnceAWhile(clock=lambda: now)

    def says(name: str, message: str, number: int) -> bool:
        return once.filter(logging.LogRecord(name, logging.ERROR, "", 0, message, (number,), None))

    assert says("aiokafka", "Unable connect to node %d", 1)
    assert not says("aiokafka", "Unable connect to node %d", 2)
    assert says("aiokafka", "Unable to update metadata from %d", 1)
    assert says("aiokafka.conn", "Unable connect to node %d", 1)
    assert all(says("backchannel.ops.commands.worker", "published version %d", number) for number in range(3))
    now = 59.9
    assert not says("aiokafka", "Unable connect to node %d", 3)
    now = 60.0
    assert says("aiokafka", "Unable connect to node %d", 3)
    assert not says("aiokafka", "Unable connect to node %d", 3)

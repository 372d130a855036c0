"""A line of the log is one JSON object, whatever is logged."""

import json
import logging

import pytest

from backchannel.ops.logs import JsonFormatter


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

"""The arithmetic of capacity."""

import msgspec
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from backchannel.ops.cli import main
from backchannel.ops.lab.capacity import Costs, Need, need

COSTS = Costs(worker_rate=50_000, row_rate=100_000, solve_rate=10_000)


def test_a_load_that_fills_two_workers_needs_two() -> None:
    found = need("x", 50_000, COSTS, results=10, distinct=0.5)
    assert found == Need("x", 50_000, workers=2, partitions=4, rows=100_000, stores=2, publish_s=2.0)


@given(st.floats(1, 1e9), st.floats(1, 10))
def test_more_events_never_need_less(events: float, times: float) -> None:
    less, more = (need("x", rate, COSTS, 10, 0.5) for rate in (events, events * times))
    assert less.workers <= more.workers
    assert less.stores <= more.stores
    assert less.publish_s <= more.publish_s


def test_the_command_answers_for_the_load_that_was_named() -> None:
    result = CliRunner().invoke(main, ["capacity", "--events-per-day", "86400000", "--peak", "2", "--json"])
    *_, last = msgspec.json.decode(result.output, type=list[Need])
    assert last.events == pytest.approx(2_000)
    assert "86,400,000" in CliRunner().invoke(main, ["capacity", "--events-per-day", "86400000"]).output

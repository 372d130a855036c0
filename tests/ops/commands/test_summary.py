"""What a run prints about strategies."""

from backchannel.ops.commands.summary import StrategySummary, strategy_table
from backchannel.schemas.snapshot import Estimate

KNOWN = StrategySummary("lexical", 10.0, 0.5, Estimate(0.04, -0.1, 0.2))
UNKNOWN = StrategySummary("popular", 10.0, 0.5, Estimate(0.0, 0.0, 0.0))


def test_what_pages_earn_with_more_candidates_is_printed_once_it_is_learned() -> None:
    *_, pages = strategy_table([KNOWN, UNKNOWN]).columns
    assert [*pages.cells] == ["+4% (-10% to +20%)", "+0% (+0% to +0%)"]
    assert [*strategy_table([UNKNOWN]).columns[-1].cells] == ["0.500"]

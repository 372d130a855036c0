"""Wins and losses of rewrites on real calls, on real recogniser errors, and in the closed loop."""

from collections.abc import Callable
from math import inf
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from backchannel.agents.outcomes.rewards import RewardConfig
from backchannel.agents.rewrites.config import RephraseConfig
from backchannel.ops.lab.rephrases.command import rephrases
from backchannel.ops.lab.rephrases.dialogues import replay
from backchannel.ops.lab.rephrases.loop import Loop
from backchannel.ops.lab.rephrases.recogniser import Traffic, grow
from backchannel.ops.lab.rephrases.rewriter import Rewriter
from backchannel.ops.lab.rephrases.verdicts import Verdicts
from tests.support.turns import click, closed_turn, query


def test_the_interval_of_wins_per_loss_is_that_of_the_share_of_wins() -> None:
    # Newcombe, Statistics in Medicine 1998, table I, method 3: 81 of 263 is .2553 to .3662, 0 of 20 up to .1611.
    low, high = Verdicts(1000, 500, 81, 263 - 81, 9).interval
    assert (low / (1 + low), high / (1 + high)) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    low, high = Verdicts(1000, 500, 20, 0, 9).interval
    assert low / (1 + low) == pytest.approx(1 - 0.1611, abs=5e-5)
    assert high == inf
    assert Verdicts(10, 5, 0, 0, 0).interval == (0.0, inf)


def test_a_rewriter_learns_as_the_stream_does() -> None:
    rewriter = Rewriter(RewardConfig(), RephraseConfig())
    assert rewriter.rewrites() == {}
    for number in range(20):
        later = query(8_000, "play the song velvet night", session_id=f"s{number}")
        wrong = closed_turn(query(0, "play the song velvet knight", session_id=f"s{number}"), next=later)
        rewriter.learn([wrong, closed_turn(later, clicks=(click("e"),))])
    assert rewriter.rewrites() == {"play the song velvet knight": "play the song velvet night"}


def test_calls_are_replayed_in_time_order(public_log: Callable[[str], Path]) -> None:
    found = replay(public_log("dstc2"), RephraseConfig())
    for one in found.values():
        assert one.queries == 11_486
        assert one.wins + one.losses <= one.queries
    assert found["interpretations"].wins > 10 * found["interpretations"].losses


def test_recogniser_errors_are_corrected_and_valid_queries_kept(public_log: Callable[[str], Path]) -> None:
    data = public_log("slurp_asr").parent
    some = list(grow(data, RephraseConfig(), [500, 3_000], 1_000, 1))
    assert [one.turns for one in some] == sorted(one.turns for one in some)
    first, last = some
    assert first.heard.wins < last.heard.wins
    assert last.heard.wins > 20 * last.heard.losses
    assert last.heard.winnable is not None
    assert last.heard.wins <= last.heard.winnable <= last.heard.wrong
    assert last.unheard.queries < last.heard.queries == 1_000
    assert (last.valid, last.valid_broken) == (42, 0)
    assert 0.9 * last.heard.rewrites <= last.right <= last.heard.rewrites
    assert list(grow(data, RephraseConfig(), [500], 1_000, 1)) == [first]


def test_the_commands(public_log: Callable[[str], Path]) -> None:
    data = str(public_log("slurp_asr").parent)
    small = ("recogniser", "--data", data, "--sessions", "1000", "--wants", "100")
    found = CliRunner().invoke(rephrases, [*small, "--json"])
    assert len(msgspec.json.decode(found.stdout, type=list[Traffic])) == 1
    assert "42 " in CliRunner().invoke(rephrases, small).stdout
    for arguments in (["dialogues", "--data", data], ["world", "--turns", "500", "--seeds", "1"]):
        shown = CliRunner().invoke(rephrases, arguments)
        assert shown.exit_code == 0, shown.output
    assert shown.stdout.count("%") == 9


def test_the_loop_is_closed_in_three_ways() -> None:
    found = CliRunner().invoke(rephrases, ["world", "--turns", "4000", "--seeds", "1", "--json"])
    loops = {one.rewriting: one for one in msgspec.json.decode(found.stdout, type=list[Loop])}
    assert set(loops) == {"on", "off", "unaware"}
    assert loops["on"].garbled_click_rate > loops["off"].garbled_click_rate

"""Training of the detector, on made-up pairs and on the public logs behind the shipped weights."""

import math
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from backchannel.agents.columnar.interning import columns_of
from backchannel.agents.rephrases.detector import RephraseDetector, features
from backchannel.agents.rephrases.weights import WEIGHTS
from backchannel.ops.lab.rephrases.command import rephrases
from backchannel.ops.lab.rephrases.pairs import Pair, labelled
from backchannel.ops.lab.rephrases.training import Calibration, Quality, fit, measure
from tests.support.turns import closed_turn, query

Logs = dict[str, list[Pair]]


@pytest.fixture(scope="module")
def logs(public_log: Callable[[str], Path]) -> Logs:
    for name in ("trec_session_2013", "slurp_asr"):
        public_log(name)
    return labelled(public_log("dstc2").parent, np.random.default_rng(0))


def made_up(text: str, following: str, rephrased: bool, held_out: bool = False, count: int = 50) -> list[Pair]:
    turn = closed_turn(query(text=text), next=query(5000, following))
    return [Pair(turn, rephrased, held_out)] * count


def test_the_detector_learns_to_distinguish_rephrases() -> None:
    pairs = [
        *made_up("play jass", "play jazz", True),
        *made_up("play rok", "play rock", True),
        *made_up("play jazz", "weather tomorrow", False),
        *made_up("call mum", "lights off", False, count=100),
        *made_up("play folc", "play folk", True, held_out=True),
        *made_up("set a timer", "what is on tv", False, held_out=True),
    ]
    weights = fit({"dstc2": pairs})
    assert list(weights) == list(features(columns_of([pairs[0].turn])))
    quality = measure("dstc2", pairs, RephraseDetector(weights))
    assert (quality.pairs, quality.rephrased) == (100, 50)
    assert (quality.precision, quality.recall, quality.false_alarms, quality.area) == (1, 1, 0, 1)
    assert quality.brier < 0.1


def test_measures_match_their_definitions() -> None:
    pairs = [*made_up("a", "b", True, True, 3), *made_up("c", "d", False, True, 1)]
    coin = RephraseDetector(dict.fromkeys(WEIGHTS, 0.0))
    assert measure("trec", pairs, coin) == Quality(
        log="trec",
        pairs=4,
        rephrased=3,
        precision=0.75,
        recall=1.0,
        false_alarms=1.0,
        area=0.5,
        brier=0.25,
        calibration_error=0.25,
        calibration=[Calibration(4, 0.5, 0.75)],
    )


def test_nobody_is_both_trained_on_and_tested_on(logs: Logs) -> None:
    callers = {
        held_out: {p.turn.query.user_id for p in logs["dstc2"] if p.held_out == held_out} for held_out in (True, False)
    }
    assert callers[True]
    assert not callers[True] & callers[False]
    sessions = {
        held_out: {p.turn.query.session_id for p in logs["trec"] if p.held_out == held_out}
        for held_out in (True, False)
    }
    assert sessions[True]
    assert not sessions[True] & sessions[False]
    assert not any(pair.rephrased for pair in logs["trec"])


def test_the_shipped_weights_are_those_of_the_command(logs: Logs) -> None:
    assert fit(logs) == pytest.approx(WEIGHTS, abs=0.05)


def test_the_shipped_detector_is_as_good_as_documented(logs: Logs) -> None:
    found = {log: measure(log, pairs, RephraseDetector()) for log, pairs in logs.items()}
    for log, precision, recall in (("dstc2", 0.65, 0.35), ("slurp", 0.92, 0.85)):
        assert (found[log].precision or 0) > precision
        assert (found[log].recall or 0) > recall
    for log, quality in found.items():
        assert quality.calibration_error < 0.05, log
        assert quality.false_alarms < 0.04, log


def test_the_command_measures(public_log: Callable[[str], Path]) -> None:
    data = public_log("dstc2").parent
    result = CliRunner().invoke(rephrases, ["detector", "--data", str(data), "--json"])
    found = msgspec.json.decode(result.stdout, type=list[Quality])
    assert [one.log for one in found] == ["dstc2", "trec", "slurp"]
    table = CliRunner().invoke(rephrases, ["detector", "--data", str(data)]).stdout
    assert math.isclose(found[0].precision or 0, float(table.split("dstc2")[1].split()[2]), abs_tol=0.001)

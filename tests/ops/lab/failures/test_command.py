"""`lab failures`: the learner on some of the labelled callers of DSTC2."""

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from backchannel.agents.failures.evidence import RULED
from backchannel.agents.failures.rules import CHANCES, POINTS
from backchannel.ops.lab.convert import ConversionError
from backchannel.ops.lab.failures.data import Data, read
from backchannel.ops.lab.failures.evaluation import evaluate


@pytest.fixture(scope="module")
def data(public_log: Callable[[str], Path]) -> Data:
    return read(public_log("failure_points/dstc2_labels.jsonl.gz").parents[1])


def test_callers_are_on_one_side(data: Data) -> None:
    pairs = np.unique(np.column_stack((data.callers, data.folds)), axis=0)
    assert len(pairs) == data.callers.max() + 1


def test_it_beats_calling_every_turn_correct(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backchannel.ops.lab.failures.evaluation.is_there", lambda: False)
    few = np.flatnonzero(data.callers < 16)
    some = Data(
        turns=[data.turns[row] for row in few],
        vectors=data.vectors[few],
        truth=data.truth[few],
        callers=data.callers[few],
        folds=data.folds[few],
        systems=[data.systems[row] for row in few],
    )
    report = evaluate(some, [], 1)
    assert report.quality.accuracy.value > report.majority
    assert report.quality.defect_area.low > 0.8
    assert 0.7 < report.rules.defect_area.value < report.quality.defect_area.value
    assert report.rules_shares < 0.05
    assert report.shares.estimated < 0.1
    exported = report.exported["0.9"]
    assert exported.precision is not None
    assert exported.precision.high > 0.9
    assert 0.2 < exported.share < 0.9
    assert report.shares.covered > 0.8
    assert report.boosting is None
    assert sum(sum(told.values()) for told in report.confusion.values()) == len(few)


def test_chances_of_rules_are_those_of_the_data(data: Data) -> None:
    held = data.vectors[:, RULED]
    assert (held.sum(axis=1) == 1).all()
    counts = held.T @ np.eye(len(POINTS))[data.truth]
    often = held.sum(axis=0) > 0
    assert np.allclose(counts[often] / held.sum(axis=0)[often, None], CHANCES[often], atol=0.011)


def test_labels_of_other_turns_are_refused(public_log: Callable[[str], Path], tmp_path: Path) -> None:
    (tmp_path / "dstc2").symlink_to(public_log("dstc2"))
    (tmp_path / "failure_points").mkdir()
    with gzip.open(tmp_path / "failure_points" / "dstc2_labels.jsonl.gz", "wt") as file:
        file.write('{"session_id": "s", "turn": 0, "label": "correct"}\n')
    with pytest.raises(ConversionError, match="has no label"):
        read(tmp_path)

"""`lab goals`: the weights fitted to some dialogues, and tried on others."""

import gzip
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from backchannel.agents.sums import GRID
from backchannel.ops.lab.convert import ConversionError
from backchannel.ops.lab.goals.evaluation import calibration, data_of, fit, measure
from backchannel.ops.lab.goals.pairs import Pair, learned


@pytest.fixture(scope="module")
def pairs(public_log: Callable[[str], Path]) -> list[Pair]:
    return learned(public_log("sgd_goals").parent)


def test_a_group_is_on_one_side(pairs: list[Pair]) -> None:
    folds = defaultdict(set)
    for one in pairs:
        folds[one.log, one.group].add(one.fold)
    assert all(len(some) == 1 for some in folds.values())
    assert {one.log for one in pairs} == {"sgd", "slurp", "dstc2"}


def test_it_beats_the_published_figures_on_dialogues_that_it_has_not_seen(pairs: list[Pair]) -> None:
    data = data_of([one for one in pairs if one.log == "sgd"][:5000])
    tested = data.take(np.flatnonzero(data.folds == 0))
    weights = np.array(fit(data.take(np.flatnonzero(data.folds > 0))))
    found = 1 / (1 + np.exp(-(tested.views[0] @ weights) / GRID))
    quality = measure(tested, found)
    assert quality.area.low > 0.93
    assert quality.f1.value > 0.748
    assert quality.calibration_error.value < 0.05
    assert sum(tenth.pairs for tenth in calibration(tested.begins, found)) == len(found)


def test_other_lines_are_refused(public_log: Callable[[str], Path], tmp_path: Path) -> None:
    for name in ("slurp_asr", "dstc2"):
        (tmp_path / name).symlink_to(public_log(name))
    (tmp_path / "sgd_goals").mkdir()
    with gzip.open(tmp_path / "sgd_goals" / "dialogues.jsonl.gz", "wt") as file:
        file.write('{"dialogue_id": 1}\n')
    with pytest.raises(ConversionError, match="line 1"):
        learned(tmp_path)

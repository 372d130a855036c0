"""`lab asking`: the simulated loop."""

import json

import pytest
from click.testing import CliRunner

from backchannel.agents.satisfaction.asking import AskConfig
from backchannel.ops.cli import main
from backchannel.ops.lab.asking.loop import Arm, play


def test_questions_help_within_their_budget() -> None:
    [off] = play(Arm("off", AskConfig()), 15, 8, 1)
    [on] = play(Arm("on", AskConfig(probability=0.01, teach=1.0, per_day=12)), 15, 8, 1)
    assert (off.satisfaction, off.teach, off.most, off.taught, off.error) == (0, 0, 0, 0, None)
    assert on.teach > 0
    assert on.satisfaction > 0
    assert 0 < on.most <= 12
    assert on.taught > 5
    assert on.late_defects < off.late_defects


@pytest.mark.parametrize("shape", [[], ["--json"]])
def test_the_command(shape: list[str]) -> None:
    small = ["--people", "4", "--days", "2", "--seeds", "1", "--budget", "1"]
    done = CliRunner().invoke(main, ["lab", "asking", *small, *shape])
    assert done.exit_code == 0, done.output
    if shape:
        assert list(json.loads(done.output)) == [
            "nobody is asked",
            "1 a day",
            "1 a day, anywhere",
            "1 a day, all answers true",
        ]
    else:
        assert "nobody is asked" in done.output

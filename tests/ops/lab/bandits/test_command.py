"""`backchannel bandits compare`, on worlds small enough for a test."""

from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from backchannel.ops.cli import main
from backchannel.ops.lab.bandits.command import ContenderRegret, recommend
from backchannel.ops.lab.bandits.contenders import CONTENDERS
from backchannel.ops.lab.bandits.river import RIVER
from backchannel.ops.lab.worlds.contexts import ContextualWorld, regret

SMALL = ("--rounds", "600", "--strategies", "3", "--dimension", "3", "--delay", "50", "--refresh", "50", "--seeds", "2")


def test_it_compares_and_recommends(tmp_path: Path) -> None:
    plot = tmp_path / "regret.svg"
    ran = CliRunner().invoke(
        main,
        ["bandits", "compare", *SMALL, "--world", "linear", "--no-rivals", "--plot", str(plot)],
        terminal_width=200,
    )
    assert ran.exit_code == 0, ran.output
    assert "Recommended: " in ran.output
    assert all(name in ran.output for name in CONTENDERS | RIVER)
    assert plot.read_text(encoding="utf-8").rstrip().endswith("</svg>")


def test_the_figures_are_those_of_the_runs() -> None:
    ran = CliRunner().invoke(main, ["bandits", "compare", *SMALL, "--drifts", "0", "--no-rivals", "--json"])
    results = msgspec.json.decode(ran.stdout, type=list[ContenderRegret])
    assert len(results) == 3 * len(CONTENDERS | RIVER)
    for one in results:
        assert one.world.drifts == 0
        assert len(one.curve) == 12
        if one.contender == "uniform":
            assert one.regret == pytest.approx(100, abs=15)


def test_the_bandit_least_behind_in_its_worst_world_is_recommended() -> None:
    easy, hard = ContextualWorld("linear"), ContextualWorld("low")
    results = [
        ContenderRegret(easy, "specialist", 10.0, 0.1, []),
        ContenderRegret(hard, "specialist", 60.0, 0.1, []),
        ContenderRegret(easy, "all-rounder", 11.0, 0.1, []),
        ContenderRegret(hard, "all-rounder", 40.0, 0.1, []),
    ]
    name, behind = recommend(results)
    assert name == "all-rounder"
    assert behind == pytest.approx(0.1)


def test_our_bandit_learns_through_the_interface_of_river() -> None:
    world = ContextualWorld("linear", rounds=2_000, strategies=3, dimension=3, delay=50, refresh=50)
    lost = regret(world, RIVER["backchannel in River"](world), 1)
    assert lost[:, 0].sum() < 0.5 * lost[:, 1].sum()

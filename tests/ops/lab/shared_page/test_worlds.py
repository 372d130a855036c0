"""Worlds in which strategies share a page."""

import numpy as np
import pytest
from click.testing import CliRunner

from backchannel.ops.lab.shared_page.command import worlds
from backchannel.ops.lab.shared_page.worlds import WORLDS


@pytest.mark.parametrize("name", WORLDS)
def test_what_is_wanted_stands_where_its_list_and_the_page_have_it(name: str) -> None:
    world, rng = WORLDS[name], np.random.default_rng(1)
    kinds, times = rng.integers(0, world.kinds, 3000), rng.random(3000)
    ranks = world.ranks(kinds, times, rng)
    counts = rng.integers(0, 8, ranks.shape)
    positions = world.positions(counts, ranks)
    has = ((ranks > 0) & (ranks <= counts)).any(axis=1)
    assert ((positions > 0) == has).all()
    assert (positions <= counts.sum(axis=1)).all()
    found = (ranks > 0).mean(axis=0)
    assert found == pytest.approx(world.chances(kinds, times).mean(axis=0), abs=0.04)


@pytest.mark.parametrize("counts", [(5, 5, 0), (3, 3, 3), (4, 6, 1)])
def test_no_two_candidates_share_a_position(counts: tuple[int, ...]) -> None:
    places = [(strategy, rank) for strategy, count in enumerate(counts) for rank in range(1, count + 1)]
    ranks = np.zeros((len(places), 3), dtype=np.int64)
    for row, (strategy, rank) in enumerate(places):
        ranks[row, strategy] = rank
    for name in ("three", "position"):
        found = WORLDS[name].positions(np.tile(counts, (len(places), 1)), ranks)
        assert sorted(found.tolist()) == list(range(1, len(places) + 1))


def test_twins_bring_the_same() -> None:
    rng = np.random.default_rng(2)
    ranks = WORLDS["twins"].ranks(np.zeros(100, dtype=np.int64), np.zeros(100), rng)
    assert (ranks[:, 0] == ranks[:, 1]).all()
    assert (ranks[:, 0] != ranks[:, 2]).any()


def test_the_command_names_rivals_and_intervals() -> None:
    done = CliRunner().invoke(worlds, ["three", "--turns", "400", "--seeds", "2", "--json"])
    assert done.exit_code == 0, done.output
    assert '"lost_to"' in done.output
    assert '"best fixed"' in done.output
